//! What separates words: the blanks of an instruction's line.

/// Blanks between a keyword, its flags and its words. Others that Unicode knows are part of a word.
pub(crate) fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Words at blanks, whatever the quotes, with their places.
pub(crate) fn plain_words(text: &str) -> Vec<(usize, &str)> {
    let start_of = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split(is_blank).filter(|word| !word.is_empty()).map(|word| (start_of(word), word)).collect()
}

/// Words at white space outside quotes, with their places; quotes and escapes stay. An escape at the very end goes.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut quote: Option<char> = None;
    let mut open = false;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if quote.is_none() && char.is_whitespace() {
            open = false;
            continue;
        }
        if !open {
            words.push((at, String::new()));
            open = true;
        }
        let word = &mut words.last_mut().expect("just pushed").1;
        if char == escape && quote != Some('\'') {
            match chars.next() {
                Some((_, next)) => word.extend([char, next]),
                None if word.is_empty() => {
                    words.pop();
                }
                None => {}
            }
            continue;
        }
        word.push(char);
        if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '"' | '\'') {
            quote = Some(char);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_quotes_and_places() {
        let words = |text, escape| quoted_words(text, escape).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(words(r#"a="b c" d\ e 'f"' "g\" h""#, '\\'), [r#"a="b c""#, r"d\ e", r#"'f"'"#, r#""g\" h""#]);
        assert_eq!(words("a` b \\ c`", '`'), ["a` b", "\\", "c"]);
        assert_eq!(quoted_words("  a  b", '\\'), [(2, "a".into()), (5, "b".into())]);
        assert_eq!(plain_words(" \"a b\"\u{a0}c\td"), [(1, "\"a"), (4, "b\"\u{a0}c"), (10, "d")]);
    }
}
