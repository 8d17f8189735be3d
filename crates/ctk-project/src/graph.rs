//! The project as a picture: `ctk graph`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ctk_plan::Kind;

use crate::infer::uses;
use crate::model::{From, Project};
use crate::stages::stages;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown pages.
    Mermaid,
}

struct Edge {
    user: String,
    used: String,
    /// Copied or mounted rather than built upon.
    part: bool,
}

struct Picture {
    /// Resources with their stages.
    resources: Vec<(String, Vec<String>)>,
    /// Images that come from registries.
    outside: BTreeSet<String>,
    edges: Vec<Edge>,
}

/// The resources, the stages of images, and what each needs. Ends with a newline; the same project gives the same text.
pub fn graph(project: &Project, format: Format) -> String {
    let picture = picture(project);
    match format {
        Format::Text => text(&picture),
        Format::Dot => dot(&picture),
        Format::Mermaid => mermaid(&picture),
    }
}

fn picture(project: &Project) -> Picture {
    let mut out = Picture { resources: Vec::new(), outside: BTreeSet::new(), edges: Vec::new() };
    for resource in &project.resources {
        let address = resource.address.to_string();
        let names: Vec<String> = stages(resource).into_iter().map(|s| s.name.value).collect();
        let mut told: Vec<String> = Vec::new();
        if resource.address.kind == Kind::Image {
            for one in uses(project, resource) {
                let used = match one.from {
                    Ok(From::Stage(name)) => format!("{address}/{name}"),
                    Ok(From::Image(image)) => image.to_string(),
                    Ok(From::ImageStage(image, stage)) => format!("{image}/{stage}"),
                    Ok(From::Reference(reference)) => {
                        let text = reference.to_string();
                        let text = text.strip_prefix("docker.io/library/").unwrap_or(&text).to_string();
                        out.outside.insert(text.clone());
                        text
                    }
                    Ok(From::Context(name)) => format!("{address}/context {name}"),
                    Ok(From::Scratch) | Err(_) => continue,
                };
                told.push(used.clone());
                let user = format!("{address}/{}", names[one.stage]);
                if !out.edges.iter().any(|e| e.user == user && e.used == used) {
                    out.edges.push(Edge { user, used, part: !one.base });
                }
            }
        }
        for need in &resource.needs {
            let need = need.to_string();
            if !told.iter().any(|t| *t == need || t.starts_with(&format!("{need}/"))) {
                out.edges.push(Edge { user: address.clone(), used: need, part: false });
            }
        }
        out.resources.push((address, names));
    }
    out
}

fn text(picture: &Picture) -> String {
    let width =
        picture.resources.iter().flat_map(|(a, s)| std::iter::once(a.len()).chain(s.iter().map(|s| s.len() + 2)));
    let width = width.max().unwrap_or(0);
    let mut out = String::new();
    let mut line = |indent: &str, name: &str, node: &str, own: &str| {
        let needs: Vec<String> = picture
            .edges
            .iter()
            .filter(|e| e.user == node)
            .map(|e| {
                let used = e.used.strip_prefix(own).unwrap_or(&e.used);
                if e.part { format!("({used})") } else { used.to_string() }
            })
            .collect();
        let room = width.saturating_sub(indent.len() + name.len());
        let arrow = if needs.is_empty() { String::new() } else { format!("{:room$}  ← {}", "", needs.join(", ")) };
        let _ = writeln!(out, "{indent}{name}{arrow}");
    };
    for (address, stages) in &picture.resources {
        line("", address, address, "");
        for stage in stages {
            line("  ", stage, &format!("{address}/{stage}"), &format!("{address}/"));
        }
    }
    out
}

fn dot(picture: &Picture) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = String::from("digraph project {\n    rankdir=LR;\n    compound=true;\n    node [shape=box];\n");
    for (nth, (address, stages)) in picture.resources.iter().enumerate() {
        if stages.is_empty() {
            let _ = writeln!(out, "    {};", quoted(address));
            continue;
        }
        let _ = writeln!(out, "    subgraph cluster_{nth} {{\n        label={};", quoted(address));
        for stage in stages {
            let _ = writeln!(out, "        {} [label={}];", quoted(&format!("{address}/{stage}")), quoted(stage));
        }
        out.push_str("    }\n");
    }
    for name in &picture.outside {
        let _ = writeln!(out, "    {} [style=dashed];", quoted(name));
    }
    for edge in &picture.edges {
        let style = if edge.part { " [style=dotted]" } else { "" };
        let (user, used) = (end(picture, &edge.user), end(picture, &edge.used));
        let _ = writeln!(out, "    {} -> {}{style};", quoted(&used), quoted(&user));
    }
    out.push_str("}\n");
    out
}

/// An image that is drawn as a box of stages stands for its last one.
fn end(picture: &Picture, node: &str) -> String {
    match picture.resources.iter().find(|(address, _)| address == node).and_then(|(_, stages)| stages.last()) {
        Some(last) => format!("{node}/{last}"),
        None => node.to_string(),
    }
}

fn mermaid(picture: &Picture) -> String {
    // Mermaid's own names may hold little; numbers are safe.
    let mut known: Vec<String> = Vec::new();
    for (address, stages) in &picture.resources {
        match stages.is_empty() {
            true => known.push(address.clone()),
            false => known.extend(stages.iter().map(|s| format!("{address}/{s}"))),
        }
    }
    known.extend(picture.outside.iter().cloned());
    for edge in &picture.edges {
        let used = end(picture, &edge.used);
        if !known.contains(&used) {
            known.push(used);
        }
    }
    let id = |node: &str| known.iter().position(|k| k == node).map_or_else(|| "n".to_string(), |n| format!("n{n}"));
    let label = |text: &str| text.replace('"', "#quot;");
    let mut out = String::from("flowchart LR\n");
    let mut drawn: Vec<String> = Vec::new();
    for (nth, (address, stages)) in picture.resources.iter().enumerate() {
        if stages.is_empty() {
            let _ = writeln!(out, "    {}[\"{}\"]", id(address), label(address));
            drawn.push(address.clone());
            continue;
        }
        let _ = writeln!(out, "    subgraph g{nth}[\"{}\"]", label(address));
        for stage in stages {
            let node = format!("{address}/{stage}");
            let _ = writeln!(out, "        {}[\"{}\"]", id(&node), label(stage));
            drawn.push(node);
        }
        out.push_str("    end\n");
    }
    for node in known.iter().filter(|k| !drawn.contains(k)) {
        let _ = writeln!(out, "    {}([\"{}\"])", id(node), label(node));
    }
    for edge in &picture.edges {
        let arrow = if edge.part { "-.->" } else { "-->" };
        let _ = writeln!(out, "    {} {arrow} {}", id(&end(picture, &edge.used)), id(&end(picture, &edge.user)));
    }
    out
}
