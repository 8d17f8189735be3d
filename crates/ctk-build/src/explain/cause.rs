//! Why an operation has to run, as data and as words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

/// What `ctk` says of one build before its operations run, or after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The image.
    pub image: String,
    /// For which platform.
    pub platform: String,
    /// What has to be there before anything can be said; nothing is said then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// The stages that the target needs, and the numbers of their steps; all that are written, without numbers, if it waits
    /// for a base.
    #[serde(skip)]
    pub stages: BTreeMap<String, BTreeSet<usize>>,
    /// The operations that the target needs, inputs first.
    pub steps: Vec<StepOutlook>,
}

/// One operation and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepOutlook {
    /// As progress lines call it: `[build 2/5] RUN make`.
    pub name: String,
    /// The stage it stands in.
    pub stage: String,
    /// Its number in the stage; sources have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    /// `Dockerfile:7:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Whether its earlier result is used, or that of a step that is made of it.
    pub cached: bool,
    /// Whether that was seen only when its inputs were there: by their content.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub same_content: bool,
    /// Why not, or not at once; empty if it is.
    pub causes: Vec<Cause>,
}

/// One thing that differs from the nearest earlier build of the same step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing like the image was built here before.
    FirstBuild,
    /// The image was, this step was not.
    NewStep,
    /// It was begun and never finished.
    Unfinished,
    /// The user wants it built anew.
    Forced {
        /// By which switch.
        by: String,
    },
    /// It was built so before, and its result is no longer in the store.
    ResultGone,
    /// Another version of `ctk` built it.
    Version,
    /// Its text is another.
    Instruction {
        /// As it was.
        from: String,
        /// Where it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        from_place: Option<String>,
        /// As it is.
        to: String,
    },
    /// A build argument that it sees.
    Argument(Change),
    /// An environment variable that it sees.
    Environment(Change),
    /// User, working directory, network, a mount and the like.
    Setting(Change),
    /// A file that it reads.
    File {
        /// In its context; `context:path` for other contexts than the main one.
        path: String,
        /// How it changed.
        #[serde(flatten)]
        change: FileChange,
    },
    /// The base is another.
    Base {
        /// Its name then.
        from_name: String,
        /// Its name now.
        to_name: String,
        /// Its manifest then.
        from: String,
        /// Its manifest now.
        to: String,
    },
    /// A URL, a repository or a list of packages gives something else.
    Source(Change),
    /// It stands after, or copies from, another step than before.
    Order {
        /// Which then.
        from: String,
        /// Which now.
        to: String,
    },
    /// A step before it has to run; if that gives the same files, this one is cached after all.
    Step {
        /// Which.
        step: String,
    },
}

/// Something with a name that was something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What.
    pub name: String,
    /// Then; nothing if there was none or it is hidden.
    pub from: Option<String>,
    /// Now; nothing if there is none or it is hidden.
    pub to: Option<String>,
    /// Whether its name says that it holds a secret, so that its values are not shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// How a file changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum FileChange {
    /// What is in it.
    Content,
    /// Extended attributes of it.
    Attributes {
        /// Which.
        names: Vec<String>,
    },
    /// Whether it is another name of a file.
    SameAs {
        /// Of which now.
        path: Option<String>,
    },
    /// Its permissions; octal.
    Mode {
        /// Then.
        from: String,
        /// Now.
        to: String,
    },
    /// Where the link points.
    Target {
        /// Then.
        from: String,
        /// Now.
        to: String,
    },
    /// A file became a directory or the like.
    Kind,
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// The same content has another name.
    Renamed {
        /// Its path then.
        from: String,
    },
}

/// Files named in a text; JSON has them all.
const SHOWN_FILES: usize = 10;
/// Characters of a value shown in a text.
const SHOWN_CHARACTERS: usize = 100;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::FirstBuild => f.write_str("first build"),
            Cause::NewStep => f.write_str("the step is new"),
            Cause::Unfinished => f.write_str("it was never finished"),
            Cause::Forced { by } => write!(f, "{by}"),
            Cause::ResultGone => f.write_str("its earlier result is no longer in the store"),
            Cause::Version => f.write_str("another version of ctk built it"),
            Cause::Instruction { from, from_place, to } => {
                let (from, to) = differing(from, to);
                let place = from_place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
                write!(f, "instruction changed: `{}`{place} → `{}`", cut(from), cut(to))
            }
            Cause::Argument(change) => write!(f, "argument {change}"),
            Cause::Environment(change) => write!(f, "environment variable {change}"),
            Cause::Setting(change) => change.fmt(f),
            Cause::File { path, change } => write!(f, "{path}: {change}"),
            Cause::Base { from_name, to_name, from, to } if from_name == to_name => {
                write!(f, "base {to_name} moved: {} → {}", cut(from), cut(to))
            }
            Cause::Base { from_name, to_name, from, to } => {
                write!(f, "base changed: {from_name} ({}) → {to_name} ({})", cut(from), cut(to))
            }
            Cause::Source(change) => change.fmt(f),
            Cause::Order { from, to } => write!(f, "it stands after `{}`; it stood after `{}`", cut(to), cut(from)),
            Cause::Step { step } => write!(f, "{} runs before it", cut(step)),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match (&self.from, &self.to) {
            _ if self.hidden => write!(f, "{name} changed (its values are not shown)"),
            (Some(from), Some(to)) => {
                let (from, to) = differing(from, to);
                write!(f, "{name}: `{}` → `{}`", cut(from), cut(to))
            }
            (None, Some(to)) => write!(f, "{name} is new: `{}`", cut(to)),
            (Some(from), None) => write!(f, "{name} is gone: `{}`", cut(from)),
            (None, None) => write!(f, "{name} changed"),
        }
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileChange::Content => f.write_str("content changed"),
            FileChange::Attributes { names } => match names.as_slice() {
                [one] => write!(f, "extended attribute {one} changed"),
                all => write!(f, "extended attributes changed: {}", all.join(", ")),
            },
            FileChange::SameAs { path: Some(path) } => write!(f, "is the same file as {path} now (a hard link)"),
            FileChange::SameAs { path: None } => f.write_str("is a file of its own now (no hard link)"),
            FileChange::Mode { from, to } => write!(f, "mode {from} → {to}"),
            FileChange::Target { from, to } => write!(f, "link target {from} → {to}"),
            FileChange::Kind => f.write_str("is something else (file, directory or link)"),
            FileChange::Added => f.write_str("added"),
            FileChange::Removed => f.write_str("removed"),
            FileChange::Renamed { from } => write!(f, "renamed from {from}"),
        }
    }
}

impl Explained {
    /// Only the operations of `stage`, and of these only the one with `number`.
    pub fn part(&self, stage: &str, number: Option<usize>) -> Explained {
        let wanted = |step: &&StepOutlook| {
            step.stage.eq_ignore_ascii_case(stage) && number.is_none_or(|number| step.number == Some(number))
        };
        Explained { steps: self.steps.iter().filter(wanted).cloned().collect(), ..self.clone() }
    }

    /// How many operations have to run, as far as it is known.
    pub fn missing(&self) -> usize {
        self.steps.iter().filter(|step| !step.cached).count()
    }
}

impl fmt::Display for Explained {
    /// Every step that has to run with its causes; cached ones in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {}:", self.image, self.platform)?;
        for what in &self.waits {
            writeln!(f, "  not known before {what}")?;
        }
        if !self.waits.is_empty() {
            return Ok(());
        }
        for step in self.steps.iter().filter(|step| !step.cached || step.same_content) {
            let place = step.place.as_ref().map(|place| format!("  {place}")).unwrap_or_default();
            writeln!(f, "  {}{place}", cut(&step.name))?;
            let mut files = 0;
            for cause in &step.causes {
                files += usize::from(matches!(cause, Cause::File { .. }));
                if files <= SHOWN_FILES || !matches!(cause, Cause::File { .. }) {
                    writeln!(f, "    {cause}")?;
                }
            }
            if files > SHOWN_FILES {
                writeln!(f, "    and {} more files", files - SHOWN_FILES)?;
            }
            if step.same_content {
                writeln!(f, "    cached after all: what it is made of has content that was built before")?;
            }
        }
        match (self.missing(), self.steps.iter().filter(|step| step.cached).count()) {
            (0, _) => writeln!(f, "  every step is cached"),
            (_, 0) => Ok(()),
            (_, 1) => writeln!(f, "  1 step is cached"),
            (_, cached) => writeln!(f, "  {cached} steps are cached"),
        }
    }
}

/// The first lines that differ.
fn differing<'a>(from: &'a str, to: &'a str) -> (&'a str, &'a str) {
    if !from.contains('\n') && !to.contains('\n') {
        return (from, to);
    }
    let (mut old, mut new) = (from.lines(), to.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return (from, to),
            (one, other) if one != other => return (one.unwrap_or("").trim(), other.unwrap_or("").trim()),
            _ => {}
        }
    }
}

/// One line of bearable length.
fn cut(text: &str) -> String {
    let mut line = text.lines().next().unwrap_or_default().to_owned();
    let long = line.chars().count() > SHOWN_CHARACTERS;
    if long {
        line = line.chars().take(SHOWN_CHARACTERS - 1).collect();
    }
    if long || text.trim_end().contains('\n') { line + "…" } else { line }
}
