//! What an instruction's parser reads from: one logical line, its flags taken apart.

use std::ops::Range;

use ctk_buildgraph::{Command, Escape};
use ctk_syntax::{Diagnostic, Diagnostics, Span};

use crate::codes;
use crate::flags::{Flag, take_flags};
use crate::logical::{Logical, split_words};

/// One instruction under the eyes of its parser.
pub(crate) struct Line<'a> {
    pub logical: &'a Logical,
    pub escape: Escape,
    pub diagnostics: &'a mut Diagnostics,
    /// Where the arguments begin in the logical text.
    start: usize,
    pub flags: Vec<Flag>,
}

impl<'a> Line<'a> {
    pub fn new(logical: &'a Logical, escape: Escape, diagnostics: &'a mut Diagnostics) -> Line<'a> {
        let keyword = logical.text.find(char::is_whitespace).unwrap_or(logical.text.len());
        let mut line = Line { logical, escape, diagnostics, start: keyword, flags: Vec::new() };
        line.skip_blanks();
        line
    }

    fn skip_blanks(&mut self) {
        let rest = &self.logical.text[self.start..];
        self.start += rest.len() - rest.trim_start().len();
    }

    /// In upper case.
    pub fn keyword(&self) -> String {
        self.logical.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
    }

    pub fn keyword_span(&self) -> Span {
        self.logical.span_of(0..self.keyword().len())
    }

    /// Reads the flags at the front; only those named in `known` may be there.
    pub fn read_flags(&mut self, known: &[&str]) {
        let (flags, length) = take_flags(&self.logical.text[self.start..], self.start, self.escape);
        self.start += length;
        self.skip_blanks();
        for flag in flags {
            let span = self.logical.span_of(flag.range.clone());
            if known.contains(&flag.name.as_str()) {
                self.flags.push(flag);
                continue;
            }
            let message = format!("{} has no flag `--{}`", self.keyword(), flag.name);
            let near = ctk_syntax::nearest(&flag.name, known.iter().copied()).map(|n| format!("--{n}"));
            let otherwise = match known {
                [] => "it has no flags".to_owned(),
                known => format!("it has {}", known.iter().map(|k| format!("--{k}")).collect::<Vec<_>>().join(", ")),
            };
            self.diagnostics.push(Diagnostic::error(codes::UNKNOWN_FLAG, message).at_or_nearest(
                span,
                near.as_deref(),
                otherwise,
            ));
        }
    }

    /// The value of a flag that may be given once.
    pub fn flag(&mut self, name: &str) -> Option<(String, Range<usize>)> {
        let mut all = self.flags.iter().filter(|f| f.name == name).cloned().collect::<Vec<_>>().into_iter();
        let first = all.next()?;
        if let Some(again) = all.next() {
            self.error(codes::REPEATED_FLAG, format!("flag `--{name}` is given twice"), again.range, "");
        }
        match first.value {
            Some(value) => Some((value, first.range)),
            None => {
                self.error(
                    codes::BAD_FLAG,
                    format!("flag `--{name}` needs a value"),
                    first.range,
                    format!("expected `--{name}=…`"),
                );
                None
            }
        }
    }

    /// The value of a flag that may be given once, alone.
    pub fn flag_text(&mut self, name: &str) -> Option<String> {
        self.flag(name).map(|(value, _)| value)
    }

    /// All values of a flag.
    pub fn flag_all(&mut self, name: &str) -> Vec<(String, Range<usize>)> {
        let flags: Vec<Flag> = self.flags.iter().filter(|f| f.name == name).cloned().collect();
        let mut values = Vec::new();
        for flag in flags {
            match flag.value {
                Some(value) => values.push((value, flag.range)),
                None => {
                    let label = format!("expected `--{name}=…`");
                    self.error(codes::BAD_FLAG, format!("flag `--{name}` needs a value"), flag.range, label);
                }
            }
        }
        values
    }

    /// `--name`, `--name=true`, `--name=false`; none when it is not given.
    pub fn flag_bool(&mut self, name: &str) -> Option<bool> {
        let flag = self.flags.iter().find(|f| f.name == name).cloned()?;
        match flag.value.as_deref() {
            None | Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(other) => {
                self.error(
                    codes::BAD_FLAG,
                    format!("flag `--{name}` cannot be `{other}`"),
                    flag.range,
                    "expected `true` or `false`",
                );
                None
            }
        }
    }

    /// What is left, without blanks around it.
    pub fn rest(&self) -> &'a str {
        let logical: &'a Logical = self.logical;
        &logical.text[self.start..]
    }

    pub fn rest_range(&self) -> Range<usize> {
        self.start..self.logical.text.len()
    }

    /// What is left; its absence is an error.
    pub fn some_rest(&mut self, what: &str) -> Option<&'a str> {
        let rest = self.rest();
        if rest.is_empty() {
            self.missing(what);
            return None;
        }
        Some(rest)
    }

    /// What is left as words with their ranges; quotes and escapes stay.
    pub fn words(&self) -> Vec<(Range<usize>, String)> {
        let words = split_words(self.rest(), self.escape).into_iter();
        words.map(|(at, word)| (self.start + at..self.start + at + word.len(), word)).collect()
    }

    /// At least one word.
    pub fn some_words(&mut self, what: &str) -> Option<Vec<(Range<usize>, String)>> {
        let words = self.words();
        if words.is_empty() {
            self.missing(what);
            return None;
        }
        Some(words)
    }

    /// Exactly one word.
    pub fn one_word(&mut self, what: &str) -> Option<String> {
        let mut words = self.some_words(what)?.into_iter();
        let (_, word) = words.next()?;
        if let Some((range, extra)) = words.next() {
            let message = format!("{} takes one argument, and `{extra}` is another", self.keyword());
            self.error(codes::UNEXPECTED_ARGUMENT, message, range, "");
        }
        Some(word)
    }

    /// A JSON array of strings, if what is left is one.
    pub fn json(&self) -> Option<Vec<String>> {
        let rest = self.rest().trim();
        rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
    }

    /// Words of a JSON array, or blank-separated ones.
    pub fn json_or_words(&mut self, what: &str) -> Option<Vec<String>> {
        match self.json() {
            Some(words) if words.is_empty() => {
                self.missing(what);
                None
            }
            Some(words) => Some(words),
            None => Some(self.some_words(what)?.into_iter().map(|(_, word)| word).collect()),
        }
    }

    /// The exec form if it is JSON, the shell form otherwise.
    pub fn command(&mut self, what: &str) -> Option<Command> {
        if let Some(words) = self.json() {
            return Some(Command::Exec(words));
        }
        let rest = self.some_rest(what)?;
        if rest.starts_with('[') && rest.ends_with(']') && !rest.starts_with("[ ") && !rest.starts_with("[[") {
            let message =
                format!("{} has brackets but is no JSON array of strings, so a shell will run it", self.keyword());
            let span = self.logical.span_of(self.rest_range());
            self.diagnostics.push(Diagnostic::warning(codes::BAD_JSON, message).at(span, "strings need double quotes"));
        }
        Some(Command::Shell(rest.to_owned()))
    }

    /// Goes on behind the first word.
    pub fn advance(&mut self, range: &Range<usize>) {
        self.start = range.end;
        self.skip_blanks();
    }

    pub fn missing(&mut self, what: &str) {
        let message = format!("{} needs {what}", self.keyword());
        let span = self.keyword_span();
        self.diagnostics.push(Diagnostic::error(codes::MISSING_ARGUMENT, message).at(span, format!("expected {what}")));
    }

    pub fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        range: Range<usize>,
        label: impl Into<String>,
    ) {
        let span = self.logical.span_of(range);
        self.diagnostics.push(Diagnostic::error(code, message).at(span, label));
    }
}
