//! `equals=`, `contains=`, `matches=`: what a text should be, shared by every assertion that looks at one.

use regex::Regex;

use crate::limits;
use crate::report::Mismatch;

/// What a text should be; all that is said must hold, and nothing said accepts any text.
#[derive(Clone, Debug, Default)]
pub struct TextMatch {
    /// The whole text.
    pub equals: Option<String>,
    /// A part of it.
    pub contains: Option<String>,
    /// A regular expression that finds something in it.
    pub matches: Option<Regex>,
}

/// Compiles a pattern within [`limits::REGEX_BYTES`].
pub(crate) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(limits::REGEX_BYTES).build()
}

impl TextMatch {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.equals.is_none() && self.contains.is_none() && self.matches.is_none()
    }

    /// Adds what does not hold of `text`, which is the `subject`.
    pub(crate) fn check(&self, subject: &str, text: &str, mismatches: &mut Vec<Mismatch>) {
        let mut fail = |expected: String| mismatches.push(Mismatch::new(subject, expected, shown(text)));
        if let Some(wanted) = &self.equals
            && wanted != text
        {
            fail(format!("to equal {}", shown(wanted)));
        }
        if let Some(wanted) = &self.contains
            && !text.contains(wanted.as_str())
        {
            fail(format!("to contain {}", shown(wanted)));
        }
        if let Some(wanted) = &self.matches
            && !wanted.is_match(text)
        {
            fail(format!("to match `{wanted}`"));
        }
    }
}

/// A text for a report: one line in quotes, several as they are; control characters escaped, the middle of a long one
/// left out.
pub(crate) fn shown(text: &str) -> String {
    let count = text.chars().count();
    let cut: String = if count > limits::SHOWN_CHARACTERS {
        let half = limits::SHOWN_CHARACTERS / 2;
        let head: String = text.chars().take(half).collect();
        let tail: String = text.chars().skip(count - half).collect();
        format!("{head} … {} characters … {tail}", count - 2 * half)
    } else {
        text.to_string()
    };
    let inner = cut.strip_suffix('\n').unwrap_or(&cut);
    if inner.contains('\n') {
        return cut.chars().flat_map(|c| escape(c, c == '\n' || c == '\t')).collect();
    }
    let escaped: String = cut.chars().flat_map(|c| escape(c, false)).collect();
    format!("\"{escaped}\"")
}

fn escape(c: char, keep: bool) -> Vec<char> {
    if c.is_control() && !keep { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &TextMatch, text: &str, expected: &[&str]) {
        let mut found = Vec::new();
        wanted.check("stdout", text, &mut found);
        assert_eq!(found.iter().map(Mismatch::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_condition_counts() {
        check(&TextMatch::default(), "anything", &[]);
        let all = TextMatch {
            equals: Some("Hello, you!\n".into()),
            contains: Some("Hello".into()),
            matches: Some(pattern(r"^Hello, \w+!\n$").unwrap()),
        };
        check(&all, "Hello, you!\n", &[]);
        check(
            &all,
            "bye\u{1b}\n",
            &[
                r#"stdout: expected to equal "Hello, you!\n", saw "bye\u{1b}\n""#,
                r#"stdout: expected to contain "Hello", saw "bye\u{1b}\n""#,
                r#"stdout: expected to match `^Hello, \w+!\n$`, saw "bye\u{1b}\n""#,
            ],
        );
    }

    #[test]
    fn long_texts_are_cut_in_the_middle() {
        let shown = shown(&"x".repeat(5000));
        assert!(shown.len() < 2100 && shown.contains("… 3000 characters …"), "{shown}");
    }
}
