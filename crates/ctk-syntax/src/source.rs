//! Texts by name, and places in them.

use std::fmt;
use std::ops::Deref;

/// Names one text of a [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// The texts that spans point into.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<Text>,
}

#[derive(Clone, Debug)]
struct Text {
    name: String,
    text: String,
    /// Where in it U+FFFD stands for bytes that are no UTF-8.
    wrong: Vec<usize>,
}

/// A place for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl Sources {
    /// No texts yet.
    pub fn new() -> Sources {
        Sources::default()
    }

    /// Keeps a text under the name that diagnostics will show, usually a relative path.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        self.keep(Text { name: name.into(), text: text.into(), wrong: Vec::new() })
    }

    /// Keeps what should be UTF-8. Bytes that are not become U+FFFD, and [`Sources::wrong`] knows where: whether they
    /// matter is the language's to say.
    pub fn add_bytes(&mut self, name: impl Into<String>, bytes: &[u8]) -> SourceId {
        let (mut text, mut wrong) = (String::with_capacity(bytes.len()), Vec::new());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                wrong.push(text.len());
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.keep(Text { name: name.into(), text, wrong })
    }

    fn keep(&mut self, text: Text) -> SourceId {
        self.list.push(text);
        SourceId(self.list.len() as u32 - 1)
    }

    /// The name given to [`Sources::add`].
    pub fn name(&self, id: SourceId) -> &str {
        &self.list[id.0 as usize].name
    }

    /// The text given to [`Sources::add`].
    pub fn text(&self, id: SourceId) -> &str {
        &self.list[id.0 as usize].text
    }

    /// Where in the text bytes were that are no UTF-8, in order.
    pub fn wrong(&self, id: SourceId) -> &[usize] {
        &self.list[id.0 as usize].wrong
    }

    /// Every text's id, in the order of adding.
    pub fn ids(&self) -> impl Iterator<Item = SourceId> + '_ {
        (0..self.list.len() as u32).map(SourceId)
    }

    /// The text that a span covers; empty when it reaches outside.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.source).get(span.start..span.end).unwrap_or("")
    }

    /// Where a span starts.
    pub fn location(&self, span: Span) -> Location {
        let text = self.text(span.source);
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        Location {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
        }
    }

    /// `containers.kdl:7:5`.
    pub fn place(&self, span: Span) -> String {
        let Location { line, column } = self.location(span);
        format!("{}:{line}:{column}", self.name(span.source))
    }
}

/// The greatest character boundary not after `at`.
pub(crate) fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A range of bytes in one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The text.
    pub source: SourceId,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// `start..end` of `source`.
    pub fn new(source: SourceId, start: usize, end: usize) -> Span {
        Span { source, start, end: end.max(start) }
    }

    /// The span from the start of this one to the end of `other`.
    pub fn to(self, other: Span) -> Span {
        Span::new(self.source, self.start, other.end)
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// `value` at `span`.
    pub fn new(value: T, span: Span) -> Spanned<T> {
        Spanned { value, span }
    }

    /// Another value at the same place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), span: self.span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> fmt::Display for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
