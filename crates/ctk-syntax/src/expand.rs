//! Parameter expansion of project files: `${name}`. `$$` is a dollar, a dollar before anything else is one too, and an
//! undefined name is an error. Dockerfiles have a lexer of their own, [`crate::shell_word`].
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
//! Words, patterns and messages are expanded themselves, only when they are used.

use std::ops::Range;

use crate::limits;
use crate::pattern::Pattern;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This text.
    Value(String),
    /// Nothing is known by that name.
    Undefined,
    /// It will be known later: its `${…}` stays as it was written, and the result is marked deferred.
    Later,
    /// It is known, but its value could not be had; one sentence.
    Failed(String),
}

/// An expanded text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// The text. When deferred, a text to be expanded once more: each `${…}` with such a name stands as it was
    /// written, and every other dollar is doubled.
    pub text: String,
    /// Whether a name answered [`Found::Later`].
    pub deferred: bool,
}

/// Why a text could not be expanded, and where in it (bytes).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// Bytes of the text.
    pub at: Range<usize>,
    /// Why.
    pub kind: ExpandErrorKind,
}

/// Why a text could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// `${` without `}`.
    #[error("`${{` without `}}`")]
    Unclosed,
    /// A quote without its partner.
    #[error("a quote is never closed")]
    UnclosedQuote,
    /// `${x/pattern}`: the part after the pattern is missing.
    #[error("`/` and a replacement were expected after the pattern")]
    NoReplacement,
    /// A pattern's escape that means nothing.
    #[error("`{0}` means nothing in a pattern; there are `\\*` `\\?` `\\\\` `\\/` `\\}}`")]
    BadEscape(String),
    /// `${}` or `${!x}`.
    #[error("a name was expected after `${{`")]
    NoName,
    /// Something after the name that is no operator.
    #[error("`{0}` is no operator; there are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`")]
    BadOperator(String),
    /// `${#x}`.
    #[error(
        "`${{#name}}`, the length of a value, does not exist here; after the name may stand `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`"
    )]
    Length,
    /// A name nobody knows.
    #[error("`{0}` is not defined")]
    Undefined(String),
    /// `${name:?message}` without a value.
    #[error("`{name}` has no value{}", if .message.is_empty() { String::new() } else { format!(": {message}") })]
    Required {
        /// The name.
        name: String,
        /// What its author says.
        message: String,
    },
    /// A name whose value could not be had.
    #[error("`{name}` cannot be known: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Deeper or longer than [`limits`] allow.
    #[error("the expansion is too large: {0}")]
    TooLarge(&'static str),
}

/// `text` with its expansions made. `lookup` is asked only for names that matter.
pub fn expand(text: &str, lookup: &mut dyn FnMut(&str) -> Found) -> Result<Expanded, ExpandError> {
    let mut run = Run::new(text, &mut *lookup);
    let out = run.until(&[])?;
    if !run.deferred {
        return Ok(Expanded { text: out, deferred: false });
    }
    let mut run = Run::new(text, lookup);
    run.template = true;
    Ok(Expanded { text: run.until(&[])?, deferred: true })
}

/// The names that `text` mentions, in order, used or not. Texts that cannot be read mention what stands before the
/// mistake.
pub fn names_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lookup = |name: &str| {
        names.push(name.to_string());
        Found::Later
    };
    let _ = Run::new(text, &mut lookup).until(&[]);
    names
}

struct Run<'t, 'l> {
    text: &'t str,
    at: usize,
    /// None while a word is only skipped.
    lookup: Option<&'l mut dyn FnMut(&str) -> Found>,
    deferred: bool,
    depth: usize,
    size: usize,
    /// The outcome will be expanded once more.
    template: bool,
}

impl<'t, 'l> Run<'t, 'l> {
    fn new(text: &'t str, lookup: &'l mut dyn FnMut(&str) -> Found) -> Run<'t, 'l> {
        let lookup = Some(lookup);
        Run { text, at: 0, lookup, deferred: false, depth: 0, size: 0, template: false }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn error<T>(&self, start: usize, kind: ExpandErrorKind) -> Result<T, ExpandError> {
        Err(ExpandError { at: start..self.at.max(start), kind })
    }

    fn put(&mut self, out: &mut String, text: &str) -> Result<(), ExpandError> {
        self.size += text.len();
        if self.size > limits::EXPANSION_BYTES {
            return self.error(self.at, ExpandErrorKind::TooLarge("more than 1 MiB of text"));
        }
        out.push_str(text);
        Ok(())
    }

    /// Expands until one of `stops` (not taken) or the end.
    fn until(&mut self, stops: &[char]) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if stops.contains(&c) {
                return Ok(out);
            }
            let start = self.at;
            match c {
                '$' => {
                    let before = std::mem::take(&mut self.deferred);
                    let mut text = self.dollar()?;
                    if self.template && self.depth == 0 {
                        text = match self.deferred {
                            true => self.text[start..self.at].to_string(),
                            false => text.replace('$', "$$"),
                        };
                    }
                    self.deferred |= before;
                    self.put(&mut out, &text)?;
                }
                c => {
                    self.at += c.len_utf8();
                    self.put(&mut out, c.encode_utf8(&mut [0; 4]))?;
                }
            }
        }
        Ok(out)
    }

    fn ask(&mut self, name: &str, start: usize) -> Result<Option<String>, ExpandError> {
        let Some(lookup) = &mut self.lookup else { return Ok(None) };
        match lookup(name) {
            Found::Value(text) => Ok(Some(text)),
            Found::Undefined => Ok(None),
            Found::Later => {
                self.deferred = true;
                Ok(Some(String::new()))
            }
            Found::Failed(reason) => self.error(start, ExpandErrorKind::Failed { name: name.to_string(), reason }),
        }
    }

    fn name(&mut self) -> String {
        let rest = self.rest();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let length = if digits > 0 {
            digits
        } else {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len())
        };
        let name = rest[..length].to_string();
        self.at += length;
        name
    }

    /// At a `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some('$') => {
                self.at += 1;
                Ok("$".into())
            }
            Some('{') => {
                self.at += 1;
                if self.depth >= limits::EXPANSION_DEPTH_LEVELS {
                    return self.error(start, ExpandErrorKind::TooLarge("more than 32 levels of `${…}`"));
                }
                self.depth += 1;
                let result = self.braces(start);
                self.depth -= 1;
                result
            }
            _ => Ok("$".into()),
        }
    }

    fn undefined(&mut self, name: String, start: usize) -> Result<String, ExpandError> {
        if self.lookup.is_none() || self.deferred {
            return Ok(String::new());
        }
        self.error(start, ExpandErrorKind::Undefined(name))
    }

    /// Expands a word that is used, or steps over one that is not.
    fn word(&mut self, used: bool, stops: &[char]) -> Result<String, ExpandError> {
        if used {
            return self.until(stops);
        }
        let lookup = self.lookup.take();
        let result = self.until(stops);
        self.lookup = lookup;
        result
    }

    fn close(&mut self, start: usize) -> Result<(), ExpandError> {
        if self.peek() == Some('}') {
            self.at += 1;
            return Ok(());
        }
        self.at = self.text.len();
        self.error(start, ExpandErrorKind::Unclosed)
    }

    /// After `${`.
    fn braces(&mut self, start: usize) -> Result<String, ExpandError> {
        let name = self.name();
        if name.is_empty() {
            if let Some(c) = self.peek() {
                self.at += c.len_utf8();
            }
            return self.error(start, ExpandErrorKind::NoName);
        }
        let colon = self.peek() == Some(':');
        let operator_at = self.at;
        self.at += usize::from(colon);
        let Some(operator) = self.peek() else {
            self.at = self.text.len();
            return self.error(start, ExpandErrorKind::Unclosed);
        };
        if operator == '}' && !colon {
            self.at += 1;
            return match self.ask(&name, start)? {
                Some(text) => Ok(text),
                None => self.undefined(name, start),
            };
        }
        self.at += operator.len_utf8();
        match operator {
            '-' | '+' | '?' => {
                // A name whose value cannot be had is as good as unset where a way out is written.
                let found = self.ask(&name, start).or_else(|error| match error.kind {
                    ExpandErrorKind::Failed { .. } => Ok(None),
                    _ => Err(error),
                })?;
                let set = found.as_ref().is_some_and(|text| !colon || !text.is_empty());
                // While deferring nothing is decided: the other names of the word must still be looked at.
                let used = if operator == '+' { set } else { !set } || self.deferred;
                let word = self.word(used, &['}'])?;
                self.close(start)?;
                match operator {
                    '-' if set => Ok(found.unwrap_or_default()),
                    '-' => Ok(word),
                    '+' => Ok(if set { word } else { String::new() }),
                    _ if set || self.lookup.is_none() || self.deferred => Ok(found.unwrap_or_default()),
                    _ => self.error(start, ExpandErrorKind::Required { name, message: word }),
                }
            }
            '#' | '%' if !colon => {
                let longest = self.peek() == Some(operator);
                self.at += usize::from(longest);
                let value = self.value(&name, start)?;
                let pattern = self.pattern(&['}'])?;
                self.close(start)?;
                self.pattern_size(&value, start)?;
                Ok(if operator == '#' {
                    cut_front(&value, &pattern, longest)
                } else {
                    cut_end(&value, &pattern, longest)
                })
            }
            '/' if !colon => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let value = self.value(&name, start)?;
                let pattern = self.pattern(&['/', '}'])?;
                let by = if self.peek() == Some('/') {
                    self.at += 1;
                    self.until(&['}'])?
                } else {
                    String::new()
                };
                self.close(start)?;
                self.pattern_size(&value, start)?;
                let done = replace(&value, &pattern, &by, all);
                if done.len() > limits::EXPANSION_BYTES {
                    return self.error(start, ExpandErrorKind::TooLarge("more than 1 MiB of text"));
                }
                Ok(done)
            }
            _ => self.error(start, ExpandErrorKind::BadOperator(self.text[operator_at..self.at].to_string())),
        }
    }

    fn value(&mut self, name: &str, start: usize) -> Result<String, ExpandError> {
        match self.ask(name, start)? {
            Some(text) => Ok(text),
            None => self.undefined(name.to_string(), start),
        }
    }

    fn pattern_size(&self, value: &str, start: usize) -> Result<(), ExpandError> {
        if value.len() > limits::PATTERN_VALUE_BYTES {
            return self.error(start, ExpandErrorKind::TooLarge("a pattern on more than 16 KiB of text"));
        }
        Ok(())
    }

    /// A pattern: escapes stay for the pattern's own reading, `${…}` in it are expanded.
    fn pattern(&mut self, stops: &[char]) -> Result<Pattern, ExpandError> {
        let escape = Some('\\');
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if stops.contains(&c) {
                break;
            }
            if c == '$' {
                let text = self.dollar()?;
                self.put(&mut out, &text)?;
                continue;
            }
            self.at += c.len_utf8();
            out.push(c);
            if Some(c) == escape
                && let Some(next) = self.peek()
            {
                self.at += next.len_utf8();
                out.push(next);
            }
        }
        if out.len() > limits::PATTERN_VALUE_BYTES {
            return self.error(self.at, ExpandErrorKind::TooLarge("a pattern of more than 16 KiB"));
        }
        Ok(Pattern::new(&out, escape))
    }
}

fn cut_front(value: &str, pattern: &Pattern, longest: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let lengths = pattern.prefixes(&chars, !longest);
    let cut = if longest { lengths.last() } else { lengths.first() };
    chars[cut.copied().unwrap_or(0)..].iter().collect()
}

fn cut_end(value: &str, pattern: &Pattern, longest: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let matches = |start: &usize| pattern.matches(&chars[*start..]);
    let keep = if longest { (0..=chars.len()).find(matches) } else { (0..=chars.len()).rev().find(matches) };
    chars[..keep.unwrap_or(chars.len())].iter().collect()
}

fn replace(value: &str, pattern: &Pattern, by: &str, all: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < chars.len() {
        match pattern.prefixes(&chars[at..], false).last().copied().filter(|n| *n > 0) {
            Some(length) => {
                out.push_str(by);
                at += length;
                if !all {
                    break;
                }
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out.extend(&chars[at..]);
    out
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
