//! Where a stage, a copy or a mount begins: stages, images, contexts.

use std::collections::BTreeMap;

use ctk_oci::{ImageConfig, Platform, Reference};
use ctk_syntax::{Diagnostic, Span, nearest, short};

use super::arguments::find;
use super::{ImageHistory, Need, Slot, Walk};
use crate::stage::Stage;
use crate::{
    BaseName, BaseRequest, Copy, From, Instruction, Op, Recipe, RecipeStage, Selection, Statement, Vertex, VertexId,
    codes, lint,
};

/// Where files come from, resolved.
pub(super) enum Origin {
    /// A context, whatever it is.
    Context(String),
    Local(String),
    Stage(usize),
    Base(BaseName),
    /// Files of a context that is no directory.
    Tree(VertexId),
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
                let begin = self.walking.iter().position(|(walked, _)| *walked == index).unwrap_or_default();
                let way = self.walking.get(begin + 1..).unwrap_or_default().to_vec();
                self.circle(index, wanted_by, &way);
                return None;
            }
            Slot::New => self.slots[index] = Slot::Open,
        }
        self.walking.push((index, wanted_by));
        let stage = self.walk_stage(index);
        self.walking.pop();
        self.slots[index] = Slot::Done(stage.clone().map(Box::new));
        stage
    }

    /// Reports that `closes` needs the stage `index`, which needs that instruction by way of other stages.
    fn circle(&mut self, index: usize, closes: Option<Span>, way: &[(usize, Option<Span>)]) {
        let label = self.label(index);
        let mut error = Diagnostic::error(codes::STAGE_CYCLE, format!("stage `{label}` needs itself"));
        let others = way.iter().filter_map(|(stage, origin)| origin.map(|span| (*stage, span)));
        if let Some(span) = closes {
            error = error.at(span, "this closes the circle");
        }
        for (stage, span) in others.filter(|(_, span)| Some(*span) != closes) {
            error = error.at(span, format!("this needs `{}`", self.label(stage)));
        }
        self.diagnostics.push(error);
    }

    pub(super) fn label(&self, index: usize) -> String {
        self.recipe.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    /// What a stage says of its beginning: for which platform, and from where.
    pub(super) fn beginning(&mut self, index: usize) -> (Option<Platform>, Option<Origin>) {
        let recipe: &'a Recipe = self.recipe;
        let written = &recipe.stages[index];
        let globals = std::mem::take(&mut self.globals);
        let lookup = |name: &str| find(&globals, name);
        let platform = match &written.platform {
            None => Some(self.request.platform.clone()),
            Some(written_platform) => {
                let (text, _) = self.expand(written_platform, &lookup, true, written.origin);
                let parsed = text.parse::<Platform>();
                if parsed.is_err() {
                    let message = match text.is_empty() {
                        true => "`--platform` is empty after expansion".to_owned(),
                        false => format!("`{}` is no platform; expected `os/architecture[/variant]`", short(&text)),
                    };
                    self.error(codes::BAD_PLATFORM, message, self.place(written.origin, written_platform), "");
                }
                parsed.ok()
            }
        };
        let known = platform.as_ref().unwrap_or(&self.request.platform).clone();
        let from = match (self.instead(index, &known), &written.from) {
            (Some(context), _) => Some(Origin::Context(context)),
            (None, From::Text(text)) => {
                let (name, unset) = self.expand(text, &lookup, true, written.origin);
                let place = self.place(written.origin, text);
                if name.is_empty() {
                    let why = if unset { "; a variable in it is not set before the first FROM" } else { "" };
                    self.error(codes::EMPTY_FROM, format!("base name `{text}` is empty{why}"), place, "");
                    None
                } else if let Some(stage) = self.misspelt_stage(&name, index) {
                    let message = format!("`{name}` is no stage, because FROM knows stages in small letters only");
                    self.error(codes::BAD_REFERENCE, message, place, &format!("did you mean `{stage}`?"));
                    None
                } else {
                    self.resolve(&name, index, &known, written.origin)
                }
            }
            (None, other) => self.resolve_from(other, index, &known, written.origin),
        };
        self.globals = globals;
        (platform, from)
    }

    pub(super) fn walk_stage(&mut self, index: usize) -> Option<Stage> {
        let recipe: &'a Recipe = self.recipe;
        let written = &recipe.stages[index];
        let (platform, from) = self.beginning(index);
        let (platform, from) = (platform?, from?);
        let replaced = self.instead(index, &platform).is_some();
        let mut stage = self.begin(self.label(index), from, platform, written.origin)?;
        if replaced {
            return Some(stage);
        }
        let triggers = self.triggers(&mut stage, written.origin);
        let makes = |s: &&Statement| s.instruction.makes_vertex();
        stage.steps = 1 + triggers.iter().filter(makes).count() + written.statements.iter().filter(makes).count();
        for statement in triggers.iter().chain(&written.statements) {
            self.statement(&mut stage, statement, index);
        }
        Some(stage)
    }

    /// A name as a Dockerfile means it: named context, stage before this one, `scratch`, image.
    pub(super) fn resolve(
        &mut self,
        name: &str,
        before: usize,
        platform: &Platform,
        origin: Option<Span>,
    ) -> Option<Origin> {
        if name == "scratch" {
            return Some(Origin::Scratch);
        }
        if let Some(context) = self.context_named(name, platform) {
            return Some(Origin::Context(context));
        }
        let same = |s: &crate::RecipeStage| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
        if let Some(stage) = self.recipe.stages[..before].iter().rposition(same) {
            return Some(Origin::Stage(stage));
        }
        match name.parse::<Reference>() {
            Ok(reference) => Some(Origin::Base(BaseName::Reference(reference.or_latest()))),
            Err(error) => {
                let near = nearest(name, self.stage_names(before));
                let near = near.map(|n| format!("; did you mean stage `{n}`?")).unwrap_or_default();
                let message = format!("`{}` is no image: {error}{near}", short(name));
                self.error(codes::BAD_REFERENCE, message, self.place(origin, name), "");
                None
            }
        }
    }

    /// The stage before `before` that is called `name` but for its capital letters.
    fn misspelt_stage(&self, name: &str, before: usize) -> Option<&'a str> {
        let dockerfile = self.escape().is_some() && name.bytes().any(|b| b.is_ascii_uppercase());
        self.stage_names(before).find(|stage| dockerfile && stage.eq_ignore_ascii_case(name))
    }

    /// Names of the stages before `before`.
    fn stage_names(&self, before: usize) -> impl Iterator<Item = &'a str> {
        let recipe: &'a Recipe = self.recipe;
        recipe.stages[..before].iter().filter_map(|stage| stage.name.as_deref())
    }

    pub(super) fn resolve_from(
        &mut self,
        from: &From,
        before: usize,
        platform: &Platform,
        origin: Option<Span>,
    ) -> Option<Origin> {
        match from {
            From::Context => match self.request.contexts.contains_key("") {
                true => Some(Origin::Context(String::new())),
                false => Some(Origin::Local(String::new())),
            },
            From::Scratch => Some(Origin::Scratch),
            From::Base(base) => Some(Origin::Base(base.clone())),
            From::Stage(stage) => Some(Origin::Stage(*stage)),
            From::Text(name) => self.resolve(name, before, platform, origin),
            From::Named(name) => match self.context_named(name, platform) {
                Some(context) => Some(Origin::Context(context)),
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
            From::Text(name) => self.reference(name, index, platform, origin)?,
            other => self.resolve_from(other, index, platform, origin)?,
        };
        let resolved = self.concrete(resolved, origin)?;
        Some(match resolved {
            Origin::Stage(stage) => (self.stage(stage, origin)?.vertex, None),
            Origin::Scratch => (self.scratch(), None),
            // Not for what the stage runs on, but for what is built.
            Origin::Base(name) => (self.base(&name, &self.request.platform.clone(), origin).0, None),
            Origin::Tree(vertex) => (vertex, None),
            Origin::Context(_) => return None,
            Origin::Local(context) => {
                let op = Op::Local { context: context.clone() };
                let shown = if context.is_empty() { "context".to_owned() } else { format!("context {context}") };
                (self.source(op, shown, None), Some(context))
            }
        })
    }

    /// What `--from` names: a stage by number or name, a context, an image. A Dockerfile's stage must come before.
    fn reference(&mut self, name: &str, index: usize, platform: &Platform, origin: Option<Span>) -> Option<Origin> {
        let all = self.recipe.stages.len();
        if name.contains('$') && self.escape().is_some() {
            let message = format!("`--from={}`: variables are not expanded there", short(name));
            self.error(codes::BAD_REFERENCE, message, self.place(origin, name), "name a stage that begins `FROM $…`");
            return None;
        }
        let resolved = match name.parse::<usize>() {
            Ok(number) if number < all => Origin::Stage(number),
            Ok(number) if self.escape().is_some() => {
                let message = format!("there is no stage {number}; there are {all}, numbered from 0");
                self.error(codes::UNKNOWN_STAGE, message, self.place(origin, name), "");
                return None;
            }
            Err(_) if self.escape().is_some() && name.parse::<i64>().is_ok() => {
                let message = format!("there is no stage {}; there are {all}, numbered from 0", short(name));
                self.error(codes::UNKNOWN_STAGE, message, self.place(origin, name), "");
                return None;
            }
            _ => self.resolve(name, all, platform, origin)?,
        };
        match resolved {
            Origin::Stage(stage) if stage > index && self.escape().is_some() => {
                if let Some(way) = self.way(stage, index) {
                    self.circle(index, origin, &way);
                    return None;
                }
                let message = format!("stage `{name}` comes after stage `{}`, which uses it", self.label(index));
                self.error(codes::UNKNOWN_STAGE, message, origin, "a stage may use those before it");
                None
            }
            resolved => Some(resolved),
        }
    }

    /// How stage `from` needs stage `to`, as far as names without variables tell: each stage on the way, and what needs it.
    fn way(&self, from: usize, to: usize) -> Option<Vec<(usize, Option<Span>)>> {
        let recipe: &'a Recipe = self.recipe;
        let called = |name: &str, before: usize| {
            let named = |s: &RecipeStage| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
            recipe.stages[..before].iter().rposition(named)
        };
        // What needs each stage that was reached.
        let mut needed_by: BTreeMap<usize, (usize, Option<Span>)> = BTreeMap::new();
        let mut todo = vec![from];
        while let Some(index) = todo.pop() {
            if index == to {
                let mut way = Vec::new();
                let mut at = to;
                while at != from {
                    let (needs, origin) = needed_by[&at];
                    way.push((at, origin));
                    at = needs;
                }
                way.reverse();
                return Some(way);
            }
            let stage = &recipe.stages[index];
            let mut next = Vec::new();
            if let From::Text(name) = &stage.from {
                next.extend(called(name, index).map(|base| (base, stage.origin)));
            }
            for statement in &stage.statements {
                let Instruction::Copy(Copy { from: From::Text(name), .. }) = &statement.instruction else { continue };
                let number = name.parse().ok().filter(|number| *number < recipe.stages.len());
                let copied = number.or_else(|| called(name, recipe.stages.len()));
                next.extend(copied.map(|stage| (stage, statement.origin)));
            }
            for (stage, origin) in next {
                if stage != from && !needed_by.contains_key(&stage) {
                    needed_by.insert(stage, (index, origin));
                    todo.push(stage);
                }
            }
        }
        None
    }

    /// Mistakes of stages that the target does not need: whoever builds everything meets them.
    pub(super) fn check_unneeded(&mut self) {
        if self.escape().is_none() {
            return;
        }
        let recipe: &'a Recipe = self.recipe;
        let unneeded: Vec<usize> =
            (0..recipe.stages.len()).filter(|index| matches!(self.slots[*index], Slot::New)).collect();
        let mut needs: BTreeMap<usize, Vec<(usize, Option<Span>)>> = BTreeMap::new();
        for index in unneeded {
            let (_, from) = self.beginning(index);
            let base = match from {
                Some(Origin::Stage(stage)) => Some((stage, recipe.stages[index].origin)),
                _ => None,
            };
            let mut used: Vec<(usize, Option<Span>)> = base.into_iter().collect();
            for statement in &recipe.stages[index].statements {
                let Instruction::Copy(Copy { from: From::Text(name), .. }) = &statement.instruction else { continue };
                used.extend(self.stage_of(name, statement.origin).map(|stage| (stage, statement.origin)));
            }
            needs.insert(index, used);
        }
        while let Some((index, _)) = needs.first_key_value() {
            let mut path = vec![(*index, None)];
            // Depth first; a stage that leads to no circle is taken out.
            while let Some((last, _)) = path.last().copied() {
                let next = needs.get_mut(&last).and_then(Vec::pop);
                match next {
                    None => {
                        needs.remove(&last);
                        path.pop();
                    }
                    Some((stage, origin)) => match path.iter().position(|(walked, _)| *walked == stage) {
                        Some(begin) => self.circle(stage, origin, &path[begin + 1..]),
                        None if needs.contains_key(&stage) => path.push((stage, origin)),
                        None => {}
                    },
                }
            }
        }
    }

    /// The stage that a `--from` names, if it is one; a number without a stage is a mistake.
    fn stage_of(&mut self, name: &str, origin: Option<Span>) -> Option<usize> {
        if name.contains('$') {
            return self.reference(name, 0, &self.request.platform.clone(), origin).and(None);
        }
        match name.parse::<usize>() {
            Ok(number) if number < self.recipe.stages.len() => Some(number),
            Ok(_) => self.reference(name, 0, &self.request.platform.clone(), origin).and(None),
            Err(_) => {
                self.recipe.stages.iter().rposition(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)))
            }
        }
    }

    pub(super) fn source(&mut self, op: Op, name: String, origin: Option<Span>) -> VertexId {
        self.graph.add(Vertex { op, inputs: Vec::new(), name, origin, variables: Vec::new() })
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
                self.warn_of_platform(name, &image.config, platform, origin);
                let op = Op::Image { name: name.clone(), manifest: image.manifest };
                (self.source(op, format!("FROM {name}"), origin), Some(image.config))
            }
            None => {
                if !self.needs.iter().any(|n| matches!(n, Need::Base { request: r, .. } if *r == request)) {
                    let near = self.near_stage(name);
                    self.needs.push(Need::Base { request, near, origin });
                }
                (self.scratch(), None)
            }
        }
    }

    /// The stage that may have been meant by an image without registry and tag.
    fn near_stage(&self, name: &BaseName) -> Option<String> {
        let BaseName::Reference(reference) = name else { return None };
        let plain = reference.repository().strip_prefix("library/").filter(|_| reference.digest().is_none())?;
        nearest(plain, self.stage_names(self.recipe.stages.len())).map(str::to_owned)
    }

    fn warn_of_platform(&mut self, name: &BaseName, config: &ImageConfig, wanted: &Platform, origin: Option<Span>) {
        let has = config.platform();
        if has.architecture.is_empty() || (has.os == wanted.os && has.architecture == wanted.architecture) {
            return;
        }
        let message = format!("base image `{name}` is for {has}, and {wanted} is wanted");
        let warning = Diagnostic::warning(lint::codes::INVALID_BASE_IMAGE_PLATFORM, message);
        let warning = match origin {
            Some(span) => warning.at(span, ""),
            None => warning,
        };
        if !self.warnings.iter().any(|known| *known == warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn begin(
        &mut self,
        label: String,
        from: Origin,
        platform: Platform,
        origin: Option<Span>,
    ) -> Option<Stage> {
        match self.concrete(from, origin)? {
            Origin::Context(_) => None,
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
            Origin::Tree(vertex) => {
                let mut stage = self.empty_stage(label);
                stage.vertex = vertex;
                let created_by = self.graph.get(vertex).name.clone();
                stage.history.push(ImageHistory::Layer { created_by, vertex });
                Some(stage)
            }
            Origin::Base(name) => {
                let (vertex, config) = self.base(&name, &platform, origin);
                let mut stage = Stage::new(label, vertex, platform);
                stage.known = config.is_some();
                if let Some(image) = config {
                    stage.base = Some(vertex);
                    stage.base_platform = Some(image.platform()).filter(|platform| !platform.architecture.is_empty());
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
        Selection { context: context.to_owned(), paths: vec![String::new()], exclude: Vec::new(), parents: false }
    }
}
