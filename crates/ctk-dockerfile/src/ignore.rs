//! `.dockerignore`: moby's patterns.
//!
//! One pattern a line; `#` in the first column is a comment; a leading `/` means nothing; `*` and `?` stop at `/`,
//! `**` does not, `[…]` is a set; `!` takes back, and the last pattern that matches counts. What lies below an ignored
//! directory is ignored.

use crate::limits;

/// Patterns ready to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    negations: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    parts: Vec<Part>,
    negated: bool,
}

/// What one path component must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `**`: any components, or none.
    Any,
    /// A component without special characters.
    Plain(String),
    /// A component with wildcards.
    Glob(Vec<char>),
}

impl Ignore {
    /// The patterns of a file's text.
    pub fn parse(text: &str) -> Ignore {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ignore::new(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// These patterns.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Ignore {
        let patterns: Vec<Pattern> =
            patterns.into_iter().take(limits::IGNORE_PATTERNS).filter_map(Pattern::new).collect();
        let negations = patterns.iter().any(|p| p.negated);
        Ignore { patterns, negations }
    }

    /// These patterns after the ones that are there.
    pub fn and<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Ignore {
        let more = Ignore::new(patterns);
        self.patterns.extend(more.patterns);
        self.negations |= more.negations;
        self
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path`, relative and with `/`, is ignored, by itself or by a directory above it.
    pub fn matches(&self, path: &str) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.negated == ignored && (1..=parts.len()).any(|n| matches(&pattern.parts, &parts[..n])) {
                ignored = !pattern.negated;
            }
        }
        ignored
    }

    /// Whether nothing below the ignored directory `path` can be taken back, so that a walk need not enter it.
    pub fn prunes(&self, path: &str) -> bool {
        if !self.negations {
            return true;
        }
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        !self.patterns.iter().filter(|p| p.negated).any(|p| may_reach(&p.parts, &parts))
    }
}

impl Pattern {
    fn new(line: &str) -> Option<Pattern> {
        let line = line.trim();
        let (negated, text) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let mut parts: Vec<Part> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                "**" => parts.push(Part::Any),
                part if part.contains(['*', '?', '[', '\\']) => parts.push(Part::Glob(part.chars().collect())),
                part => parts.push(Part::Plain(part.to_owned())),
            }
        }
        (!parts.is_empty()).then_some(Pattern { parts, negated })
    }
}

impl Part {
    fn is(&self, component: &str) -> bool {
        match self {
            Part::Any => true,
            Part::Plain(text) => text == component,
            Part::Glob(glob) => glob_matches(glob, &component.chars().collect::<Vec<_>>()),
        }
    }
}

/// A path pattern of COPY and ADD: `*`, `?`, `[…]` within a component, `**` for any components.
#[derive(Clone, Debug)]
pub struct PathPattern {
    parts: Vec<Part>,
}

impl PathPattern {
    /// The pattern `text`.
    pub fn new(text: &str) -> PathPattern {
        PathPattern { parts: Pattern::new(text).map(|p| p.parts).unwrap_or_default() }
    }

    /// Whether `text` holds anything but a plain path.
    pub fn has_wildcard(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    /// The directories before the first component with wildcards, joined.
    pub fn plain_prefix(&self) -> String {
        let plain = self.parts.iter().map_while(|p| match p {
            Part::Plain(text) => Some(text.as_str()),
            _ => None,
        });
        plain.collect::<Vec<_>>().join("/")
    }

    /// Whether it is exactly this path.
    pub fn matches(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        matches(&self.parts, &parts)
    }

    /// Whether it could match something below the directory `path`.
    pub fn may_reach(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        reaches_below(&self.parts, &parts)
    }
}

/// Whether the pattern has components left after `path`.
fn reaches_below(pattern: &[Part], path: &[&str]) -> bool {
    match (pattern, path) {
        ([Part::Any, ..], _) => true,
        (rest, []) => !rest.is_empty(),
        ([part, rest @ ..], [component, below @ ..]) => part.is(component) && reaches_below(rest, below),
        ([], _) => false,
    }
}

fn matches(pattern: &[Part], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([Part::Any, rest @ ..], _) => (0..=path.len()).any(|n| matches(rest, &path[n..])),
        ([part, rest @ ..], [component, below @ ..]) => part.is(component) && matches(rest, below),
        _ => false,
    }
}

/// Whether the pattern could match something below `path`.
fn may_reach(pattern: &[Part], path: &[&str]) -> bool {
    match (pattern, path) {
        ([Part::Any, ..], _) | (_, []) => true,
        ([part, rest @ ..], [component, below @ ..]) => part.is(component) && may_reach(rest, below),
        ([], _) => true,
    }
}

/// Go's `filepath.Match` on one component; `**` inside a component is `*`.
pub(crate) fn glob_matches(glob: &[char], text: &[char]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if g < glob.len() && glob[g] == '*' {
            star = Some((g, t));
            g += 1;
            continue;
        }
        let step = if t < text.len() { one(&glob[g..], text[t]) } else { None };
        match step {
            Some(length) => {
                g += length;
                t += 1;
            }
            None if t == text.len() && g == glob.len() => return true,
            None => match star {
                Some((at, from)) if from < text.len() => {
                    star = Some((at, from + 1));
                    (g, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// How long the pattern's first element is, if it takes `char`.
fn one(glob: &[char], char: char) -> Option<usize> {
    match glob {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == char).then_some(2),
        ['[', rest @ ..] => {
            let (negated, set) = match rest {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut at = 0;
            let mut inside = false;
            loop {
                let mut next = || {
                    let mut c = *set.get(at)?;
                    at += 1;
                    if c == '\\' {
                        c = *set.get(at)?;
                        at += 1;
                    }
                    Some(c)
                };
                let low = next()?;
                let high = if set.get(at) == Some(&'-') && set.get(at + 1).is_some_and(|c| *c != ']') {
                    at += 1;
                    let c = *set.get(at)?;
                    at += 1;
                    c
                } else {
                    low
                };
                inside |= (low..=high).contains(&char);
                if set.get(at) == Some(&']') {
                    let length = 1 + usize::from(negated) + at + 1;
                    return (inside != negated).then_some(length);
                }
            }
        }
        [plain, ..] => (*plain == char).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &str, path: &str, ignored: bool) {
        assert_eq!(Ignore::parse(patterns).matches(path), ignored, "{patterns:?} {path}");
    }

    #[test]
    fn patterns_as_moby_reads_them() {
        check("# *\n*.log", "a.log", true);
        check("*.log", "d/a.log", false);
        check("**/*.log", "d/e/a.log", true);
        check("**/*.log", "a.log", true);
        check("/target", "target/debug/x", true);
        check("target/", "target/x", true);
        check("a/**", "a/b/c", true);
        check("a/**/z", "a/z", true);
        check("*\n!keep", "keep/x", false);
        check("*\n!keep", "other", true);
        check("*\n!keep\nkeep/secret", "keep/secret", true);
        check("!keep\n*", "keep", true);
        check("d/[a-c]?", "d/b1", true);
        check("d/[^a-c]?", "d/b1", false);
        check(r"a\*b", "a*b", true);
        check(r"a\*b", "axb", false);
        check(".", "a", false);
        check("a*b*c", "axxbyyc", true);
        check("a*b*c", "axxbyy", false);
    }

    #[test]
    fn ignored_directories_are_entered_only_for_exceptions() {
        assert!(Ignore::parse("a").prunes("a"));
        assert!(Ignore::parse("*\n!b/c").prunes("a"));
        assert!(!Ignore::parse("*\n!b/c").prunes("b"));
        assert!(!Ignore::parse("*\n!**/c").prunes("x/y"));
    }
}
