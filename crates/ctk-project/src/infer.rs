//! References → needs.

use std::collections::HashMap;
use std::path::PathBuf;

use ctk_plan::{Address, Kind};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Sources, Span, Spanned, Value, matches_glob, nearest};

use crate::codes;
use crate::declare::Draft;
use crate::load::{Unit, platforms};
use crate::model::{From, Image, Project, Resource};
use crate::scope::World;
use crate::stages::{named_contexts, outside_stages, stages_of, text_prop};

/// Something that a stage takes from elsewhere.
pub(crate) struct Use {
    /// The stage, by its place in [`crate::stages`].
    pub stage: usize,
    pub from: Result<From, Diagnostic>,
    pub span: Span,
    /// The stage's base, rather than something copied or mounted.
    pub base: bool,
}

/// Everything that the stages of an image take from elsewhere.
pub(crate) fn uses(project: &Project, resource: &Resource) -> Vec<Use> {
    let stages = stages_of(&resource.node);
    let mut out = Vec::new();
    for (nth, stage) in stages.iter().enumerate() {
        let before: Vec<&str> = stages[..nth].iter().map(|s| s.name.value.as_str()).collect();
        let mut add = |text: &Spanned<String>, base: bool| {
            if is_open(text) {
                return;
            }
            let mut from = project.resolve_from(resource, text, &before);
            // A stage further down is a better guess than anything else.
            if let Some(later) = stages[nth..].iter().find(|s| s.name.value == text.value)
                && !matches!(from, Ok(From::Stage(_) | From::Context(_) | From::Image(_)))
            {
                let message = format!("stage `{text}` stands further down");
                from = Err(Diagnostic::error(codes::UNKNOWN_STAGE, message)
                    .at(text.span, "a stage can only build on those above it")
                    .at(later.name.span, "this one"));
            }
            out.push(Use { stage: nth, from, span: text.span, base });
        };
        if let Some(from) = &stage.from {
            add(from, true);
        }
        let mut queue: Vec<&Node> =
            stage.body.iter().rev().copied().filter(|n| !std::ptr::eq(*n, stage.node)).collect();
        if stage.kind == crate::stages::StageKind::Packages {
            queue.extend(&stage.node.children);
        }
        while let Some(node) = queue.pop() {
            if let Some(from) = text_prop(node, "from")
                && !std::ptr::eq(node, stage.node)
            {
                add(&from, false);
            }
            queue.extend(node.children.iter().rev());
        }
    }
    out
}

/// Whether a text still holds a `${…}`: one for each platform, or one that was reported.
fn is_open(text: &str) -> bool {
    text.contains("${")
}

pub(crate) fn connect(
    sources: &Sources,
    world: &World<'_>,
    units: &[Unit],
    drafts: Vec<Draft>,
    project: &mut Project,
    diagnostics: &mut Diagnostics,
) {
    let mut written: Vec<Vec<Value>> = Vec::new();
    let mut first: HashMap<Address, Span> = HashMap::new();
    for draft in drafts {
        let prefix = units[draft.unit].directory.clone();
        let name = if prefix.is_empty() { draft.name } else { format!("{prefix}:{}", draft.name) };
        let address = Address::new(draft.kind, name);
        let span = draft.node.args.first().map_or(draft.node.name.span, |v| v.span);
        if let Some(other) = first.get(&address) {
            diagnostics.push(
                Diagnostic::error(codes::DUPLICATE_ADDRESS, format!("`{address}` is declared twice"))
                    .at(span, "again here")
                    .at(*other, "first here"),
            );
            continue;
        }
        first.insert(address.clone(), span);
        written.push(draft.needs);
        project.resources.push(Resource {
            address,
            node: draft.node,
            caches: draft.caches,
            needs: Vec::new(),
            need_spans: Vec::new(),
            directory: PathBuf::from(&prefix),
            span,
            prefix,
        });
    }
    project.reindex();
    let found: Vec<Vec<(Address, Span)>> = project
        .resources
        .iter()
        .zip(&written)
        .map(|(resource, written)| {
            let mut needs = Vec::new();
            inferred(project, resource, &mut needs, diagnostics);
            explicit(project, resource, written, &mut needs, diagnostics);
            needs
        })
        .collect();
    for (resource, needs) in project.resources.iter_mut().zip(found) {
        for (address, span) in needs {
            if !resource.needs.contains(&address) {
                resource.needs.push(address);
                resource.need_spans.push(span);
            }
        }
    }
    cycles(project, diagnostics);
    groups(sources, world, units, project, diagnostics);
}

fn inferred(project: &Project, resource: &Resource, needs: &mut Vec<(Address, Span)>, diagnostics: &mut Diagnostics) {
    match resource.address.kind {
        Kind::Image => image(project, resource, needs, diagnostics),
        Kind::Test | Kind::Push | Kind::Service => {
            let mut texts: Vec<Spanned<String>> = text_prop(&resource.node, "image").into_iter().collect();
            texts.extend(resource.node.named("service").filter_map(|s| text_prop(s, "image")));
            for text in texts.into_iter().filter(|t| !is_open(t)) {
                match project.resolve_image(resource, &text) {
                    Ok(Image::Project(address)) => needs.push((address, text.span)),
                    Ok(Image::Reference(_)) => {}
                    Err(diagnostic) => diagnostics.push(diagnostic),
                }
            }
            for target in resource.node.named("to") {
                if let (Some(text), Some(value)) = (target.first_str(), target.args.first()) {
                    served(project, text, value.span, needs);
                }
            }
        }
        Kind::Pipeline => {
            for step in resource.node.named("step") {
                let mut texts: Vec<Spanned<String>> = text_prop(step, "image").into_iter().collect();
                texts.extend(step.named("service").filter_map(|service| text_prop(service, "image")));
                for text in texts.into_iter().filter(|text| !is_open(text)) {
                    // What cannot be resolved is told by the step itself.
                    if let Ok(Image::Project(address)) = project.resolve_image(resource, &text) {
                        needs.push((address, text.span));
                    }
                }
            }
        }
        Kind::Registry => {}
    }
}

fn image(project: &Project, resource: &Resource, needs: &mut Vec<(Address, Span)>, diagnostics: &mut Diagnostics) {
    let stages = stages_of(&resource.node);
    for (nth, stage) in stages.iter().enumerate() {
        if let Some(first) = stages[..nth].iter().find(|s| s.name.value == stage.name.value) {
            let message = format!("stage `{}` is declared twice", stage.name);
            diagnostics.push(
                Diagnostic::error(codes::DUPLICATE_STAGE, message)
                    .at(stage.name.span, "again here")
                    .at(first.name.span, "first here"),
            );
        }
        if stage.name.value.starts_with('#') || stage.name.value.is_empty() {
            diagnostics.push(
                Diagnostic::error(ctk_syntax::codes::MISSING_ARGUMENT, "`stage` needs a name")
                    .at(stage.name.span, "a name is missing after this"),
            );
        }
    }
    for node in outside_stages(&resource.node) {
        let message = format!("`{}` stands beside the stages of `{}`", node.name, resource.short_name());
        diagnostics.push(Diagnostic::error(codes::OUTSIDE_STAGE, message).at(node.name.span, "move it into a stage"));
    }
    if let Some(node) = resource.node.named("platforms").next() {
        platforms(node, diagnostics);
    }
    let mut add = |from: Result<From, Diagnostic>, span: Span| match from {
        Ok(From::Image(address) | From::ImageStage(address, _)) => needs.push((address, span)),
        Ok(From::Reference(reference)) => served(project, &reference.to_string(), span, needs),
        Ok(From::Scratch | From::Stage(_) | From::Context(_)) => {}
        Err(diagnostic) => diagnostics.push(diagnostic),
    };
    for (_, place) in named_contexts(&resource.node) {
        if is_open(&place) {
            continue;
        }
        if place.value.starts_with("image:") || place.value.starts_with("docker://") {
            add(project.resolve_from(resource, &place, &[]), place.span);
        }
    }
    for one in uses(project, resource) {
        add(one.from, one.span);
    }
    if let Some(target) = text_prop(&resource.node, "target")
        && resource.node.prop("dockerfile").is_none()
        && !is_open(&target)
        && !stages.iter().any(|s| s.name.value == target.value)
    {
        let names: Vec<&str> = stages.iter().map(|s| s.name.value.as_str()).collect();
        let message = format!("`{}` has no stage `{target}`", resource.short_name());
        diagnostics.push(Diagnostic::error(codes::UNKNOWN_STAGE, message).at_or_nearest(
            target.span,
            nearest(&target, names.iter().copied()),
            format!("it has {}", names.join(", ")),
        ));
    }
}

/// What lives in a registry that this project serves needs that registry.
fn served(project: &Project, target: &str, span: Span, needs: &mut Vec<(Address, Span)>) {
    let host = target.split('/').next().unwrap_or("");
    let host = host.strip_prefix("localhost:").map_or_else(|| host.to_string(), |port| format!("127.0.0.1:{port}"));
    for registry in project.of_kind(Kind::Registry) {
        let listen = registry.node.prop("listen").and_then(Value::as_str).unwrap_or("");
        let listen = listen.replacen("localhost:", "127.0.0.1:", 1).replacen("0.0.0.0:", "127.0.0.1:", 1);
        if !host.is_empty() && listen == host && !listen.ends_with(":0") {
            needs.push((registry.address.clone(), span));
        }
    }
}

fn explicit(
    project: &Project,
    resource: &Resource,
    written: &[Value],
    needs: &mut Vec<(Address, Span)>,
    diagnostics: &mut Diagnostics,
) {
    for value in written {
        let Some(text) = value.as_str() else {
            diagnostics.push(
                Diagnostic::error(ctk_syntax::codes::WRONG_TYPE, "`needs` must name resources")
                    .at(value.span, format!("this is {}", value.type_name())),
            );
            continue;
        };
        if is_open(text) {
            continue;
        }
        match addresses(project, &resource.prefix, text, value.span) {
            Ok(found) if found == [resource.address.clone()] && !text.contains('*') => diagnostics.push(
                Diagnostic::error(codes::SELF_REFERENCE, format!("`{}` needs itself", resource.address))
                    .at(value.span, "this is the resource itself"),
            ),
            Ok(found) => {
                needs.extend(found.into_iter().filter(|a| *a != resource.address).map(|a| (a, value.span)));
            }
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
}

/// The resources that an address or a pattern of addresses means in a file with `prefix`.
fn addresses(project: &Project, prefix: &str, text: &str, span: Span) -> Result<Vec<Address>, Diagnostic> {
    let all = || project.resources.iter().map(|r| &r.address);
    let within = text.split_once(':').filter(|_| !prefix.is_empty()).map(|(k, name)| format!("{k}:{prefix}:{name}"));
    for wanted in within.iter().map(String::as_str).chain([text]) {
        let exact: Vec<Address> = all().filter(|a| a.to_string() == wanted).cloned().collect();
        if !exact.is_empty() {
            return Ok(exact);
        }
        if wanted.contains(['*', '?']) {
            // A matrix puts brackets in names: here they are letters.
            let glob = wanted.replace('[', "[[]");
            let found: Vec<Address> = all().filter(|a| matches_glob(&glob, &a.to_string())).cloned().collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    let names: Vec<String> = all().map(|a| a.to_string()).collect();
    let bare: Vec<String> = all().filter(|a| a.name == text).map(|a| format!("`{a}`")).collect();
    let message = match text.contains(['*', '?']) {
        true => format!("`{text}` matches nothing of this project"),
        false => format!("nothing of this project has the address `{text}`"),
    };
    let diagnostic = Diagnostic::error(codes::UNKNOWN_RESOURCE, message);
    Err(match bare.is_empty() {
        false => diagnostic.at(span, format!("say which: {}", bare.join(", "))),
        true => diagnostic.at_or_nearest(
            span,
            nearest(text, names.iter().map(String::as_str)),
            "expected an address such as `image:api` or `push:*`",
        ),
    })
}

fn cycles(project: &Project, diagnostics: &mut Diagnostics) {
    for cycle in project.dag().cycles() {
        let mut diagnostic = Diagnostic::error(codes::CYCLE, format!("resources need each other: {cycle}"));
        for (nth, address) in cycle.0.iter().enumerate() {
            let next = &cycle.0[(nth + 1) % cycle.0.len()];
            let Some(resource) = project.get(address) else { continue };
            if let Some(at) = resource.needs.iter().position(|n| n == next) {
                diagnostic = diagnostic.at(resource.need_spans[at], format!("`{address}` needs `{next}`"));
            }
        }
        diagnostics.push(diagnostic);
    }
}

fn groups(sources: &Sources, world: &World<'_>, units: &[Unit], project: &mut Project, diagnostics: &mut Diagnostics) {
    let mut places: HashMap<String, Span> = HashMap::new();
    for unit in units {
        for node in unit.nodes.iter().filter(|n| n.name.value == "group") {
            let mut head = world.head(sources, &unit.scope, node, &mut |d| diagnostics.push(d));
            head.children = node.children.clone();
            let mut r = Reader::new(&head, diagnostics);
            let name = r.arg_str("a name");
            let members = r.args_text_some("addresses");
            r.finish();
            let Some(name) = name else { continue };
            let full = match unit.directory.is_empty() {
                true => name.value.clone(),
                false => format!("{}:{name}", unit.directory),
            };
            if let Some(first) = places.insert(full.clone(), name.span) {
                diagnostics.push(
                    Diagnostic::error(codes::DUPLICATE_NAME, format!("group `{full}` is declared twice"))
                        .at(name.span, "again here")
                        .at(first, "first here"),
                );
                continue;
            }
            let mut found: Vec<Address> = Vec::new();
            for member in members {
                match addresses(project, &unit.directory, &member, member.span) {
                    Ok(more) => more.into_iter().for_each(|a| {
                        if !found.contains(&a) {
                            found.push(a);
                        }
                    }),
                    Err(diagnostic) => diagnostics.push(diagnostic),
                }
            }
            project.groups.insert(full, found);
        }
    }
}
