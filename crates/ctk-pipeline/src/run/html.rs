//! A run as one HTML file: its steps over time, what waits for what, and what failed ones printed.

use std::fmt::Write as _;

use ctk_plan::Stream;

use super::event::{Ending, Event};
use super::record::Record;

/// Lines of a step's log that are shown; the rest is counted.
const LINES: usize = 200;
/// Pixels of a row and of the timeline.
const ROW: usize = 26;
const WIDTH: f64 = 640.0;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2733;background:#fff}\
h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}td,th{padding:.25rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid #dde3ea}\
code,pre{font:12px/1.45 ui-monospace,monospace}pre{background:#f4f6f9;padding:.6rem;overflow-x:auto;white-space:pre-wrap}\
.e{color:#8a2f0b}svg text{font:12px system-ui,sans-serif;fill:currentColor}.succeeded{fill:#2f8f5b}.failed,.timed-out{fill:#c8372d}.cancelled,.skipped{fill:#9aa5b1}.allowed{fill:#d08a1d}.cached,.kept{fill:#4a7fc1}.running{fill:#7a5fc1}\
@media(prefers-color-scheme:dark){body{color:#d8dee6;background:#14191f}pre{background:#1d242c}td,th{border-color:#2c3540}.e{color:#f0a07c}}";

/// The report. Everything is in it: it needs no server and no script.
pub fn html(record: &Record) -> String {
    let header = &record.header;
    let steps = record.steps();
    let state = record.state();
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{name} {state}</title>\n<style>{STYLE}</style>\n<h1>{name}: {state}</h1>\n<p>Run <code>{id}</code>, {count} steps, {last:.1} s.</p>\n",
        name = text(&header.name),
        id = text(&header.id),
        count = steps.len(),
        last = record.last(),
    );
    if let Some(Event::RunFinished { message: Some(message), .. }) = record.events.last().map(|timed| &timed.event) {
        let _ = writeln!(out, "<p><strong>{}</strong></p>", text(message));
    }
    timeline(record, &mut out);
    out += "<table>\n<tr><th>Step<th>How<th>Took<th>What<th>After</tr>\n";
    for (number, (step, state)) in header.steps.iter().zip(&steps).enumerate() {
        let ending = state.ending.map_or("never ended", Ending::word);
        let code = state.exit_code.filter(|code| *code != 0).map(|code| format!(", exit code {code}"));
        let tries = if state.attempts > 1 { format!(", try {}", state.attempts) } else { String::new() };
        let needs: Vec<String> = step.needs.iter().map(|need| format!("<a href=\"#s{need}\">#{need}</a>")).collect();
        let _ = writeln!(
            out,
            "<tr id=\"s{number}\"><td>{}<td>{ending}{}{tries}<td>{:.2} s<td><code>{}</code><td>{}</tr>",
            text(&step.label),
            code.unwrap_or_default(),
            state.seconds,
            text(&step.line),
            needs.join(" ")
        );
    }
    out += "</table>\n";
    for (number, step) in header.steps.iter().enumerate() {
        log(record, number, &step.label, steps[number].ending, &mut out);
    }
    out
}

fn timeline(record: &Record, out: &mut String) {
    let steps = record.steps();
    let all = record.last().max(0.001);
    let height = steps.len() * ROW + 24;
    let _ =
        writeln!(out, "<svg viewBox=\"0 0 960 {height}\" width=\"100%\" role=\"img\" aria-label=\"steps over time\">");
    let x = |seconds: f64| 300.0 + (seconds / all).clamp(0.0, 1.0) * WIDTH;
    let _ = writeln!(out, "<text x=\"300\" y=\"14\">0 s</text><text x=\"900\" y=\"14\">{all:.1} s</text>");
    for (number, (step, state)) in record.header.steps.iter().zip(&steps).enumerate() {
        let y = 22 + number * ROW;
        let label: String = step.label.chars().take(40).collect();
        let _ = writeln!(out, "<text x=\"0\" y=\"{}\">{}</text>", y + 15, text(&label));
        let Some(began) = state.began else { continue };
        let length = if state.ending.is_some() { state.seconds } else { all - began };
        let width = (x(began + length) - x(began)).max(2.0);
        let class = state.ending.map_or("running".to_owned(), |ending| class(ending).to_owned());
        let _ = writeln!(
            out,
            "<a href=\"#s{number}\"><rect class=\"{class}\" x=\"{:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" rx=\"3\"><title>{} {length:.2} s</title></rect></a>",
            x(began),
            y + 3,
            ROW - 8,
            text(&step.label)
        );
        for need in &step.needs {
            let Some(other) = steps.get(*need).filter(|other| other.began.is_some()) else { continue };
            let end = x(other.began.unwrap_or(0.0) + other.seconds);
            let from = 22 + need * ROW + ROW / 2;
            let _ = writeln!(
                out,
                "<path d=\"M{end:.1} {from}L{:.1} {}\" stroke=\"currentColor\" stroke-opacity=\".35\" fill=\"none\"/>",
                x(began),
                y + ROW / 2
            );
        }
    }
    *out += "</svg>\n";
}

fn class(ending: Ending) -> &'static str {
    match ending {
        Ending::Succeeded => "succeeded",
        Ending::Failed => "failed",
        Ending::Allowed => "allowed",
        Ending::TimedOut => "timed-out",
        Ending::Cancelled => "cancelled",
        Ending::Skipped => "skipped",
        Ending::Cached => "cached",
        Ending::Kept => "kept",
    }
}

/// The last lines of a step; open if it failed.
fn log(record: &Record, number: usize, label: &str, ending: Option<Ending>, out: &mut String) {
    let (mut count, mut last) = (0, std::collections::VecDeque::new());
    for line in record.lines(number) {
        count += 1;
        last.push_back(line);
        if last.len() > LINES {
            last.pop_front();
        }
    }
    if count == 0 {
        return;
    }
    let open = if matches!(ending, Some(Ending::Failed | Ending::TimedOut)) { " open" } else { "" };
    let _ = write!(out, "<details{open}><summary>{}: {count} lines</summary><pre>", text(label));
    if count > last.len() {
        let _ = writeln!(out, "… {} before", count - last.len());
    }
    for (at, stream, line) in last {
        let line = text(&line);
        let _ = match stream {
            Stream::Err => writeln!(out, "{at:9.3} <span class=\"e\">{line}</span>"),
            Stream::Out => writeln!(out, "{at:9.3} {line}"),
        };
    }
    *out += "</pre></details>\n";
}

fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}
