//! `cases/<area>/<case>.yaml` (or `.json`) and what becomes of it in `<case>.txt`: the mistakes that are found, then
//! the plan. Copy one to add one; `CTK_BLESS=1 cargo test -p ctk-pipeline --test corpus` writes what is expected.
//!
//! The first lines of a YAML file may say how it is read: `#: _KEY=value` gives a substitution, `#: KEY=value` a
//! built-in one, `#: trigger` reads it as a trigger does, `#: payload {…}` is the event, `#: json` shows the plan as
//! JSON, `#: graph` the graph.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ctk_pipeline::cloudbuild::schema::{self, Fate};
use ctk_pipeline::{Format, Inputs, graph, plan, read, text};
use ctk_syntax::Sources;

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut found = Vec::new();
    for area in fs::read_dir(&root).unwrap() {
        for file in fs::read_dir(area.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "yaml" || end == "json") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What becomes of a file.
fn outcome(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut inputs = Inputs::default();
    let (mut json, mut drawn) = (false, false);
    for line in head.lines().map_while(|line| line.strip_prefix("#: ")) {
        match line {
            "trigger" => inputs.trigger = true,
            "json" => json = true,
            "graph" => drawn = true,
            line => match line.strip_prefix("payload ") {
                Some(text) => inputs.payload = Some(serde_json::from_str(text).unwrap()),
                None => {
                    let (key, value) = line.split_once('=').expect("`#: KEY=value`");
                    let table = if key.starts_with('_') { &mut inputs.given } else { &mut inputs.built_in };
                    table.insert(key.to_owned(), value.to_owned());
                }
            },
        }
    }
    let mut sources = Sources::new();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let id = sources.add_bytes(name, &bytes);
    let (build, mut diagnostics) = read(&sources, id, &inputs);
    let mut out = String::new();
    if let Some(build) = build {
        let (plan, more) = plan(&build);
        diagnostics.extend(more);
        out = match (json, drawn) {
            (true, _) => serde_json::to_string_pretty(&plan).unwrap() + "\n",
            (_, true) => [Format::Text, Format::Dot, Format::Mermaid].map(|format| graph(&plan, format)).concat(),
            _ => text(&plan),
        };
    }
    let said = diagnostics.render(&sources, false);
    match (said.is_empty(), out.is_empty()) {
        (true, _) => out,
        (false, true) => said,
        (false, false) => format!("{said}\n{out}"),
    }
}

#[test]
fn files_become_what_is_expected() {
    let bless = std::env::var_os("CTK_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let (found, expected) = (outcome(&path), path.with_extension("txt"));
        if bless {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "these differ (CTK_BLESS=1 accepts them):\n{}", wrong.join("\n"));
}

#[test]
fn every_field_and_every_code_has_a_case() {
    let cases = cases();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let all: String = cases.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
    let words: BTreeSet<&str> = all.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<String> = schema::records()
        .iter()
        .flat_map(|record| record.fields.iter().map(move |field| (record.name, field)))
        .filter(|(_, field)| field.fate != Fate::Output && !words.contains(field.name))
        .map(|(record, field)| format!("{} of {record}", field.name))
        .collect();
    assert!(missing.is_empty(), "no case has {missing:?}");
    let told: String =
        cases.iter().map(|path| fs::read_to_string(path.with_extension("txt")).unwrap_or_default()).collect();
    let missing: Vec<&str> =
        ctk_pipeline::CODES.iter().map(|(code, _)| *code).filter(|code| !told.contains(code)).collect();
    assert!(missing.is_empty(), "no case gives {missing:?}");
}

#[test]
fn stale_expectations_are_none() {
    for path in cases() {
        assert!(path.with_extension("txt").exists(), "{} has no expectation", path.display());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for area in fs::read_dir(&root).unwrap() {
        for file in fs::read_dir(area.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "txt") {
                let has = ["yaml", "json"].iter().any(|end| path.with_extension(end).exists());
                assert!(has, "{} has no case", path.display());
            }
        }
    }
}
