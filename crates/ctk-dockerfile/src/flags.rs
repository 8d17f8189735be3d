//! `--name=value` at the front of an instruction.

use std::ops::Range;

/// A flag as written, quotes taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    pub name: String,
    pub value: Option<String>,
    pub range: Range<usize>,
    /// The quote in it that nothing closes; then all of the line is the flag's.
    pub open: Option<char>,
}

/// Flags that may be given several times.
pub(crate) const REPEATABLE: [&str; 3] = ["mount", "exclude", "device"];

/// The flags that `text` begins with and how many bytes they take; `--` ends them. `start` is the place of `text` in
/// its line.
pub(crate) fn take_flags(text: &str, start: usize) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let blanks = rest.len() - rest.trim_start().len();
        let word = &rest[blanks..];
        if !word.starts_with("--") {
            return (flags, at);
        }
        let (plain, length, open) = unquoted_word(word);
        at += blanks + length;
        if plain == "--" {
            return (flags, at);
        }
        let body = &plain[2..];
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (body.to_owned(), None),
        };
        flags.push(Flag { name, value, range: start + at - length..start + at, open });
    }
}

/// The first word without quotes and escapes, its length as written, and a quote that is never closed. Here `\` escapes whatever `# escape=` says,
/// in single quotes, too: so does BuildKit.
fn unquoted_word(text: &str) -> (String, usize, Option<char>) {
    let mut plain = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            plain.extend(chars.next().map(|(_, next)| next));
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '"' | '\'') {
            quote = Some(char);
        } else if quote.is_none() && char.is_whitespace() {
            return (plain, at, None);
        } else {
            plain.push(char);
        }
    }
    (plain, text.len(), quote)
}

#[cfg(test)]
mod tests {
    use super::take_flags;

    #[test]
    fn flags_end_at_a_word_or_two_dashes() {
        let names = |text| take_flags(text, 0).0.into_iter().map(|f| (f.name, f.value)).collect::<Vec<_>>();
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(names("--link --from='a b' x --y"), [pair("link", None), pair("from", Some("a b"))]);
        assert_eq!(names("--a= ---b -- --c"), [pair("a", Some("")), pair("-b", None)]);
        assert_eq!(take_flags("--a -- --c", 0).1, "--a --".len());
        assert_eq!(names(r"--a=\$x\ y"), [pair("a", Some("$x y"))]);
        let open = |text| take_flags(text, 0).0[0].open;
        assert_eq!((open("--a='b c"), open("--a=\"b' c"), open("--a='b' \"c")), (Some('\''), Some('"'), None));
    }
}
