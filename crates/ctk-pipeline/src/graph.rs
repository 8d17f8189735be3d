//! What waits for what, as a drawing.

use std::fmt::Write as _;

use crate::plan::{Plan, PlannedStep};

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
    let mut out = String::new();
    match format {
        Format::Text => {
            for step in &plan.steps {
                let waits: Vec<String> = step.waits_for.iter().map(|number| label(&plan.steps[*number])).collect();
                let _ = match waits.is_empty() {
                    true => writeln!(out, "{}", label(step)),
                    false => writeln!(out, "{} ← {}", label(step), waits.join(", ")),
                };
            }
        }
        Format::Dot => {
            out += "digraph {\n    rankdir=LR\n";
            for step in &plan.steps {
                let text = label(step).replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(out, "    s{} [label=\"{text}\"]", step.number);
            }
            for (from, to) in edges(plan) {
                let _ = writeln!(out, "    s{from} -> s{to}");
            }
            out += "}\n";
        }
        Format::Mermaid => {
            out += "graph LR\n";
            for step in &plan.steps {
                let text = label(step).replace('"', "#quot;").replace('#', "#35;").replace("#35;quot;", "#quot;");
                let _ = writeln!(out, "    s{}[\"{text}\"]", step.number);
            }
            for (from, to) in edges(plan) {
                let _ = writeln!(out, "    s{from} --> s{to}");
            }
        }
    }
    out
}

fn edges(plan: &Plan) -> impl Iterator<Item = (usize, usize)> + '_ {
    plan.steps.iter().flat_map(|step| step.waits_for.iter().map(|from| (*from, step.number)))
}

fn label(step: &PlannedStep) -> String {
    match &step.id {
        Some(id) => format!("#{} {id}", step.number),
        None => format!("#{}", step.number),
    }
}
