//! Where a stage, a copy or a mount begins: stages, images, contexts.

use ctk_oci::{ImageConfig, Platform, Reference};
use ctk_syntax::{Span, nearest};

use super::arguments::find;
use super::{ContextKind, ImageHistory, Need, Slot, Walk};
use crate::stage::Stage;
use crate::{
    BaseName, BaseRequest, Copy, From, Instruction, Op, Recipe, Selection, Statement, Vertex, VertexId, codes,
};

/// Where files come from, resolved.
pub(super) enum Origin {
    Local(String),
    Stage(usize),
    Base(BaseName),
    Scratch,
}

impl<'a> Walk<'a> {
    pub(super) fn target(&mut self) -> Option<usize> {
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
    pub(super) fn stage(&mut self, index: usize, wanted_by: Option<Span>) -> Option<Stage> {
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

    pub(super) fn label(&self, index: usize) -> String {
        self.recipe.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    pub(super) fn walk_stage(&mut self, index: usize) -> Option<Stage> {
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
    pub(super) fn resolve(&mut self, name: &str, before: usize, origin: Option<Span>) -> Option<Origin> {
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

    pub(super) fn resolve_from(&mut self, from: &From, before: usize, origin: Option<Span>) -> Option<Origin> {
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

    /// A vertex to take files from, with the config-less rest.
    pub(super) fn tree(
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

    pub(super) fn source(&mut self, op: Op, name: String, origin: Option<Span>) -> VertexId {
        self.graph.add(Vertex { op, inputs: Vec::new(), name, origin })
    }

    pub(super) fn scratch(&mut self) -> VertexId {
        self.source(Op::Scratch, "scratch".into(), None)
    }

    /// The vertex of a base image, and its config when known.
    pub(super) fn base(
        &mut self,
        name: &BaseName,
        platform: &Platform,
        origin: Option<Span>,
    ) -> (VertexId, Option<ImageConfig>) {
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

    pub(super) fn begin(
        &mut self,
        label: String,
        from: Origin,
        platform: Platform,
        origin: Option<Span>,
    ) -> Option<Stage> {
        match from {
            Origin::Stage(index) => Some(self.stage(index, origin)?.child(label)),
            Origin::Scratch => {
                // No tree says what it runs on: it is what is built for.
                Some(self.empty_stage(label))
            }
            Origin::Local(context) => {
                let mut stage = self.empty_stage(label);
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
                stage.start();
                Some(stage)
            }
        }
    }

    fn empty_stage(&mut self, label: String) -> Stage {
        let mut stage = Stage::new(label, self.scratch(), self.request.platform.clone());
        stage.config.working_dir = "/".into();
        stage.start();
        stage
    }

    /// Takes the triggers out of the base's config and reads them.
    pub(super) fn triggers(&mut self, stage: &mut Stage, origin: Option<Span>) -> Vec<Statement> {
        let mut statements = Vec::new();
        for text in std::mem::take(&mut stage.config.on_build) {
            match (self.request.parse_trigger)(&text) {
                Ok(statement) => {
                    let statement = Statement { origin, ..statement };
                    self.triggered.push(statement.clone());
                    statements.push(statement);
                }
                Err(error) => {
                    let message = format!("the base's `ONBUILD {text}` cannot be read: {error}");
                    self.error(codes::BAD_TRIGGER, message, origin, "");
                }
            }
        }
        statements
    }

    /// The whole of a local context.
    pub(super) fn whole(context: &str) -> Selection {
        Selection { context: context.to_owned(), paths: vec![String::new()], exclude: Vec::new() }
    }
}
