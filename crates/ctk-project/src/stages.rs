//! The stages of an image, walked the same way by whoever infers needs and whoever decodes.
//!
//! - Every `stage "name" from="…"` is a stage.
//! - `cargo` beside stages is a stage named `cargo` (or by its `name`), and so is `packages` beside stages.
//! - An image without `stage` nodes has one more stage, `final`, made of all its other instructions; its base is the
//!   image's `from`.
//!
//! A base is said by `from="x"` or by a node `from "x"` in the block; that node is no instruction of the body.
//!
//! The last stage is the image, unless `target` names another. An image with `dockerfile` has none here.

use ctk_syntax::{Node, Spanned};

use crate::model::Resource;

/// Nodes inside `image` that are about the whole image rather than instructions of a stage.
pub const IMAGE_SETTINGS: &[&str] = &[
    "context",
    "arg",
    "platforms",
    "secret",
    "ssh",
    "allow",
    "description",
    "compression",
    "layer-size",
    "annotation",
];

/// How a stage was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// `stage "name" { … }`.
    Declared,
    /// `cargo …`: a Rust project's own stage.
    Cargo,
    /// `packages …` beside stages.
    Packages,
    /// The instructions that stand directly inside `image`.
    Implicit,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct StageRef<'a> {
    /// What other stages call it.
    pub name: Spanned<String>,
    /// What it starts from, as written; None means scratch (for `cargo`: its own default).
    pub from: Option<Spanned<String>>,
    /// How it was written.
    pub kind: StageKind,
    /// `stage`, `cargo` or `packages`; the `image` node itself for the implicit one.
    pub node: &'a Node,
    /// Its instructions in order. For `packages` beside stages, the `packages` node itself; none for `cargo`.
    pub body: Vec<&'a Node>,
}

/// The stages of an image in order; empty for other kinds and for images with a Dockerfile. Stages without a name
/// (reported by [`crate::parse`]) are called `#1`, `#2`… by their place.
pub fn stages(resource: &Resource) -> Vec<StageRef<'_>> {
    stages_of(&resource.node)
}

pub(crate) fn text_prop(node: &Node, name: &str) -> Option<Spanned<String>> {
    let value = node.prop(name)?;
    Some(Spanned::new(value.as_str()?.to_string(), value.span))
}

/// `from="x"`, or a node `from "x"`.
fn base(node: &Node) -> Option<Spanned<String>> {
    text_prop(node, "from").or_else(|| {
        let value = node.named("from").next()?.args.first()?;
        Some(Spanned::new(value.as_str()?.to_string(), value.span))
    })
}

pub(crate) fn stages_of(image: &Node) -> Vec<StageRef<'_>> {
    if image.name.value != "image" || image.prop("dockerfile").is_some() {
        return Vec::new();
    }
    let declared = image.named("stage").next().is_some();
    let mut out = Vec::new();
    let mut loose: Vec<&Node> = Vec::new();
    for child in &image.children {
        let named = |otherwise: &str| match text_prop(child, "name") {
            Some(name) => name,
            None => Spanned::new(otherwise.to_string(), child.name.span),
        };
        match child.name.value.as_str() {
            "stage" => {
                let name = match child.args.first() {
                    Some(value) => Spanned::new(value.to_text().unwrap_or_default(), value.span),
                    None => Spanned::new(format!("#{}", out.len() + 1), child.name.span),
                };
                let body = child.children.iter().filter(|c| c.name.value != "from").collect();
                out.push(StageRef { name, from: base(child), kind: StageKind::Declared, node: child, body });
            }
            "cargo" => {
                let from = text_prop(child, "from");
                out.push(StageRef {
                    name: named("cargo"),
                    from,
                    kind: StageKind::Cargo,
                    node: child,
                    body: Vec::new(),
                });
            }
            "packages" if declared => out.push(StageRef {
                name: named("packages"),
                from: text_prop(child, "from"),
                kind: StageKind::Packages,
                node: child,
                body: vec![child],
            }),
            setting if IMAGE_SETTINGS.contains(&setting) => {}
            "from" if !declared => {}
            _ => loose.push(child),
        }
    }
    // An image of `cargo` alone is that stage; one of nothing is its base.
    if !declared && (!loose.is_empty() || out.is_empty()) {
        let name = Spanned::new("final".to_string(), image.name.span);
        let from = base(image);
        out.push(StageRef { name, from, kind: StageKind::Implicit, node: image, body: loose });
    }
    out
}

/// Instructions beside stages, which belong to none.
pub(crate) fn outside_stages(image: &Node) -> Vec<&Node> {
    if image.prop("dockerfile").is_some() || image.named("stage").next().is_none() {
        return Vec::new();
    }
    let ours = |name: &str| matches!(name, "stage" | "cargo" | "packages") || IMAGE_SETTINGS.contains(&name);
    image.children.iter().filter(|c| !ours(&c.name.value)).collect()
}

/// `context "name" "where"`: the named contexts of an image.
pub(crate) fn named_contexts(image: &Node) -> impl Iterator<Item = (Spanned<String>, Spanned<String>)> + '_ {
    image.named("context").filter_map(|node| match node.args.as_slice() {
        [name, place] => Some((
            Spanned::new(name.as_str()?.to_string(), name.span),
            Spanned::new(place.as_str()?.to_string(), place.span),
        )),
        _ => None,
    })
}
