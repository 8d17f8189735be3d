//! A `push` node as a value: which image, to which places, under which tags.

use ctk_plan::Address;
use ctk_project::{Image, Project, Resource};
use ctk_syntax::{Diagnostic, Diagnostics, Reader, Spanned};

use crate::codes;
use crate::compression::{layer_size, wanted};
use crate::limits;
use crate::packing::Packing;
use crate::targets::{self, Naming, Place};

/// A decoded `push` resource.
#[derive(Debug)]
pub struct PushDecl {
    /// Its address.
    pub address: Address,
    /// The image that is pushed.
    pub image: Address,
    /// Where to; at least one.
    pub targets: Vec<Target>,
    /// How the layers are packed.
    pub packing: Packing,
}

/// One place, and the tags that the image gets there.
#[derive(Debug)]
pub struct Target {
    /// The kind's word: `registry`, `oci`, `oci-archive`, `docker-archive`.
    pub kind: &'static str,
    /// What it is called, e.g. `ghcr.io/acme/api`, `oci:dist/images`.
    pub location: String,
    /// The tags, each once.
    pub tags: Vec<String>,
    pub(crate) place: Box<dyn Place>,
}

impl Target {
    /// The file or folder that a push writes, relative to the project's folder or absolute; none for registries.
    pub fn file(&self) -> Option<&std::path::Path> {
        let path = self.location.strip_prefix(self.kind)?.strip_prefix(':')?;
        Some(std::path::Path::new(path))
    }
}

impl PushDecl {
    /// Raised when what a push does changes, by the kinds of target that it has.
    pub fn semantics(&self) -> Vec<(&'static str, u32)> {
        let mut all: Vec<(&'static str, u32)> = self
            .targets
            .iter()
            .filter_map(|target| targets::TABLE.iter().find(|row| row.word == target.kind))
            .map(|row| (row.word, row.semantics))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Reads a `push` resource of `project`. All mistakes at once.
pub fn decode(project: &Project, resource: &Resource) -> Result<PushDecl, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let decl = read(project, resource, &mut diagnostics);
    diagnostics.sort();
    match decl {
        Some(decl) => diagnostics.into_result(decl),
        None => Err(diagnostics),
    }
}

fn read(project: &Project, resource: &Resource, diagnostics: &mut Diagnostics) -> Option<PushDecl> {
    let mut reader = Reader::new(&resource.node, diagnostics);
    reader.arg_str("a name");
    // Read by the project: it orders this resource after others.
    reader.opt_prop("needs");
    reader.every("needs");
    let image = reader.prop_str("image").and_then(|name| image(project, resource, &name, reader.diagnostics()));
    let packing = Packing::said(wanted(&mut reader, false), layer_size(&mut reader));
    for word in ["sign", "attest"] {
        for node in reader.every(word) {
            let message = format!("`{word}` is not supported yet");
            reader.error(codes::NOT_YET, node.name.span, message, "take it out for now");
        }
    }
    let naming = Naming {
        registry: project.registry.as_ref().map(|r| r.value.trim_end_matches('/').to_string()),
        image: image.as_ref().map_or_else(String::new, image_name),
        directory: resource.directory.clone(),
    };
    let mut targets: Vec<Target> = Vec::new();
    let nodes = reader.every("to");
    for node in &nodes {
        let mut child = reader.child(node);
        let location = child.arg_str("where to");
        let mut tags: Vec<Spanned<String>> = Vec::new();
        for tag in child.every("tag") {
            let mut inner = child.child(tag);
            tags.extend(inner.args_text_some("a tag"));
            inner.finish();
        }
        if let Some(location) = &location
            && let Some(target) = target(&mut child, &naming, location, &tags)
        {
            if targets.iter().any(|other| other.location == target.location) {
                let message = format!("`{}` is named twice", target.location);
                child.error(codes::DUPLICATE_TARGET, location.span, message, "give all tags in one `to`");
            }
            targets.push(target);
        }
        child.finish();
    }
    if nodes.is_empty() {
        match (&naming.registry, image.is_some()) {
            (None, _) => {
                let diagnostic = Diagnostic::error(ctk_syntax::codes::MISSING_NODE, "`push` needs a `to` inside")
                    .at(reader.span(), "this goes nowhere")
                    .hint("add e.g. `to \"oci:dist/images\"`, or a `registry` to the project");
                reader.diagnostics().push(diagnostic);
            }
            (Some(_), true) => {
                let location = Spanned::new(naming.image.clone(), reader.span());
                targets.extend(target(&mut reader, &naming, &location, &[]));
            }
            (Some(_), false) => {}
        }
    }
    reader.finish();
    Some(PushDecl { address: resource.address.clone(), image: image?, targets, packing })
}

/// The name of an image as the last part of a repository: `services/cart:api` is `services/cart/api`.
fn image_name(image: &Address) -> String {
    image.name.replace(':', "/").replace(['[', ',', '='], "-").replace(']', "")
}

fn image(
    project: &Project,
    resource: &Resource,
    name: &Spanned<String>,
    diagnostics: &mut Diagnostics,
) -> Option<Address> {
    match project.resolve_image(resource, name) {
        Ok(Image::Project(address)) => Some(address),
        Ok(Image::Reference(reference)) => {
            diagnostics.push(
                Diagnostic::error(codes::NOT_BUILT_HERE, format!("`{reference}` is not built by this project"))
                    .at(name.span, "expected an image of this project")
                    .hint("`ctk copy` copies images between registries"),
            );
            None
        }
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    }
}

fn target(
    reader: &mut Reader<'_, '_>,
    naming: &Naming,
    location: &Spanned<String>,
    tags: &[Spanned<String>],
) -> Option<Target> {
    let (row, rest) = targets::row(location);
    let (place, own_tag) = match (row.parse)(naming, rest) {
        Ok(parsed) => parsed,
        Err(bad) => {
            let mut diagnostic = Diagnostic::error(bad.code, bad.message).at(location.span, bad.label);
            diagnostic.hint = bad.hint;
            reader.diagnostics().push(diagnostic);
            return None;
        }
    };
    let mut names: Vec<String> = Vec::new();
    for tag in own_tag.map(|tag| Spanned::new(tag, location.span)).iter().chain(tags) {
        match place.tag(tag) {
            Err(why) => {
                let message = format!("`{}` is no tag for `{}`", tag.value, place.location());
                reader.error(codes::BAD_TAG, tag.span, message, why);
            }
            Ok(name) if names.contains(&name) => {
                let message = format!("tag `{}` is given twice", tag.value);
                reader.error(codes::BAD_TAG, tag.span, message, "again here");
            }
            Ok(name) => names.push(name),
        }
    }
    if names.len() > limits::TAGS {
        let message = format!("{} tags for one target", names.len());
        reader.error(codes::BAD_TAG, location.span, message, format!("at most {} are allowed", limits::TAGS));
    }
    if tags.is_empty() && names.is_empty() {
        names.push(place.default_tag());
    }
    Some(Target { kind: row.word, location: place.location(), tags: names, place })
}
