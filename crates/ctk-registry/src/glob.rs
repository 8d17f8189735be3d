//! Patterns over names: `*` is anything within a part, `**` anything, `?` one character of a part. Nothing else is
//! special: names hold none of these characters.

use std::fmt;
use std::str::FromStr;

/// Longest pattern taken, in bytes: names have at most 255.
pub const GLOB_LIMIT_BYTES: usize = 512;

/// A pattern over the names of repositories or tags.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Literal(u8),
    One,
    Within,
    Anything,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no pattern: {reason}")]
pub struct GlobError {
    text: String,
    reason: &'static str,
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Glob, GlobError> {
        let fail = |reason| Err(GlobError { text: text.chars().take(64).collect(), reason });
        if text.is_empty() {
            return fail("it is empty");
        }
        if text.len() > GLOB_LIMIT_BYTES {
            return fail("it is longer than any name");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/*?".contains(&b)) {
            return fail("it holds a character that no name has; `*`, `**` and `?` are special");
        }
        let mut parts = Vec::new();
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            parts.push(match byte {
                b'*' if bytes.next_if_eq(&b'*').is_some() => Part::Anything,
                b'*' => Part::Within,
                b'?' => Part::One,
                byte => Part::Literal(byte),
            });
        }
        Ok(Glob { text: text.into(), parts })
    }
}

impl Glob {
    /// Whether the whole name fits. Takes time proportional to pattern × name.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        // `reached[i]`: the parts so far can stand for the first `i` bytes.
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            let mut next = vec![false; name.len() + 1];
            for place in 0..=name.len() {
                next[place] = match part {
                    Part::Literal(byte) => place > 0 && reached[place - 1] && name[place - 1] == *byte,
                    Part::One => place > 0 && reached[place - 1] && name[place - 1] != b'/',
                    Part::Within => reached[place] || (place > 0 && next[place - 1] && name[place - 1] != b'/'),
                    Part::Anything => reached[place] || (place > 0 && next[place - 1]),
                };
            }
            reached = next;
        }
        reached[name.len()]
    }

    /// How exact it is: the number of characters that it fixes.
    pub fn weight(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Literal(_))).count()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("team/*", "team/app", true),
            ("team/*", "team/app/x", false),
            ("team/**", "team/app/x", true),
            ("team/**", "team", false),
            ("team/**", "teams/x", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("v1.*", "v1.2", true),
            ("v1.*", "v12", false),
            ("*-dev", "x-dev", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(pattern.parse::<Glob>().unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert!("".parse::<Glob>().is_err() && "[a]".parse::<Glob>().is_err());
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let glob: Glob = "*a".repeat(100).parse().unwrap();
        assert!(!glob.matches(&"a".repeat(99)));
        assert!(glob.matches(&"a".repeat(255)));
    }
}
