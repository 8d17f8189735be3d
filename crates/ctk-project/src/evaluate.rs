//! Declarations → resources: `extends` merged, `matrix` spread, texts expanded.

use std::collections::BTreeMap;
use std::rc::Rc;

use ctk_plan::Kind;
use ctk_syntax::{Diagnostic, Node, Prop, Reader, Value, names_in, nearest};

use crate::caches;
use crate::codes;
use crate::declare::{Cx, Decl, Draft};
use crate::limits;
use crate::load::is_variable_name;
use crate::scope::{Binding, Scope};

pub(crate) fn drafts(cx: &mut Cx<'_>, decls: &[Decl]) -> Vec<Draft> {
    let names: Vec<Option<String>> = decls.iter().map(|d| plain_name(cx, d)).collect();
    let mut out = Vec::new();
    for (nth, decl) in decls.iter().enumerate() {
        let Some(merged) = extended(cx, decls, &names, nth, decl, &mut vec![nth]) else { continue };
        let combinations = matrix(cx, &merged);
        for bindings in combinations {
            if out.len() >= limits::RESOURCES {
                let message = format!("the project declares more than {} resources", limits::RESOURCES);
                cx.fail(Diagnostic::error(codes::TOO_MANY, message).at(merged.node.name.span, "by this one"));
                return out;
            }
            out.extend(draft(cx, &merged, &bindings));
        }
    }
    out
}

/// The name when it depends on no matrix.
fn plain_name(cx: &Cx<'_>, decl: &Decl) -> Option<String> {
    let text = decl.node.first_str()?;
    cx.world.expand(&decl.scope, text).ok().map(|e| e.text)
}

/// The declaration with everything of what it extends: its own properties win, and its own nodes take the place of
/// those with the same name and first argument.
fn extended(
    cx: &mut Cx<'_>,
    decls: &[Decl],
    names: &[Option<String>],
    this: usize,
    decl: &Decl,
    path: &mut Vec<usize>,
) -> Option<Decl> {
    let Some((scope, prop)) = decl.props.iter().find(|(_, p)| p.name.value == "extends") else {
        return Some(decl.clone());
    };
    let (value, error) = cx.world.value(cx.sources, scope, &prop.value);
    if let Some(error) = error {
        cx.fail(error);
        return None;
    }
    let word = decl.kind.word();
    let Some(wanted) = value.as_str() else {
        let message = format!("`extends` must name another {word}");
        cx.fail(Diagnostic::error(ctk_syntax::codes::WRONG_TYPE, message).at(value.span, "this is no text"));
        return None;
    };
    // Its own file's first, then any file's; `prefix:name` as everywhere.
    let full = |n: usize| {
        let prefix = &cx.units[decls[n].unit].directory;
        names[n].as_ref().map(|name| if prefix.is_empty() { name.clone() } else { format!("{prefix}:{name}") })
    };
    let same_kind = |n: &usize| decls[*n].kind == decl.kind && *n != this;
    let own = (0..decls.len()).filter(same_kind).find(|n| {
        cx.units[decls[*n].unit].directory == cx.units[decl.unit].directory && names[*n].as_deref() == Some(wanted)
    });
    let any = (0..decls.len()).filter(same_kind).find(|n| full(*n).as_deref() == Some(wanted));
    let Some(base) = own.or(any) else {
        let known: Vec<&str> = (0..decls.len()).filter(same_kind).filter_map(|n| names[n].as_deref()).collect();
        let message = format!("no {word} `{wanted}` to extend");
        cx.fail(Diagnostic::error(codes::UNKNOWN_RESOURCE, message).at_or_nearest(
            value.span,
            nearest(wanted, known.iter().copied()),
            format!("this project has no other {word} of that name"),
        ));
        return None;
    };
    if path.contains(&base) || path.len() > limits::EXTENDS_DEPTH_LEVELS {
        let message = format!("`extends` of {word} `{wanted}` leads back to itself or never ends");
        cx.fail(Diagnostic::error(codes::ENDLESS, message).at(value.span, "extended here"));
        return None;
    }
    path.push(base);
    let base = extended(cx, decls, names, base, &decls[base], path)?;
    let mut merged = decl.clone();
    merged.props.retain(|(_, p)| p.name.value != "extends");
    for (scope, prop) in &base.props {
        if !merged.props.iter().any(|(_, p)| p.name.value == prop.name.value) {
            merged.props.push((scope.clone(), prop.clone()));
        }
    }
    let own = std::mem::take(&mut merged.parts);
    let mut taken = vec![false; own.len()];
    for (scope, part) in &base.parts {
        let places: Vec<usize> = (0..own.len()).filter(|n| replaces(&own[*n].1, part)).collect();
        if places.is_empty() {
            merged.parts.push((scope.clone(), part.clone()));
        }
        for place in places {
            if !std::mem::replace(&mut taken[place], true) {
                merged.parts.push(own[place].clone());
            }
        }
    }
    let rest = own.into_iter().zip(taken).filter(|(_, taken)| !taken).map(|(part, _)| part);
    merged.parts.extend(rest);
    Some(merged)
}

/// Whether a node takes the place of a base's: same name and first argument. Nodes without an argument replace each
/// other only when they are blocks (`packages { … }`); `env` and `label` add up.
fn replaces(own: &Node, base: &Node) -> bool {
    own.name.value == base.name.value
        && match (own.args.first(), base.args.first()) {
            (Some(a), Some(b)) => a.data == b.data,
            (None, None) => own.block.is_some() && base.block.is_some(),
            _ => false,
        }
}

/// The values of `matrix.*` of every combination; one empty combination when there is no matrix.
fn matrix(cx: &mut Cx<'_>, decl: &Decl) -> Vec<Vec<(String, String)>> {
    let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for (scope, node) in decl.parts.iter().filter(|(_, n)| n.name.value == "matrix") {
        for dimension in &node.children {
            let mut errors = Vec::new();
            let head = cx.world.head(cx.sources, scope, dimension, &mut |d| errors.push(d));
            errors.into_iter().for_each(|d| cx.fail(d));
            let mut r = Reader::new(&head, cx.diagnostics);
            let values = r.args_text_some("values");
            r.finish();
            let name = &dimension.name;
            if !is_variable_name(name) || combinations[0].iter().any(|(n, _)| *n == name.value) {
                let message = format!("`{name}` cannot be a dimension of this matrix");
                cx.fail(
                    Diagnostic::error(codes::BAD_NAME, message)
                        .at(name.span, "letters, digits and `_`, each name once"),
                );
                continue;
            }
            for value in &values {
                if value.is_empty() || value.contains(['[', ']', ',', '=']) || value.contains(char::is_whitespace) {
                    let message = format!("`{value}` cannot be a value of a matrix: it becomes part of a name");
                    cx.fail(Diagnostic::error(codes::BAD_NAME, message).at(value.span, "no brackets, commas, blanks"));
                }
            }
            if values.len() * combinations.len() > limits::MATRIX_COMBINATIONS {
                let message = format!("the matrix has more than {} combinations", limits::MATRIX_COMBINATIONS);
                cx.fail(Diagnostic::error(codes::TOO_MANY, message).at(node.name.span, "this matrix"));
                return Vec::new();
            }
            let spread = combinations.iter().flat_map(|c| {
                values.iter().map(move |v| {
                    let mut next = c.clone();
                    next.push((name.value.clone(), v.value.clone()));
                    next
                })
            });
            combinations = spread.collect();
            if combinations.is_empty() {
                return combinations;
            }
        }
    }
    combinations
}

fn draft(cx: &mut Cx<'_>, decl: &Decl, matrix: &[(String, String)]) -> Option<Draft> {
    let word = decl.kind.word();
    let mut names: BTreeMap<String, Binding> =
        matrix.iter().map(|(n, v)| (format!("matrix.{n}"), Binding::Text(v.clone()))).collect();
    let over = |scope: &Rc<Scope>, names: &BTreeMap<String, Binding>| Scope::within(Some(scope.clone()), names.clone());

    let Some(raw) = decl.node.args.first() else {
        let message = format!("`{word}` needs a name");
        cx.fail(
            Diagnostic::error(ctk_syntax::codes::MISSING_ARGUMENT, message)
                .at(decl.node.name.span, "a name is missing after this"),
        );
        return None;
    };
    let (value, error) = cx.world.value(cx.sources, &over(&decl.scope, &names), raw);
    if let Some(error) = error {
        cx.fail(error);
        return None;
    }
    let Some(base) = value.to_text().filter(|_| !value.deferred) else {
        let message = format!("the name of `{word}` must be text, the same for every platform");
        cx.fail(Diagnostic::error(codes::BAD_NAME, message).at(value.span, "this is not"));
        return None;
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if base.is_empty() || !base.chars().all(fits) || !base.starts_with(|c: char| c.is_alphanumeric()) {
        let message = format!("`{base}` cannot be the name of a resource");
        cx.fail(
            Diagnostic::error(codes::BAD_NAME, message)
                .at(value.span, "letters, digits, `-`, `_` and `.`, beginning with a letter or digit"),
        );
        return None;
    }
    let names_matrix = raw.as_str().is_some_and(|text| names_in(text).iter().any(|n| n.starts_with("matrix.")));
    let name = match matrix.is_empty() || names_matrix {
        true => base.clone(),
        false => {
            let pairs: Vec<String> = matrix.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{base}[{}]", pairs.join(","))
        }
    };
    if decl.kind == Kind::Image {
        names.insert("image.tag".into(), Binding::Text(tag(&cx.units[decl.unit].directory, &name)));
    }
    // `${image}`: an image's own name, or the one that a test or push is about.
    let image = match decl.kind {
        Kind::Image => Some(base),
        _ => decl.props.iter().find(|(_, p)| p.name.value == "image").and_then(|(scope, p)| {
            let (value, error) = cx.world.value(cx.sources, &over(scope, &names), &p.value);
            let text = value.as_str()?.trim_start_matches("image:").to_string();
            error.is_none().then_some(text)
        }),
    };
    if let Some(image) = image {
        names.insert("image".into(), Binding::Text(image));
    }

    let mut node = Node { args: vec![value], ..decl.node.clone() };
    let mut errors: Vec<Diagnostic> = Vec::new();
    for rest in &decl.node.args[1..] {
        let (value, error) = cx.world.value(cx.sources, &over(&decl.scope, &names), rest);
        node.args.push(value);
        errors.extend(error);
    }
    let mut needs: Vec<Value> = Vec::new();
    for (scope, prop) in &decl.props {
        let (value, error) = cx.world.value(cx.sources, &over(scope, &names), &prop.value);
        errors.extend(error);
        match prop.name.value.as_str() {
            "needs" => needs.push(value),
            "extends" => {}
            _ => node.props.push(Prop { name: prop.name.clone(), value }),
        }
    }
    errors.into_iter().for_each(|d| cx.fail(d));
    for (scope, part) in &decl.parts {
        match part.name.value.as_str() {
            "matrix" => {}
            "step" if decl.kind == Kind::Pipeline && part.named("matrix").next().is_some() => {
                steps(cx, decl, scope, &names, part, &mut node.children);
            }
            _ => instantiate(cx, decl.unit, &over(scope, &names), &names, part, 0, &mut node.children),
        }
    }
    node.children.retain(|child| {
        if child.name.value == "needs" {
            needs.extend(child.args.iter().cloned());
        }
        child.name.value != "needs"
    });
    let caches = match decl.kind {
        Kind::Image => {
            let defaults = project_caches(cx, &names);
            caches::take(&mut node.children, &cx.units[decl.unit].directory, defaults)
        }
        _ => Vec::new(),
    };
    Some(Draft { kind: decl.kind, unit: decl.unit, name, node, needs, caches })
}

/// A step of a pipeline for each combination of its own matrix: `unit[os=debian]`.
fn steps(
    cx: &mut Cx<'_>,
    decl: &Decl,
    scope: &Rc<Scope>,
    names: &BTreeMap<String, Binding>,
    step: &Node,
    out: &mut Vec<Node>,
) {
    let parts = step.children.iter().map(|child| (scope.clone(), child.clone())).collect();
    let spread = Decl { parts, ..decl.clone() };
    let mut plain = step.clone();
    plain.children.retain(|child| child.name.value != "matrix");
    let named = step.first_str().is_some_and(|text| names_in(text).iter().any(|n| n.starts_with("matrix.")));
    for bindings in matrix(cx, &spread) {
        let mut names = names.clone();
        names.extend(bindings.iter().map(|(n, v)| (format!("matrix.{n}"), Binding::Text(v.clone()))));
        let scope = Scope::within(Some(scope.clone()), names.clone());
        let first = out.len();
        instantiate(cx, decl.unit, &scope, &names, &plain, 0, out);
        let pairs: Vec<String> = bindings.iter().map(|(n, v)| format!("{n}={v}")).collect();
        for made in out[first..].iter_mut().filter(|_| !named) {
            if let Some(ctk_syntax::Data::String(name)) = made.args.first_mut().map(|value| &mut value.data) {
                *name = format!("{name}[{}]", pairs.join(","));
            }
        }
    }
}

/// The whole name of an image as a tag can hold it.
fn tag(prefix: &str, name: &str) -> String {
    let whole = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}:{name}") };
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
    whole.trim_end_matches(']').chars().map(fits).collect()
}

/// The caches that `project` names, expanded for one image, whose own `names` they may use.
fn project_caches(cx: &mut Cx<'_>, names: &BTreeMap<String, Binding>) -> Vec<Node> {
    let Some(root) = cx.units.first() else { return Vec::new() };
    let Some(project) = root.nodes.iter().find(|node| node.name.value == "project") else { return Vec::new() };
    let scope = Scope::within(Some(root.scope.clone()), names.clone());
    let mut out = Vec::new();
    for node in project.children.iter().filter(|child| caches::is_cache(child)) {
        instantiate(cx, 0, &scope, names, node, 0, &mut out);
    }
    out
}

/// A node inside a resource, with templates used and texts expanded. `names` hold in templates too.
fn instantiate(
    cx: &mut Cx<'_>,
    unit: usize,
    scope: &Rc<Scope>,
    names: &BTreeMap<String, Binding>,
    node: &Node,
    depth: usize,
    out: &mut Vec<Node>,
) {
    if node.name.value == "use" {
        let Some((inner, body)) = cx.apply_template(unit, scope, node, depth) else { return };
        // What the resource binds (`image`, `matrix.*`) is seen in the template, behind its parameters.
        let inner = inner.beside(names);
        for child in &body {
            instantiate(cx, unit, &inner, names, child, depth + 1, out);
        }
        return;
    }
    let mut errors = Vec::new();
    let mut done = cx.world.head(cx.sources, scope, node, &mut |d| errors.push(d));
    errors.into_iter().for_each(|d| cx.fail(d));
    for child in &node.children {
        instantiate(cx, unit, scope, names, child, depth, &mut done.children);
    }
    out.push(done);
}
