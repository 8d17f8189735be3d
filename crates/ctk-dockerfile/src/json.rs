//! JSON arrays of strings, as Go reads them.

use serde_json::Value;

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Array {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array that holds something else.
    Others,
    /// No array, or no JSON.
    Not,
}

/// Reads a whole text.
pub(crate) fn array(text: &str) -> Array {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Array::Not;
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(&paired(text)) else { return Array::Not };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Some(text),
        _ => None,
    });
    strings.collect::<Option<_>>().map_or(Array::Others, Array::Strings)
}

/// The text with `\ufffd` for each half of a surrogate pair that stands alone: Go forgives them.
fn paired(text: &str) -> String {
    let half = |at: usize| -> Option<u32> {
        let code = u32::from_str_radix(text.get(at..)?.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
        (0xd800..0xe000).contains(&code).then_some(code)
    };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        out.push_str(&text[at..at + found]);
        at += found;
        let length = match (half(at), half(at + 6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..)) => 12,
            (Some(_), _) => {
                out.push_str("\\ufffd");
                at += 6;
                continue;
            }
            // The escape and what it escapes.
            _ => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[at..at + length]);
        at += length;
    }
    out + &text[at..]
}

#[cfg(test)]
mod tests {
    use super::{Array, array};

    #[test]
    fn arrays_as_go_reads_them() {
        let strings = |words: &[&str]| Array::Strings(words.iter().map(|w| (*w).to_owned()).collect());
        for (text, expected) in [
            (r#"["a", "b"]"#, strings(&["a", "b"])),
            (r#"  [ "a\u0041\n\/" ]  "#, strings(&["aA\n/"])),
            (
                r#"["\ud800", "\ud83d\ude00", "\\ud800", "\udc00\ud800x"]"#,
                strings(&["\u{fffd}", "😀", "\\ud800", "\u{fffd}\u{fffd}x"]),
            ),
            ("[]", strings(&[])),
            (r#"["a", 1]"#, Array::Others),
            (r#"[["a"]]"#, Array::Others),
            ("[null]", Array::Others),
            ("null", Array::Not),
            (r#"["a",]"#, Array::Not),
            (r#"["a"] b"#, Array::Not),
            ("['a']", Array::Not),
            (r#"["\x"]"#, Array::Not),
            (r#"["\"#, Array::Not),
            ("", Array::Not),
        ] {
            assert_eq!(array(text), expected, "{text}");
        }
    }
}
