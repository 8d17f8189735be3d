//! What an instruction's parser reads from: one logical line, its flags taken apart.

use std::ops::Range;

use ctk_buildgraph::{Command, Escape};
use ctk_syntax::{Diagnostic, Diagnostics, Severity, Span};

use crate::blank::{is_blank, plain_words, quoted_words};
use crate::codes;
use crate::flags::{Flag, REPEATABLE, take_flags};
use crate::json;
use crate::logical::Logical;

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
        let keyword = logical.text.find(is_blank).unwrap_or(logical.text.len());
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
        self.keyword_written().to_ascii_uppercase()
    }

    /// As written.
    pub fn keyword_written(&self) -> &'a str {
        let logical: &'a Logical = self.logical;
        logical.keyword()
    }

    pub fn keyword_span(&self) -> Span {
        self.logical.span_of(0..self.keyword().len())
    }

    /// Takes the flags at the front, whatever they are.
    pub fn take_flags(&mut self) {
        let (flags, length) = take_flags(&self.logical.text[self.start..], self.start);
        self.start += length;
        self.skip_blanks();
        for (flag, open) in flags.iter().filter_map(|flag| Some((flag, flag.open?))) {
            let message = format!("a quote in `--{}` is never closed, so all of the line is its value", flag.name);
            self.warning(codes::BAD_FLAG, message, flag.range.clone(), format!("expected another `{open}`"));
        }
        self.flags = flags;
    }

    /// Only flags named in `known` may be there, most of them once.
    pub fn check_flags(&mut self, known: &[&str], severity: Severity) {
        let mut kept: Vec<Flag> = Vec::new();
        for flag in std::mem::take(&mut self.flags) {
            let name = flag.name.as_str();
            if !known.contains(&name) {
                self.unknown_flag(&flag, known, severity);
            } else if kept.iter().any(|k| k.name == name) && !REPEATABLE.contains(&name) {
                self.error(codes::REPEATED_FLAG, format!("flag `--{name}` is given twice"), flag.range, "");
            } else {
                kept.push(flag);
            }
        }
        self.flags = kept;
    }

    fn unknown_flag(&mut self, flag: &Flag, known: &[&str], severity: Severity) {
        let message = format!("{} has no flag `--{}`", self.keyword(), flag.name);
        let near = ctk_syntax::nearest(flag.name.trim_start_matches('-'), known.iter().copied());
        let otherwise = match known {
            [] => "it has no flags".to_owned(),
            known => format!("it has {}", known.iter().map(|k| format!("--{k}")).collect::<Vec<_>>().join(", ")),
        };
        let span = self.logical.span_of(flag.range.clone());
        let diagnostic = Diagnostic { severity, ..Diagnostic::error(codes::UNKNOWN_FLAG, message) };
        let near = near.map(|n| format!("--{n}"));
        self.diagnostics.push(diagnostic.at_or_nearest(span, near.as_deref(), otherwise));
    }

    /// A flag's value and place.
    pub fn flag(&mut self, name: &str) -> Option<(String, Range<usize>)> {
        self.flag_all(name).into_iter().next()
    }

    /// A flag's value, alone; what is given empty is not given.
    pub fn flag_text(&mut self, name: &str) -> Option<String> {
        self.flag(name).map(|(value, _)| value).filter(|value| !value.is_empty())
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
        match flag.value.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => {
                let message = format!("flag `--{name}` cannot be `{}`", flag.value.unwrap_or_default());
                self.error(codes::BAD_FLAG, message, flag.range, "expected `true` or `false`");
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

    /// What is left as words at blanks, with their ranges; at least one.
    pub fn some_plain_words(&mut self, what: &str) -> Option<Vec<(Range<usize>, String)>> {
        let words = plain_words(self.rest()).into_iter();
        let words = words.map(|(at, word)| (self.start + at..self.start + at + word.len(), word.to_owned())).collect();
        self.some(words, what)
    }

    /// What is left as words at blanks outside quotes, with their ranges; quotes and escapes stay. At least one.
    pub fn some_words(&mut self, what: &str) -> Option<Vec<(Range<usize>, String)>> {
        let words = quoted_words(self.rest(), self.escape.char()).into_iter();
        let words = words.map(|(at, word)| (self.start + at..self.start + at + word.len(), word)).collect();
        self.some(words, what)
    }

    fn some<T>(&mut self, words: Vec<T>, what: &str) -> Option<Vec<T>> {
        if words.is_empty() {
            self.missing(what);
        }
        (!words.is_empty()).then_some(words)
    }

    /// A JSON array of strings, if what is left is one. An array of something else is an error, and gives none.
    pub fn json(&mut self) -> Result<Option<Vec<String>>, ()> {
        match json::array(self.rest()) {
            json::Array::Strings(words) => Ok(Some(words)),
            json::Array::Not => Ok(None),
            json::Array::Others => {
                let message = format!("{} takes strings in its JSON array, and nothing else", self.keyword());
                self.error(codes::BAD_JSON, message, self.rest_range(), "expected `[\"one\", \"two\"]`");
                Err(())
            }
        }
    }

    /// Words of a JSON array, or blank-separated ones.
    pub fn json_or_words(&mut self, what: &str) -> Option<Vec<String>> {
        match self.json().ok()? {
            Some(words) => self.some(words, what),
            None => Some(self.some_plain_words(what)?.into_iter().map(|(_, word)| word).collect()),
        }
    }

    /// The exec form if it is JSON, the shell form otherwise, even of nothing.
    pub fn command(&mut self) -> Option<Command> {
        if let Some(words) = self.json().ok()? {
            return Some(Command::Exec(words));
        }
        let rest = self.rest();
        if rest.starts_with('[') && rest.ends_with(']') && !rest.starts_with("[ ") && !rest.starts_with("[[") {
            let message =
                format!("{} has brackets but is no JSON array of strings, so a shell will run it", self.keyword());
            let span = self.logical.span_of(self.rest_range());
            let diagnostic = Diagnostic::warning(codes::BAD_JSON, message);
            self.diagnostics.push(diagnostic.at(span, "strings need double quotes"));
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

    pub fn warning(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        range: Range<usize>,
        label: impl Into<String>,
    ) {
        let span = self.logical.span_of(range);
        self.diagnostics.push(Diagnostic::warning(code, message).at(span, label));
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
