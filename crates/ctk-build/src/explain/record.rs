//! What a build was made of, kept so that a later one can say what differs. Only for reasons, never for correctness.

use std::collections::BTreeMap;

use ctk_buildgraph::{FileAction, MountKind, Op, Vertex, VertexId, is_secret, without_password};
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use super::files;
use crate::limits::{NOTED_BUILDS, NOTED_TEXT_BYTES};
use crate::solve::{Job, is_linked};
use crate::{BuildError, RecipeSource};

/// Which builds there were of an image, the last first: keys of their targets.
const HISTORY: &str = "build-history";
/// What each was made of.
const BUILDS: &str = "build-steps";

/// A graph of operations, comparable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub steps: Vec<NotedStep>,
}

/// An operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NotedStep {
    /// The definition key.
    pub key: String,
    pub name: String,
    pub kind: String,
    /// The instruction as it stands in its file.
    pub written: String,
    pub place: Option<String>,
    /// What the key is made of: `text:…` is what the instruction says, `env:…` and `set:…` what it is given.
    pub parts: BTreeMap<String, String>,
    /// What variables in its text mean.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Contexts and digests of what it reads there.
    pub reads: Vec<(String, String)>,
    /// Places of its inputs among the steps.
    pub inputs: Vec<usize>,
    /// Whether there was a result at the end.
    pub built: bool,
    /// Seconds that it took, if it ran then.
    pub seconds: Option<f64>,
}

impl NotedStep {
    /// `[build 2/5] RUN make` is of stage `build`.
    pub fn stage(&self) -> &str {
        self.label().0
    }

    /// Its number in the stage.
    pub fn number(&self) -> Option<usize> {
        self.label().1
    }

    fn label(&self) -> (&str, Option<usize>) {
        let inside = self.name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(inside, _)| inside);
        match inside.rsplit_once(' ') {
            Some((before, count)) => {
                let stage = before.rsplit(' ').next().unwrap_or(before);
                (stage, count.split('/').next().and_then(|number| number.parse().ok()))
            }
            None => ("", None),
        }
    }

    /// Whether it is an operation that runs, and no tree that is there anyway.
    pub fn runs(&self) -> bool {
        !matches!(self.kind.as_str(), "scratch" | "image" | "local")
    }
}

/// What the job's target is made of.
pub(crate) fn noted(job: &Job<'_>, keys: &[ctk_buildgraph::Key]) -> Noted {
    let graph = &job.plan.lowered.graph;
    let needed = graph.reachable(job.plan.lowered.image.vertex);
    let place_of: BTreeMap<VertexId, usize> = needed.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let step = |id: &VertexId| {
        let vertex = graph.get(*id);
        let sources = job.loaded.sources.as_ref().unwrap_or(job.request.world.sources);
        let written = vertex.origin.map(|span| sources.slice(span).trim().to_owned()).filter(|text| !text.is_empty());
        let bare = vertex.name.split_once("] ").map_or(vertex.name.as_str(), |(_, text)| text);
        let hide = |(name, value): (String, String)| {
            let value = shown(&name, &value);
            (name, value)
        };
        NotedStep {
            key: keys[id.index()].to_string(),
            name: vertex.name.clone(),
            kind: kind(&vertex.op).to_owned(),
            written: limited(&written.unwrap_or_else(|| bare.to_owned())),
            place: vertex.origin.map(|span| sources.place(span)),
            parts: parts(vertex),
            variables: vertex.variables.iter().cloned().map(hide).collect(),
            reads: vertex.op.selections().map(|s| (s.context.clone(), job.digests.0[s].clone())).collect(),
            inputs: vertex.inputs.iter().map(|input| place_of[input]).collect(),
            built: true,
            seconds: None,
        }
    };
    Noted { steps: needed.iter().map(step).collect() }
}

/// The word for an operation.
fn kind(op: &Op) -> &'static str {
    match op {
        Op::Scratch => "scratch",
        Op::Image { .. } => "image",
        Op::Local { .. } => "local",
        Op::Http { .. } => "http",
        Op::Git { .. } => "git",
        Op::Blob { .. } => "blob",
        Op::Exec(_) => "exec",
        Op::File { .. } => "file",
        Op::Packages { .. } => "packages",
    }
}

/// A value, or only a hash of one whose name says that it is a secret.
fn shown(name: &str, value: &str) -> String {
    if is_secret(name) { hidden(value) } else { limited(value) }
}

fn hidden(value: &str) -> String {
    format!("{HIDDEN}{}", blake3::hash(value.as_bytes()).to_hex())
}

/// The part that says whether it is linked into what it stands on, and takes nothing from there.
pub(crate) const LINKED: &str = "text:link";
/// Begins what stands for a value that is not kept.
pub(crate) const HIDDEN: &str = "\u{0}hidden ";

/// Long texts end in a hash.
fn limited(text: &str) -> String {
    if text.len() <= NOTED_TEXT_BYTES {
        return text.to_owned();
    }
    let mut end = NOTED_TEXT_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… {}", &text[..end], blake3::hash(text.as_bytes()).to_hex())
}

fn parts(vertex: &Vertex) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    let mut put = |name: String, value: String| drop(parts.insert(name, limited(&value)));
    match &vertex.op {
        Op::Scratch | Op::Local { .. } => {}
        Op::Image { name, manifest } => {
            put("set:name".into(), name.to_string());
            put("set:manifest".into(), manifest.to_string());
        }
        Op::Http { url, file_name, digest } => {
            put("set:name".into(), without_password(url));
            put("set:content".into(), digest.to_string());
            put("text:file name".into(), file_name.clone());
        }
        Op::Git { source, commit } => {
            put("set:name".into(), source.to_string());
            put("set:content".into(), commit.clone());
            put("text:source".into(), json(source));
        }
        Op::Blob { digest, file_name } => {
            put("set:content".into(), digest.to_string());
            put("text:file name".into(), format!("{file_name:?}"));
        }
        Op::Packages { locked, scripts, stage } => {
            put("set:name".into(), format!("packages of {stage}"));
            put("set:content".into(), locked.clone());
            put("text:scripts".into(), scripts.to_string());
        }
        Op::File { actions, .. } => {
            put(LINKED.into(), is_linked(&vertex.op).to_string());
            for (number, action) in actions.iter().enumerate() {
                put(format!("text:action {number}"), json(action));
                if let FileAction::Copy { dest, .. } | FileAction::Mkfile { dest, .. } = action {
                    put(format!("text:destination {number}"), dest.clone());
                }
                if let FileAction::Mkfile { content, .. } = action {
                    put(format!("text:content {number}"), content.clone());
                }
            }
        }
        Op::Exec(exec) => {
            put("text:command".into(), exec.argv.join(" "));
            put("text:words".into(), json(&exec.argv));
            put("text:stdin".into(), exec.stdin.clone().unwrap_or_default());
            for entry in &exec.env {
                let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                put(format!("env:{name}"), shown(name, value));
            }
            put("set:platform".into(), exec.platform.to_string());
            put("set:working directory".into(), exec.cwd.clone());
            put("set:user".into(), exec.user.clone());
            put("set:network".into(), json(&exec.network).trim_matches('"').to_owned());
            put("set:security".into(), json(&exec.security).trim_matches('"').to_owned());
            put("set:devices".into(), json(&exec.devices));
            put("set:settings of the build".into(), json(&exec.settings));
            for (number, mount) in exec.mounts.iter().enumerate() {
                let target = mount.target.clone().unwrap_or_else(|| number.to_string());
                let inline = matches!(mount.kind, MountKind::Inline { .. });
                put(if inline { "text:script".into() } else { format!("set:mount {target}") }, json(mount));
            }
        }
    }
    parts
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data serialises")
}

/// Names the image's past: two images of one Dockerfile have two.
fn history_key(job: &Job<'_>) -> String {
    let decl = job.request.decl;
    let own = if decl.canonical.is_empty() { String::new() } else { decl.address.to_string() };
    let source = match &decl.source {
        RecipeSource::Native(_) => String::new(),
        RecipeSource::Dockerfile { path, .. } => job.request.world.project_directory.join(path).display().to_string(),
        RecipeSource::InContext { path, .. } => {
            let of = |context: &crate::ContextDecl| format!("{context:?}");
            format!("{path} of {}", decl.contexts.get("").map(of).unwrap_or_default())
        }
        RecipeSource::Url { url, .. } => without_password(url),
        RecipeSource::Text { name, .. } => name.clone(),
    };
    let directory = job.request.world.project_directory.display();
    ctk_plan::hash_text(&format!("{directory}\n{own}\n{source}"))
}

/// The image's earlier builds, the last first.
pub(crate) fn past(job: &Job<'_>) -> Result<Vec<Noted>, BuildError> {
    let store = job.request.world.store;
    let keys: Vec<String> = store.record(HISTORY, &history_key(job))?.unwrap_or_default();
    let builds = keys.iter().map(|key| store.record(BUILDS, key));
    Ok(builds.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}

/// Keeps what this build was made of. `ran` has the seconds of what ran, `built` whether there is a result. Nothing is
/// written when the same was noted already and nothing ran.
pub(crate) fn note(
    job: &Job<'_>,
    keys: &[ctk_buildgraph::Key],
    ran: &BTreeMap<VertexId, f64>,
    built: impl Fn(VertexId) -> bool,
) -> Result<(), BuildError> {
    let store = job.request.world.store;
    let history = history_key(job);
    let target = job.plan.lowered.image.vertex;
    let whole = built(target);
    let name = if whole { keys[target.index()].to_string() } else { format!("{} unfinished", keys[target.index()]) };
    // One image, one turn.
    let key = ctk_plan::hash_text(&format!("{history}\n{name}"));
    let known: Vec<String> = store.record(HISTORY, &history)?.unwrap_or_default();
    if ran.is_empty() && known.contains(&key) {
        return Ok(());
    }
    let mut noted = noted(job, keys);
    let needed = job.plan.lowered.graph.reachable(target);
    for (step, id) in noted.steps.iter_mut().zip(&needed) {
        step.built = built(*id);
        step.seconds = ran.get(id).copied();
        for selection in job.plan.lowered.graph.get(*id).op.selections() {
            files::keep(job, selection)?;
        }
    }
    let _lock = store.lock(&format!("history {history}"), job.request.world.cancel)?;
    store.put_record(BUILDS, &key, &noted, &Links::default())?;
    let mut all: Vec<String> = store.record(HISTORY, &history)?.unwrap_or_default();
    all.retain(|known| *known != key);
    all.insert(0, key);
    for forgotten in all.drain(NOTED_BUILDS.min(all.len())..) {
        store.remove_record(BUILDS, &forgotten)?;
    }
    Ok(store.put_record(HISTORY, &history, &all, &Links::default())?)
}
