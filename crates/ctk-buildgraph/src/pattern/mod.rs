//! Patterns of paths: Go's `filepath.Match`, component by component, for sources of COPY and ADD ([`PathPattern`]), and
//! moby's for ignore files and `--exclude` ([`DeepPattern`]).
//!
//! Names of files are bytes. A byte that is no part of a UTF-8 character counts as one character that only `?`, `*` and
//! negated sets take.

mod deep;

pub use deep::DeepPattern;

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `[ab`
    #[error("a `[` is never closed")]
    Unclosed,
    /// `[]`, `[a-]`
    #[error("a `[…]` is empty or has half a range; write `\\` before `]` and `-` that mean themselves")]
    Set,
    /// `a\`
    #[error("it ends in `\\`, which takes the meaning from nothing")]
    Escape,
    /// `!`
    #[error("`!` says what to take back, and nothing follows it")]
    Negation,
}

/// Whether Go's `filepath.Match` takes the pattern.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    tokens(pattern).map(|_| ())
}

/// The pattern that matches `path` and nothing else: as it is up to the first component in which a character has a
/// meaning, and there in sets, because a backslash alone makes no pattern ([`PathPattern::has_wildcard`]).
pub fn literal(path: &str) -> String {
    let Some(first) = path.find(WILDCARDS) else { return path.to_owned() };
    let (plain, rest) = path.split_at(path[..first].rfind('/').map_or(0, |slash| slash + 1));
    let mut pattern = plain.to_owned();
    for char in rest.chars() {
        match char {
            '\\' => pattern.push_str(r"\\"),
            char if WILDCARDS.contains(&char) => pattern.extend(['[', char, ']']),
            char => pattern.push(char),
        }
    }
    pattern
}

/// What begins a wildcard.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The pattern of an `--exclude` without blanks around it and cleaned, and whether it takes back. None if it says
/// nothing.
pub fn exclusion(pattern: &str) -> Result<Option<(String, bool)>, PatternError> {
    let pattern = pattern.trim();
    if pattern.is_empty() {
        return Ok(None);
    }
    let pattern = clean(pattern);
    let (text, negated) = match pattern.strip_prefix('!') {
        Some("") => return Err(PatternError::Negation),
        Some(rest) => (rest.to_owned(), true),
        None => (pattern, false),
    };
    check_pattern(&text)?;
    Ok(Some((text, negated)))
}

/// Go's `filepath.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// One element of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `[…]`
    Set(Set),
}

/// A set of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    pub(crate) fn takes(&self, char: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != self.negated
    }
}

pub(crate) fn tokens(pattern: &str) -> Result<Vec<Token>, PatternError> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        tokens.push(match char {
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().ok_or(PatternError::Escape)?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                    let low = member(&mut chars)?;
                    let high = if chars.next_if_eq(&'-').is_some() { member(&mut chars)? } else { low };
                    ranges.push((low, high));
                }
                Token::Set(Set { negated, ranges })
            }
            char => Token::Char(char),
        });
    }
    Ok(tokens)
}

/// A character of a set, and something after it.
fn member(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, PatternError> {
    let char = match chars.next().ok_or(PatternError::Unclosed)? {
        '-' | ']' => return Err(PatternError::Set),
        '\\' => chars.next().ok_or(PatternError::Unclosed)?,
        char => char,
    };
    chars.peek().map(|_| char).ok_or(PatternError::Unclosed)
}

/// The first character of `bytes` and its length.
pub(crate) fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    let length = match bytes.first()? {
        0..=0x7f => return Some((bytes[0] as char, 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((char::REPLACEMENT_CHARACTER, 1)),
    };
    let char = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|s| s.chars().next());
    Some(char.map_or((char::REPLACEMENT_CHARACTER, 1), |char| (char, length)))
}

/// A source of COPY or ADD: `*`, `?` and `[…]` within a component. `**` is `*`, as Go has it.
#[derive(Clone, Debug)]
pub struct PathPattern {
    parts: Vec<Component>,
}

#[derive(Clone, Debug)]
enum Component {
    Plain(Vec<u8>),
    Glob(Vec<Token>),
}

impl PathPattern {
    /// The pattern `text`. As with BuildKit, components before the first with a wildcard are names as they are written,
    /// backslashes and all; in those after it a backslash takes the meaning from what follows.
    pub fn new(text: &str) -> Result<PathPattern, PatternError> {
        check_pattern(text)?;
        let mut parts = Vec::new();
        let mut found = false;
        for part in clean(&format!("/{text}")).split('/').filter(|part| !part.is_empty()) {
            found |= PathPattern::has_wildcard(part);
            parts.push(match found {
                true => Component::Glob(tokens(part)?),
                false => Component::Plain(part.as_bytes().to_vec()),
            });
        }
        Ok(PathPattern { parts })
    }

    /// Whether `text` is more than a path: whether a `*`, `?` or `[` is in it that no backslash stands before. What is
    /// none is a path as it is written: its backslashes are part of a name.
    pub fn has_wildcard(text: &str) -> bool {
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\\' => _ = chars.next(),
                char if WILDCARDS.contains(&char) => return true,
                _ => {}
            }
        }
        false
    }

    /// The components before the first with wildcards, joined.
    pub fn plain_prefix(&self) -> Vec<u8> {
        let plain = self.parts.iter().map_while(|part| match part {
            Component::Plain(text) => Some(text.as_slice()),
            Component::Glob(_) => None,
        });
        plain.collect::<Vec<_>>().join(&b'/')
    }

    /// How many components it has.
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    /// Whether its component number `depth` takes `name`.
    pub fn takes(&self, depth: usize, name: &[u8]) -> bool {
        match self.parts.get(depth) {
            Some(Component::Plain(text)) => text == name,
            Some(Component::Glob(tokens)) => matches(tokens, name),
            None => false,
        }
    }
}

fn matches(tokens: &[Token], name: &[u8]) -> bool {
    let (mut at, mut rest) = (0, name);
    let mut star: Option<(usize, &[u8])> = None;
    loop {
        if tokens.get(at) == Some(&Token::Star) {
            star = Some((at, rest));
            at += 1;
            continue;
        }
        let taken = match (tokens.get(at), decode(rest)) {
            (None, None) => return true,
            (Some(Token::Char(wanted)), Some((char, length))) if *wanted == char => Some(length),
            (Some(Token::One), Some((_, length))) => Some(length),
            (Some(Token::Set(set)), Some((char, length))) if set.takes(char) => Some(length),
            _ => None,
        };
        match (taken, star) {
            (Some(length), _) => {
                at += 1;
                rest = &rest[length..];
            }
            (None, Some((from, text))) => {
                let Some((_, length)) = decode(text) else { return false };
                star = Some((from, &text[length..]));
                (at, rest) = (from + 1, &text[length..]);
            }
            (None, None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_as_go_matches_them() {
        let check = |pattern: &str, name: &[u8], expected: bool| {
            let matched = PathPattern::new(pattern).unwrap().takes(0, name);
            assert_eq!(matched, expected, "{pattern} {}", name.escape_ascii());
        };
        check("*", b"", true);
        check("*", b"abc", true);
        check("a*c*e", b"abcde", true);
        check("a*c*e", b"abcd", false);
        check("**", b"abc", true);
        check("?", b"a", true);
        check("?", "ü".as_bytes(), true);
        check("?", b"\xff", true);
        check("??", b"\xff", false);
        check("[^a]", b"\xff", true);
        check("[^a]", b"a", false);
        check("[!a]", b"!", true);
        check("[!a]", b"a", true);
        check("[!a]", b"b", false);
        check("[[]", b"[", true);
        check("[a-c]x", b"bx", true);
        check("[a-c]x", b"dx", false);
        check(r"[\]a]", b"]", true);
        check(r"[\-a]", b"-", true);
        check(r"[a\-z]", b"m", false);
        check(r"\*?", b"*a", true);
        check(r"\*?", b"aa", false);
        check(r"a\\b*", br"a\b", true);
        check(r"a\b", br"a\b", true);
        check(r"a\b", b"ab", false);
        check(r"a\*", br"a\*", true);
        check(r"a\*", b"a*", false);
        check("[a^]", b"^", true);
        check("[ä-ü]", "ö".as_bytes(), true);
        check("a]", b"a]", true);
    }

    #[test]
    fn a_backslash_is_part_of_a_name_before_the_first_wildcard_only() {
        let check = |pattern: &str, path: &str, expected: bool| {
            let parsed = PathPattern::new(pattern).unwrap();
            let matched = path.split('/').enumerate().all(|(depth, name)| parsed.takes(depth, name.as_bytes()));
            assert_eq!(matched, expected, "{pattern} {path}");
        };
        check(r"a\b/*", r"a\b/x", true);
        check(r"a\b/*", "ab/x", false);
        check(r"*/a\b", "x/ab", true);
        check(r"*/a\b", r"x/a\b", false);
        for path in ["a", r"a\b", "a*b", r"a\*b", r"a\b/c[d\e]/f\g", "?", "a/b c", r"\[/\?/\"] {
            check(&literal(path), path, true);
            let wild = path.contains(WILDCARDS);
            assert_eq!(PathPattern::has_wildcard(&literal(path)), wild, "{path}");
        }
    }

    #[test]
    fn malformed_patterns_are_told() {
        for (pattern, error) in [
            ("[", PatternError::Unclosed),
            ("a[", PatternError::Unclosed),
            ("[a", PatternError::Unclosed),
            ("[a-", PatternError::Unclosed),
            ("[]", PatternError::Set),
            ("[]a]", PatternError::Set),
            ("[^]", PatternError::Set),
            ("[-a]", PatternError::Set),
            ("[a-]", PatternError::Set),
            ("[a-b-c]", PatternError::Set),
            (r"a\", PatternError::Escape),
            (r"[\", PatternError::Unclosed),
        ] {
            assert_eq!(check_pattern(pattern), Err(error), "{pattern}");
        }
        assert_eq!(exclusion(" ! "), Err(PatternError::Negation));
        assert_eq!(exclusion("  "), Ok(None));
        assert_eq!(exclusion(" a/./b/ "), Ok(Some(("a/b".into(), false))));
        assert_eq!(exclusion("!a/b"), Ok(Some(("a/b".into(), true))));
    }

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, expected) in [
            ("", "."),
            ("a//b/", "a/b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("a/..", "."),
            ("./a/./b", "a/b"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
