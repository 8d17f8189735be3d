//! A project: resources with addresses, needs and places.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ctk_dag::Graph;
use ctk_oci::{Platform, Reference};
use ctk_plan::{Address, Kind};
use ctk_syntax::{Diagnostic, Node, Span, Spanned, nearest};

use crate::caches::CacheNode;
use crate::codes;

/// Everything that the project file and its includes declare.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name, for `${project}` and for people.
    pub name: String,
    /// The default platforms of every image; empty means the host's.
    pub platforms: Vec<Spanned<Platform>>,
    /// The prefix of pushes that name no host.
    pub registry: Option<Spanned<String>>,
    /// In the order of the files; includes come where they are named.
    pub resources: Vec<Resource>,
    /// Names for sets of resources, for the command line.
    pub groups: BTreeMap<String, Vec<Address>>,
    /// Every file that was read, relative to the project's folder: what `watch` watches.
    pub files: Vec<String>,
    pub(crate) index: HashMap<Address, usize>,
}

/// One thing that the project declares.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its address.
    pub address: Address,
    /// Its declaration, interpolated. `needs`, `extends`, `matrix` and `use` are worked in and no longer there. Texts
    /// that name `${platform}` are still to be expanded: see [`Resource::for_platform`].
    pub node: Node,
    /// Of an image: the caches that it is built with. They are no part of `node`.
    pub caches: Vec<CacheNode>,
    /// What must be done before it, each once, in order of mention.
    pub needs: Vec<Address>,
    /// Where each of `needs` was mentioned.
    pub need_spans: Vec<Span>,
    /// The folder of its file, relative to the project's folder; empty at the top. Its paths start there.
    pub directory: PathBuf,
    /// The place of its name.
    pub span: Span,
    /// What its names are looked up under before the whole project: `services/cart` for an included file.
    pub prefix: String,
}

/// What `from="…"` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// An empty file system.
    Scratch,
    /// Another stage of the same image.
    Stage(String),
    /// A context that the image names: `context "name" "…"`.
    Context(String),
    /// An image that this project builds.
    Image(Address),
    /// One stage of an image that this project builds: `image:api/build`.
    ImageStage(Address, String),
    /// An image in a registry.
    Reference(Reference),
}

/// What `image="…"` of a test, a push or a service means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// An image that this project builds.
    Project(Address),
    /// An image in a registry.
    Reference(Reference),
}

impl Resource {
    /// The declaration with `${platform}` (and `${platform.os}`, `.arch`, `.variant`) expanded for one platform.
    pub fn for_platform(&self, platform: &Platform) -> Node {
        crate::scope::expand_platform(&self.node, platform)
    }

    /// The name without the prefix of its file.
    pub fn short_name(&self) -> &str {
        match self.prefix.is_empty() {
            true => &self.address.name,
            false => self.address.name.strip_prefix(&format!("{}:", self.prefix)).unwrap_or(&self.address.name),
        }
    }
}

impl Project {
    pub(crate) fn new(name: String) -> Project {
        Project {
            name,
            platforms: Vec::new(),
            registry: None,
            resources: Vec::new(),
            groups: BTreeMap::new(),
            files: Vec::new(),
            index: HashMap::new(),
        }
    }

    pub(crate) fn reindex(&mut self) {
        self.index = self.resources.iter().enumerate().map(|(n, r)| (r.address.clone(), n)).collect();
    }

    /// The resource at an address.
    pub fn get(&self, address: &Address) -> Option<&Resource> {
        self.index.get(address).map(|n| &self.resources[*n])
    }

    /// The resources of one kind, in order.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(move |r| r.address.kind == kind)
    }

    /// The platforms of an image: its own `platforms` node, or the project's; empty means the host's. Texts that are
    /// no platform were reported by [`crate::parse`] and are left out.
    pub fn platforms_of(&self, resource: &Resource) -> Vec<Platform> {
        match resource.node.named("platforms").next() {
            Some(node) => node.args.iter().filter_map(|v| v.as_str()?.parse().ok()).collect(),
            None => self.platforms.iter().map(|p| p.value.clone()).collect(),
        }
    }

    /// The resource that `name` means when said inside `resource`: its own file's first, then the whole project's.
    pub fn lookup(&self, within: &Resource, kind: Kind, name: &str) -> Option<&Resource> {
        let own = (!within.prefix.is_empty()).then(|| Address::new(kind, format!("{}:{name}", within.prefix)));
        own.and_then(|a| self.get(&a)).or_else(|| self.get(&Address::new(kind, name)))
    }

    /// What `from="text"` means inside `resource`, where `stages` are the names of the image's stages before this
    /// one. `image:x`, `stage:x` and `docker://x` say which is meant; otherwise it is a stage, then an image of the
    /// project, then a reference. A bare word near a name that exists is taken for a slip of it.
    pub fn resolve_from(&self, within: &Resource, text: &Spanned<String>, stages: &[&str]) -> Result<From, Diagnostic> {
        let word = text.value.as_str();
        if word == "scratch" {
            return Ok(From::Scratch);
        }
        if let Some(name) = word.strip_prefix("stage:") {
            return match stages.contains(&name) {
                true => Ok(From::Stage(name.to_string())),
                false => {
                    let message = format!("no stage `{name}` before this one");
                    Err(Diagnostic::error(codes::UNKNOWN_STAGE, message).at_or_nearest(
                        text.span,
                        nearest(name, stages.iter().copied()),
                        "a stage can only build on those above it",
                    ))
                }
            };
        }
        if word.starts_with("image:") {
            return self.project_image(within, text);
        }
        if let Some(reference) = word.strip_prefix("docker://") {
            return self.reference(reference, text.span).map(From::Reference);
        }
        // As in BuildKit, a named context stands before everything of that name.
        if crate::stages::named_contexts(&within.node).any(|(name, _)| name.value == word) {
            return Ok(From::Context(word.to_string()));
        }
        let stage = stages.contains(&word);
        let image = self.lookup(within, Kind::Image, word).filter(|r| r.address != within.address);
        match (stage, image) {
            (true, Some(image)) => {
                let message = format!("`{word}` is a stage of this image and an image of this project");
                Err(Diagnostic::error(codes::AMBIGUOUS_NAME, message)
                    .at(text.span, "which one?")
                    .at(image.span, "the image")
                    .hint(format!("write `stage:{word}` or `image:{word}`")))
            }
            (true, None) => Ok(From::Stage(word.to_string())),
            (false, Some(image)) => Ok(From::Image(image.address.clone())),
            (false, None) => {
                if let Some(near) = self.slip(within, word, stages) {
                    let message = format!("no stage or image `{word}`");
                    return Err(Diagnostic::error(codes::UNKNOWN_RESOURCE, message)
                        .at(text.span, format!("did you mean `{near}`?"))
                        .hint(format!("for the image `{word}` in a registry write `docker://{word}`")));
                }
                if word == within.short_name() && !word.contains(['/', ':', '@', '.']) {
                    let message = format!("`{word}` is this image itself");
                    return Err(Diagnostic::error(codes::SELF_REFERENCE, message)
                        .at(text.span, "an image cannot be its own base")
                        .hint(format!("for the image `{word}` in a registry write `docker://{word}`")));
                }
                self.reference(word, text.span).map(From::Reference)
            }
        }
    }

    /// What `image="text"` means inside `resource`: an image of the project (`x` or `image:x`), else a reference when
    /// it looks like one (`docker://x`, or with a `/`, `:`, `@`). A bare unknown word is an error.
    pub fn resolve_image(&self, within: &Resource, text: &Spanned<String>) -> Result<Image, Diagnostic> {
        let word = text.value.as_str();
        if word.starts_with("image:") {
            return match self.project_image(within, text)? {
                From::Image(address) => Ok(Image::Project(address)),
                _ => {
                    let message = format!("`{word}` is a stage; an image is needed here");
                    Err(Diagnostic::error(codes::UNKNOWN_RESOURCE, message).at(text.span, "name the image alone"))
                }
            };
        }
        if let Some(reference) = word.strip_prefix("docker://") {
            return self.reference(reference, text.span).map(Image::Reference);
        }
        if let Some(image) = self.lookup(within, Kind::Image, word) {
            return Ok(Image::Project(image.address.clone()));
        }
        if word.contains(['/', ':', '@']) {
            return self.reference(word, text.span).map(Image::Reference);
        }
        let hint = format!("for the image `{word}` in a registry write `docker://{word}`");
        Err(self.unknown(within, Kind::Image, word, text.span).hint(hint))
    }

    fn project_image(&self, within: &Resource, text: &Spanned<String>) -> Result<From, Diagnostic> {
        let name = text.value.strip_prefix("image:").unwrap_or(&text.value);
        if let Some(found) = self.lookup(within, Kind::Image, name) {
            if found.address == within.address {
                return Err(Diagnostic::error(codes::SELF_REFERENCE, format!("`{name}` is this image itself"))
                    .at(text.span, "an image cannot be its own base"));
            }
            return Ok(From::Image(found.address.clone()));
        }
        if let Some((image, stage)) = name.rsplit_once('/')
            && let Some(found) = self.lookup(within, Kind::Image, image)
        {
            let dockerfile = found.node.prop("dockerfile").is_some();
            let names: Vec<String> = crate::stages(found).into_iter().map(|s| s.name.value).collect();
            if dockerfile || names.iter().any(|n| n == stage) {
                return Ok(From::ImageStage(found.address.clone(), stage.to_string()));
            }
            let message = format!("image `{image}` has no stage `{stage}`");
            return Err(Diagnostic::error(codes::UNKNOWN_STAGE, message).at_or_nearest(
                text.span,
                nearest(stage, names.iter().map(String::as_str)),
                format!("it has {}", names.join(", ")),
            ));
        }
        Err(self.unknown(within, Kind::Image, name, text.span))
    }

    fn reference(&self, text: &str, span: Span) -> Result<Reference, Diagnostic> {
        text.parse::<Reference>().map_err(|error| {
            Diagnostic::error(codes::BAD_REFERENCE, format!("`{text}` is no image reference"))
                .at(span, error.to_string())
        })
    }

    /// A diagnostic about a name that no resource of `kind` has.
    pub(crate) fn unknown(&self, within: &Resource, kind: Kind, name: &str, span: Span) -> Diagnostic {
        let names = self.names(within, kind);
        // Another file's resource goes by its whole name.
        let elsewhere = self.of_kind(kind).find(|r| r.short_name() == name).map(|r| r.address.name.as_str());
        let word = kind.word();
        let known: Vec<&str> = names.iter().map(String::as_str).take(12).collect();
        let otherwise = match known.is_empty() {
            true => format!("this project declares no {word}"),
            false => format!("there is `{}`", known.join("`, `")),
        };
        Diagnostic::error(codes::UNKNOWN_RESOURCE, format!("no {word} `{name}` in this project")).at_or_nearest(
            span,
            elsewhere.or_else(|| nearest(name, names.iter().map(String::as_str))),
            otherwise,
        )
    }

    /// Names of resources as they can be said inside `within`.
    fn names(&self, within: &Resource, kind: Kind) -> Vec<String> {
        let own = self.of_kind(kind).filter(|r| r.prefix == within.prefix).map(|r| r.short_name().to_string());
        let all = self.of_kind(kind).filter(|r| r.prefix != within.prefix).map(|r| r.address.name.clone());
        own.chain(all).collect()
    }

    fn slip(&self, within: &Resource, word: &str, stages: &[&str]) -> Option<String> {
        if word.contains(['/', ':', '@', '.']) {
            return None;
        }
        let names = self.names(within, Kind::Image);
        let own = within.short_name();
        let others = names.iter().map(String::as_str).filter(|n| *n != own);
        nearest(word, stages.iter().copied().chain(others)).map(String::from)
    }

    /// The resources and what each needs.
    pub fn dag(&self) -> Graph<Address> {
        let mut graph = Graph::new();
        for resource in &self.resources {
            graph.insert(resource.address.clone());
        }
        for resource in &self.resources {
            for need in &resource.needs {
                graph.need(resource.address.clone(), need.clone());
            }
        }
        graph
    }
}
