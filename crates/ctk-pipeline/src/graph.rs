//! What waits for what, as a drawing.

use std::fmt::Write as _;

use crate::plan::{Plan, PlannedStep};
use crate::run::{Job, Task};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: each step with those that it waits for.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown renderers.
    Mermaid,
}

/// The graph of a plan's steps; ends with a newline.
pub fn graph(plan: &Plan, format: Format) -> String {
    let label = |step: &PlannedStep| match &step.id {
        Some(id) => format!("#{} {id}", step.number),
        None => format!("#{}", step.number),
    };
    draw(&plan.steps.iter().map(|step| (label(step), step.waits_for.as_slice())).collect::<Vec<_>>(), format)
}

/// The graph of a job's steps; ends with a newline.
pub fn job_graph(job: &Job, format: Format) -> String {
    let label =
        |task: &Task| format!("#{} {}", task.number, task.id.as_deref().unwrap_or_default()).trim_end().to_owned();
    draw(&job.tasks.iter().map(|task| (label(task), task.needs.as_slice())).collect::<Vec<_>>(), format)
}

/// Steps by label, each with the numbers of those that it waits for.
fn draw(steps: &[(String, &[usize])], format: Format) -> String {
    let mut out = String::new();
    let edges = || {
        let each = |(to, (_, waits)): (usize, &(String, &[usize]))| {
            waits.iter().map(move |from| (*from, to)).collect::<Vec<_>>()
        };
        steps.iter().enumerate().flat_map(each)
    };
    match format {
        Format::Text => {
            for (label, waits) in steps {
                let waits: Vec<&str> = waits.iter().map(|number| steps[*number].0.as_str()).collect();
                let _ = match waits.is_empty() {
                    true => writeln!(out, "{label}"),
                    false => writeln!(out, "{label} ← {}", waits.join(", ")),
                };
            }
        }
        Format::Dot => {
            out += "digraph {\n    rankdir=LR\n";
            for (number, (label, _)) in steps.iter().enumerate() {
                let text = label.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(out, "    s{number} [label=\"{text}\"]");
            }
            for (from, to) in edges() {
                let _ = writeln!(out, "    s{from} -> s{to}");
            }
            out += "}\n";
        }
        Format::Mermaid => {
            out += "graph LR\n";
            for (number, (label, _)) in steps.iter().enumerate() {
                let text = label.replace('"', "#quot;").replace('#', "#35;").replace("#35;quot;", "#quot;");
                let _ = writeln!(out, "    s{number}[\"{text}\"]");
            }
            for (from, to) in edges() {
                let _ = writeln!(out, "    s{from} --> s{to}");
            }
        }
    }
    out
}
