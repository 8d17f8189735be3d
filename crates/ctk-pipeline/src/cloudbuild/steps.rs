//! Steps: their fields, their volumes, and what each waits for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ctk_syntax::{Diagnostic, Diagnostics, Sources, Span, Spanned, nearest, short};

use super::substitutions::{Table, inner};
use super::value::Object;
use super::{Step, Volume, rules};
use crate::bash::key_length;
use crate::{codes, limits};

/// Where relative directories begin.
const WORKSPACE: &str = "/workspace";

/// Paths that every step has already.
const RESERVED: &[&str] = &["/workspace", "/builder/home", "/builder/outputs", "/var/run/docker.sock"];

/// A volume where it is written.
struct Placed {
    volume: Volume,
    name: Span,
}

pub(super) fn steps(
    build: &Object,
    table: &Table<'_>,
    build_timeout: Duration,
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) -> Vec<Step> {
    let objects: Vec<&Object> = build.records("steps").collect();
    if objects.is_empty() {
        let place =
            build.entry("steps").map_or(Span::new(build.span.source, build.span.start, build.span.start), |e| e.key);
        // Steps that are wrong were told of; a missing list was not.
        if !diagnostics.has_errors() {
            let said = "the build has no steps";
            diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(place, "expected `steps`"));
        }
        return Vec::new();
    }
    let spans: Vec<Spanned<()>> = objects.iter().map(|object| Spanned::new((), object.span)).collect();
    if spans.len() > limits::STEPS_HERE {
        rules::count(&spans, limits::STEPS_HERE, "steps", diagnostics);
    } else if let Some(first) = spans.get(limits::STEPS) {
        let said = format!("{} steps; Cloud Build takes {}", spans.len(), limits::STEPS);
        diagnostics.push(Diagnostic::warning(codes::OVER_LIMIT, said).at(first.span, "from here on only run here"));
    }

    let options = build.record("options");
    let global_env = options.map(|options| options.texts("env")).unwrap_or_default();
    let global_env = rules::environment(&global_env, diagnostics);
    let global_secrets = options.map(|options| options.texts("secretEnv")).unwrap_or_default();
    let global_volumes = options.map(|options| volumes(options, diagnostics)).unwrap_or_default();
    let automap = options.and_then(|options| options.flag("automapSubstitutions")).unwrap_or(false);
    if let Some(first) = global_volumes.first()
        && objects.len() < 2
    {
        let said = "volumes for all steps, and there is one step";
        diagnostics.push(Diagnostic::error(codes::CONFLICT, said).at(first.name, "share it with a second step"));
    }

    let mut waits = Waits::default();
    let mut uses: BTreeMap<String, (Span, usize)> = BTreeMap::new();
    let mut steps = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        let mut env = BTreeMap::new();
        let mapped = object.flag("automapSubstitutions").unwrap_or(automap);
        if mapped {
            env.extend(table.all());
        }
        let own = rules::environment(&object.texts("env"), diagnostics);
        env.extend(global_env.iter().cloned());
        env.extend(own);
        let mut secret_env = object.texts("secretEnv");
        for secret in &global_secrets {
            if !secret_env.iter().any(|own| own.value == secret.value) {
                secret_env.push(secret.clone());
            }
        }
        let placed = volumes(object, diagnostics);
        for one in &placed {
            uses.entry(one.volume.name.clone()).or_insert((one.name, 0)).1 += 1;
            let other = global_volumes
                .iter()
                .find(|global| global.volume.name == one.volume.name || global.volume.path == one.volume.path);
            if let Some(global) = other {
                let said = format!("volume `{}` meets one of `options`", one.volume.name);
                let mistake = Diagnostic::error(codes::CONFLICT, said).at(one.name, "this one");
                diagnostics.push(mistake.at(global.name, "every step has this one"));
            }
        }
        let script = object.text("script").filter(|text| !text.is_empty());
        if let Some(script) = &script
            && !mapped
        {
            unsubstituted(script, &env, table, sources, diagnostics);
        }
        steps.push(Step {
            number,
            span: object.span,
            name: name(object, diagnostics),
            id: waits.id(object, number, diagnostics),
            args: arguments(object, diagnostics),
            entrypoint: object.text("entrypoint").filter(|text| !text.is_empty()),
            script: exclusive(object, script, diagnostics),
            env,
            secret_env,
            directory: directory(object, diagnostics),
            waits_for: waits.of(object, number, diagnostics),
            volumes: placed.iter().chain(&global_volumes).map(|one| one.volume.clone()).collect(),
            timeout: timeout(object, build_timeout, diagnostics),
            allow_failure: object.flag("allowFailure").unwrap_or(false),
            allow_exit_codes: exit_codes(object, diagnostics),
        });
    }
    for (name, (span, count)) in uses {
        if count < 2 {
            let said = format!("volume `{name}` is used by one step only");
            let mistake = Diagnostic::error(codes::CONFLICT, said).at(span, "share it with a second step");
            diagnostics.push(mistake.hint("what one step needs alone is kept in the workspace"));
        }
    }
    steps
}

fn name(object: &Object, diagnostics: &mut Diagnostics) -> Spanned<String> {
    let Some(name) = object.text("name") else {
        if object.entry("name").is_none() {
            let said = "a step has no image";
            diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(object.span, "add `name: IMAGE`"));
        }
        return Spanned::new(String::new(), object.span);
    };
    rules::length(&name, limits::STEP_NAME_CHARACTERS, "an image's name", diagnostics);
    rules::image(&name, "a step's image", diagnostics);
    name
}

fn arguments(object: &Object, diagnostics: &mut Diagnostics) -> Vec<Spanned<String>> {
    let args = object.texts("args");
    rules::count(&args, limits::ARGUMENTS, "arguments", diagnostics);
    args.iter().for_each(|arg| rules::length(arg, limits::ARGUMENT_CHARACTERS, "an argument", diagnostics));
    args
}

fn exclusive(
    object: &Object,
    script: Option<Spanned<String>>,
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<String>> {
    let script = script?;
    for other in ["args", "entrypoint"] {
        if let Some(entry) = object.entry(other).filter(|entry| !entry.values.is_empty()) {
            let said = format!("a step has both `script` and `{other}`");
            let mistake = Diagnostic::error(codes::CONFLICT, said).at(entry.key, "leave this out");
            diagnostics.push(mistake.at(script.span, "or this"));
        }
    }
    Some(script)
}

fn directory(object: &Object, diagnostics: &mut Diagnostics) -> String {
    let Some(dir) = object.text("dir").filter(|text| !text.is_empty()) else { return WORKSPACE.into() };
    rules::length(&dir, limits::DIRECTORY_CHARACTERS, "a directory", diagnostics);
    rules::inside_workspace(&dir, "directory", diagnostics);
    let whole = match dir.starts_with('/') {
        true => dir.value,
        false => format!("{WORKSPACE}/{}", dir.value),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn timeout(object: &Object, build: Duration, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let timeout = object.duration("timeout")?;
    if timeout.value > build {
        let said =
            format!("a step may take {} s, and the whole build {} s", timeout.as_secs_f64(), build.as_secs_f64());
        let mistake = Diagnostic::error(codes::CONFLICT, said).at(timeout.span, "longer than the build");
        diagnostics.push(mistake.hint("raise the `timeout` of the build; without one it is `3600s`"));
    }
    Some(timeout.value).filter(|timeout| !timeout.is_zero())
}

fn exit_codes(object: &Object, diagnostics: &mut Diagnostics) -> Vec<i64> {
    let codes = object.whole("allowExitCodes");
    for code in &codes {
        if !(0..=255).contains(&code.value) {
            let said = format!("no program exits with {}", code.value);
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(code.span, "expected 0 to 255"));
        }
    }
    codes.into_iter().map(|code| code.value).collect()
}

fn volumes(object: &Object, diagnostics: &mut Diagnostics) -> Vec<Placed> {
    let mut found: Vec<Placed> = Vec::new();
    for one in object.records("volumes") {
        let (name, path) = (one.text("name"), one.text("path"));
        let (Some(name), Some(path)) = (name, path) else {
            for field in ["name", "path"] {
                if one.entry(field).is_none() {
                    let said = format!("a volume has no `{field}`");
                    let mistake = Diagnostic::error(codes::MISSING_FIELD, said);
                    diagnostics.push(mistake.at(one.span, format!("add `{field}`")));
                }
            }
            continue;
        };
        let mut wrong = |code, said: String, span: Span, label: &str| {
            diagnostics.push(Diagnostic::error(code, said).at(span, label));
        };
        let letters = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !first || name.len() < 2 || !name.chars().all(letters) {
            let said = format!("`{}` is no name of a volume", short(&name));
            let label = "expected two or more letters, digits, `_`, `.`, `-`, not one of these three first";
            wrong(codes::BAD_VALUE, said, name.span, label);
        }
        let clean = path.trim_end_matches('/');
        if !path.starts_with('/') || path.contains(':') {
            let said = format!("`{}` is no absolute path", short(&path));
            wrong(codes::BAD_VALUE, said, path.span, "expected `/…` without a colon");
        } else if RESERVED.contains(&clean)
            || clean == "/cloudbuild"
            || clean.starts_with("/cloudbuild/")
            || clean.is_empty()
        {
            let said = format!("no volume can be at `{}`", short(&path));
            wrong(codes::BAD_VALUE, said, path.span, "the build itself uses this path");
        }
        if found.iter().any(|known| known.volume.name == name.value) {
            let said = format!("volume `{}` is there twice", short(&name));
            wrong(codes::CONFLICT, said, name.span, "the second");
        } else if found.iter().any(|known| known.volume.path.trim_end_matches('/') == clean) {
            let said = format!("two volumes at `{}`", short(&path));
            wrong(codes::CONFLICT, said, path.span, "the second");
        }
        let span = name.span;
        found.push(Placed { volume: Volume { name: name.value, path: path.value }, name: span });
    }
    found
}

/// A substitution in a script, where none is made.
fn unsubstituted(
    script: &Spanned<String>,
    env: &BTreeMap<String, String>,
    table: &Table<'_>,
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) {
    let mut told: Vec<&str> = Vec::new();
    for (at, _) in script.match_indices('$') {
        let rest = &script.value[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let key = &rest[..key_length(rest)];
        let ends = !rest[key.len()..].starts_with(|c: char| c.is_ascii_lowercase());
        if key.is_empty() || !ends || !table.has(key) || env.contains_key(key) || told.contains(&key) {
            continue;
        }
        told.push(key);
        let said = format!("`{key}` is a substitution, and none is made in a script");
        let place = inner(&script.value[at..at + 1 + key.len()], script.span, sources);
        let mistake = Diagnostic::warning(codes::SUSPICIOUS, said).at(place, "a variable that is not set");
        diagnostics.push(mistake.hint(format!("`automapSubstitutions: true` sets it, or `env: ['{key}=${key}']`")));
    }
}

/// What steps wait for. Steps that nobody waited for yet are the front: who waits for all before it waits for these.
#[derive(Default)]
struct Waits {
    ids: HashMap<String, (usize, Span)>,
    front: Vec<usize>,
}

impl Waits {
    fn id(&mut self, object: &Object, number: usize, diagnostics: &mut Diagnostics) -> Option<Spanned<String>> {
        let id = object.text("id").filter(|id| !id.is_empty())?;
        if id.value == "-" {
            let said = "`-` cannot be a step's id";
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(id.span, "`waitFor: ['-']` means the start"));
            return Some(id);
        }
        if let Some((_, first)) = self.ids.get(&id.value) {
            let said = format!("two steps are called `{}`", short(&id));
            let mistake = Diagnostic::error(codes::CONFLICT, said).at(id.span, "the second");
            diagnostics.push(mistake.at(*first, "the first"));
        }
        self.ids.entry(id.value.clone()).or_insert((number, id.span));
        Some(id)
    }

    fn of(&mut self, object: &Object, number: usize, diagnostics: &mut Diagnostics) -> Vec<usize> {
        let names = object.texts("waitFor");
        let mut found = Vec::new();
        if names.is_empty() {
            found = std::mem::take(&mut self.front);
        }
        for name in &names {
            if name.value == "-" {
                if names.len() > 1 {
                    let said = "`-` beside ids means nothing";
                    let mistake = Diagnostic::warning(codes::SUSPICIOUS, said);
                    diagnostics.push(mistake.at(name.span, "leave it out, or leave the ids out"));
                }
                continue;
            }
            match self.ids.get(&name.value) {
                Some((other, _)) if *other < number => found.push(*other),
                Some(_) => {
                    let said = format!("step `{}` waits for itself", short(name));
                    let mistake = Diagnostic::error(codes::BAD_WAIT, said);
                    diagnostics.push(mistake.at(name.span, "expected the id of a step before it"));
                }
                None => {
                    let near = nearest(name, self.ids.keys().map(String::as_str));
                    let said = format!("no step before this one is called `{}`", short(name));
                    let mistake = Diagnostic::error(codes::BAD_WAIT, said);
                    let label = "expected the id of a step before this one";
                    diagnostics.push(mistake.at_or_nearest(name.span, near, label));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        self.front.retain(|step| !found.contains(step));
        self.front.push(number);
        found
    }
}
