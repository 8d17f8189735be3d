//! Records of the schema as a build.

use std::collections::BTreeMap;

use ctk_syntax::{Diagnostic, Diagnostics, Sources, Spanned};

use super::schema::Fate;
use super::substitutions::Table;
use super::value::{Object, Value};
use super::{Artifact, Build, Dependency, Inputs, Note, rules, secrets, steps};
use crate::{codes, limits};

/// The build of a file; of use only without errors.
pub(super) fn build(mut object: Object, sources: &Sources, inputs: &Inputs, diagnostics: &mut Diagnostics) -> Build {
    let table = Table::new(&object, inputs, diagnostics);
    table.fill(&mut object, sources, diagnostics);
    let flag = |object: Option<&Object>| object.and_then(|object| object.flag("automapSubstitutions"));
    let automap = flag(object.record("options")).unwrap_or(false);
    let mapped = object.records("steps").any(|step| flag(Some(step)).unwrap_or(automap));
    table.unused(mapped, diagnostics);
    let mut notes = Vec::new();
    collect_notes(&object, "", &mut notes);

    let timeout = object.duration("timeout");
    if let Some(timeout) = &timeout
        && timeout.value > limits::TIMEOUT
    {
        let said = format!("the build's timeout is {} s; Cloud Build takes 24 h", timeout.as_secs());
        diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(timeout.span, "at most `86400s`"));
    }
    let timeout = timeout.map(|timeout| timeout.value).filter(|timeout| !timeout.is_zero());
    let timeout = timeout.unwrap_or(limits::TIMEOUT_DEFAULT);

    let secrets = secrets::declared(&object, diagnostics);
    let steps = steps::steps(&object, &table, timeout, sources, diagnostics);
    secrets::used(&object, &secrets, &steps, diagnostics);
    let images = images(&object, diagnostics);
    if let Some(options) = object.record("options") {
        rules::options(options, diagnostics);
    }
    let build = Build {
        images,
        artifacts: artifacts(&object, diagnostics),
        timeout,
        tags: rules::tags(&object.texts("tags"), diagnostics),
        secrets: secrets.into_iter().map(|(name, declared)| (name, declared.secret)).collect(),
        dependencies: object.records("dependencies").map(|one| dependency(one, diagnostics)).collect(),
        substitutions: table.all(),
        notes,
        steps,
    };
    table.explain(diagnostics);
    build
}

fn collect_notes(object: &Object, path: &str, notes: &mut Vec<Note>) {
    for entry in &object.fields {
        let field = match path {
            "" => entry.field.name.to_owned(),
            path => format!("{path}.{}", entry.field.name),
        };
        if let Fate::Said(text) = entry.field.fate
            && !entry.values.is_empty()
        {
            notes.push(Note { field: field.clone(), text: text.into() });
            continue;
        }
        for value in &entry.values {
            if let Value::Record(inner) = &value.value
                && !entry.field.list
            {
                collect_notes(inner, &field, notes);
            }
        }
    }
}

/// The images of the build, which `artifacts` may repeat.
fn images(object: &Object, diagnostics: &mut Diagnostics) -> Vec<Spanned<String>> {
    let images = object.texts("images");
    let others = object.record("artifacts").map(|artifacts| artifacts.texts("images")).unwrap_or_default();
    rules::images(&images, diagnostics);
    if images.is_empty() {
        rules::images(&others, diagnostics);
        return others;
    }
    let values = |list: &[Spanned<String>]| list.iter().map(|image| image.value.clone()).collect::<Vec<_>>();
    if let Some(other) = others.first()
        && values(&images) != values(&others)
    {
        let said = "`images` and `artifacts.images` are not the same";
        let mistake = Diagnostic::error(codes::CONFLICT, said).at(other.span, "these");
        diagnostics.push(mistake.at(images[0].span, "and these").hint("write one of them"));
    }
    images
}

/// A text that must be there.
fn required(object: &Object, name: &str, of: &str, diagnostics: &mut Diagnostics) -> String {
    match object.text(name).filter(|text| !text.is_empty()) {
        Some(text) => text.value,
        None => {
            let said = format!("{of} has no `{name}`");
            diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(object.span, format!("add `{name}`")));
            String::new()
        }
    }
}

fn optional(object: &Object, name: &str) -> String {
    object.text(name).map(|text| text.value).unwrap_or_default()
}

fn artifacts(object: &Object, diagnostics: &mut Diagnostics) -> Vec<Artifact> {
    let Some(artifacts) = object.record("artifacts") else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(objects) = artifacts.record("objects") {
        let location = objects.text("location");
        let name = required(objects, "location", "`artifacts.objects`", diagnostics);
        if let Some(location) = location
            && !location.is_empty()
            && !location.strip_prefix("gs://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        {
            let said = format!("`{}` is no place in a bucket", location.value);
            let mistake = Diagnostic::error(codes::BAD_VALUE, said);
            diagnostics.push(mistake.at(location.span, "expected `gs://BUCKET/PATH/`"));
        }
        let paths = objects.texts("paths");
        if paths.is_empty() {
            let said = "`artifacts.objects` has no `paths`";
            diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(objects.span, "add `paths`"));
        }
        rules::paths(&paths, diagnostics);
        let location = if name.ends_with('/') { name } else { name + "/" };
        found.push(Artifact::Objects { location, paths: paths.into_iter().map(|path| path.value).collect() });
    }
    for maven in artifacts.records("mavenArtifacts") {
        let mut one = |name: &str| required(maven, name, "a Maven artifact", diagnostics);
        let (repository, coordinates) = (one("repository"), [one("groupId"), one("artifactId"), one("version")]);
        let path = match optional(maven, "deployFolder") {
            folder if folder.is_empty() => one("path"),
            folder => folder,
        };
        found.push(Artifact::Maven { repository, path, coordinates });
    }
    for go in artifacts.records("goModules") {
        let mut one = |name: &str| required(go, name, "a Go module", diagnostics);
        found.push(Artifact::Go {
            repository: [one("repositoryName"), one("repositoryLocation"), optional(go, "repositoryProjectId")],
            source: optional(go, "sourcePath"),
            module: [one("modulePath"), one("moduleVersion")],
        });
    }
    for python in artifacts.records("pythonPackages") {
        let repository = required(python, "repository", "a Python package", diagnostics);
        let paths = python.texts("paths");
        if paths.is_empty() {
            let said = "a Python package has no `paths`";
            diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(python.span, "add `paths`"));
        }
        rules::paths(&paths, diagnostics);
        found.push(Artifact::Python { repository, paths: paths.into_iter().map(|path| path.value).collect() });
    }
    for npm in artifacts.records("npmPackages") {
        let mut one = |name: &str| required(npm, name, "an npm package", diagnostics);
        found.push(Artifact::Npm { repository: one("repository"), path: one("packagePath") });
    }
    found
}

fn dependency(object: &Object, diagnostics: &mut Diagnostics) -> Dependency {
    let git = object.record("gitSource");
    let empty = object.flag("empty").unwrap_or(false);
    let none = Dependency { repository: None, revision: None, path: None, depth: 1, submodules: false, tags: false };
    let Some(git) = git else {
        if !empty {
            let said = "a dependency says neither `empty` nor `gitSource`";
            diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(object.span, "add one of them"));
        }
        return none;
    };
    if empty {
        let said = "a dependency says both `empty` and `gitSource`";
        diagnostics.push(Diagnostic::error(codes::CONFLICT, said).at(object.span, "leave one of them out"));
    }
    let repository = git.record("repository");
    let names: BTreeMap<&str, String> = ["url", "developerConnect"]
        .into_iter()
        .filter_map(|name| Some((name, repository?.text(name)?.value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if names.len() != 1 {
        let said = match names.len() {
            0 => "a dependency has no repository",
            _ => "a dependency has two repositories",
        };
        let place = repository.map_or(git.span, |repository| repository.span);
        let mistake = Diagnostic::error(codes::MISSING_FIELD, said);
        diagnostics.push(mistake.at(place, "expected one of `url` and `developerConnect`"));
    }
    let depth = git.whole("depth").first().cloned();
    if let Some(depth) = &depth
        && depth.value < -1
    {
        let said = format!("a depth of {}", depth.value);
        diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(depth.span, "expected commits, or -1 for all"));
    }
    let path = git.text("destPath");
    if let Some(path) = &path {
        rules::inside_workspace(path, "`destPath`", diagnostics);
    }
    Dependency {
        repository: names.into_values().next(),
        revision: git.text("revision").map(|text| text.value),
        path: path.map(|text| text.value),
        // 0 is what an absent number is on the wire.
        depth: depth.map(|depth| depth.value).filter(|depth| *depth != 0).unwrap_or(1),
        submodules: git.flag("recurseSubmodules").unwrap_or(false),
        tags: git.flag("fetchTags").unwrap_or(false),
    }
}
