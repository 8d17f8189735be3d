//! KDL text → our tree, by the `kdl` crate, with limits before it and our diagnostics after it.

use std::ops::Range;

use crate::codes;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lexer::{self, Kind, Token};
use crate::limits;
use crate::mistakes;
use crate::node::{Data, Node, Prop, Value};
use crate::source::{SourceId, Sources, Span, Spanned};

/// The nodes of a KDL 2 document, or every mistake that could be found.
///
/// A text larger than [`limits::KDL_FILE_BYTES`] or deeper than [`limits::KDL_DEPTH_LEVELS`] is refused before the
/// parser sees it. A text in the spelling of KDL 1 is refused with its KDL 2 spelling; `ctk fmt` rewrites it.
pub fn parse_kdl(sources: &Sources, id: SourceId) -> Result<Vec<Node>, Diagnostics> {
    let text = sources.text(id);
    if text.len() > limits::KDL_FILE_BYTES {
        let message = format!("the file has {} bytes; at most {} are read", text.len(), limits::KDL_FILE_BYTES);
        return Err(Diagnostic::error(codes::TOO_LARGE, message).at(Span::new(id, 0, 0), "").into());
    }
    let tokens = lexer::tokens(text);
    if let Some(at) = too_deep(text, &tokens) {
        let message = format!("blocks are nested more than {} levels deep", limits::KDL_DEPTH_LEVELS);
        return Err(Diagnostic::error(codes::TOO_DEEP, message).at(span(id, at), "one level too many").into());
    }
    // KDL 2 wants no carriage return alone inside strings; offsets stay those of the text.
    match ::kdl::KdlDocument::parse_v2(text) {
        Ok(document) => {
            let mut diagnostics = Diagnostics::new();
            let nodes = document.nodes().iter().map(|n| node(id, text, n, &mut diagnostics)).collect();
            diagnostics.into_result(nodes)
        }
        Err(error) => Err(explain(sources, id, &tokens, error)),
    }
}

fn span(id: SourceId, range: Range<usize>) -> Span {
    Span::new(id, range.start, range.end)
}

/// The bracket that is one level too deep. Also counts brackets that the lexer takes for text: the parser's recovery
/// after an error may read them as brackets.
fn too_deep(text: &str, tokens: &[Token]) -> Option<Range<usize>> {
    let mut depth = 0usize;
    for token in tokens {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::BlockComment if lexer::comment_depth(&text[token.range.clone()]) > limits::KDL_DEPTH_LEVELS => {
                return Some(token.range.start..token.range.start + 2);
            }
            _ => {}
        }
        if depth > limits::KDL_DEPTH_LEVELS {
            return Some(token.range.clone());
        }
    }
    let (mut depth, most) = (0usize, limits::KDL_DEPTH_LEVELS * 2);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return Some(at..at + 1);
        }
    }
    None
}

fn explain(sources: &Sources, id: SourceId, tokens: &[Token], error: ::kdl::KdlError) -> Diagnostics {
    let text = sources.text(id);
    let mut found = Diagnostics::new();
    for token in tokens.iter().filter(|t| !t.closed) {
        let (what, width) = match token.kind {
            Kind::BlockComment => ("comment", 2),
            _ => ("string", token.range.len()),
        };
        let place = Span::new(id, token.range.start, token.range.start + width);
        let mut one = Diagnostic::error(codes::KDL, format!("this {what} is never closed")).at(place, "opened here");
        if what == "string" {
            one = one.hint("a text over several lines stands between `\"\"\"` and `\"\"\"`");
        }
        found.push(one);
    }
    if found.is_empty() {
        brackets(id, tokens, &mut found);
    }
    let structural = !found.is_empty();
    mistakes::recognise(id, text, tokens, &mut found);
    let told: Vec<usize> = found.iter().map(|d| sources.location(d.labels[0].span).line).collect();
    let old = lexer::old_spellings(text, tokens);
    for (range, new) in &old {
        let message = format!("`{}` is KDL 1; this file is KDL 2", &text[range.clone()]);
        found.push(
            Diagnostic::error(codes::KDL1, message)
                .at(span(id, range.clone()), format!("write `{new}`"))
                .hint("`ctk fmt` rewrites a whole file to KDL 2"),
        );
    }
    let rest =
        if old.is_empty() { Some(error) } else { ::kdl::KdlDocument::parse_v2(&lexer::replaced(text, &old)).err() };
    // A place in the rewritten text is not a place in this one: those mistakes are shown after `ctk fmt`.
    if let (Some(error), false, true) = (rest, structural, old.is_empty()) {
        for one in error.diagnostics {
            let start = one.span.offset();
            let place = Span::new(id, start, start + one.span.len());
            // Said already, and better; about sides of `=` the parser does not even know the line.
            // The brackets are in order (that was looked at first), so what the parser says of them only follows.
            let said = one.message.as_deref().unwrap_or("").to_lowercase();
            let follows = ["property", "closing '}'", "end of document"].iter().any(|words| said.contains(words));
            if told.contains(&sources.location(place).line) || (follows && !told.is_empty()) {
                continue;
            }
            let message = one.message.as_deref().map_or_else(|| "this is not KDL".to_string(), lower_first);
            let label = one.label.as_deref().map_or_else(|| "here".to_string(), lower_first);
            let mut diagnostic = Diagnostic::error(codes::KDL, message).at(place, label);
            if let Some(help) = one.help {
                diagnostic = diagnostic.hint(lower_first(&help));
            }
            found.push(diagnostic);
        }
    }
    if found.is_empty() {
        found.push(Diagnostic::error(codes::KDL, "this is not KDL").at(Span::new(id, 0, 0), ""));
    }
    found.sort();
    found
}

fn brackets(id: SourceId, tokens: &[Token], found: &mut Diagnostics) {
    let mut open: Vec<&Token> = Vec::new();
    for token in tokens {
        match token.kind {
            Kind::Open => open.push(token),
            Kind::Close if open.pop().is_none() => found.push(
                Diagnostic::error(codes::KDL, "this `}` closes nothing")
                    .at(span(id, token.range.clone()), "no `{` before it"),
            ),
            _ => {}
        }
    }
    for token in open {
        found.push(
            Diagnostic::error(codes::KDL, "this `{` is never closed").at(span(id, token.range.clone()), "opened here"),
        );
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn node(id: SourceId, text: &str, from: &::kdl::KdlNode, diagnostics: &mut Diagnostics) -> Node {
    let name = identifier(id, text, from.name());
    let mut end = name.span.end;
    annotation(id, text, from.ty(), diagnostics);
    let (mut args, mut props) = (Vec::new(), Vec::new());
    for entry in from.entries() {
        annotation(id, text, entry.ty(), diagnostics);
        let whole = trimmed(text, entry.span().offset(), entry.span().offset() + entry.span().len());
        end = end.max(whole.end);
        match entry.name() {
            None => args.push(value(id, entry.value(), whole)),
            Some(left) => {
                let left = identifier(id, text, left);
                let after = text[left.span.end..whole.end].find('=').map_or(left.span.end, |n| left.span.end + n + 1);
                let right = trimmed(text, after, whole.end);
                props.push(Prop { name: left, value: value(id, entry.value(), right) });
            }
        }
    }
    let mut block = None;
    let mut children = Vec::new();
    if let Some(document) = from.children() {
        children = document.nodes().iter().map(|n| node(id, text, n, diagnostics)).collect();
        let (start, stop) = (document.span().offset(), document.span().offset() + document.span().len());
        let open = text[end..start.max(end)].rfind('{').map_or(start, |n| end + n);
        let close = text[stop.min(text.len())..].find('}').map_or(stop, |n| stop + n + 1);
        let place = if text[start..].starts_with('{') { trimmed(text, start, stop) } else { open..close };
        end = end.max(place.end);
        block = Some(span(id, place));
    }
    let start = name.span.start;
    Node { name, args, props, children, block, span: Span::new(id, start, end) }
}

fn trimmed(text: &str, start: usize, end: usize) -> Range<usize> {
    let slice = &text[start..end.max(start)];
    let front = slice.len() - slice.trim_start().len();
    start + front..start + front + slice.trim().len()
}

fn identifier(id: SourceId, text: &str, from: &::kdl::KdlIdentifier) -> Spanned<String> {
    let place = trimmed(text, from.span().offset(), from.span().offset() + from.span().len());
    Spanned::new(from.value().to_string(), span(id, place))
}

fn annotation(id: SourceId, text: &str, ty: Option<&::kdl::KdlIdentifier>, diagnostics: &mut Diagnostics) {
    if let Some(ty) = ty {
        let name = identifier(id, text, ty);
        diagnostics.push(
            Diagnostic::error(codes::TYPE_ANNOTATION, "a type annotation means nothing here")
                .at(name.span, "take this away, with its brackets"),
        );
    }
}

fn value(id: SourceId, from: &::kdl::KdlValue, place: Range<usize>) -> Value {
    let data = match from {
        ::kdl::KdlValue::String(text) => Data::String(text.clone()),
        ::kdl::KdlValue::Integer(number) => Data::Integer(*number),
        ::kdl::KdlValue::Float(number) => Data::Float(*number),
        ::kdl::KdlValue::Bool(truth) => Data::Bool(*truth),
        ::kdl::KdlValue::Null => Data::Null,
    };
    Value { data, span: span(id, place), deferred: false }
}
