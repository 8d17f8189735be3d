//! YAML and JSON as a tree of values with places. Aliases and merge keys are followed.

use std::collections::HashMap;

use ctk_syntax::{Diagnostic, Diagnostics, SourceId, Sources, Span, Spanned};
use granit_parser::{Event, Parser, ScalarStyle};

use crate::{codes, limits};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `plain`: without quotes, so that it may be a number.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

/// What a scalar without quotes is to those that read Cloud Build files, which take YAML 1.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plain {
    Null,
    Flag(bool),
    Whole(i64),
    /// A fraction, or a number too large.
    Number,
    Text,
}

pub(crate) fn plain(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Plain::Flag(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Plain::Flag(false),
        ".inf" | ".Inf" | ".INF" | "-.inf" | "+.inf" | ".nan" | ".NaN" | ".NAN" => return Plain::Number,
        _ => {}
    }
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { -1 } else { 1 }, rest),
        None => (1, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Plain::Text;
    }
    let whole = |text: &str, radix: u32| {
        let digits = text.replace('_', "");
        let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        valid.then(|| i64::from_str_radix(&digits, radix).map_or(Plain::Number, |n| Plain::Whole(sign * n)))
    };
    let found = if let Some(hex) = digits.strip_prefix("0x") {
        whole(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        whole(octal, 8)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        whole(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') && digits.chars().all(|c| c.is_digit(8) || c == '_') {
        whole(digits, 8)
    } else {
        whole(digits, 10)
    };
    if let Some(found) = found {
        return found;
    }
    let number = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && digits.matches('.').count() <= 1
        && digits.parse::<f64>().is_ok();
    if number { Plain::Number } else { Plain::Text }
}

/// The one document of a text; none with an error in `diagnostics`.
pub(crate) fn parse(sources: &Sources, id: SourceId, diagnostics: &mut Diagnostics) -> Option<Node> {
    let text = sources.text(id);
    let whole = Span::new(id, 0, 0);
    if text.len() > limits::FILE_BYTES {
        let said = format!("the file has {} bytes; at most {} are read", text.len(), limits::FILE_BYTES);
        diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(whole, ""));
        return None;
    }
    if let Some(at) = sources.wrong(id).first() {
        let span = Span::new(id, *at, *at + 3);
        diagnostics.push(Diagnostic::error(codes::SYNTAX, "the file is not UTF-8").at(span, "these bytes are no text"));
        return None;
    }
    let mut tree = Tree { id, stack: Vec::new(), anchors: HashMap::new(), nodes: 0, roots: Vec::new() };
    for event in Parser::new_from_str(text) {
        let step = match event {
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or_else(|| byte_of(text, error.marker().index()));
                let span = Span::new(id, at.min(text.len()), (at + 1).min(text.len()));
                let hint = match text[..at.min(text.len())].rsplit('\n').next() {
                    Some(line) if line.contains('\t') && line.trim().is_empty() => Some("indent with spaces, not tabs"),
                    _ => None,
                };
                let mistake = Diagnostic::error(codes::SYNTAX, error.info().replace('\n', ", ")).at(span, "here");
                Err(match hint {
                    Some(hint) => mistake.hint(hint),
                    None => mistake,
                })
            }
            Ok((event, place)) => {
                let range = place.byte_range().unwrap_or(0..0);
                tree.take(event, Span::new(id, range.start, range.end), text)
            }
        };
        if let Err(mistake) = step {
            diagnostics.push(mistake);
            return None;
        }
    }
    match tree.roots.len() {
        0 => {
            diagnostics.push(Diagnostic::error(codes::SYNTAX, "the file is empty").at(whole, "`steps` are expected"));
            None
        }
        1 => tree.roots.pop(),
        _ => {
            let said = "the file has several documents; Cloud Build reads one";
            let second = tree.roots[1].span;
            diagnostics.push(Diagnostic::error(codes::SYNTAX, said).at(second, "the second begins here"));
            None
        }
    }
}

/// Where the `index`th character is.
fn byte_of(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(at, _)| at)
}

struct Open {
    span: Span,
    anchor: usize,
    /// Of a mapping: the key that waits for its value.
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<(Spanned<String>, Node)>, merged: Vec<(Spanned<String>, Node)>, key: Option<Spanned<String>> },
}

struct Tree {
    id: SourceId,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    roots: Vec<Node>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: Span, text: &str) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| tag.core_suffix() == Some("str"));
                let plain = style == ScalarStyle::Plain && !is_text;
                // The end of a block scalar is where its last line ends, not where the next token begins.
                let end = span.start + text.get(span.start..span.end).unwrap_or("").trim_end().len();
                let span = Span::new(self.id, span.start, end);
                let node = Node { kind: Kind::Scalar { text: value.into_owned(), plain }, span };
                self.put(node, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => self.open(span, anchor, OpenKind::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.open(span, anchor, OpenKind::Map { entries: Vec::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.stack.pop().expect("the parser closes only what it opened");
                let kind = match open.kind {
                    OpenKind::List(list) => Kind::List(list),
                    OpenKind::Map { mut entries, merged, .. } => {
                        for (key, value) in merged {
                            if !entries.iter().any(|(own, _)| own.value == key.value) {
                                entries.push((key, value));
                            }
                        }
                        Kind::Map(entries)
                    }
                };
                let end = match &kind {
                    _ if span.end > span.start => span.end,
                    Kind::List(list) => list.last().map_or(open.span.end, |node| node.span.end),
                    Kind::Map(entries) => entries.last().map_or(open.span.end, |(_, node)| node.span.end),
                    Kind::Scalar { .. } => open.span.end,
                };
                let node = Node { kind, span: Span::new(self.id, open.span.start, end.max(open.span.start)) };
                let size = size(&node);
                self.put(node, open.anchor, size)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    let (mut node, size) = (node.clone(), *size);
                    node.span = span;
                    self.put(node, 0, size)
                }
                None => {
                    let said = "an alias inside of what it names";
                    Err(Diagnostic::error(codes::SYNTAX, said).at(span, "this has no end"))
                }
            },
            _ => Ok(()),
        }
    }

    fn open(&mut self, span: Span, anchor: usize, kind: OpenKind) -> Result<(), Diagnostic> {
        if self.stack.len() >= limits::DEPTH_LEVELS {
            let said = format!("more than {} levels of lists and mappings", limits::DEPTH_LEVELS);
            return Err(Diagnostic::error(codes::OVER_LIMIT, said).at(span, "too deep"));
        }
        self.stack.push(Open { span, anchor, kind });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Diagnostic> {
        self.nodes += size;
        if self.nodes > limits::NODES {
            let said = format!("more than {} values, aliases followed", limits::NODES);
            return Err(Diagnostic::error(codes::OVER_LIMIT, said).at(node.span, "too many"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.stack.last_mut() else {
            self.roots.push(node);
            return Ok(());
        };
        match &mut open.kind {
            OpenKind::List(list) => list.push(node),
            OpenKind::Map { entries, merged, key } => match key.take() {
                None => {
                    let Kind::Scalar { text, .. } = node.kind else {
                        let said = "a field's name is a list or a mapping";
                        return Err(Diagnostic::error(codes::SYNTAX, said).at(node.span, "expected a word"));
                    };
                    *key = Some(Spanned::new(text, node.span));
                }
                Some(name) if name.value == "<<" => {
                    let maps = match node.kind {
                        Kind::List(list) => list,
                        _ => vec![node],
                    };
                    for map in maps {
                        let Kind::Map(more) = map.kind else {
                            let said = "`<<` takes in mappings only";
                            return Err(Diagnostic::error(codes::SYNTAX, said).at(map.span, "expected a mapping"));
                        };
                        merged.extend(more);
                    }
                }
                Some(name) => entries.push((name, node)),
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Scalar { .. } => 0,
        Kind::List(list) => list.iter().map(size).sum(),
        Kind::Map(entries) => entries.iter().map(|(_, value)| size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_without_quotes() {
        let check = |text: &str, is: Plain| assert_eq!(plain(text), is, "{text}");
        check("", Plain::Null);
        check("~", Plain::Null);
        check("yes", Plain::Flag(true));
        check("8080", Plain::Whole(8080));
        check("-1", Plain::Whole(-1));
        check("0755", Plain::Whole(493));
        check("0x1F", Plain::Whole(31));
        check("1.5", Plain::Number);
        check("1e3", Plain::Number);
        check("99999999999999999999", Plain::Number);
        check("1200s", Plain::Text);
        check("1.2.3", Plain::Text);
        check("-", Plain::Text);
        check("a", Plain::Text);
    }
}
