//! What a Dockerfile offers and wants, without building it: its stages, and what a target takes. Field names are
//! buildx's, whose readers exist.

use std::collections::{BTreeMap, BTreeSet};

use ctk_buildgraph::{Arg, Escape, Expansion, From, Instruction, Recipe, RunMountKind, WrittenMount};
use ctk_syntax::{ShellSyntax, Sources, Span, shell_word};
use serde::Serialize;

/// `--call=targets`: the stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// In the order of the file.
    pub targets: Vec<Target>,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is built when none is named.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// What the comment above it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it begins with.
    pub base: String,
    /// What its `--platform` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Where it stands.
    pub location: Location,
}

/// `--call=outline`: what a target takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The target's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the comment above it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its build arguments and those of the stages that it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// The secrets that commands want.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Wanted>,
    /// The agents that commands want.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<Wanted>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it is declared.
    pub location: Location,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// Its id.
    pub name: String,
    /// Whether it has to be there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Where it is asked for.
    pub location: Location,
}

/// Lines of the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// Usually one.
    pub ranges: Vec<LineRange>,
}

/// From one line to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LineRange {
    /// The first.
    pub start: Line,
    /// The last.
    pub end: Line,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// From 1.
    pub line: usize,
}

impl Location {
    /// Where `span` is.
    pub fn of(span: Span, sources: &Sources) -> Location {
        let start = Line { line: sources.location(span).line };
        // The end is one past the last byte, which may be on the next line.
        let last = span.end.saturating_sub(1).max(span.start);
        let end = Line { line: sources.location(Span::new(span.source, last, last)).line };
        Location { ranges: vec![LineRange { start, end }] }
    }

    fn maybe(span: Option<Span>, sources: &Sources) -> Location {
        span.map_or(Location { ranges: Vec::new() }, |span| Location::of(span, sources))
    }
}

/// The stages of a Dockerfile; `target` is the default one.
pub fn targets(recipe: &Recipe, sources: &Sources, target: Option<&str>) -> Targets {
    let default = target.map_or(recipe.stages.len().checked_sub(1), |name| find(recipe, name));
    let stages = recipe.stages.iter().enumerate().map(|(index, stage)| Target {
        name: stage.name.clone(),
        default: default == Some(index),
        description: stage.description.clone(),
        base: base(recipe, &stage.from),
        platform: stage.platform.clone(),
        location: Location::maybe(stage.origin, sources),
    });
    Targets { targets: stages.collect() }
}

fn base(recipe: &Recipe, from: &From) -> String {
    match from {
        From::Text(text) | From::Named(text) => text.clone(),
        From::Stage(index) => {
            recipe.stages.get(*index).and_then(|stage| stage.name.clone()).unwrap_or_else(|| index.to_string())
        }
        From::Base(base) => base.to_string(),
        From::Scratch => "scratch".into(),
        From::Context => String::new(),
    }
}

fn find(recipe: &Recipe, name: &str) -> Option<usize> {
    let named = recipe.stages.iter().rposition(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    named.or_else(|| name.parse().ok().filter(|index| *index < recipe.stages.len()))
}

/// What a target takes; `None` if there is no such stage. `given` are build arguments.
pub fn outline(
    recipe: &Recipe,
    sources: &Sources,
    target: Option<&str>,
    given: &BTreeMap<String, String>,
) -> Option<Outline> {
    let index = target.map_or(recipe.stages.len().checked_sub(1), |name| find(recipe, name))?;
    let stage = recipe.stages.get(index)?;
    let escape = match recipe.expansion {
        Expansion::Dockerfile(escape) => escape,
        Expansion::Literal => Escape::Backslash,
    };
    let mut walk = Walk {
        recipe,
        sources,
        given,
        escape,
        seen: BTreeSet::new(),
        values: BTreeMap::new(),
        found: Found::default(),
    };
    for arg in &recipe.globals {
        let value = walk.value(arg);
        walk.values.insert(arg.name.clone(), value);
    }
    walk.stage(index);
    let Found { mut args, mut secrets, mut ssh } = walk.found;
    args.sort_by(|a, b| a.location.cmp(&b.location));
    let order = |a: &Wanted, b: &Wanted| (&a.location, &a.name).cmp(&(&b.location, &b.name));
    secrets.sort_by(order);
    ssh.sort_by(order);
    Some(Outline { name: stage.name.clone(), description: stage.description.clone(), args, secrets, ssh })
}

#[derive(Default)]
struct Found {
    args: Vec<OutlineArg>,
    secrets: Vec<Wanted>,
    ssh: Vec<Wanted>,
}

struct Walk<'a> {
    recipe: &'a Recipe,
    sources: &'a Sources,
    given: &'a BTreeMap<String, String>,
    escape: Escape,
    seen: BTreeSet<usize>,
    values: BTreeMap<String, Option<String>>,
    found: Found,
}

impl Walk<'_> {
    fn value(&self, arg: &Arg) -> Option<String> {
        if let Some(given) = self.given.get(&arg.name) {
            return Some(given.clone());
        }
        let default = arg.default.as_ref()?;
        let syntax = ShellSyntax { escape: self.escape.char(), quotes: true };
        let mut lookup = |name: &str| self.values.get(name).cloned().flatten();
        Some(shell_word(default, syntax, &mut lookup).unwrap_or_else(|_| default.clone()))
    }

    fn arg(&mut self, arg: &Arg) {
        let global = self.recipe.globals.iter().find(|g| g.name == arg.name && arg.default.is_none());
        // A stage's ARG without a default means the global one.
        let arg = global.unwrap_or(arg);
        let value = self.value(arg);
        self.values.insert(arg.name.clone(), value.clone());
        if self.found.args.iter().any(|known| known.name == arg.name) {
            return;
        }
        self.found.args.push(OutlineArg {
            name: arg.name.clone(),
            description: arg.description.clone(),
            value,
            location: Location::maybe(arg.origin, self.sources),
        });
    }

    /// The global arguments that a text mentions.
    fn mentioned(&mut self, text: &str) {
        let mut names = Vec::new();
        let syntax = ShellSyntax { escape: self.escape.char(), quotes: true };
        let _ = shell_word(text, syntax, &mut |name: &str| {
            names.push(name.to_owned());
            Some(String::new())
        });
        for name in names {
            if let Some(global) = self.recipe.globals.iter().find(|g| g.name == name).cloned() {
                self.arg(&global);
            }
        }
    }

    fn from(&mut self, from: &From) {
        match from {
            From::Stage(index) => self.stage(*index),
            From::Text(text) | From::Named(text) => {
                self.mentioned(text);
                if let Some(index) = find(self.recipe, text) {
                    self.stage(index);
                }
            }
            From::Context | From::Base(_) | From::Scratch => {}
        }
    }

    fn stage(&mut self, index: usize) {
        let Some(stage) = self.recipe.stages.get(index) else { return };
        if !self.seen.insert(index) {
            return;
        }
        self.from(&stage.from);
        if let Some(platform) = &stage.platform {
            self.mentioned(platform);
        }
        for statement in &stage.statements {
            let location = Location::maybe(statement.origin, self.sources);
            match &statement.instruction {
                Instruction::Arg(args) => args.iter().for_each(|arg| self.arg(arg)),
                Instruction::Copy(copy) | Instruction::Add(copy) => self.from(&copy.from),
                Instruction::Run(run) => {
                    for mount in run.mounts.iter().filter_map(WrittenMount::plain) {
                        match &mount.kind {
                            RunMountKind::Bind { from, .. } | RunMountKind::Cache { from: Some(from), .. } => {
                                self.from(from)
                            }
                            RunMountKind::Secret { id, required, .. } => {
                                want(&mut self.found.secrets, id, *required, &location);
                            }
                            RunMountKind::Ssh { id, required, .. } => {
                                want(&mut self.found.ssh, id, *required, &location);
                            }
                            RunMountKind::Cache { .. } | RunMountKind::Tmpfs { .. } => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn want(list: &mut Vec<Wanted>, id: &str, required: bool, location: &Location) {
    match list.iter_mut().find(|known| known.name == id) {
        Some(known) => known.required |= required,
        None => list.push(Wanted { name: id.to_owned(), required, location: location.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# GVER is the version
ARG GVER=2.0
ARG UNUSED=1
ARG IMG=scratch
# base is the base
FROM ${IMG} AS base
ARG BASEARG=b
FROM base AS other
RUN --mount=type=secret,id=osec true
# build compiles
FROM base AS build
# A is an a
ARG A=x
ARG B
ARG GVER
ARG C=${A}-c
COPY --from=other /x /y
RUN --mount=type=secret,id=tok,required=true \\
    true
FROM scratch
COPY --from=build / /
";

    fn parsed() -> (Recipe, Sources) {
        let mut sources = Sources::new();
        let id = sources.add("Dockerfile", TEXT);
        let (file, diagnostics) = ctk_dockerfile::parse(&sources, id);
        assert!(!diagnostics.has_errors());
        (file.recipe, sources)
    }

    #[test]
    fn stages_are_targets() {
        let (recipe, sources) = parsed();
        let all = targets(&recipe, &sources, None).targets;
        let words: Vec<_> = all
            .iter()
            .map(|t| (t.name.as_deref().unwrap_or(""), t.description.as_deref(), t.base.as_str(), t.default))
            .collect();
        let expected = [
            ("base", Some("is the base"), "${IMG}", false),
            ("other", None, "base", false),
            ("build", Some("compiles"), "base", false),
            ("", None, "scratch", true),
        ];
        assert_eq!(words, expected);
        assert_eq!(all[0].location.ranges[0].start.line, 6);
    }

    #[test]
    fn an_outline_has_what_the_target_and_its_needs_take() {
        let (recipe, sources) = parsed();
        let given = BTreeMap::from([("B".to_owned(), "7".to_owned())]);
        let outline = outline(&recipe, &sources, None, &given).unwrap();
        let args: Vec<_> = outline.args.iter().map(|a| (a.name.as_str(), a.value.as_deref().unwrap_or(""))).collect();
        let expected = [("GVER", "2.0"), ("IMG", "scratch"), ("BASEARG", "b"), ("A", "x"), ("B", "7"), ("C", "x-c")];
        assert_eq!(args, expected);
        let secrets: Vec<_> = outline.secrets.iter().map(|s| (s.name.as_str(), s.required)).collect();
        assert_eq!(secrets, [("osec", false), ("tok", true)]);
        let lines = &outline.secrets[1].location.ranges[0];
        assert_eq!((lines.start.line, lines.end.line), (18, 19));
        assert_eq!(super::outline(&recipe, &sources, Some("nope"), &given), None);
    }
}
