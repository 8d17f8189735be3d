//! From a recipe to a graph: the meaning of every instruction, once for both languages.
//!
//! The walk visits the stages that the target needs and no other. Where it meets a base image whose
//! config it was not given, it goes on with an empty one and in the end says what it needs; asked
//! again with the answers it gets further, until the graph is whole. [`selections`] is the same walk
//! without any base: what the build will read of local contexts, known before anything is fetched.

mod copy;
mod run;

use std::collections::BTreeMap;

use ctk_oci::{ContainerConfig, Digest, History, ImageConfig, Platform, Reference};
use ctk_syntax::{Diagnostic, Diagnostics, Span, nearest};

use crate::stage::{DEFAULT_PATH, Stage};
use crate::words::{Variables, is_required};
use crate::{
    BaseName, BaseRequest, Copy, Escape, Expansion, From, Graph, Instruction, Op, PackagesSpec, Read, Recipe,
    Selection, Statement, Vertex, VertexId, codes,
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
}

/// Reads the Dockerfile text of an `ONBUILD` trigger; an error is one sentence.
pub type ParseTrigger<'a> = &'a dyn Fn(&str) -> Result<Statement, String>;

/// What to lower for, and what is known of the world.
pub struct LowerRequest<'a> {
    /// What the image is for.
    pub platform: Platform,
    /// What builds it.
    pub build_platform: Platform,
    /// Values of build arguments.
    pub args: BTreeMap<String, String>,
    /// Name or number of the wanted stage; the last one if none.
    pub target: Option<String>,
    /// Named contexts; `""` is the main one and always a directory.
    pub contexts: BTreeMap<String, ContextKind>,
    /// Base images known so far.
    pub bases: Bases,
    /// Digests of locked package lists known so far, by stage.
    pub packages: BTreeMap<String, String>,
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
    let target = walk.target();
    let stage = target.map(|index| walk.stage(index, None));
    let needs = walk.needs;
    let stage = walk.diagnostics.into_result(stage)?.flatten();
    if !needs.is_empty() {
        return Ok(Lowering::Needs(needs));
    }
    let stage = stage.expect("a recipe without mistakes has a target");
    let image = Image {
        vertex: stage.vertex,
        base: stage.base,
        platform: stage.platform,
        config: stage.config,
        author: stage.author,
        history: stage.history,
    };
    Ok(Lowering::Ready(Box::new(Lowered { graph: walk.graph, image })))
}

/// What the target reads of local contexts, and the images and package lists it needs, as far as that can be told
/// without knowing any base image. Where a path depends on a base's environment, all of its context is named.
pub fn reads(recipe: &Recipe, request: &LowerRequest<'_>) -> Result<(Vec<Read>, Vec<Need>), Diagnostics> {
    let mut walk = Walk::new(recipe, request);
    let stage = walk.target().and_then(|index| walk.stage(index, None));
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
    graph: Graph,
    needs: Vec<Need>,
    diagnostics: Diagnostics,
}

/// Where files come from, resolved.
enum Origin {
    Local(String),
    Stage(usize),
    Base(BaseName),
    Scratch,
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
            graph: Graph::default(),
            needs: Vec::new(),
            diagnostics,
        };
        walk.read_globals();
        walk
    }

    fn read_globals(&mut self) {
        for (prefix, platform) in [("TARGET", &self.request.platform), ("BUILD", &self.request.build_platform)] {
            let parts = [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone().unwrap_or_default()),
            ];
            self.globals.extend(parts.map(|(name, value)| (format!("{prefix}{name}"), Some(value))));
        }
        let stage = self.request.target.clone().unwrap_or_else(|| "default".into());
        self.globals.push(("TARGETSTAGE".into(), Some(stage)));
        for arg in &self.recipe.globals {
            let globals = std::mem::take(&mut self.globals);
            let value = match (self.request.args.get(&arg.name), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, &|n| find(&globals, n), true, arg.origin).0),
                (None, None) => find(&globals, &arg.name),
            };
            self.globals = globals;
            self.globals.push((arg.name.clone(), value));
        }
    }

    fn error(&mut self, code: &'static str, message: impl Into<String>, origin: Option<Span>, label: &str) {
        let diagnostic = Diagnostic::error(code, message);
        self.diagnostics.push(match origin {
            Some(span) => diagnostic.at(span, label),
            None => diagnostic,
        });
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
        match variables.word(text, escape) {
            Ok(value) => (value, variables.unset),
            Err(error) if is_required(&error) && !known => (String::new(), true),
            Err(error) => {
                self.error(codes::BAD_WORD, format!("cannot expand `{text}`: {error}"), origin, "");
                (String::new(), false)
            }
        }
    }

    fn text(&mut self, stage: &Stage, text: &str, origin: Option<Span>) -> String {
        self.expand(text, &|n| stage.lookup(n), stage.known, origin).0
    }

    fn pairs(&mut self, stage: &Stage, pairs: &[(String, String)], origin: Option<Span>) -> Vec<(String, String)> {
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            expanded.push((self.text(stage, name, origin), self.text(stage, value, origin)));
        }
        expanded
    }

    fn target(&mut self) -> Option<usize> {
        let stages = &self.recipe.stages;
        let Some(last) = stages.len().checked_sub(1) else {
            self.error(codes::NO_STAGES, "there is no stage to build", None, "");
            return None;
        };
        let Some(wanted) = &self.request.target else { return Some(last) };
        let named = stages.iter().rposition(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(wanted)));
        let found = named.or_else(|| wanted.parse().ok().filter(|i| *i <= last));
        if found.is_none() {
            let near = nearest(wanted, stages.iter().filter_map(|s| s.name.as_deref()));
            let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            self.error(codes::UNKNOWN_STAGE, format!("target stage `{wanted}` does not exist{near}"), None, "");
        }
        found
    }

    /// The finished stage; none where a mistake was already reported.
    fn stage(&mut self, index: usize, wanted_by: Option<Span>) -> Option<Stage> {
        match &self.slots[index] {
            Slot::Done(stage) => return stage.as_deref().cloned(),
            Slot::Open => {
                let label = self.label(index);
                self.error(
                    codes::STAGE_CYCLE,
                    format!("stage `{label}` needs itself"),
                    wanted_by,
                    "this closes the circle",
                );
                return None;
            }
            Slot::New => self.slots[index] = Slot::Open,
        }
        let stage = self.walk_stage(index);
        self.slots[index] = Slot::Done(stage.clone().map(Box::new));
        stage
    }

    fn label(&self, index: usize) -> String {
        self.recipe.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    fn walk_stage(&mut self, index: usize) -> Option<Stage> {
        let recipe: &'a Recipe = self.recipe;
        let written = &recipe.stages[index];
        let globals = std::mem::take(&mut self.globals);
        let lookup = |name: &str| find(&globals, name);
        let platform = match &written.platform {
            None => Some(self.request.platform.clone()),
            Some(text) => {
                let (text, _) = self.expand(text, &lookup, true, written.origin);
                let parsed = text.parse::<Platform>();
                if parsed.is_err() {
                    let message = format!("`{text}` is no platform; expected `os/architecture[/variant]`");
                    self.error(codes::BAD_PLATFORM, message, written.origin, "");
                }
                parsed.ok()
            }
        };
        let from = match &written.from {
            From::Text(text) => {
                let (name, unset) = self.expand(text, &lookup, true, written.origin);
                if name.is_empty() {
                    let why = if unset { "; a variable in it is not set before the first FROM" } else { "" };
                    self.error(codes::EMPTY_FROM, format!("base name `{text}` is empty{why}"), written.origin, "");
                    None
                } else {
                    self.resolve(&name, index, written.origin)
                }
            }
            other => self.resolve_from(other, index, written.origin),
        };
        self.globals = globals;
        let (platform, from) = (platform?, from?);
        let mut stage = self.begin(self.label(index), from, platform, written.origin)?;
        let triggers = self.triggers(&mut stage, written.origin);
        let makes = |s: &&Statement| s.instruction.makes_vertex();
        stage.steps = 1 + triggers.iter().filter(makes).count() + written.statements.iter().filter(makes).count();
        for statement in triggers.iter().chain(&written.statements) {
            self.statement(&mut stage, statement, index);
        }
        Some(stage)
    }

    /// A name as a Dockerfile means it: named context, stage before this one, `scratch`, image.
    fn resolve(&mut self, name: &str, before: usize, origin: Option<Span>) -> Option<Origin> {
        if let Some(kind) = self.request.contexts.get(name).filter(|_| !name.is_empty()) {
            return Some(match kind {
                ContextKind::Local => Origin::Local(name.to_owned()),
                ContextKind::Base(base) => Origin::Base(base.clone()),
            });
        }
        let same = |s: &crate::RecipeStage| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
        if let Some(stage) = self.recipe.stages[..before].iter().rposition(same) {
            return Some(Origin::Stage(stage));
        }
        if name == "scratch" {
            return Some(Origin::Scratch);
        }
        match name.parse::<Reference>() {
            Ok(reference) => Some(Origin::Base(BaseName::Reference(reference.or_latest()))),
            Err(error) => {
                self.error(codes::BAD_REFERENCE, format!("`{name}` is no image: {error}"), origin, "");
                None
            }
        }
    }

    fn resolve_from(&mut self, from: &From, before: usize, origin: Option<Span>) -> Option<Origin> {
        match from {
            From::Context => Some(Origin::Local(String::new())),
            From::Scratch => Some(Origin::Scratch),
            From::Base(base) => Some(Origin::Base(base.clone())),
            From::Stage(stage) => Some(Origin::Stage(*stage)),
            From::Text(name) => self.resolve(name, before, origin),
            From::Named(name) => match self.request.contexts.get(name) {
                Some(ContextKind::Local) => Some(Origin::Local(name.clone())),
                Some(ContextKind::Base(base)) => Some(Origin::Base(base.clone())),
                None => {
                    self.error(codes::UNKNOWN_CONTEXT, format!("there is no context named `{name}`"), origin, "");
                    None
                }
            },
        }
    }

    fn source(&mut self, op: Op, name: String, origin: Option<Span>) -> VertexId {
        self.graph.add(Vertex { op, inputs: Vec::new(), name, origin })
    }

    fn scratch(&mut self) -> VertexId {
        self.source(Op::Scratch, "scratch".into(), None)
    }

    /// The vertex of a base image, and its config when known.
    fn base(&mut self, name: &BaseName, platform: &Platform, origin: Option<Span>) -> (VertexId, Option<ImageConfig>) {
        let request = BaseRequest::new(name.clone(), platform);
        match self.request.bases.get(&request).cloned() {
            Some(image) => {
                let op = Op::Image { name: name.clone(), manifest: image.manifest };
                (self.source(op, format!("FROM {name}"), origin), Some(image.config))
            }
            None => {
                if !self.needs.iter().any(|n| matches!(n, Need::Base { request: r, .. } if *r == request)) {
                    self.needs.push(Need::Base { request, origin });
                }
                (self.scratch(), None)
            }
        }
    }

    fn begin(&mut self, label: String, from: Origin, platform: Platform, origin: Option<Span>) -> Option<Stage> {
        match from {
            Origin::Stage(index) => Some(self.stage(index, origin)?.child(label)),
            Origin::Scratch => {
                let mut stage = Stage::new(label, self.scratch(), platform);
                stage.config.env.push(DEFAULT_PATH.into());
                Some(stage)
            }
            Origin::Local(context) => {
                let mut stage = Stage::new(label, self.scratch(), platform);
                stage.config.env.push(DEFAULT_PATH.into());
                let copy = Copy::new(From::Named(context), vec![crate::CopySource::Path("/".into())], "/");
                let shown = "FROM a context".to_owned();
                let statement = Statement { instruction: Instruction::Copy(copy), text: shown, origin };
                self.statement(&mut stage, &statement, 0);
                Some(stage)
            }
            Origin::Base(name) => {
                let (vertex, config) = self.base(&name, &platform, origin);
                let mut stage = Stage::new(label, vertex, platform);
                stage.known = config.is_some();
                if let Some(image) = config {
                    stage.base = Some(vertex);
                    stage.author = image.author;
                    stage.config = image.config;
                    stage.history = image.history.into_iter().map(ImageHistory::Base).collect();
                }
                Some(stage)
            }
        }
    }

    /// Takes the triggers out of the base's config and reads them.
    fn triggers(&mut self, stage: &mut Stage, origin: Option<Span>) -> Vec<Statement> {
        let mut statements = Vec::new();
        for text in std::mem::take(&mut stage.config.on_build) {
            match (self.request.parse_trigger)(&text) {
                Ok(statement) => statements.push(Statement { origin, ..statement }),
                Err(error) => {
                    let message = format!("the base's `ONBUILD {text}` cannot be read: {error}");
                    self.error(codes::BAD_TRIGGER, message, origin, "");
                }
            }
        }
        statements
    }

    fn statement(&mut self, stage: &mut Stage, statement: &Statement, index: usize) {
        let origin = statement.origin;
        match &statement.instruction {
            Instruction::Add(copy) => self.copy(stage, copy, true, statement, index),
            Instruction::Copy(copy) => self.copy(stage, copy, false, statement, index),
            Instruction::Run(run) => self.run(stage, run, statement, index),
            Instruction::Arg(args) => {
                for arg in args {
                    let value = self.arg_value(stage, arg);
                    stage.arg(&arg.name, value);
                }
            }
            Instruction::Env(pairs) => {
                let pairs = self.pairs(stage, pairs, origin);
                stage.env(&pairs);
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(stage, pairs, origin);
                stage.label(&pairs);
            }
            Instruction::Workdir(path) => {
                let path = self.text(stage, path, origin);
                stage.workdir(&mut self.graph, &path, &statement.text, origin);
            }
            Instruction::User(user) => {
                let user = self.text(stage, user, origin);
                stage.user(&user);
            }
            Instruction::UserEntry(entry) => stage.add_user(&mut self.graph, entry, &statement.text, origin),
            Instruction::Expose(ports) => {
                let ports = self.ports(stage, ports, origin);
                stage.expose(&ports);
            }
            Instruction::Volume(paths) => {
                let paths: Vec<String> = paths.iter().map(|p| self.text(stage, p, origin)).collect();
                stage.volume(&paths);
            }
            Instruction::Shell(shell) => stage.shell(shell),
            Instruction::Stopsignal(signal) => {
                let signal = self.text(stage, signal, origin);
                let number = signal.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n));
                let word = signal.strip_prefix("SIG").unwrap_or(&signal);
                let name = !word.is_empty()
                    && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"+-".contains(&b));
                if !number && !name {
                    let message =
                        format!("`{signal}` is no signal; expected a name such as `SIGTERM` or a number from 1 to 64");
                    self.error(codes::BAD_SIGNAL, message, origin, "");
                }
                stage.stop_signal(&signal);
            }
            Instruction::Maintainer(author) => stage.maintainer(author),
            Instruction::Onbuild(trigger) => stage.on_build(trigger),
            Instruction::Cmd(command) => stage.cmd(command),
            Instruction::Entrypoint(command) => stage.entrypoint(command),
            Instruction::Healthcheck(health) => stage.healthcheck(health),
            Instruction::Packages(spec) => self.packages(stage, spec, statement),
        }
    }

    /// Given on the command line, else the default, else the global of that name.
    fn arg_value(&mut self, stage: &Stage, arg: &crate::Arg) -> Option<String> {
        if let Some(given) = self.request.args.get(&arg.name) {
            return Some(given.clone());
        }
        match &arg.default {
            Some(default) => Some(self.text(stage, default, arg.origin)),
            None => find(&self.globals, &arg.name),
        }
    }

    fn ports(&mut self, stage: &Stage, ports: &[String], origin: Option<Span>) -> Vec<String> {
        let mut out = Vec::new();
        for text in ports {
            let words = match self.escape() {
                None => Ok(vec![text.clone()]),
                Some(escape) => Variables::new(&|n| stage.lookup(n)).words(text, escape),
            };
            match words {
                Err(error) if is_required(&error) && !stage.known => {}
                Err(error) => self.error(codes::BAD_WORD, format!("cannot expand `{text}`: {error}"), origin, ""),
                Ok(words) => {
                    for word in words {
                        match port_range(&word) {
                            Some(range) => out.extend(range),
                            None => {
                                let message = format!("`{word}` is no port; expected `port[-port][/tcp|udp|sctp]`");
                                self.error(codes::BAD_PORT, message, origin, "");
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn packages(&mut self, stage: &mut Stage, spec: &PackagesSpec, statement: &Statement) {
        let empty = matches!(self.graph.get(stage.vertex).op, Op::Scratch);
        if !empty {
            let message = "`packages` needs an empty tree, and this stage has files already";
            return self.error(
                codes::PACKAGES_ON_BASE,
                message,
                statement.origin,
                "put it first, in a stage without `from`",
            );
        }
        let name = stage.label.clone();
        let Some(locked) = self.request.packages.get(&name).cloned() else {
            self.needs.push(Need::Packages { stage: name, spec: spec.clone(), origin: statement.origin });
            return;
        };
        let op = Op::Packages { stage: name, locked, scripts: spec.scripts };
        stage.packages(&mut self.graph, op, &statement.text, statement.origin);
    }

    /// The whole of a local context.
    fn whole(context: &str) -> Selection {
        Selection { context: context.to_owned(), paths: vec![String::new()], exclude: Vec::new() }
    }

    /// A vertex to take files from, with the config-less rest.
    fn tree(
        &mut self,
        from: &From,
        platform: &Platform,
        index: usize,
        origin: Option<Span>,
    ) -> Option<(VertexId, Option<String>)> {
        let resolved = match from {
            From::Text(name) => match name.parse::<usize>().ok() {
                Some(number) if number < self.recipe.stages.len() => Origin::Stage(number),
                _ => {
                    let all = self.recipe.stages.len();
                    self.resolve(name, all, origin)?
                }
            },
            other => self.resolve_from(other, index, origin)?,
        };
        Some(match resolved {
            Origin::Stage(stage) => (self.stage(stage, origin)?.vertex, None),
            Origin::Scratch => (self.scratch(), None),
            Origin::Base(name) => (self.base(&name, platform, origin).0, None),
            Origin::Local(context) => {
                let op = Op::Local { context: context.clone() };
                let shown = if context.is_empty() { "context".to_owned() } else { format!("context {context}") };
                (self.source(op, shown, None), Some(context))
            }
        })
    }
}

impl Instruction {
    /// Whether it touches files.
    fn makes_vertex(&self) -> bool {
        use Instruction::*;
        matches!(self, Add(_) | Copy(_) | Run(_) | Workdir(_) | UserEntry(_) | Packages(_))
    }
}

fn find(list: &[(String, Option<String>)], name: &str) -> Option<String> {
    list.iter().rev().find(|(n, _)| n == name).and_then(|(_, value)| value.clone())
}

/// `80`, `80/udp`, `8000-8010/tcp` as single ports with protocol.
fn port_range(word: &str) -> Option<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first <= last && first > 0).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
