//! Lays a KDL text out anew: for `ctk fmt`.
//!
//! It changes only what has no meaning: indentation (four spaces a level), space between words, empty lines (one at
//! most), ends of lines, spellings of KDL 1. Comments, the order of things, what stands on one line, and everything
//! inside strings stay. The result is parsed and compared with the original before it is given back.

use crate::diagnostic::Diagnostics;
use crate::kdl::parse_kdl;
use crate::lexer::{self, Kind, Token};
use crate::node::Node;
use crate::source::{SourceId, Sources};

/// The text of `id` in the common layout, or what keeps it from being KDL. Doing it twice changes nothing more.
///
/// A KDL 1 text becomes KDL 2; if it has other mistakes, the rewritten text is added to `sources` under the same name
/// and the diagnostics point into it.
pub fn format_kdl(sources: &mut Sources, id: SourceId) -> Result<String, Diagnostics> {
    let text = sources.text(id).to_string();
    let (before, text) = match parse_kdl(sources, id) {
        Ok(nodes) => (nodes, text),
        Err(diagnostics) => {
            let replacements = lexer::old_spellings(&text, &lexer::tokens(&text));
            if replacements.is_empty() {
                return Err(diagnostics);
            }
            let text = lexer::replaced(&text, &replacements);
            let name = sources.name(id).to_string();
            let rewritten = sources.add(name, text.clone());
            (parse_kdl(sources, rewritten)?, text)
        }
    };
    let done = lay_out(&text);
    let mut check = Sources::new();
    let again = check.add("", done.clone());
    match parse_kdl(&check, again) {
        Ok(after) if same(&before, &after) => Ok(done),
        // A layout we do not understand: the text stays rather than change its meaning.
        _ => Ok(text),
    }
}

fn same(a: &[Node], b: &[Node]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.canonical() == b.canonical())
}

fn lay_out(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let tokens = lexer::tokens(&text);
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let (mut depth, mut blank, mut continuing) = (0usize, 0usize, false);
    let mut start = 0;
    while start < tokens.len() {
        let end = tokens[start..].iter().position(|t| t.kind == Kind::Newline).map_or(tokens.len(), |n| start + n);
        let line: Vec<&Token> = tokens[start..end].iter().collect();
        let words = trim(&line);
        if words.is_empty() {
            blank += 1;
        } else {
            let closes = words
                .iter()
                .take_while(|t| matches!(t.kind, Kind::Close | Kind::Space))
                .filter(|t| t.kind == Kind::Close)
                .count();
            let opened = out.ends_with("{\n");
            if blank > 0 && !out.is_empty() && ((!opened && closes == 0) || continuing) {
                out.push('\n');
            }
            blank = 0;
            let level = depth.saturating_sub(closes) + usize::from(continuing);
            out.push_str(&"    ".repeat(level));
            write_line(&text, words, &mut out);
            out.push('\n');
            for token in words {
                match token.kind {
                    Kind::Open => depth += 1,
                    Kind::Close => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            continuing = end < tokens.len() && lexer::continued(&tokens[..end], end);
        }
        start = end + 1;
    }
    out
}

fn trim<'a, 'b>(line: &'b [&'a Token]) -> &'b [&'a Token] {
    let start = line.iter().position(|t| t.kind != Kind::Space).unwrap_or(line.len());
    let end = line.iter().rposition(|t| t.kind != Kind::Space).map_or(start, |n| n + 1);
    &line[start..end]
}

fn write_line(text: &str, line: &[&Token], out: &mut String) {
    let mut space = String::new();
    let mut last: Option<Kind> = None;
    for (nth, token) in line.iter().enumerate() {
        let slice = &text[token.range.clone()];
        if token.kind == Kind::Space {
            space = slice.to_string();
            continue;
        }
        let following = line[nth + 1..].iter().find(|t| t.kind != Kind::Space).map(|t| t.kind);
        // A semicolon that ends a line or a block says nothing.
        let idle = token.kind == Kind::Semicolon
            && matches!(following, None | Some(Kind::Close | Kind::LineComment))
            && !matches!(last, None | Some(Kind::Semicolon));
        if idle {
            continue;
        }
        let gap = match (last, token.kind) {
            (None, _) | (_, Kind::Semicolon | Kind::Equals) | (Some(Kind::Equals), _) => String::new(),
            (Some(Kind::Open), Kind::Close) => String::new(),
            // Alignment of comments behind things is someone's work.
            (_, Kind::LineComment) => space.replace('\t', " ").max(" ".to_string()),
            (Some(Kind::Open | Kind::Semicolon), _) | (_, Kind::Open | Kind::Close) => " ".to_string(),
            (Some(Kind::Close), _) => " ".to_string(),
            _ if space.is_empty() => String::new(),
            _ => " ".to_string(),
        };
        out.push_str(&gap);
        out.push_str(if token.kind == Kind::LineComment { slice.trim_end() } else { slice });
        space.clear();
        last = Some(token.kind);
    }
}
