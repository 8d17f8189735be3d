//! From a recipe to a graph: the meaning of every instruction, once for both languages.
//!
//! The walk visits the stages that the target needs and no other. Where it meets a base image whose
//! config it was not given, it goes on with an empty one and in the end says what it needs; asked
//! again with the answers it gets further, until the graph is whole. [`selections`] is the same walk
//! without any base: what the build will read of local contexts, known before anything is fetched.

mod arguments;
mod config;
mod context;
mod copy;
mod from;
mod lint;
mod run;

pub use arguments::multi_platform;
pub use lint::{check, is_secret};

use arguments::{CONTEXT_EPOCH, EPOCH};

use std::collections::BTreeMap;

use ctk_oci::{ContainerConfig, Digest, History, ImageConfig, Platform};
use ctk_syntax::{Diagnostic, Diagnostics, ExpandError, Span, short};

use crate::stage::Stage;
use crate::words::{Variables, is_required};
use crate::{
    BaseName, BaseRequest, Escape, Expansion, GitSource, Graph, PackagesSpec, Read, Recipe, Statement, VertexId, codes,
};

/// Base images by what was asked for.
pub type Bases = BTreeMap<BaseRequest, BaseImage>;

/// What lowering must know of a base image.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// Digest of its manifest for the platform.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// What a named context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextKind {
    /// A directory of the host.
    Local,
    /// An image.
    Base(BaseName),
    /// No files.
    Scratch,
    /// A checkout.
    Git(GitSource),
    /// What a URL gives: one file called `context`. As the main context it may be an archive, whose files count.
    Http(String),
    /// An archive in the store.
    Archive(Digest),
}

/// What is known of repositories and URLs so far.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// Commits by repository and ref ([`GitSource::wanted`]).
    pub commits: BTreeMap<(String, String), String>,
    /// Contexts by URL.
    pub files: BTreeMap<String, RemoteFile>,
}

/// A file that a URL gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its digest; it is in the store.
    pub digest: Digest,
    /// Whether it is an archive.
    pub archive: bool,
}

/// Reads the Dockerfile text of an `ONBUILD` trigger; an error is one sentence.
pub type ParseTrigger<'a> = &'a dyn Fn(&str) -> Result<Statement, String>;

/// What to lower for, and what is known of the world.
pub struct LowerRequest<'a> {
    /// What the image is for.
    pub platform: Platform,
    /// Whether somebody asked for that platform. If not, an image says it is for what its base is for.
    pub platform_asked: bool,
    /// What builds it.
    pub build_platform: Platform,
    /// Values of build arguments.
    pub args: BTreeMap<String, String>,
    /// Name or number of the wanted stage; the last one if none.
    pub target: Option<String>,
    /// Named contexts; `""` is the main one. A key `name::os/architecture` counts for that platform only.
    pub contexts: BTreeMap<String, ContextKind>,
    /// Commits and files of contexts known so far.
    pub remote: Remote,
    /// Base images known so far.
    pub bases: Bases,
    /// Digests of locked package lists known so far, by stage.
    pub packages: BTreeMap<String, String>,
    /// The date of the main context, which a `SOURCE_DATE_EPOCH` of `context` stands for: see [`context_epoch_asked`].
    pub context_epoch: Option<i64>,
    /// Reads triggers of base images.
    pub parse_trigger: ParseTrigger<'a>,
}

/// Something the caller must find out before lowering can end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Manifest digest and config of an image.
    Base {
        /// Which.
        request: BaseRequest,
        /// The stage that may be meant, if there is no such image.
        near: Option<String>,
        /// Who wants it.
        origin: Option<Span>,
    },
    /// The commit that a ref of a repository means.
    Git {
        /// Of what.
        source: GitSource,
        /// Who wants it.
        origin: Option<Span>,
    },
    /// A context from a URL, in the store.
    Http {
        /// Where from.
        url: String,
        /// Who wants it.
        origin: Option<Span>,
    },
    /// The locked list of a stage's OS packages.
    Packages {
        /// Which stage.
        stage: String,
        /// What it asks for.
        spec: PackagesSpec,
        /// Who wants it.
        origin: Option<Span>,
    },
}

/// How far lowering came.
#[derive(Debug)]
pub enum Lowering {
    /// Find these out and ask again.
    Needs(Vec<Need>),
    /// Done.
    Ready(Box<Lowered>),
}

/// A whole graph and the image it makes.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The operations; some may not be reachable from the image's vertex.
    pub graph: Graph,
    /// What comes out.
    pub image: Image,
    /// Breaches of lint rules in the stages that were walked: those that [`Recipe::checks`] tells.
    pub warnings: Diagnostics,
    /// `SOURCE_DATE_EPOCH` as a build argument or as an ARG before the first stage: no file and no date is younger.
    pub epoch_seconds: Option<i64>,
}

/// The image that a graph makes.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its tree.
    pub vertex: VertexId,
    /// The vertex of the image it is built on, if any.
    pub base: Option<VertexId>,
    /// What it runs on.
    pub platform: Platform,
    /// Its config.
    pub config: ContainerConfig,
    /// Its author.
    pub author: Option<String>,
    /// What made it, base first.
    pub history: Vec<ImageHistory>,
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageHistory {
    /// The base's own line.
    Base(History),
    /// An instruction that touches no file.
    Empty {
        /// The instruction.
        created_by: String,
    },
    /// An instruction that may have made a layer.
    Layer {
        /// The instruction.
        created_by: String,
        /// Its vertex.
        vertex: VertexId,
    },
}

/// Lowers the recipe's target. All mistakes are reported at once.
pub fn lower(recipe: &Recipe, request: &LowerRequest<'_>) -> Result<Lowering, Diagnostics> {
    let mut walk = Walk::new(recipe, request);
    walk.lint_bases();
    let target = walk.target();
    let stage = target.map(|index| walk.stage(index, None));
    walk.check_unneeded();
    walk.switches();
    walk.unused_args();
    let epoch_seconds = walk.epoch();
    let needs = walk.needs;
    let stage = walk.diagnostics.into_result(stage)?.flatten();
    if !needs.is_empty() {
        return Ok(Lowering::Needs(needs));
    }
    let warnings = recipe.checks.apply(walk.warnings);
    if warnings.has_errors() {
        return Err(warnings);
    }
    let stage = stage.expect("a recipe without mistakes has a target");
    let image = Image {
        vertex: stage.vertex,
        base: stage.base,
        platform: image_platform(request, stage.base_platform),
        config: stage.config,
        author: stage.author,
        history: stage.history,
    };
    Ok(Lowering::Ready(Box::new(Lowered { graph: walk.graph, image, warnings, epoch_seconds })))
}

/// What the image says it is for: what was asked for, whatever its stage ran on; what its base is for, where nobody asked.
fn image_platform(request: &LowerRequest<'_>, base: Option<Platform>) -> Platform {
    let wanted = request.platform.clone();
    let platform = match base {
        Some(base) if base.os == wanted.os && base.architecture == wanted.architecture => {
            Platform { variant: wanted.variant.or(base.variant), ..wanted }
        }
        Some(base) if !request.platform_asked => base,
        _ => wanted,
    };
    platform.to_string().parse().unwrap_or(platform)
}

/// Whether a build argument or an ARG before the first stage dates the image by its context; which ARG, if it has a
/// place.
pub fn context_epoch_asked(recipe: &Recipe, request: &LowerRequest<'_>) -> Option<Option<Span>> {
    let asked = Walk::new(recipe, request).epoch_text().is_some_and(|text| text == CONTEXT_EPOCH);
    let given = request.args.contains_key(EPOCH);
    let arg = recipe.globals.iter().rfind(|arg| arg.name == EPOCH && !given);
    asked.then(|| arg.and_then(|arg| arg.origin))
}

/// What the target reads of local contexts, and the images and package lists it needs, as far as that can be told
/// without knowing any base image. Where a path depends on a base's environment, all of its context is named.
pub fn reads(recipe: &Recipe, request: &LowerRequest<'_>) -> Result<(Vec<Read>, Vec<Need>), Diagnostics> {
    let mut walk = Walk::new(recipe, request);
    let stage = walk.target().and_then(|index| walk.stage(index, None));
    walk.epoch();
    walk.check_unneeded();
    let stage = walk.diagnostics.into_result(stage)?;
    Ok((stage.map(|s| walk.graph.reads(s.vertex)).unwrap_or_default(), walk.needs))
}

enum Slot {
    New,
    Open,
    Done(Option<Box<Stage>>),
}

struct Walk<'a> {
    recipe: &'a Recipe,
    request: &'a LowerRequest<'a>,
    globals: Vec<(String, Option<String>)>,
    slots: Vec<Slot>,
    /// The stages that are being walked, from the target on, and what wants each.
    walking: Vec<(usize, Option<Span>)>,
    graph: Graph,
    needs: Vec<Need>,
    diagnostics: Diagnostics,
    /// Breaches of lint rules.
    warnings: Diagnostics,
    /// What the bases' triggers said.
    triggered: Vec<Statement>,
    /// What the last text asked for, with the values.
    asked: Vec<(String, Option<String>)>,
    /// Whether the main context leaves a path out, where that is known.
    ignored: Option<&'a dyn Fn(&str) -> bool>,
}

impl<'a> Walk<'a> {
    fn new(recipe: &'a Recipe, request: &'a LowerRequest<'a>) -> Walk<'a> {
        let slots = recipe.stages.iter().map(|_| Slot::New).collect();
        let diagnostics = Diagnostics::new();
        let mut walk = Walk {
            recipe,
            request,
            globals: Vec::new(),
            slots,
            walking: Vec::new(),
            graph: Graph::default(),
            needs: Vec::new(),
            diagnostics,
            warnings: Diagnostics::new(),
            triggered: Vec::new(),
            asked: Vec::new(),
            ignored: None,
        };
        walk.read_globals();
        walk
    }

    fn error(&mut self, code: &'static str, message: impl Into<String>, origin: Option<Span>, label: &str) {
        let diagnostic = Diagnostic::error(code, message);
        self.diagnostics.push(match origin {
            Some(span) => diagnostic.at(span, label),
            None => diagnostic,
        });
    }

    /// Where a word of an instruction stands, if it stands there as it was read.
    fn place(&self, origin: Option<Span>, word: &str) -> Option<Span> {
        let origin = origin?;
        let found = self.recipe.source.get(origin.start..origin.end).and_then(|text| text.find(word));
        Some(match found {
            Some(at) => Span::new(origin.source, origin.start + at, origin.start + at + word.len()),
            None => origin,
        })
    }

    /// The place of `word` in the here-documents that follow the instruction at `origin`.
    fn place_below(&self, origin: Option<Span>, word: &str) -> Option<Span> {
        let origin = origin?;
        let found = self.recipe.source.get(origin.end..).and_then(|text| text.find(word));
        let at = found.filter(|_| !word.is_empty()).map(|at| origin.end + at);
        Some(at.map_or(origin, |at| Span::new(origin.source, at, at + word.len())))
    }

    /// A word that cannot be expanded.
    fn bad_word(&mut self, text: &str, error: &ExpandError, origin: Option<Span>) {
        let place = self.place(origin, text).map(|span| match (Some(span) == origin, error.at.is_empty()) {
            (false, false) => Span::new(span.source, span.start + error.at.start, span.start + error.at.end),
            _ => span,
        });
        self.error(codes::BAD_WORD, format!("cannot expand `{}`: {error}", short(text)), place, "");
    }

    fn escape(&self) -> Option<Escape> {
        match self.recipe.expansion {
            Expansion::Literal => None,
            Expansion::Dockerfile(escape) => Some(escape),
        }
    }

    /// The expanded text and whether an unset variable was in it. A variable that only an unknown base could set is
    /// no mistake.
    fn expand(
        &mut self,
        text: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
        known: bool,
        origin: Option<Span>,
    ) -> (String, bool) {
        let Some(escape) = self.escape() else { return (text.to_owned(), false) };
        let mut variables = Variables::new(lookup);
        let expanded = variables.word(text, escape);
        let unset = variables.unset();
        self.asked = variables.asked;
        match expanded {
            Ok(value) => (value, unset),
            Err(error) if is_required(&error) && !known => (String::new(), true),
            Err(error) => {
                self.bad_word(text, &error, origin);
                (String::new(), false)
            }
        }
    }

    fn text(&mut self, stage: &Stage, text: &str, origin: Option<Span>) -> String {
        self.word(stage, text, origin).0
    }

    /// A text of a stage, and whether an unset variable was in it.
    fn word(&mut self, stage: &Stage, text: &str, origin: Option<Span>) -> (String, bool) {
        let expanded = self.expand(text, &|n| stage.lookup(n), stage.known, origin);
        self.lint_variables(stage, origin);
        expanded
    }

    fn pairs(&mut self, stage: &Stage, pairs: &[(String, String)], origin: Option<Span>) -> Vec<(String, String)> {
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            expanded.push((self.text(stage, name, origin), self.text(stage, value, origin)));
        }
        expanded
    }
}
