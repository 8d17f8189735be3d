//! A forgiving reader of KDL's tokens, for what the grammar's parser cannot do: count depth before recursing, name
//! the bracket that was never closed, recognise KDL 1, lay a text out anew without losing a comment.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Space,
    Newline,
    LineComment,
    BlockComment,
    /// Quoted or raw, on one line or several.
    String,
    /// `r"…"` or `r#"…"#` of KDL 1.
    OldRawString,
    Word,
    Open,
    Close,
    Semicolon,
    Equals,
    /// `\` at the end of a line.
    Continuation,
    Slashdash,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub range: Range<usize>,
    /// For strings and comments: whether the end was found.
    pub closed: bool,
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && !is_newline(c))
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let (kind, length, closed) = next(&text[at..]);
        out.push(Token { kind, range: at..at + length, closed });
        at += length;
    }
    out
}

fn next(rest: &str) -> (Kind, usize, bool) {
    let first = rest.chars().next().unwrap_or(' ');
    let run = |test: fn(char) -> bool| rest.find(|c| !test(c)).unwrap_or(rest.len());
    if rest.starts_with("\r\n") {
        return (Kind::Newline, 2, true);
    }
    if is_newline(first) {
        return (Kind::Newline, first.len_utf8(), true);
    }
    if is_space(first) {
        return (Kind::Space, run(is_space), true);
    }
    if rest.starts_with("//") {
        return (Kind::LineComment, rest.find(is_newline).unwrap_or(rest.len()), true);
    }
    if rest.starts_with("/*") {
        let (length, closed) = block_comment(rest);
        return (Kind::BlockComment, length, closed);
    }
    if rest.starts_with("/-") {
        return (Kind::Slashdash, 2, true);
    }
    match first {
        '{' => return (Kind::Open, 1, true),
        '}' => return (Kind::Close, 1, true),
        ';' => return (Kind::Semicolon, 1, true),
        '=' => return (Kind::Equals, 1, true),
        '\\' => return (Kind::Continuation, 1, true),
        '"' => {
            let (length, closed) = quoted(rest);
            return (Kind::String, length, closed);
        }
        _ => {}
    }
    let old = rest.strip_prefix('r').is_some_and(|r| r.trim_start_matches('#').starts_with('"'));
    let hashes_at = usize::from(old);
    let hashes = rest[hashes_at..].bytes().take_while(|b| *b == b'#').count();
    if (old || hashes > 0) && rest[hashes_at + hashes..].starts_with('"') {
        let (length, closed) = raw(&rest[hashes_at..], hashes, old);
        return (if old { Kind::OldRawString } else { Kind::String }, hashes_at + length, closed);
    }
    let mut end = rest.len();
    for (at, c) in rest.char_indices().skip(1) {
        let comment = c == '/' && ["//", "/*", "/-"].iter().any(|s| rest[at..].starts_with(s));
        if is_space(c) || is_newline(c) || matches!(c, '{' | '}' | ';' | '=' | '"' | '\\') || comment {
            end = at;
            break;
        }
    }
    (Kind::Word, end, true)
}

fn block_comment(rest: &str) -> (usize, bool) {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return (at, true);
                }
            }
            _ => at += 1,
        }
    }
    (rest.len(), false)
}

/// How deep `/* /* … */ */` goes in a block comment.
pub(crate) fn comment_depth(comment: &str) -> usize {
    let bytes = comment.as_bytes();
    let (mut depth, mut deepest, mut at) = (0usize, 0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn quoted(rest: &str) -> (usize, bool) {
    let triple = rest.starts_with("\"\"\"");
    let open = if triple { 3 } else { 1 };
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip_while(|(at, _)| *at < open) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if triple && rest[at..].starts_with("\"\"\"") {
            return (at + 3, true);
        } else if !triple && c == '"' {
            return (at + 1, true);
        } else if !triple && is_newline(c) {
            return (at, false);
        }
    }
    (rest.len(), false)
}

/// `rest` starts with `hashes` times `#`, then a quote.
fn raw(rest: &str, hashes: usize, old: bool) -> (usize, bool) {
    let triple = !old && rest[hashes..].starts_with("\"\"\"");
    let quotes = if triple { 3 } else { 1 };
    let open = hashes + quotes;
    let end = format!("{}{}", "\"".repeat(quotes), "#".repeat(hashes));
    let stop = if triple || old { rest.len() } else { rest.find(is_newline).unwrap_or(rest.len()) };
    match rest[open..stop].find(&end) {
        Some(at) => (open + at + end.len(), true),
        None => (stop, false),
    }
}

/// Tokens spelled as in KDL 1, with their KDL 2 spelling: `true`, `false`, `null` as values, `r"…"`.
pub(crate) fn old_spellings(text: &str, tokens: &[Token]) -> Vec<(Range<usize>, String)> {
    let mut out = Vec::new();
    let mut at_value = false;
    for (nth, token) in tokens.iter().enumerate() {
        let slice = &text[token.range.clone()];
        match token.kind {
            Kind::Newline
                if nth > 0
                    && tokens[..nth].iter().rev().any(|t| t.kind == Kind::Continuation)
                    && continued(tokens, nth) => {}
            Kind::Newline | Kind::Semicolon | Kind::Open | Kind::Close => at_value = false,
            Kind::OldRawString => {
                let body = &slice[1..];
                let hashed = if body.starts_with('#') { body.to_string() } else { format!("#{body}#") };
                // A raw string over several lines has another meaning in KDL 2; the reader decides.
                if !hashed.contains('\n') {
                    out.push((token.range.clone(), hashed));
                }
                at_value = true;
            }
            Kind::Word if at_value && matches!(slice, "true" | "false" | "null") => {
                let is_name = tokens.get(nth + 1).is_some_and(|t| t.kind == Kind::Equals);
                if !is_name {
                    out.push((token.range.clone(), format!("#{slice}")));
                }
            }
            Kind::Word | Kind::String => at_value = true,
            _ => {}
        }
    }
    out
}

/// Whether the newline at `nth` follows a `\` (with only space and comments between).
pub(crate) fn continued(tokens: &[Token], nth: usize) -> bool {
    tokens[..nth]
        .iter()
        .rev()
        .find(|t| !matches!(t.kind, Kind::Space | Kind::LineComment | Kind::BlockComment))
        .is_some_and(|t| t.kind == Kind::Continuation)
}

/// `text` with the replacements made.
pub(crate) fn replaced(text: &str, replacements: &[(Range<usize>, String)]) -> String {
    let mut out = String::with_capacity(text.len() + replacements.len());
    let mut at = 0;
    for (range, by) in replacements {
        out.push_str(&text[at..range.start]);
        out.push_str(by);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}
