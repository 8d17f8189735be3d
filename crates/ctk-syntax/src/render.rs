//! Diagnostics as text.
//!
//! ```text
//! error[project::unknown-node]: no node `buidl` inside `image`
//!   ┌─ containers.kdl:7:5
//! 7 │     buidl "./Dockerfile"
//!   │     ━━━━━ did you mean `build`?
//! ```
//! The main place is underlined with `━`, others with `─`. Widths are those of a terminal cell; a tab is four.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::limits::SHOWN_LINE_COLUMNS;
use crate::source::{SourceId, Sources, floor_boundary};

const TAB_COLUMNS: usize = 4;

struct Paint(bool);

impl Paint {
    fn wrap(&self, ansi: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{ansi}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// A label on one line of one text: columns in terminal cells.
struct Mark<'a> {
    line: usize,
    line_start: usize,
    start: usize,
    end: usize,
    text: &'a str,
    main: bool,
}

pub(crate) fn render(diagnostic: &Diagnostic, sources: &Sources, color: bool) -> String {
    let paint = Paint(color);
    let (word, tone) = match diagnostic.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let head = paint.wrap(tone, &format!("{word}[{}]", diagnostic.code));
    let mut out = format!("{head}: {}\n", one_line(&diagnostic.message));

    // Texts in the order of their first label; the main place's text comes first.
    let mut order: Vec<SourceId> = Vec::new();
    for label in &diagnostic.labels {
        if !order.contains(&label.span.source) {
            order.push(label.span.source);
        }
    }
    let mut marks_of: Vec<(SourceId, Vec<Mark<'_>>)> = Vec::new();
    for source in order {
        let mut marks: Vec<Mark<'_>> = diagnostic
            .labels
            .iter()
            .enumerate()
            .filter(|(_, label)| label.span.source == source)
            .map(|(index, label)| mark(sources.text(source), label, index == 0))
            .collect();
        marks.sort_by_key(|m| (m.line, m.start));
        marks_of.push((source, marks));
    }
    let widest = marks_of.iter().flat_map(|(_, marks)| marks.iter().map(|m| m.line)).max().unwrap_or(1);
    let gutter = widest.to_string().len();
    for (nth, (source, marks)) in marks_of.iter().enumerate() {
        let first = diagnostic.labels.iter().find(|l| l.span.source == *source);
        let place = first.map(|l| sources.place(l.span)).unwrap_or_default();
        let corner = if nth == 0 { "┌─" } else { "├─" };
        let _ = writeln!(out, "{:gutter$} {} {place}", "", paint.wrap("34", corner));
        let mut last = None;
        for mark in marks {
            let text = sources.text(*source);
            let (shown, cut) = shown_line(text, mark);
            if last != Some(mark.line) {
                if last.is_some_and(|l| l + 1 < mark.line) {
                    let _ = writeln!(out, "{:gutter$} {}", "", paint.wrap("34", "·"));
                }
                let number = paint.wrap("34", &format!("{:>gutter$} │", mark.line));
                let _ = writeln!(out, "{}", format!("{number} {shown}").trim_end());
                last = Some(mark.line);
            }
            let sign = if mark.main { "━" } else { "─" };
            let start = mark.start.saturating_sub(cut);
            let room = SHOWN_LINE_COLUMNS.saturating_sub(start).max(1);
            let line = sign.repeat((mark.end - mark.start).clamp(1, room));
            let words = format!("{line} {}", one_line(mark.text));
            let painted = paint.wrap(if mark.main { tone } else { "34" }, words.trim_end());
            let _ = writeln!(out, "{:gutter$} {} {:start$}{painted}", "", paint.wrap("34", "│"), "");
        }
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(out, "  {}: {}", paint.wrap("1;36", "hint"), hint.replace('\n', "\n  "));
    }
    out
}

fn mark<'a>(text: &str, label: &'a Label, main: bool) -> Mark<'a> {
    let start = floor_boundary(text, label.span.start);
    let end = floor_boundary(text, label.span.end.max(start));
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = line_start + line_at(text, line_start).len();
    let columns = |from: usize, to: usize| text[from..to.max(from)].chars().map(cells).sum::<usize>();
    let first = columns(line_start, start.min(line_end));
    Mark {
        line: text[..line_start].matches('\n').count() + 1,
        line_start,
        start: first,
        end: first + columns(start.min(line_end), end.min(line_end)),
        text: &label.text,
        main,
    }
}

/// The line that starts at `start`, without its end (`\n` or `\r\n`).
fn line_at(text: &str, start: usize) -> &str {
    let rest = &text[start..];
    let line = rest.split('\n').next().unwrap_or("");
    line.strip_suffix('\r').unwrap_or(line)
}

fn cells(c: char) -> usize {
    match c {
        '\t' => TAB_COLUMNS,
        c if c.is_control() || is_direction(c) => 1,
        c => c.width().unwrap_or(0),
    }
}

/// Characters that reorder what is shown after them: a diagnostic shows what is there.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// The line as shown, and how many cells were cut from its front.
fn shown_line(text: &str, mark: &Mark<'_>) -> (String, usize) {
    let line = line_at(text, mark.line_start);
    let whole: usize = line.chars().map(cells).sum();
    let want = if whole > SHOWN_LINE_COLUMNS { mark.start.saturating_sub(SHOWN_LINE_COLUMNS / 2) } else { 0 };
    let (mut shown, mut column, mut cut) = (String::new(), 0, 0);
    for c in line.chars() {
        let width = cells(c);
        if column < want {
            cut = column + width;
        } else if column + width > cut + SHOWN_LINE_COLUMNS {
            shown.push('…');
            break;
        } else {
            match c {
                '\t' => shown.push_str("    "),
                c if c.is_control() || is_direction(c) => shown.push('\u{fffd}'),
                c => shown.push(c),
            }
        }
        column += width;
    }
    (shown, cut)
}

/// Keeps what came from outside on its line and away from the terminal's controls.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction(c) { ' ' } else { c }).collect()
}
