//! Logical lines: continuations joined, comments dropped, here-documents taken from the lines that follow.

use ctk_buildgraph::{Escape, Heredoc, RunHeredoc};
use ctk_syntax::{Diagnostic, Diagnostics, SourceId, Span};

use crate::codes;

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
    /// Its here-documents, in order.
    pub heredocs: Vec<RunHeredoc>,
    /// The comments above it since the last instruction or empty comment.
    pub comments: Vec<String>,
}

impl Logical {
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

    /// For people: in one line, the keyword in upper case.
    pub fn shown(&self) -> String {
        let (keyword, rest) = self.text.split_once(char::is_whitespace).unwrap_or((&self.text, ""));
        format!("{} {}", keyword.to_ascii_uppercase(), rest.trim()).trim_end().to_owned()
    }
}

/// The logical lines of `text` from byte `start` on.
pub(crate) fn split(
    id: SourceId,
    text: &str,
    start: usize,
    escape: Escape,
    diagnostics: &mut Diagnostics,
) -> Vec<Logical> {
    let mut lines = Lines { text, at: start };
    let (mut all, mut comments) = (Vec::new(), Vec::new());
    while let Some((at, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') {
            // As BuildKit does: an indented comment describes nothing.
            match line[1..].trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
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
            heredocs: Vec::new(),
            comments: std::mem::take(&mut comments),
        };
        let (mut piece, mut more) = continued(trimmed, escape);
        logical.text.push_str(piece);
        logical.span.end = begin + piece.trim_end().len();
        while more {
            let Some((at, line)) = lines.next() else { break };
            let bare = line.trim();
            if bare.starts_with('#') {
                continue;
            }
            if bare.is_empty() {
                let diagnostic = Diagnostic::warning(codes::EMPTY_CONTINUATION, "an empty line inside an instruction");
                diagnostics.push(
                    diagnostic
                        .at(Span::new(id, at, at), "")
                        .hint("remove it; later versions may end the instruction here"),
                );
                continue;
            }
            (piece, more) = continued(line, escape);
            logical.map.push((logical.text.len(), at));
            logical.text.push_str(piece);
            logical.span.end = at + piece.trim_end().len();
        }
        logical.text.truncate(logical.text.trim_end().len());
        documents(&mut logical, &mut lines, escape, diagnostics);
        all.push(logical);
    }
    all
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end, and where it starts.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let at = self.at;
        let length = rest.find('\n').map_or(rest.len(), |n| n + 1);
        self.at += length;
        let line = &rest[..length];
        let line = line.strip_suffix('\n').unwrap_or(line);
        Some((at, line.strip_suffix('\r').unwrap_or(line)))
    }
}

/// The line without a continuation mark, and whether there was one.
fn continued(line: &str, escape: Escape) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape.char()) {
        Some(piece) if !piece.ends_with(escape.char()) => (piece, true),
        _ => (line, false),
    }
}

fn documents(logical: &mut Logical, lines: &mut Lines<'_>, escape: Escape, diagnostics: &mut Diagnostics) {
    let mut words = split_words(&logical.text, escape).into_iter();
    let mut keyword = words.next().map(|(_, word)| word.to_ascii_uppercase()).unwrap_or_default();
    if keyword == "ONBUILD" {
        keyword = words.next().map(|(_, word)| word.to_ascii_uppercase()).unwrap_or_default();
    }
    if !HEREDOC_KEYWORDS.contains(&keyword.as_str()) {
        return;
    }
    let introduced: Vec<(usize, String)> = words.filter(|(_, word)| introduction(word).is_some()).collect();
    for (at, word) in introduced {
        let (strip, name, expand) = introduction(&word).expect("filtered just above");
        let (mut content, mut raw) = (String::new(), String::new());
        let mut closed = false;
        while let Some((_, line)) = lines.next() {
            let body = if strip { line.trim_start_matches('\t') } else { line };
            if body == name {
                closed = true;
                break;
            }
            content.push_str(body);
            content.push('\n');
            raw.push_str(line);
            raw.push('\n');
        }
        if !closed {
            let message = format!("here-document `{name}` never ends");
            let span = logical.span_of(at..at + word.len());
            diagnostics
                .push(Diagnostic::error(codes::BAD_HEREDOC, message).at(span, format!("expected a line `{name}`")));
        }
        logical.heredocs.push(RunHeredoc { document: Heredoc { name, content, expand }, word, raw });
    }
}

/// `<<NAME`, `<<-"NAME"`, `3<<NAME`: whether tabs are stripped, the name, whether variables are expanded.
pub(crate) fn introduction(word: &str) -> Option<(bool, String, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
    plain.then(|| (strip, name.clone(), name.len() == rest.len()))
}

/// Words at blanks outside quotes, with their places; quotes and escapes stay.
pub(crate) fn split_words(text: &str, escape: Escape) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut quote: Option<char> = None;
    let mut open = false;
    let mut chars = text.char_indices().peekable();
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
        word.push(char);
        if char == escape.char() && quote != Some('\'') {
            word.extend(chars.next().map(|(_, next)| next));
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '"' | '\'') {
            quote = Some(char);
        }
    }
    words
}
