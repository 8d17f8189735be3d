//! What differs between a build that is about to run and one that ran: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::{Cause, Change, FileChange};
use super::files::{ATTRIBUTES, Words};
use super::record::{HIDDEN, LINKED, Noted, NotedStep};

/// Begins the part that is a mount.
const MOUNT: &str = "set:mount ";

/// Whether a step is the other.
type Same<'a> = &'a dyn Fn(&NotedStep, &NotedStep) -> bool;

/// Which step of `past` each of `now` was: the same key, else the same text in the same stage, else the same text, else
/// what stood in the same gap between such steps.
pub(crate) fn align(now: &Noted, past: &Noted) -> Vec<Option<usize>> {
    let mut found: Vec<Option<usize>> = vec![None; now.steps.len()];
    let mut taken = vec![false; past.steps.len()];
    let rules: [Same<'_>; 3] = [
        &|new, old| new.key == old.key,
        &|new, old| new.kind == old.kind && new.stage() == old.stage() && new.written == old.written,
        &|new, old| new.kind == old.kind && new.runs() && new.written == old.written,
    ];
    for same in rules {
        for (at, step) in now.steps.iter().enumerate() {
            if found[at].is_some() {
                continue;
            }
            let old = (0..past.steps.len()).find(|old| !taken[*old] && same(step, &past.steps[*old]));
            if let Some(old) = old {
                found[at] = Some(old);
                taken[old] = true;
            }
        }
    }
    // What is left in a stage, between neighbours that were found, in order.
    for at in 0..now.steps.len() {
        if found[at].is_some() {
            continue;
        }
        let step = &now.steps[at];
        let after = step.inputs.first().and_then(|input| found[*input]);
        let old = (0..past.steps.len()).find(|old| {
            let candidate = &past.steps[*old];
            let same_place = candidate.inputs.first().copied() == after && after.is_some();
            let sources = candidate.inputs.is_empty() && step.inputs.is_empty();
            !taken[*old]
                && candidate.kind == step.kind
                && candidate.stage() == step.stage()
                && (same_place || sources || (candidate.number() == step.number() && step.runs()))
        });
        if let Some(old) = old {
            found[at] = Some(old);
            taken[old] = true;
        }
    }
    found
}

/// What is asked of the world: words of the files under two digests, then and now, where they differ.
pub(crate) type Files<'a> = &'a dyn Fn(&str, &str) -> Option<(Words, Words)>;

/// Why the step `at` of `now` is not the step that it was in `past`; nothing if it was not there.
pub(crate) fn causes(
    now: &Noted,
    past: &Noted,
    alignment: &[Option<usize>],
    at: usize,
    arguments: &BTreeSet<String>,
    files: Files<'_>,
) -> Option<Vec<Cause>> {
    let (new, old) = (&now.steps[at], &past.steps[alignment[at]?]);
    if new.key == old.key {
        return Some(vec![if old.built { Cause::ResultGone } else { Cause::Unfinished }]);
    }
    let mut causes = Vec::new();
    said(new, old, arguments, &mut causes);
    given(new, old, arguments, &mut causes);
    // What is linked into a tree is the same, whatever the tree is.
    let linked = is_linked(new);
    for (place, (input, before)) in new.inputs.iter().zip(&old.inputs).enumerate().skip(usize::from(linked)) {
        input_changed(now, past, alignment, (*input, *before), place, &mut causes);
    }
    for (read, before) in new.reads.iter().zip(&old.reads).filter(|(read, before)| read.1 != before.1) {
        let context = if read.0.is_empty() { String::new() } else { format!("{}:", read.0) };
        match files(&before.1, &read.1) {
            Some((from, to)) => causes.extend(file_changes(&context, &from, &to)),
            None => {
                let name =
                    if read.0.is_empty() { "files of the context".into() } else { format!("files of {}", read.0) };
                causes.push(Cause::Source(Change { name, from: None, to: None, hidden: false }));
            }
        }
    }
    if causes.is_empty() {
        causes.push(match linked {
            true if old.built => Cause::ResultGone,
            true => Cause::Unfinished,
            false => Cause::Version,
        });
    }
    Some(causes)
}

/// Whether it takes nothing from what it stands on.
fn is_linked(step: &NotedStep) -> bool {
    step.parts.get(LINKED).is_some_and(|linked| linked == "true")
}

/// How far apart two steps are: for choosing the nearest.
pub(crate) fn distance(causes: &[Cause]) -> usize {
    causes.iter().map(|cause| if matches!(cause, Cause::Instruction { .. }) { 4 } else { 1 }).sum()
}

/// The text, or what its variables mean.
fn said(new: &NotedStep, old: &NotedStep, arguments: &BTreeSet<String>, causes: &mut Vec<Cause>) {
    let changed: Vec<&String> = names(new, old)
        .into_iter()
        .filter(|name| name.starts_with("text:") || name.starts_with(MOUNT))
        .filter(|name| new.parts.get(*name) != old.parts.get(*name))
        .collect();
    if changed.is_empty() {
        return;
    }
    if new.written != old.written {
        let (from, to) = (old.written.clone(), new.written.clone());
        return causes.push(Cause::Instruction { from, from_place: old.place.clone(), to });
    }
    let before = causes.len();
    for name in variables_in(&new.written) {
        let (from, to) = (old.variables.get(&name), new.variables.get(&name));
        if from != to {
            causes.push(variable(&name, from, to, arguments));
        }
    }
    if causes.len() > before {
        return;
    }
    // A secret among what differs is not shown in any other way either.
    for (name, to) in new.variables.iter().filter(|(_, to)| to.starts_with(HIDDEN)) {
        if old.variables.get(name) != Some(to) {
            causes.push(variable(name, old.variables.get(name), Some(to), arguments));
        }
    }
    if causes.len() > before {
        return;
    }
    let of = |wanted: &str| changed.iter().copied().find(|name| name.starts_with(wanted));
    let value = |step: &NotedStep, name: &str| step.parts.get(name).cloned().unwrap_or_default();
    let text = of("text:command").or_else(|| of("text:script")).or_else(|| of("text:content"));
    // Mounts speak for themselves.
    if changed.iter().all(|name| name.starts_with(MOUNT)) {
        return;
    }
    causes.push(match (text, of("text:destination")) {
        (Some(name), _) => {
            let (from, to) = (value(old, name), value(new, name));
            Cause::Instruction { from, from_place: old.place.clone(), to }
        }
        (None, Some(name)) => {
            let (from, to) = (old.parts.get(name).cloned(), new.parts.get(name).cloned());
            Cause::Setting(Change { name: "destination".into(), from, to, hidden: false })
        }
        (None, None) => {
            let name = "what the instruction means".into();
            Cause::Setting(Change { name, from: None, to: None, hidden: false })
        }
    });
}

/// Environment and settings.
fn given(new: &NotedStep, old: &NotedStep, arguments: &BTreeSet<String>, causes: &mut Vec<Cause>) {
    for part in names(new, old) {
        let (from, to) = (old.parts.get(part), new.parts.get(part));
        if from == to {
            continue;
        }
        if let Some(name) = part.strip_prefix("env:") {
            causes.push(variable(name, from, to, arguments));
        } else if let Some(name) = part.strip_prefix("set:") {
            let words = |value: Option<&String>| value.cloned().filter(|value| !value.is_empty() && value != "null");
            match (name, new.parts.get("set:name")) {
                ("content", Some(name)) => {
                    let name = name.clone();
                    causes.push(Cause::Source(Change { name, from: words(from), to: words(to), hidden: false }));
                }
                _ if part.starts_with(MOUNT) => {
                    // With the text, or the variable in it, it was told already.
                    let tells = |cause: &Cause| {
                        matches!(cause, Cause::Instruction { .. } | Cause::Argument(_) | Cause::Environment(_))
                    };
                    if !causes.iter().any(tells) {
                        let change = Change { name: name.to_owned(), from: None, to: None, hidden: false };
                        causes.push(Cause::Setting(change));
                    }
                }
                _ => {
                    let change = Change { name: name.to_owned(), from: words(from), to: words(to), hidden: false };
                    causes.push(Cause::Setting(change));
                }
            }
        }
    }
}

fn names<'a>(new: &'a NotedStep, old: &'a NotedStep) -> BTreeSet<&'a String> {
    new.parts.keys().chain(old.parts.keys()).collect()
}

fn variable(name: &str, from: Option<&String>, to: Option<&String>, arguments: &BTreeSet<String>) -> Cause {
    let hidden = [from, to].into_iter().flatten().any(|value| value.starts_with(HIDDEN));
    let value = |value: Option<&String>| value.filter(|_| !hidden).cloned();
    let change = Change { name: name.to_owned(), from: value(from), to: value(to), hidden };
    if arguments.contains(name) { Cause::Argument(change) } else { Cause::Environment(change) }
}

/// What it stands on, copies from or mounts.
fn input_changed(
    now: &Noted,
    past: &Noted,
    alignment: &[Option<usize>],
    (input, before): (usize, usize),
    place: usize,
    causes: &mut Vec<Cause>,
) {
    let (new, old) = (&now.steps[input], &past.steps[before]);
    if new.key == old.key {
        return;
    }
    let others = |all: &Noted, step: &NotedStep| -> Vec<String> {
        step.inputs.iter().skip(1).map(|input| all.steps[*input].key.clone()).collect()
    };
    if is_linked(new) && new.parts == old.parts && new.reads == old.reads && others(now, new) == others(past, old) {
        // It is the same; what it is put onto is not.
        return input_changed(now, past, alignment, (new.inputs[0], old.inputs[0]), place, causes);
    }
    let part = |step: &NotedStep, name: &str| step.parts.get(name).cloned().unwrap_or_default();
    if new.kind == "image" && old.kind == "image" {
        causes.push(Cause::Base {
            from_name: part(old, "set:name"),
            to_name: part(new, "set:name"),
            from: part(old, "set:manifest"),
            to: part(new, "set:manifest"),
        });
    } else if new.kind == old.kind && matches!(new.kind.as_str(), "http" | "git" | "packages" | "blob") {
        let before = causes.len();
        given(new, old, &BTreeSet::new(), causes);
        if causes.len() == before {
            causes.push(Cause::Step { step: new.name.clone() });
        }
    } else if alignment[input] == Some(before) || place > 0 {
        let step = Cause::Step { step: new.name.clone() };
        if !causes.contains(&step) {
            causes.push(step);
        }
    } else {
        let word = |step: &NotedStep| match step.kind.as_str() {
            "scratch" => "FROM scratch".to_owned(),
            "image" => format!("FROM {}", part(step, "set:name")),
            _ => step.written.clone(),
        };
        causes.push(Cause::Order { from: word(old), to: word(new) });
    }
}

fn file_changes(context: &str, from: &Words, to: &Words) -> Vec<Cause> {
    let content = |word: &str| word.split_once(':').map(|_| File::of(word).digest.to_owned());
    let mut gone: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (path, word) in from.iter().filter(|(path, _)| !to.contains_key(*path)).rev() {
        if let Some(digest) = content(word) {
            gone.entry(digest).or_default().push(path);
        }
    }
    let mut renamed = BTreeSet::new();
    let mut changes = BTreeMap::new();
    for (path, word) in to {
        let change = match from.get(path) {
            Some(old) if old == word => continue,
            Some(old) => changed(old, word),
            None => match content(word).and_then(|digest| gone.get_mut(&digest)?.pop()) {
                Some(old) => {
                    renamed.insert(old);
                    FileChange::Renamed { from: format!("{context}{old}") }
                }
                None => FileChange::Added,
            },
        };
        changes.insert(path, change);
    }
    for path in from.keys().filter(|path| !to.contains_key(*path) && !renamed.contains(path)) {
        changes.insert(path, FileChange::Removed);
    }
    let cause = |(path, change): (&String, FileChange)| Cause::File { path: format!("{context}{path}"), change };
    changes.into_iter().map(cause).collect()
}

fn changed(from: &str, to: &str) -> FileChange {
    let kind = |word: &str| word.chars().next().map(|first| if first.is_ascii_digit() { 'f' } else { first });
    if kind(from) != kind(to) {
        return FileChange::Kind;
    }
    if let (Some(from), Some(to)) = (from.strip_prefix("l "), to.strip_prefix("l ")) {
        return FileChange::Target { from: from.into(), to: to.into() };
    }
    let (from, to) = (File::of(from), File::of(to));
    if from.digest != to.digest {
        FileChange::Content
    } else if from.mode != to.mode {
        FileChange::Mode { from: from.mode.into(), to: to.mode.into() }
    } else if from.same_as != to.same_as {
        FileChange::SameAs { path: to.same_as.map(str::to_owned) }
    } else {
        FileChange::Attributes { names: differing_attributes(from.attributes, to.attributes) }
    }
}

/// What the word of a file or directory says: `MODE:DIGEST`, perhaps `=PATH` of a file that is the same, and attributes
/// after [`ATTRIBUTES`]; `dMODE`, and attributes after a space.
struct File<'a> {
    mode: &'a str,
    digest: &'a str,
    same_as: Option<&'a str>,
    attributes: &'a str,
}

impl File<'_> {
    fn of(word: &str) -> File<'_> {
        if let Some(directory) = word.strip_prefix('d') {
            let (mode, attributes) = directory.split_once(' ').unwrap_or((directory, ""));
            return File { mode, digest: "", same_as: None, attributes };
        }
        let (bare, attributes) = word.split_once(ATTRIBUTES).unwrap_or((word, ""));
        let (mode, rest) = bare.split_once(':').unwrap_or((bare, ""));
        let (digest, same_as) = rest.split_once('=').map_or((rest, None), |(digest, path)| (digest, Some(path)));
        File { mode, digest, same_as, attributes }
    }
}

/// Names of `NAME=DIGEST` words that are not in both.
fn differing_attributes(from: &str, to: &str) -> Vec<String> {
    let words = |text: &str| -> BTreeSet<String> { text.split_whitespace().map(str::to_owned).collect() };
    let (from, to) = (words(from), words(to));
    let names = from.symmetric_difference(&to).map(|word| word.split('=').next().unwrap_or(word).to_owned());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Names after `$` or `${`.
fn variables_in(text: &str) -> BTreeSet<String> {
    let after = text.split('$').skip(1).map(|rest| rest.strip_prefix('{').unwrap_or(rest));
    let name = |rest: &str| -> String { rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect() };
    after.map(name).filter(|name| !name.is_empty()).collect()
}
