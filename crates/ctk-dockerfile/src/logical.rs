//! Logical lines: continuations joined, comments dropped, here-documents taken from the lines that follow.

use std::ops::Range;

use ctk_buildgraph::lint;
use ctk_buildgraph::{Escape, RunHeredoc};
use ctk_syntax::{Diagnostic, Diagnostics, SourceId, Span};

use crate::blank::{is_blank, plain_words};
use crate::{codes, heredoc};

/// Instructions whose lines may introduce here-documents.
const HEREDOC_KEYWORDS: [&str; 3] = ["ADD", "COPY", "RUN"];

/// An instruction as one line.
#[derive(Debug)]
pub(crate) struct Logical {
    /// Keyword, flags and arguments.
    pub text: String,
    /// From which byte of `text` on which byte of the source it is.
    map: Vec<(usize, usize)>,
    /// All of it, without documents.
    pub span: Span,
    /// Blanks at the end of it as written.
    pub trailing: String,
    /// Its here-documents, in order.
    pub heredocs: Vec<RunHeredoc>,
    /// The comments above it since the last instruction or empty comment.
    pub comments: Vec<String>,
}

impl Logical {
    /// The first word as written.
    pub fn keyword(&self) -> &str {
        self.text.split(is_blank).next().unwrap_or_default()
    }

    /// What follows byte `start` as a line of its own, with the same documents.
    pub fn rest(&self, start: usize) -> Logical {
        let place = self.span_of(start..start).start;
        let mut map = vec![(0, place)];
        map.extend(self.map.iter().filter(|(at, _)| *at > start).map(|(at, source)| (at - start, *source)));
        Logical {
            text: self.text[start..].to_owned(),
            map,
            span: Span::new(self.span.source, place, self.span.end),
            trailing: self.trailing.clone(),
            heredocs: self.heredocs.clone(),
            comments: Vec::new(),
        }
    }

    /// What a comment `# name description` above it says of `name`.
    pub fn description(&self, name: &str) -> Option<String> {
        let about = |line: &String| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        self.comments.iter().find_map(about)
    }

    /// The source's place of a range of `text`.
    pub fn span_of(&self, range: std::ops::Range<usize>) -> Span {
        let place = |at: usize| {
            let (logical, source) =
                self.map.iter().rev().find(|(logical, _)| *logical <= at).copied().unwrap_or((0, self.span.start));
            source + (at - logical)
        };
        let start = place(range.start);
        let end = place(range.end.max(range.start + 1) - 1) + 1;
        Span::new(self.span.source, start, end.max(start))
    }

    /// Takes blanks away at both ends.
    fn trim(&mut self) {
        let blanks = self.text.len() - self.text.trim_start().len();
        let start = self.span_of(blanks..blanks).start;
        self.trailing = self.text[self.text.trim_end().len()..].to_owned();
        self.text = self.text.trim().to_owned();
        self.map = self
            .map
            .iter()
            .map(|(logical, source)| match logical.checked_sub(blanks) {
                Some(logical) => (logical, *source),
                None => (0, start),
            })
            .collect();
        self.span.start = start;
    }

    /// For people: in one line, the keyword in upper case.
    pub fn shown(&self) -> String {
        let (keyword, rest) = self.text.split_once(is_blank).unwrap_or((&self.text, ""));
        format!("{} {}", keyword.to_ascii_uppercase(), rest.trim()).trim_end().to_owned()
    }
}

/// The logical lines of `text` from byte `start` on. `skipped` gets the places of lines that are comments.
pub(crate) fn split(
    id: SourceId,
    text: &str,
    start: usize,
    escape: Escape,
    skipped: &mut Vec<Range<usize>>,
    diagnostics: &mut Diagnostics,
) -> Vec<Logical> {
    let mut lines = Lines { text, at: start };
    let (mut all, mut comments) = (Vec::new(), Vec::new());
    while let Some((at, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') {
            skipped.push(at..lines.at);
            // As BuildKit does: an indented comment describes nothing.
            match line.strip_prefix('#').map(str::trim) {
                Some("") => comments.clear(),
                Some(comment) => comments.push(comment.to_owned()),
                None => comments.push(trimmed.trim_end().to_owned()),
            }
        }
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let begin = at + (line.len() - trimmed.len());
        let mut logical = Logical {
            text: String::new(),
            map: vec![(0, begin)],
            span: Span::new(id, begin, begin),
            trailing: String::new(),
            heredocs: Vec::new(),
            comments: std::mem::take(&mut comments),
        };
        let (mut piece, mut more) = continued(trimmed, escape);
        logical.text.push_str(piece);
        logical.span.end = begin + piece.trim_end().len();
        let mut empty = None;
        while more {
            let Some((at, line)) = lines.next() else { break };
            let bare = line.trim();
            if bare.starts_with('#') {
                skipped.push(at..lines.at);
                continue;
            }
            if bare.is_empty() {
                empty.get_or_insert(at);
                continue;
            }
            (piece, more) = continued(line, escape);
            logical.map.push((logical.text.len(), at));
            logical.text.push_str(piece);
            logical.span.end = at + piece.trim_end().len();
        }
        if let Some(at) = empty {
            let message = "an empty line inside an instruction";
            let diagnostic = Diagnostic::warning(lint::codes::NO_EMPTY_CONTINUATION, message);
            let hint = "remove it; later versions may end the instruction here";
            diagnostics.push(diagnostic.at(Span::new(id, at, at), "").hint(hint));
        }
        logical.trim();
        documents(&mut logical, &mut lines, diagnostics);
        all.push(logical);
    }
    all
}

/// Takes the documents that the line introduces from the lines that follow.
fn documents(logical: &mut Logical, lines: &mut Lines<'_>, diagnostics: &mut Diagnostics) {
    let mut words = plain_words(&logical.text).into_iter();
    let mut keyword = words.next().map(|(_, word)| word.to_ascii_uppercase());
    if keyword.as_deref() == Some("ONBUILD") {
        keyword = words.next().map(|(_, word)| word.to_ascii_uppercase());
    }
    if !keyword.is_some_and(|keyword| HEREDOC_KEYWORDS.contains(&keyword.as_str())) {
        return;
    }
    let found = heredoc::introductions(&logical.text);
    let (documents, open) = heredoc::take(&logical.text, found, || lines.next_raw().map(|(_, line)| line));
    logical.heredocs = documents;
    if let Some((range, introduction)) = open {
        let name = introduction.name;
        let diagnostic = Diagnostic::error(codes::BAD_HEREDOC, format!("here-document `{name}` never ends"));
        diagnostics.push(diagnostic.at(logical.span_of(range), format!("expected a line `{name}`")));
    }
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end, and where it starts.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        self.next_raw().map(|(at, line)| (at, line.trim_end_matches(['\r', '\n'])))
    }

    /// The next line with its end, and where it starts.
    fn next_raw(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let at = self.at;
        let length = rest.find('\n').map_or(rest.len(), |n| n + 1);
        self.at += length;
        Some((at, &rest[..length]))
    }
}

/// The line without a continuation mark, and whether there was one.
pub(crate) fn continued(line: &str, escape: Escape) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape.char()) {
        Some(piece) if !piece.ends_with(escape.char()) => (piece, true),
        _ => (line, false),
    }
}
