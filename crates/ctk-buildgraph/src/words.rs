//! Words of a Dockerfile: quotes, escapes and `$variables`, as BuildKit's `shell/lex.go` reads them.
//!
//! This is not a shell: `'…'` keeps all, `"…"` keeps all but variables and escapes, and
//! `${NAME<modifier>word}` knows `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`.

use crate::Escape;

/// Deepest nesting of `${…${…}…}`: far beyond use, short of the stack.
const NESTING_MAX: usize = 64;

/// A text that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A quote without its partner.
    #[error("no closing {0} in this word")]
    Quote(char),
    /// `${` without `}`.
    #[error("no closing `}}` after `${{`")]
    Brace,
    /// `${}` or a name that is none.
    #[error("`${{…}}` needs a variable's name")]
    Name,
    /// `${NAME<what>…}` with an unknown modifier.
    #[error("unknown modifier `{0}` in `${{…}}`; expected one of `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`")]
    Modifier(String),
    /// `${NAME:?message}` and the variable is not set.
    #[error("variable `{name}` must be set: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The author's word.
        message: String,
    },
    /// Too deep.
    #[error("variables nest deeper than {NESTING_MAX}")]
    Depth,
}

/// Variables that a text used without their being set.
pub type UnsetVariable = String;

/// How quotes and escapes are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Quotes and escapes are taken away.
    Word,
    /// Quotes and escapes stay: here-documents.
    Raw,
}

/// Expands one word: variables replaced, quotes and escapes taken away.
/// Names of unset variables are added to `unset`.
pub fn expand_word(
    text: &str,
    escape: Escape,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<UnsetVariable>,
) -> Result<String, WordError> {
    run(text, escape, lookup, unset, Mode::Word)
}

/// Expands variables of a here-document; quotes and escapes stay, but for `\$`.
pub(crate) fn expand_document(
    text: &str,
    escape: Escape,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<UnsetVariable>,
) -> Result<String, WordError> {
    run(text, escape, lookup, unset, Mode::Raw)
}

/// Expands a text and splits the result at unquoted white space.
pub fn split_words(
    text: &str,
    escape: Escape,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<UnsetVariable>,
) -> Result<Vec<String>, WordError> {
    let expanded = expand_word(text, escape, lookup, unset)?;
    Ok(expanded.split_ascii_whitespace().map(str::to_owned).collect())
}

fn run(
    text: &str,
    escape: Escape,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<UnsetVariable>,
    mode: Mode,
) -> Result<String, WordError> {
    if !text.contains(['$', '\'', '"', escape.char()]) {
        return Ok(text.to_owned());
    }
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, escape: escape.char(), lookup, unset, mode, depth: 0 };
    lexer.until(None, mode == Mode::Raw)
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    unset: &'a mut Vec<UnsetVariable>,
    mode: Mode,
    depth: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += 1;
        Some(char)
    }

    /// Up to an unquoted `stop`, which is eaten, or to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<String, WordError> {
        let mut out = String::new();
        while let Some(char) = self.peek() {
            if Some(char) == stop {
                self.at += 1;
                return Ok(out);
            }
            match char {
                '\'' if self.mode == Mode::Word => out.push_str(&self.single_quoted()?),
                '"' if self.mode == Mode::Word => out.push_str(&self.double_quoted()?),
                '$' => out.push_str(&self.dollar()?),
                _ => {
                    self.at += 1;
                    if char != self.escape {
                        out.push(char);
                        continue;
                    }
                    match self.peek() {
                        Some('$') if self.mode == Mode::Raw => {}
                        _ if keep_escapes => out.push(char),
                        _ => {}
                    }
                    if self.mode == Mode::Word || self.peek() == Some('$') {
                        out.extend(self.next());
                    }
                }
            }
        }
        match stop {
            Some(_) => Err(WordError::Brace),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self) -> Result<String, WordError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            match self.next().ok_or(WordError::Quote('\''))? {
                '\'' => return Ok(out),
                char => out.push(char),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, WordError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            match self.peek().ok_or(WordError::Quote('"'))? {
                '"' => {
                    self.at += 1;
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar()?),
                char => {
                    self.at += 1;
                    if char == self.escape {
                        let next = self.next().ok_or(WordError::Quote('"'))?;
                        if !(next == '"' || next == '$' || next == self.escape) {
                            out.push(char);
                        }
                        out.push(next);
                    } else {
                        out.push(char);
                    }
                }
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(char) = self.peek() {
            if name.is_empty() && "@*#?-$!0".contains(char) {
                self.at += 1;
                return char.to_string();
            }
            let digits = name.starts_with(|c: char| c.is_ascii_digit());
            if char.is_ascii_digit() || (!digits && (char.is_ascii_alphabetic() || char == '_')) {
                name.push(char);
                self.at += 1;
            } else {
                break;
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }

    fn value_or_empty(&mut self, name: &str) -> String {
        self.value(name).unwrap_or_else(|| {
            self.unset.push(name.to_owned());
            String::new()
        })
    }

    fn dollar(&mut self) -> Result<String, WordError> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { self.value_or_empty(&name) });
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(WordError::Depth);
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    fn braced(&mut self) -> Result<String, WordError> {
        match self.peek() {
            None => return Err(WordError::Brace),
            Some('}') => return Err(WordError::Name),
            Some(_) => {}
        }
        let name = self.name();
        if name.is_empty() {
            return Err(WordError::Name);
        }
        let mut modifier = self.next().ok_or(WordError::Brace)?;
        if modifier == '}' {
            return Ok(self.value_or_empty(&name));
        }
        let null_is_unset = modifier == ':';
        if null_is_unset {
            modifier = self.next().ok_or(WordError::Brace)?;
        }
        let unknown = || WordError::Modifier(if null_is_unset { format!(":{modifier}") } else { modifier.to_string() });
        match modifier {
            '-' | '+' | '?' => {
                let word = self.until(Some('}'), false)?;
                let value = self.value(&name).filter(|v| !(null_is_unset && v.is_empty()));
                match (modifier, value) {
                    ('-', value) => Ok(value.unwrap_or(word)),
                    ('+', value) => Ok(value.map_or_else(String::new, |_| word)),
                    (_, Some(value)) => Ok(value),
                    (_, None) => {
                        let message = if word.is_empty() { "it is not".to_owned() } else { word };
                        Err(WordError::Required { name, message })
                    }
                }
            }
            '#' | '%' if !null_is_unset => {
                let greedy = self.peek() == Some(modifier);
                self.at += usize::from(greedy);
                let pattern = self.until(Some('}'), true)?;
                let value = self.value_or_empty(&name);
                Ok(trim(&value, &pattern, modifier == '#', greedy, self.escape))
            }
            '/' if !null_is_unset => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.until(Some('/'), true)?;
                let replacement = self.until(Some('}'), true)?;
                let value = self.value_or_empty(&name);
                Ok(replace(&value, &pattern, &replacement, all, self.escape))
            }
            _ => Err(unknown()),
        }
    }
}

/// Whether the glob (`*`, `?`, escapes) matches all of `text`.
fn glob(pattern: &[char], text: &[char], escape: char) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|n| glob(rest, &text[n..], escape)),
        ['?', rest @ ..] => !text.is_empty() && glob(rest, &text[1..], escape),
        [e, char, rest @ ..] if *e == escape => text.first() == Some(char) && glob(rest, &text[1..], escape),
        [char, rest @ ..] => text.first() == Some(char) && glob(rest, &text[1..], escape),
    }
}

fn trim(value: &str, pattern: &str, front: bool, greedy: bool, escape: char) -> String {
    let (text, pattern): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
    let matches = |n: &usize| match front {
        true => glob(&pattern, &text[..*n], escape),
        false => glob(&pattern, &text[text.len() - n..], escape),
    };
    let length = if greedy { (0..=text.len()).rev().find(matches) } else { (0..=text.len()).find(matches) };
    let length = length.unwrap_or(0);
    if front { text[length..].iter().collect() } else { text[..text.len() - length].iter().collect() }
}

fn replace(value: &str, pattern: &str, replacement: &str, all: bool, escape: char) -> String {
    let (text, pattern): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
    let mut out = String::new();
    let mut at = 0;
    while at < text.len() {
        match (at + 1..=text.len()).rev().find(|end| glob(&pattern, &text[at..*end], escape)) {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                if !all {
                    break;
                }
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out.extend(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "A" => "one",
            "EMPTY" => "",
            "FILE" => "a/b/c.tar.gz",
            _ => return None,
        };
        Some(value.into())
    }

    fn check(text: &str, expected: &str) {
        let result = expand_word(text, Escape::Backslash, &lookup, &mut Vec::new());
        let shown = result.unwrap_or_else(|e| format!("error: {e}"));
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn words_lose_quotes_and_escapes() {
        check("plain", "plain");
        check("$A ${A}x $", "one onex $");
        check(r#"'$A' "$A" \$A"#, "$A one $A");
        check(r#""a\b\"c""#, r#"a\b"c"#);
        check(r"a\ b", "a b");
        check("$B.", ".");
        check("'open", "error: no closing ' in this word");
    }

    #[test]
    fn modifiers() {
        check("${B:-x} ${EMPTY:-x} ${EMPTY-x} ${B:-${A}}", "x x  one");
        check("${A:+x} ${EMPTY:+x} ${EMPTY+x} ${B+x}", "x  x ");
        check("${A:?no} ", "one ");
        check("${B:?say it}", "error: variable `B` must be set: say it");
        check("${FILE#*/} ${FILE##*/} ${FILE%.*} ${FILE%%.*}", "b/c.tar.gz c.tar.gz a/b/c.tar a/b/c");
        check("${FILE/\\//-} ${FILE//\\//-}", "a-b/c.tar.gz a-b-c.tar.gz");
        check("${A", "error: no closing `}` after `${`");
        check("${}", "error: `${…}` needs a variable's name");
        check("${A:=x}", "error: unknown modifier `:=` in `${…}`; expected one of `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`");
    }

    #[test]
    fn documents_keep_quotes() {
        let result = expand_document("\"$A\" '$A' \\$A \\n", Escape::Backslash, &lookup, &mut Vec::new());
        assert_eq!(result.unwrap(), "\"one\" 'one' $A \\n");
    }
}
