//! `Warning: 299 - "text"` (distribution-spec 1.1, "Warnings"): what a registry wants its users to read.

use crate::limits::WARNING_LIMIT_BYTES;

/// The texts of one header's value, which may hold several. Left out: other codes and agents than the specification
/// has, what is malformed, and what a terminal would obey instead of show.
pub fn parse_warnings(value: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = value.get(..WARNING_LIMIT_BYTES).unwrap_or(value);
    while let Some(start) = rest.find("299 - \"") {
        let (text, after) = quoted(&rest[start + "299 - \"".len()..]);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            texts.push(text);
        }
        rest = after;
    }
    texts
}

/// The text up to the closing quote, `None` if there is none; and what follows.
fn quoted(text: &str) -> (Option<String>, &str) {
    let mut found = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (Some(found.trim().to_owned()), &text[at + 1..]),
            '\\' => found.extend(characters.next().map(|(_, escaped)| escaped).filter(|c| !c.is_control())),
            character if character.is_control() => found.push(' '),
            character => found.push(character),
        }
    }
    (None, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found() {
        for (value, expected) in [
            (r#"299 - "this tag goes""#, &["this tag goes"][..]),
            (r#"299 - "a \"b\" \\c", 299 - "two""#, &["a \"b\" \\c", "two"]),
            ("299 - \"a\u{1b}[31mred\"", &["a [31mred"]),
            (r#"299 registry "other agent""#, &[]),
            (r#"199 - "stale""#, &[]),
            (r#"299 - "unterminated"#, &[]),
            (r#"299 - """#, &[]),
            ("", &[]),
        ] {
            assert_eq!(parse_warnings(value), expected, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "(299 - \"|.){0,200}") {
            for found in parse_warnings(&text) {
                proptest::prop_assert!(!found.chars().any(char::is_control));
            }
        }
    }
}
