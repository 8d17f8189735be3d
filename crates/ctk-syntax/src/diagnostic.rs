//! What is wrong with someone's text.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::limits;
use crate::source::{Sources, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing fails.
    Warning,
    /// The text cannot be used.
    Error,
}

/// A place and a few words about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What to say there; may be empty.
    pub text: String,
}

/// One mistake: a code, a sentence, places (the first is the main one), and perhaps a way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// `area::kebab-name`; has a page in `docs/errors`.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// Places; the first is the main one.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error without a place yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, severity: Severity::Error, message: message.into(), labels: Vec::new(), hint: None }
    }

    /// A warning without a place yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message) }
    }

    /// With a place; the first one added is the main one.
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// With a place that says `did you mean …?` when there is something near.
    pub fn at_or_nearest(self, span: Span, nearest: Option<&str>, otherwise: impl Into<String>) -> Diagnostic {
        match nearest {
            Some(word) => self.at(span, format!("did you mean `{word}`?")),
            None => self.at(span, otherwise),
        }
    }

    /// With a way out.
    pub fn hint(mut self, text: impl Into<String>) -> Diagnostic {
        self.hint = Some(text.into());
        self
    }

    /// The page that explains the code, relative to the project's root.
    pub fn page(&self) -> String {
        format!("docs/errors/{}.md", self.code.replace("::", "/"))
    }

    /// The text for a terminal or a log: ends with a newline. `color` adds ANSI colours and changes nothing else.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        crate::render::render(self, sources, color)
    }

    /// The same facts as data, for `--json`.
    pub fn report(&self, sources: &Sources) -> Report {
        Report {
            code: self.code,
            severity: self.severity,
            message: self.message.clone(),
            labels: self
                .labels
                .iter()
                .map(|label| {
                    let at = sources.location(label.span);
                    ReportLabel {
                        file: sources.name(label.span.source).to_string(),
                        line: at.line,
                        column: at.column,
                        start: label.span.start,
                        end: label.span.end,
                        text: label.text.clone(),
                    }
                })
                .collect(),
            hint: self.hint.clone(),
        }
    }
}

/// A diagnostic as data.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The code.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The sentence.
    pub message: String,
    /// The places.
    pub labels: Vec<ReportLabel>,
    /// The way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A place as data.
#[derive(Clone, Debug, Serialize)]
pub struct ReportLabel {
    /// The text's name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// What is said there.
    pub text: String,
}

/// Mistakes found so far. Adding the same one twice keeps one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// None yet.
    pub fn new() -> Diagnostics {
        Diagnostics::default()
    }

    /// Adds one; at most [`limits::DIAGNOSTICS`] are kept.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < limits::DIAGNOSTICS && !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    /// Adds all of another collection.
    pub fn extend(&mut self, other: Diagnostics) {
        for diagnostic in other.list {
            self.push(diagnostic);
        }
    }

    /// All, in the order of finding until [`Diagnostics::sort`] is called.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none, not even a warning.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether at least one is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// Keeps only those that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.list.retain(keep);
    }

    /// Puts them in the order of their main places.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|d| d.labels.first().map(|l| l.span));
    }

    /// `value` when no error is among them.
    pub fn into_result<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.has_errors() { Err(self) } else { Ok(value) }
    }

    /// All of them as text, with an empty line between two.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        self.list.iter().map(|d| d.render(sources, color)).collect::<Vec<_>>().join("\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Diagnostics {
        Diagnostics { list: vec![one] }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.list.iter().filter(|d| d.severity == Severity::Error).count();
        match self.list.first() {
            None => write!(f, "no mistake"),
            Some(first) if self.list.len() == 1 => write!(f, "{}", first.message),
            Some(first) => write!(f, "{errors} errors, the first: {}", first.message),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// A word as a message quotes it: one that is very long loses its end.
pub fn short(word: &str) -> Cow<'_, str> {
    match word.char_indices().nth(limits::QUOTED_WORD_CHARACTERS) {
        Some((end, _)) => format!("{}…", &word[..end]).into(),
        None => word.into(),
    }
}
