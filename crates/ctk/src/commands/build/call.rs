//! `--call`: questions about a Dockerfile, answered as buildx does, for people or as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ctk_apply::adhoc::{AdHoc, Linted, Location, Outline, Rule, Targets, outline, targets};
use ctk_syntax::{Diagnostic, Severity, nearest};
use serde_json::{Value, json};

use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Check,
    Outline,
    Targets,
    /// What would run, and why: ours alone.
    Explain,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Lines shown around the one that a warning is about.
const AROUND: usize = 2;
/// Blanks between columns.
const GAP: usize = 3;

impl Call {
    /// `METHOD[,format=text|json]`; nothing for `build`.
    pub fn parse(text: &str) -> Result<Option<(Call, Format)>, String> {
        let mut format = Format::Text;
        let mut fields = text.split(',');
        let method = fields.next().unwrap_or_default();
        for field in fields {
            format = match field {
                "format=json" => Format::Json,
                "format=text" => Format::Text,
                "ignorestatus" | "ignorestatus=true" => continue,
                _ => return Err(format!("`--call {text}`: expected METHOD[,format=text|json]")),
            };
        }
        let call = match method {
            "" | "build" => return Ok(None),
            "check" | "lint" => Call::Check,
            "outline" => Call::Outline,
            "targets" => Call::Targets,
            "explain" => Call::Explain,
            other => {
                const METHODS: [&str; 5] = ["build", "check", "outline", "targets", "explain"];
                return Err(match nearest(other, METHODS) {
                    Some(near) => format!("`--call` does not know `{other}`; did you mean `{near}`?"),
                    None => format!("`--call` does not know `{other}`; there are {}", METHODS.join(", ")),
                });
            }
        };
        Ok(Some((call, format)))
    }

    /// Prints the answer. A check that found something ends with 1, as does what cannot be answered for mistakes.
    pub fn answer(self, context: &Context, build: &AdHoc, format: Format) -> Result<(), Failure> {
        if self == Call::Explain {
            let explained = context.explain(build.explain())?;
            return match format {
                Format::Text => output(&explained.iter().map(ToString::to_string).collect::<String>()),
                Format::Json => json_out(&json!(explained)),
            };
        }
        let linted = context.explain(build.lint(&context.cancel_on_interrupt()))?;
        let target = build.decl.target.as_deref();
        let refused = || context.explain(build.refused(&linted));
        match self {
            Call::Check => {
                let nothing_else = linted.warnings.is_empty() && !linted.mistakes.is_empty();
                match format {
                    Format::Text if nothing_else => {}
                    Format::Text => output(&check_text(&linted))?,
                    Format::Json => json_out(&check_json(&linted))?,
                }
                refused()?;
                if linted.warnings.is_empty() { Ok(()) } else { Err(Failure::Exit(crate::failure::code::FAILURE)) }
            }
            Call::Outline => {
                refused()?;
                let answer = outline(&linted.recipe, &linted.sources, target, &build.decl.args);
                let answer = answer.ok_or_else(|| no_stage(&linted, target.unwrap_or_default()))?;
                match format {
                    Format::Text => output(&outline_text(&answer)),
                    Format::Json => json_out(&with_sources(json!(answer), &linted)),
                }
            }
            Call::Explain => Ok(()),
            // Which stages there are can be said as soon as every line is read.
            Call::Targets => {
                if !linted.readable {
                    refused()?;
                }
                let answer = targets(&linted.recipe, &linted.sources, target);
                match format {
                    Format::Text => output(&targets_text(&answer)),
                    Format::Json => json_out(&with_sources(json!(answer), &linted)),
                }
            }
        }
    }
}

fn no_stage(linted: &Linted, name: &str) -> Failure {
    let names = linted.recipe.stages.iter().filter_map(|stage| stage.name.as_deref());
    let hint = nearest(name, names).map(|near| format!("did you mean `{near}`?"));
    Failure::sentence(format!("{} has no stage `{name}`", linted.name), hint.as_deref())
}

fn json_out(value: &Value) -> Result<(), Failure> {
    output(&(serde_json::to_string_pretty(value)? + "\n"))
}

fn with_sources(mut answer: Value, linted: &Linted) -> Value {
    answer["sources"] = json!([BASE64.encode(&linted.text)]);
    answer
}

/// The rule's name, what it is about, and its page.
fn rule(diagnostic: &Diagnostic) -> (String, String, String) {
    let kebab = diagnostic.code.rsplit("::").next().unwrap_or_default();
    match Rule::of(diagnostic) {
        Some(rule) => {
            let url = format!("https://docs.docker.com/go/dockerfile/rule/{kebab}/");
            (rule.name.to_owned(), rule.meaning.to_owned(), url)
        }
        None => (diagnostic.code.to_owned(), diagnostic.message.clone(), diagnostic.page()),
    }
}

fn place(diagnostic: &Diagnostic, linted: &Linted) -> Option<Location> {
    diagnostic.labels.first().map(|label| Location::of(label.span, &linted.sources))
}

fn check_json(linted: &Linted) -> Value {
    let warnings = linted.warnings.iter().map(|diagnostic| {
        let (name, description, url) = rule(diagnostic);
        let mut warning = json!({
            "ruleName": name,
            "description": description,
            "url": url,
            "detail": diagnostic.message,
        });
        if let Some(location) = place(diagnostic, linted) {
            warning["location"] = json!(location);
        }
        warning
    });
    let source = json!({ "filename": linted.name, "language": "Dockerfile", "data": BASE64.encode(&linted.text) });
    let mut answer = json!({ "warnings": warnings.collect::<Vec<_>>(), "sources": [source] });
    if let Some(error) = build_error(linted) {
        answer["buildError"] = error;
    }
    answer
}

/// What keeps it from being built: its first mistake, or the rules whose breaches are errors.
fn build_error(linted: &Linted) -> Option<Value> {
    if let Some(mistake) = linted.mistakes.iter().next() {
        let places = mistake.labels.iter().flat_map(|label| Location::of(label.span, &linted.sources).ranges);
        let ranges: BTreeSet<_> = places.collect();
        return Some(json!({ "message": mistake.message, "location": { "ranges": ranges } }));
    }
    let raised = linted.warnings.iter().filter(|one| one.severity == Severity::Error);
    let names: BTreeSet<&str> = raised.filter_map(Rule::of).map(|rule| rule.name).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| json!({ "message": format!("breaches of {names} are errors here"), "location": {} }))
}

fn check_text(linted: &Linted) -> String {
    let count = linted.warnings.len();
    let mut text = match count {
        0 => return "Check complete, no warnings found.\n".into(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for diagnostic in linted.warnings.iter() {
        let (name, _, url) = rule(diagnostic);
        let _ = write!(text, "\nWARNING: {name} - {url}\n{}\n", diagnostic.message);
        if let Some(range) = place(diagnostic, linted).and_then(|location| location.ranges.into_iter().next()) {
            let _ = write!(
                text,
                "{}:{}\n{}",
                linted.name,
                range.start.line,
                excerpt(&linted.text, range.start.line, range.end.line)
            );
        }
    }
    text
}

/// The lines and some around them, those that matter marked.
fn excerpt(text: &str, first: usize, last: usize) -> String {
    let rule = "--------------------\n";
    let lines: Vec<&str> = text.split('\n').collect();
    let mut shown = rule.to_owned();
    for number in first.saturating_sub(AROUND).max(1)..=(last + AROUND).min(lines.len()) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(shown, "{number:4} | {mark} {}", lines[number - 1].trim_end_matches('\r'));
    }
    shown + rule
}

fn targets_text(targets: &Targets) -> String {
    let rows = targets.targets.iter().map(|target| {
        let name = match (&target.name, target.default) {
            (Some(name), true) => format!("{name} (default)"),
            (None, true) => "(default)".into(),
            (name, false) => name.clone().unwrap_or_default(),
        };
        vec![name, target.description.clone().unwrap_or_default()]
    });
    table(&["TARGET", "DESCRIPTION"], rows, 1)
}

fn outline_text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    match (&outline.name, &outline.description) {
        (None, None) => {}
        (Some(name), None) => parts.push(format!("TARGET: {name}\n")),
        (name, Some(description)) => {
            parts.push(format!("TARGET:      {}\nDESCRIPTION: {description}\n", name.as_deref().unwrap_or_default()));
        }
    }
    if !outline.args.is_empty() {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let rows = outline.args.iter().map(|arg| vec![arg.name.clone(), text(&arg.value), text(&arg.description)]);
        parts.push(table(&["BUILD ARG", "VALUE", "DESCRIPTION"], rows, GAP));
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let required = |required: bool| if required { "true".to_owned() } else { String::new() };
            let rows = list.iter().map(|wanted| vec![wanted.name.clone(), required(wanted.required)]);
            parts.push(table(&[title, "REQUIRED"], rows, GAP));
        }
    }
    parts.join("\n")
}

/// Columns as wide as their widest cell; the last one ends where it ends.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, gap: usize) -> String {
    let head: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line += cell;
            if column + 1 < row.len() {
                let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + gap;
                line += &" ".repeat(width - cell.chars().count());
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        assert_eq!(Call::parse("build"), Ok(None));
        assert_eq!(Call::parse("check"), Ok(Some((Call::Check, Format::Text))));
        assert_eq!(Call::parse("targets,format=json"), Ok(Some((Call::Targets, Format::Json))));
        assert!(Call::parse("outlin").unwrap_err().contains("did you mean `outline`?"));
        assert!(Call::parse("check,format=xml").is_err());
    }

    #[test]
    fn excerpts_mark_lines() {
        let text = "FROM a\nRUN b \\\n  c\nRUN d\n";
        let rule = "--------------------\n";
        assert_eq!(
            excerpt(text, 2, 3),
            format!(
                "{rule}   1 |     FROM a\n   2 | >>> RUN b \\\n   3 | >>>   c\n   4 |     RUN d\n   5 |     \n{rule}"
            )
        );
    }

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "is it".to_owned()], vec!["longer (default)".to_owned(), String::new()]];
        let text = table(&["TARGET", "DESCRIPTION"], rows.into_iter(), 1);
        assert_eq!(text, "TARGET           DESCRIPTION\na                is it\nlonger (default)\n");
    }
}
