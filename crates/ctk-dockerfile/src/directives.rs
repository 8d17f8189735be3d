//! `# syntax=`, `# escape=`, `# check=` at the top of a file, before anything else.

use ctk_buildgraph::Escape;
use ctk_syntax::{Diagnostic, Diagnostics, SourceId, Span, Spanned};

use crate::codes;

/// What the top of a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// The frontend image that the author had in mind; not used.
    pub syntax: Option<String>,
    /// The escape character.
    pub escape: Escape,
    /// Options of linters, as written.
    pub check: Option<Spanned<String>>,
}

/// The directives, and where the rest begins.
pub(crate) fn read(id: SourceId, text: &str, diagnostics: &mut Diagnostics) -> (Directives, usize) {
    let mut directives = Directives::default();
    let mut seen: Vec<String> = Vec::new();
    let mut at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    for raw in text[at..].split_inclusive('\n') {
        let Some((key, value)) = directive(raw) else { break };
        let span = Span::new(id, at, at + raw.trim_end().len());
        match key.as_str() {
            "syntax" | "escape" | "check" if seen.contains(&key) => {
                let message = format!("directive `{key}` is given twice");
                diagnostics.push(Diagnostic::error(codes::BAD_DIRECTIVE, message).at(span, "only one may be given"));
            }
            "syntax" => directives.syntax = Some(value.to_owned()),
            "check" => directives.check = Some(Spanned::new(value.to_owned(), span)),
            "escape" => match value {
                "\\" => directives.escape = Escape::Backslash,
                "`" => directives.escape = Escape::Backtick,
                _ => {
                    let message = format!("escape character `{value}` is not possible");
                    diagnostics
                        .push(Diagnostic::error(codes::BAD_DIRECTIVE, message).at(span, "expected `\\` or `` ` ``"));
                }
            },
            _ => break,
        }
        seen.push(key);
        at += raw.len();
    }
    (directives, at)
}

/// `# key = value`; the key in lower case.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let name = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(|b| b.is_ascii_alphanumeric());
    (name && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}
