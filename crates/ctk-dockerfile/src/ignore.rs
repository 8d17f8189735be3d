//! `.dockerignore`: moby's patterns.
//!
//! One pattern a line; `#` in the first column is a comment; blanks around a pattern and a `/` before it mean nothing;
//! `*`, `?` and `[…]` stay within a component, `**` does not; `!` takes back, and the last pattern that matches counts.
//! What lies below a directory that a pattern matches is matched too.

use ctk_buildgraph::pattern::{DeepPattern, PatternError, clean, exclusion};

use crate::limits;

/// Patterns ready to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    negations: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    path: DeepPattern,
    negated: bool,
}

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern {
    /// Its line, from 1; its number where there are no lines.
    pub line: usize,
    /// As written.
    pub text: String,
    /// What is wrong.
    pub error: PatternError,
}

/// What the patterns say of a directory, for asking about what is in it.
#[derive(Clone, Debug, Default)]
pub struct Above {
    matched: Vec<bool>,
}

impl Ignore {
    /// The patterns of a file's text.
    pub fn parse(text: &str) -> Result<Ignore, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            let line = line.trim();
            let (negation, path) = match line.strip_prefix('!') {
                Some(rest) => ("!", rest.trim()),
                None => ("", line),
            };
            if line.is_empty() {
                continue;
            }
            let path = if path.is_empty() { String::new() } else { clean(path) };
            let path = path.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&path);
            patterns.push((at + 1, format!("{negation}{path}")));
        }
        Ignore::compile(patterns.iter().map(|(line, pattern)| (*line, pattern.as_str())))
    }

    /// These patterns, as `--exclude` has them.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Ignore, BadPattern> {
        Ignore::compile(patterns.into_iter().enumerate().map(|(at, pattern)| (at + 1, pattern)))
    }

    fn compile<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Ignore, BadPattern> {
        let mut patterns = Vec::new();
        for (line, text) in lines.take(limits::IGNORE_PATTERNS) {
            let bad = |error| BadPattern { line, text: text.to_owned(), error };
            let Some((path, negated)) = exclusion(text).map_err(bad)? else { continue };
            patterns.push(Pattern { path: DeepPattern::new(&path).map_err(bad)?, negated });
        }
        let negations = patterns.iter().any(|p| p.negated);
        Ok(Ignore { patterns, negations })
    }

    /// These patterns after the ones that are there.
    pub fn and(mut self, more: Ignore) -> Ignore {
        self.patterns.extend(more.patterns);
        self.negations |= more.negations;
        self
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path`, relative and with `/`, is ignored, by itself or by a directory above it.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut above = Above::default();
        let mut ignored = false;
        if self.patterns.is_empty() {
            return false;
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            above = self.enter(&path[..at], &above).1;
        }
        if !path.is_empty() {
            ignored = self.ask(path, &above, |_, _| {});
        }
        ignored
    }

    /// Whether `path` is ignored, whose directory is `above`. As moby does while it walks, a pattern that decided
    /// nothing about a directory is not asked about it again for what is below.
    pub fn matches_below(&self, path: &[u8], above: &Above) -> bool {
        self.ask(path, above, |_, _| {})
    }

    /// The same for a directory, with what its entries need.
    pub fn enter(&self, path: &[u8], above: &Above) -> (bool, Above) {
        let mut matched = vec![false; self.patterns.len()];
        let ignored = self.ask(path, above, |at, matches| matched[at] = matches);
        (ignored, Above { matched })
    }

    fn ask(&self, path: &[u8], above: &Above, mut note: impl FnMut(usize, bool)) -> bool {
        let mut ignored = false;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let matches = above.matched.get(at).is_some_and(|matched| *matched)
                || (pattern.negated == ignored && pattern.path.matches(path));
            note(at, matches);
            if matches {
                ignored = !pattern.negated;
            }
        }
        ignored
    }

    /// Whether nothing below the ignored directory `path` can be taken back, so that a walk need not enter it.
    pub fn prunes(&self, path: &[u8]) -> bool {
        !self.negations || !self.patterns.iter().any(|p| p.negated && p.path.may_reach(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &str, path: &str, ignored: bool) {
        let ignore = Ignore::parse(patterns).unwrap();
        assert_eq!(ignore.matches(path.as_bytes()), ignored, "{patterns:?} {path}");
    }

    #[test]
    fn patterns_as_moby_reads_them() {
        for (patterns, path, ignored) in [
            // Lines.
            ("# *\n*.log", "a.log", true),
            (" #a\n", "#a", true),
            ("\u{feff}a", "a", true),
            ("\u{feff}# a\nb", "b", true),
            ("  a  \r\n\tb\t\r\n", "a", true),
            ("  a  \r\n\tb\t\r\n", "b", true),
            ("\n\n  \na", "a", true),
            ("a b", "a b", true),
            // Cleaned, and from the root in any case.
            ("/target", "target/debug/x", true),
            ("target/", "target/x", true),
            ("target/", "target", true),
            ("./a//b/../c", "a/c", true),
            ("/a/../b", "b", true),
            ("../a", "a", false),
            ("/../a", "a", true),
            (".", "a", false),
            ("/", "a", false),
            ("./", "a", false),
            // Components.
            ("*.log", "d/a.log", false),
            ("*.log", ".log", true),
            ("*", "a/b", true),
            ("*/b", "a/b", true),
            ("*/b", "b", false),
            ("*/b", "x/a/b", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("d/[a-c]?", "d/b1", true),
            ("d/[^a-c]?", "d/b1", false),
            ("[!a]", "b", false),
            ("[!a]", "!", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"\!a", "!a", true),
            (r"\#a", "#a", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a.c", "abc", false),
            ("a+(b)|{c}$^", "a+(b)|{c}$^", true),
            // Any number of components.
            ("**", "a/b", true),
            ("**/*.log", "d/e/a.log", true),
            ("**/*.log", "a.log", true),
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("**/a", "xa", false),
            ("**a", "xa", true),
            ("**a", "x/ya", true),
            ("**/a/b", "x/a/b", true),
            ("**/a/b", "x/xa/b", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a**", "ab/c", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/cz", false),
            ("**/a/**", "x/a/y", true),
            ("**/a/**", "x/a", false),
            ("a**b", "ab", true),
            ("a**b", "axb", false),
            ("a**b", "ax/b", true),
            ("**/*a*/**", "xa/y", true),
            ("***", "a/b", true),
            ("**/**/a", "x/y/a", true),
            // What lies below.
            ("a", "a/b/c", true),
            ("a/b", "a", false),
            ("a/b", "a/bc", false),
            // Taken back.
            ("*\n!keep", "keep/x", false),
            ("*\n!keep", "other", true),
            ("*\n!keep\nkeep/secret", "keep/secret", true),
            ("!keep\n*", "keep", true),
            ("*\n ! keep ", "keep", false),
            ("*\n!/keep", "keep", false),
            ("d\n!d/x", "d/x", false),
            ("d\n!d/x", "d/y", true),
            ("d/*\n!d/x/y", "d/x/y", false),
            ("*\n!**/*.rs", "a/b.rs", false),
            ("*\n!d/x\nd", "d/x", false),
        ] {
            check(patterns, path, ignored);
        }
    }

    #[test]
    fn malformed_patterns_are_told_with_their_line() {
        let check = |text: &str, line: usize, pattern: &str, error: PatternError| {
            let expected = BadPattern { line, text: pattern.to_owned(), error };
            assert_eq!(Ignore::parse(text), Err(expected), "{text:?}");
        };
        check("a\n# [\n[", 3, "[", PatternError::Unclosed);
        check("!", 1, "!", PatternError::Negation);
        check("a\r\n ! \r\n", 2, "!", PatternError::Negation);
        check("a\\", 1, "a\\", PatternError::Escape);
        check("a/[]/b", 1, "a/[]/b", PatternError::Set);
    }

    #[test]
    fn names_are_bytes() {
        let ignore = Ignore::parse("a?\n**/[^x].bin\nü*").unwrap();
        assert!(ignore.matches(b"a\xff"));
        assert!(!ignore.matches(b"a\xff\xff"));
        assert!(ignore.matches(b"d\xfe/\xff.bin"));
        assert!(ignore.matches("üx".as_bytes()));
        assert!(!ignore.matches(b"\xc3"));
    }

    #[test]
    fn ignored_directories_are_entered_only_for_exceptions() {
        let prunes = |patterns: &str, path: &str| Ignore::parse(patterns).unwrap().prunes(path.as_bytes());
        assert!(prunes("a", "a"));
        assert!(prunes("*\n!b/c", "a"));
        assert!(!prunes("*\n!b/c", "b"));
        assert!(!prunes("*\n!**/c", "x/y"));
        assert!(prunes("*\n!b*", "a"));
        assert!(prunes("*\n!src", "target"));
        assert!(prunes("*\n!*.rs", "target"));
        assert!(prunes("*\n!src/*.rs", "src/deep"));
        assert!(!prunes("*\n!src/*.rs", "src"));
        assert!(!prunes("*\n!*/*.rs", "src"));
        assert!(!prunes("*\n!src/**.rs", "src/deep"));
        assert!(!prunes("*\n!src[^a]*.rs", "src"));
    }

    #[test]
    fn stars_without_end_are_answered_soon() {
        let ignore = Ignore::parse(&format!("{}b", "*a".repeat(30))).unwrap();
        assert!(!ignore.matches("a".repeat(200).as_bytes()));
        let ignore = Ignore::parse(&format!("{}b", "a**".repeat(30))).unwrap();
        assert!(!ignore.matches("a/".repeat(100).as_bytes()));
    }
}
