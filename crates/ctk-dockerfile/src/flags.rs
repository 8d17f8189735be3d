//! `--name=value` at the front of an instruction.

use std::ops::Range;

use ctk_buildgraph::Escape;

/// A flag as written, quotes taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    pub name: String,
    pub value: Option<String>,
    pub range: Range<usize>,
}

/// The flags that `text` begins with and how many bytes they take. `start` is the place of `text` in its line.
pub(crate) fn take_flags(text: &str, start: usize, escape: Escape) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let blanks = rest.len() - rest.trim_start().len();
        let word = &rest[blanks..];
        if !word.starts_with("--") {
            return (flags, at);
        }
        let (plain, length) = unquoted_word(word, escape);
        at += blanks + length;
        if plain == "--" {
            return (flags, at);
        }
        let body = plain.trim_start_matches('-');
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (body.to_owned(), None),
        };
        flags.push(Flag { name, value, range: start + at - length..start + at });
    }
}

/// The first word without quotes and escapes, and its length as written.
fn unquoted_word(text: &str, escape: Escape) -> (String, usize) {
    let mut plain = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == escape.char() && quote != Some('\'') {
            // A dollar keeps its escape: expansion comes later.
            match chars.next() {
                Some((_, '$')) => plain.extend([char, '$']),
                Some((_, next)) => plain.push(next),
                None => {}
            }
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '"' | '\'') {
            quote = Some(char);
        } else if quote.is_none() && char.is_whitespace() {
            return (plain, at);
        } else {
            plain.push(char);
        }
    }
    (plain, text.len())
}
