//! `compression`, `layer-size` and `annotation` inside `image`: the form that an image has from the start, before any push.
//!
//! ```text
//! image "web" dockerfile="Dockerfile" {
//!     compression "zstd" level=19 force=#true
//!     layer-size "512MiB"
//!     annotation "org.opencontainers.image.source"="https://…"      the manifests
//!     annotation "index" "manifest[linux/arm64]" "name"="value"     there
//! }
//! ```

use ctk_oci::Platform;
use ctk_project::{Project, Resource};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Span, Spanned, codes, nearest};

use crate::compression::{layer_size, wanted};
use crate::export::{Annotation, Form, Level, target};

/// A build argument by which an image of one platform gets an index, too.
const INDEX_OF_ONE: &str = "BUILDKIT_MULTI_PLATFORM";

/// The form of the image `resource`, if it says one. `host` is the platform of an image that names none. All mistakes at
/// once.
pub fn decode_form(project: &Project, resource: &Resource, host: &Platform) -> Result<Option<Form>, Diagnostics> {
    let mut platforms = project.platforms_of(resource);
    if platforms.is_empty() {
        platforms.push(host.clone());
    }
    let mut diagnostics = Diagnostics::new();
    let mut form = read(&resource.for_platform(&platforms[0]), &platforms, &mut diagnostics);
    let first = form.annotations;
    form.form.annotations =
        first.iter().filter(|said| said.is_of_index()).map(|said| said.annotation.clone()).collect();
    for (number, platform) in platforms.iter().enumerate() {
        // A mistake is one, however many platforms see it.
        let here = match number {
            0 => first.clone(),
            _ => read(&resource.for_platform(platform), &platforms, &mut Diagnostics::new()).annotations,
        };
        for said in here {
            let Said { annotation, span } = &said;
            if !said.is_of_index() {
                if annotation.platform.as_ref().is_none_or(|only| only == platform) {
                    form.form.annotations.push(Annotation { platform: Some(platform.clone()), ..annotation.clone() });
                }
            } else if !first.contains(&said) {
                let message = format!("annotation `{}` of an index cannot depend on the platform", annotation.key);
                let label = "the index is of all platforms";
                diagnostics.push(Diagnostic::error(codes::BAD_VALUE, message).at(*span, label));
            }
        }
    }
    diagnostics.sort();
    let said = form.form.packs() || !form.form.annotations.is_empty();
    diagnostics.into_result(said.then_some(form.form))
}

/// An annotation and where it is said.
#[derive(Clone, PartialEq)]
struct Said {
    annotation: Annotation,
    span: Span,
}

impl Said {
    fn is_of_index(&self) -> bool {
        matches!(self.annotation.level, Level::Index | Level::IndexDescriptor)
    }
}

/// What the nodes say, the annotations apart.
struct Read {
    form: Form,
    annotations: Vec<Said>,
}

fn read(image: &Node, platforms: &[Platform], diagnostics: &mut Diagnostics) -> Read {
    let mut form = Form::default();
    let mut reader = Reader::new(image, diagnostics);
    // What else the image says, others read: this reader is not asked what is left.
    if let Some(wanted) = wanted(&mut reader, true) {
        form.compression = Some(wanted.compression);
        form.level = wanted.level;
        form.force = wanted.force;
    }
    form.layer_limit_bytes = layer_size(&mut reader);
    let index_of_one = image.named("arg").any(|arg| arg.first_str() == Some(INDEX_OF_ONE));
    let mut annotations = Vec::new();
    for node in reader.every("annotation") {
        let mut child = reader.child(node);
        annotations.extend(annotation(&mut child, platforms, platforms.len() > 1 || index_of_one));
        child.finish();
    }
    Read { form, annotations }
}

/// `annotation "index" "manifest" NAME="value"…`, `annotation { NAME "value" }`.
fn annotation(reader: &mut Reader<'_, '_>, platforms: &[Platform], has_index: bool) -> Vec<Said> {
    let words = reader.args_text("where it goes");
    let mut pairs = reader.all_props_text();
    for node in reader.children() {
        let mut pair = reader.child(node);
        let value = pair.arg_text("a value");
        pair.finish();
        pairs.extend(value.map(|value| (node.name.clone(), value)));
    }
    if pairs.is_empty() {
        let message = "`annotation` needs at least one name and value";
        let label = match words.first().filter(|word| target(word).is_err()) {
            Some(word) => format!("expected `annotation \"{}\"=\"value\"`", word.value),
            None => "expected `\"name\"=\"value\"`".into(),
        };
        let span = reader.span();
        reader.error(codes::MISSING_PROPERTY, span, message, label);
        return Vec::new();
    }
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name.value.is_empty()) {
        reader.error(codes::BAD_VALUE, name.span, "an annotation has a name", "expected `\"name\"=\"value\"`");
    }
    let mut targets: Vec<_> = words.iter().filter_map(|word| place(reader, word, platforms, has_index)).collect();
    if words.is_empty() {
        targets.push((Level::Manifest, None));
    }
    let said =
        |(level, platform): &(Level, Option<Platform>), (name, value): &(Spanned<String>, Spanned<String>)| Said {
            annotation: Annotation {
                level: *level,
                platform: platform.clone(),
                key: name.value.clone(),
                value: value.value.clone(),
            },
            span: name.span,
        };
    targets.iter().flat_map(|target| pairs.iter().map(move |pair| said(target, pair))).collect()
}

/// `LEVEL` or `LEVEL[PLATFORM]`, of an image for these platforms.
fn place(
    reader: &mut Reader<'_, '_>,
    word: &Spanned<String>,
    platforms: &[Platform],
    has_index: bool,
) -> Option<(Level, Option<Platform>)> {
    let mut wrong = |message: String, label: String| {
        reader.error(codes::BAD_VALUE, word.span, message, label);
        None
    };
    let (level, platform) = match target(word) {
        Ok(target) => target,
        Err(why) => return wrong(why, "expected e.g. `index` or `manifest[linux/amd64]`".into()),
    };
    let of_index = matches!(level, Level::Index | Level::IndexDescriptor);
    if of_index && !has_index {
        let message = "an image of one platform has no index to annotate".to_owned();
        return wrong(message, "expected `manifest`, or several `platforms`".into());
    }
    match platform {
        Some(platform) if of_index => {
            let message = format!("an index is of all platforms, not of {platform}");
            wrong(message, "leave the brackets out".into())
        }
        Some(platform) if !platforms.contains(&platform) => {
            let known: Vec<String> = platforms.iter().map(Platform::to_string).collect();
            let message = format!("this image is not built for {platform}");
            let label = match nearest(&platform.to_string(), known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it is for {}", known.join(", ")),
            };
            wrong(message, label)
        }
        platform => Some((level, platform)),
    }
}
