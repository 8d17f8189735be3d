//! Common mistakes in KDL, told better than the grammar's parser can: it knows what it expected, we know what people
//! write. Only asked once a text failed to parse.

use crate::codes;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lexer::{Kind, Token};
use crate::source::{SourceId, Span};

/// Adds what it recognises to `found`.
pub(crate) fn recognise(id: SourceId, text: &str, tokens: &[Token], found: &mut Diagnostics) {
    for (nth, token) in tokens.iter().enumerate() {
        let slice = &text[token.range.clone()];
        let place = Span::new(id, token.range.start, token.range.end);
        let mut tell = |place: Span, message: String, label: &str| {
            found.push(Diagnostic::error(codes::KDL, message).at(place, label));
        };
        let before = tokens[..nth].iter().rev().find(|t| t.kind != Kind::Space);
        let after = tokens[nth + 1..].iter().find(|t| t.kind != Kind::Space);
        // Behind a bracket that was complained about, a blank is not the matter.
        let touches =
            tokens[..nth].last().is_some_and(|t| is_word(t) && !text[t.range.clone()].ends_with(['[', ']', ',']));
        match token.kind {
            Kind::Equals if !before.is_some_and(is_word) => {
                tell(place, "`=` without a name before it".into(), "a name is missing");
            }
            Kind::Equals if !after.is_some_and(is_word) => {
                tell(place, "`=` without a value after it".into(), "a value is missing");
            }
            Kind::Open if before.is_none_or(|t| matches!(t.kind, Kind::Newline | Kind::Semicolon | Kind::Open)) => {
                tell(place, "`{` without a node before it".into(), "it must stand on the line of its node");
            }
            Kind::String if touches => tell(place, "a blank is missing before this text".into(), "begins here"),
            Kind::String if slice.starts_with('"') => escapes(id, slice, token.range.start, found),
            Kind::Word => word(slice, place, touches, &mut tell),
            _ => {}
        }
    }
}

fn is_word(token: &Token) -> bool {
    matches!(token.kind, Kind::Word | Kind::String | Kind::OldRawString)
}

fn word(slice: &str, place: Span, touches: bool, tell: &mut dyn FnMut(Span, String, &str)) {
    const KEYWORDS: [&str; 6] = ["#true", "#false", "#null", "#nan", "#inf", "#-inf"];
    if slice == "#" {
        return tell(place, "`#` begins no comment".into(), "write `//`");
    }
    if slice.starts_with('#') && !KEYWORDS.contains(&slice) {
        let near = crate::nearest(slice, KEYWORDS);
        let label = near.map_or("quote this".to_string(), |near| format!("did you mean `{near}`?"));
        return tell(place, format!("`{slice}` is no value"), &label);
    }
    let comma = slice.ends_with(',') || slice.starts_with(',');
    if comma && (touches || slice.len() > 1 || slice == ",") {
        let at = if slice.starts_with(',') { place.start } else { place.end - 1 };
        return tell(Span::new(place.source, at, at + 1), "a comma between values".into(), "a blank is enough");
    }
    if let Some(at) = slice.find(['[', ']']) {
        let place = Span::new(place.source, place.start + at, place.start + at + 1);
        return tell(place, "brackets mean nothing here".into(), "values stand side by side; otherwise quote this");
    }
    if touches && !slice.starts_with(')') {
        tell(place, "a blank is missing before this".into(), "begins here");
    }
}

fn escapes(id: SourceId, slice: &str, start: usize, found: &mut Diagnostics) {
    let mut chars = slice.char_indices();
    while let Some((at, c)) = chars.next() {
        if c != '\\' {
            continue;
        }
        let Some((_, next)) = chars.next() else { return };
        if !matches!(next, 'n' | 'r' | 't' | '\\' | '"' | 'b' | 'f' | 's' | 'u') && !next.is_whitespace() {
            let place = Span::new(id, start + at, start + at + 1 + next.len_utf8());
            found.push(
                Diagnostic::error(codes::KDL, format!("`\\{next}` is no escape"))
                    .at(place, format!("write `\\\\{next}`"))
                    .hint("between `#\"` and `\"#` a backslash is a backslash"),
            );
        }
    }
}
