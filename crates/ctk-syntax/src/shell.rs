//! Words of a Dockerfile: `$name`, `${name…}`, quotes, escapes, as BuildKit's lexer reads them.
//!
//! | written          | gives                                                                     |
//! |------------------|---------------------------------------------------------------------------|
//! | `${x:-word}`     | `word` when x is unset or empty (`${x-word}`: when unset)                  |
//! | `${x:+word}`     | `word` when x is set and not empty (`${x+word}`: when set), else nothing   |
//! | `${x:?message}`  | an error when x is unset or empty (`${x?message}`: when unset)             |
//! | `${x#pattern}`   | x without the shortest front that matches (`##`: the longest)              |
//! | `${x%pattern}`   | x without the shortest end that matches (`%%`: the longest)                |
//! | `${x/pattern/y}` | x with y for the first match (`//`: for every match)                       |
//!
//! Three habits differ from a shell's. A word, pattern or message is always expanded, used or not, and a mistake in it
//! counts. `$$`, `$1`, `$@` and their like are names, which nobody sets. And [`shell_words`] splits the text of a
//! value wherever it holds blanks, also when it came out of `${…}` in which quotes stood.

use std::ops::Range;

use crate::expand::{ExpandError, ExpandErrorKind};
use crate::limits;
use crate::shell_pattern::{Pattern, template};

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShellSyntax {
    /// The character that keeps the next one from meaning anything.
    pub escape: char,
    /// Whether quotes mean something; in here-documents they do not.
    pub quotes: bool,
}

/// `text` with its expansions made, quotes and escapes taken away. `lookup` gives a name's value, or none if it is not
/// set.
pub fn shell_word(
    text: &str,
    syntax: ShellSyntax,
    lookup: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    Run::new(text, syntax, lookup).until(None, false).map(|(text, _)| text)
}

/// `text` expanded as [`shell_word`] does, and split at blanks outside quotes. Words are never empty.
pub fn shell_words(
    text: &str,
    syntax: ShellSyntax,
    lookup: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    Run::new(text, syntax, lookup).until(None, false).map(|(_, words)| words.end())
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn split(&mut self, c: char) {
        match c.is_whitespace() {
            false => self.current.push(c),
            true if self.current.is_empty() => {}
            true => self.done.push(std::mem::take(&mut self.current)),
        }
    }

    fn end(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Run<'t, 'l> {
    text: &'t str,
    at: usize,
    syntax: ShellSyntax,
    lookup: &'l mut dyn FnMut(&str) -> Option<String>,
    /// Whether escapes stay in the text: a pattern reads them itself.
    raw: bool,
    depth: usize,
    size: usize,
}

impl<'t, 'l> Run<'t, 'l> {
    fn new(text: &'t str, syntax: ShellSyntax, lookup: &'l mut dyn FnMut(&str) -> Option<String>) -> Run<'t, 'l> {
        Run { text, at: 0, syntax, lookup, raw: false, depth: 0, size: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn error<T>(&self, start: usize, kind: ExpandErrorKind) -> Result<T, ExpandError> {
        let at: Range<usize> = start..self.at.max(start);
        Err(ExpandError { at, kind })
    }

    fn grow(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.size += bytes;
        if self.size > limits::EXPANSION_BYTES {
            return self.error(self.at, ExpandErrorKind::TooLarge("more than 1 MiB of text"));
        }
        Ok(())
    }

    /// Expands until `stop`, which is taken, or the end.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<(String, Words), ExpandError> {
        let before = std::mem::replace(&mut self.raw, raw);
        let result = self.until_raw(stop);
        self.raw = before;
        result
    }

    fn until_raw(&mut self, stop: Option<char>) -> Result<(String, Words), ExpandError> {
        let (mut out, mut words) = (String::new(), Words::default());
        loop {
            let start = self.at;
            let Some(c) = self.peek() else { break };
            if stop == Some(c) {
                self.next();
                return Ok((out, words));
            }
            match c {
                '$' => {
                    let text = self.dollar()?;
                    self.grow(text.len())?;
                    text.chars().for_each(|c| words.split(c));
                    out.push_str(&text);
                }
                '\'' if self.syntax.quotes => {
                    let Some(length) = self.text[start + 1..].find('\'') else {
                        self.at = self.text.len();
                        return self.error(start, ExpandErrorKind::UnclosedQuote);
                    };
                    let inside = &self.text[start + 1..start + 1 + length];
                    self.at = start + length + 2;
                    words.current.push_str(inside);
                    out.push_str(inside);
                }
                '"' if self.syntax.quotes => {
                    let inside = self.double_quoted()?;
                    words.current.push_str(&inside);
                    out.push_str(&inside);
                }
                c if c == self.syntax.escape => {
                    self.next();
                    if self.raw {
                        words.current.push(c);
                        out.push(c);
                    }
                    let Some(c) = self.next() else { break };
                    words.current.push(c);
                    out.push(c);
                }
                c => {
                    self.next();
                    words.split(c);
                    out.push(c);
                }
            }
        }
        match stop {
            None => Ok((out, words)),
            Some(_) => self.error(self.at, ExpandErrorKind::Unclosed),
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let mut out = String::new();
        loop {
            let Some(c) = self.peek() else { return self.error(start, ExpandErrorKind::UnclosedQuote) };
            match c {
                '"' => {
                    self.next();
                    return Ok(out);
                }
                '$' => {
                    let text = self.dollar()?;
                    self.grow(text.len())?;
                    out.push_str(&text);
                }
                c => {
                    self.next();
                    let mut c = c;
                    if c == self.syntax.escape {
                        if self.raw {
                            out.push(c);
                        }
                        // Here it only keeps what means something in double quotes.
                        if let Some(kept) = self.peek().filter(|next| ['"', '$', self.syntax.escape].contains(next)) {
                            self.next();
                            c = kept;
                        }
                    }
                    out.push(c);
                }
            }
        }
    }

    fn name(&mut self) -> &'t str {
        let text: &'t str = self.text;
        let rest = &text[self.at..];
        let first = rest.chars().next();
        let length = match first {
            Some(c) if c.is_numeric() => rest.find(|c: char| !c.is_numeric()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    /// At a `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { (self.lookup)(name).unwrap_or_default() });
        }
        self.next();
        if self.depth >= limits::EXPANSION_DEPTH_LEVELS {
            return self.error(start, ExpandErrorKind::TooLarge("more than 32 levels of `${…}`"));
        }
        self.depth += 1;
        let result = self.braces(start).map_err(|error| match error.kind {
            // The outermost `${` without its `}` is the place to look at.
            ExpandErrorKind::Unclosed | ExpandErrorKind::NoReplacement => {
                ExpandError { at: start..self.text.len(), ..error }
            }
            _ => error,
        });
        self.depth -= 1;
        result
    }

    /// After `${`.
    fn braces(&mut self, start: usize) -> Result<String, ExpandError> {
        match self.peek() {
            None => return self.error(start, ExpandErrorKind::Unclosed),
            Some('{' | '}' | ':') => {
                self.next();
                return self.error(start, ExpandErrorKind::NoName);
            }
            Some(_) => {}
        }
        let name = self.name();
        let operator_at = self.at;
        let Some(first) = self.next() else { return self.error(start, ExpandErrorKind::Unclosed) };
        let colon = first == ':';
        let operator = if colon { self.next() } else { Some(first) };
        let Some(operator) = operator else { return self.error(start, ExpandErrorKind::Unclosed) };
        // A blank is no slip of an operator: the brace was forgotten.
        let bad = match first.is_whitespace() {
            true => ExpandErrorKind::Unclosed,
            false if name == "#" => ExpandErrorKind::Length,
            false => ExpandErrorKind::BadOperator(self.text[operator_at..self.at].to_owned()),
        };
        match operator {
            '}' if !colon => Ok((self.lookup)(name).unwrap_or_default()),
            '-' | '+' | '?' => {
                let (word, _) = self.until(Some('}'), false)?;
                let value = (self.lookup)(name);
                let set = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
                match operator {
                    '-' => Ok(value.filter(|_| set).unwrap_or(word)),
                    '+' => Ok(if set { word } else { String::new() }),
                    _ if set => Ok(value.unwrap_or_default()),
                    _ => {
                        let name = name.to_owned();
                        self.error(start, ExpandErrorKind::Required { name, message: word })
                    }
                }
            }
            '#' | '%' if !colon => {
                let (word, _) = self.until(Some('}'), true)?;
                let value = (self.lookup)(name).unwrap_or_default();
                let longest = word.starts_with(operator);
                let pattern = self.pattern(if longest { &word[1..] } else { &word }, &value, start)?;
                Ok(match operator {
                    '#' => pattern.cut_front(&value, longest),
                    _ => pattern.cut_end(&value, longest),
                })
            }
            '/' if !colon => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let (word, _) = self.until(Some('/'), true).map_err(|error| match error.kind {
                    ExpandErrorKind::Unclosed | ExpandErrorKind::NoReplacement => {
                        ExpandError { kind: ExpandErrorKind::NoReplacement, ..error }
                    }
                    _ => error,
                })?;
                let (by, _) = self.until(Some('}'), true)?;
                let value = (self.lookup)(name).unwrap_or_default();
                let pattern = self.pattern(&word, &value, start)?;
                let done = match all {
                    true => pattern.replace_all(&value, |found, out| template(&by, found, out)),
                    false => pattern.replace_first(&value, &by),
                };
                done.map_or_else(|| self.error(start, ExpandErrorKind::TooLarge("more than 1 MiB of text")), Ok)
            }
            _ => self.error(start, bad),
        }
    }

    fn pattern(&self, text: &str, value: &str, start: usize) -> Result<Pattern, ExpandError> {
        match Pattern::new(text) {
            Err(escape) => self.error(start, ExpandErrorKind::BadEscape(escape)),
            Ok(pattern) if pattern.is_large(value) => {
                self.error(start, ExpandErrorKind::TooLarge("a long pattern on a long text"))
            }
            Ok(pattern) => Ok(pattern),
        }
    }
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
