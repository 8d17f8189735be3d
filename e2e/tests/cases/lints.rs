//! Every lint rule, as a build and as `ctk check` tell it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ctk_e2e::{World, contains, is_root};

/// The corpus: one folder for each rule.
fn rules() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/dockerfiles/lint");
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_rule = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !name.ends_with("-as-error") && !["unknown-option", "skipped-rule-is-no-error"].contains(&name)
    };
    let mut rules: Vec<PathBuf> = all.filter(is_rule).collect();
    rules.sort();
    rules
}

/// The page that explains the rule of a folder.
fn page(folder: &str) -> String {
    let page = if folder == "from-platform-flag-const" { "from-platform-flag-const-disallowed" } else { folder };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/errors/dockerfile/{page}.md"));
    assert!(path.exists(), "{} is missing", path.display());
    page.to_owned()
}

/// A world with the corpus' Dockerfiles, a project of all of them, and their base as a layout of this machine.
fn world() -> World {
    let world = World::new();
    world.write("base/Dockerfile", "FROM scratch\nENV PATH=/bin\nCOPY true /bin/sh\n");
    world.write("base/true", "");
    world.ctk(&["build", "--platform=linux/amd64", "-o", "type=oci,tar=false,dest=layout", "base"]).ok();
    let mut project = String::from("project \"lint\"\n");
    for case in rules() {
        let name = case.file_name().unwrap().to_str().unwrap();
        for file in ["Dockerfile", "context/.dockerignore", "context/a.txt"] {
            if let Ok(content) = fs::read(case.join(file)) {
                world.write(&format!("{name}/{}", file.trim_start_matches("context/")), content);
            }
        }
        // Without its argument it names nothing.
        let more = if name == "invalid-default-arg-in-from" { " arg \"T\" \"latest\";" } else { "" };
        project += &format!("image \"{name}\" dockerfile=\"{name}/Dockerfile\" context=\"{name}\" {{");
        project += &format!(" context \"base\" \"oci-layout://layout\";{more}}}\n");
    }
    world.write("containers.kdl", project);
    world
}

#[test]
fn check_tells_breaches_of_all_rules() {
    let world = world();
    let output = world.ctk(&["check"]);
    let said = output.err.clone();
    output.ok();
    let rules = rules();
    assert_eq!(rules.len(), 22);
    for case in &rules {
        let name = case.file_name().unwrap().to_str().unwrap();
        let told = format!("warning[dockerfile::{}]", page(name));
        let place = format!("┌─ {name}/Dockerfile:");
        let found = said.split("\nwarning[").any(|one| {
            let one = format!("warning[{}", one.trim_start_matches("warning["));
            one.starts_with(&told) && one.contains(&place)
        });
        assert!(found, "`{told}` at `{place}` is missing in\n{said}");
    }
    let codes: BTreeSet<&str> = said.lines().filter_map(|line| line.strip_prefix("warning[dockerfile::")).collect();
    assert!(codes.len() >= rules.len(), "{codes:?}");
}

#[test]
fn a_build_of_a_folder_tells_them_too() {
    if !is_root() {
        return;
    }
    let world = world();
    for case in rules() {
        let name = case.file_name().unwrap().to_str().unwrap();
        let folder = format!("./{name}");
        let base = ["--build-context", "base=oci-layout://layout"];
        let more: &[&str] = if name == "invalid-default-arg-in-from" { &["--build-arg", "T=latest"] } else { &[] };
        let told = format!("[dockerfile::{}]", page(name));
        let built = world.ctk(&[&["build", "--progress=plain"][..], &base, more, &[&folder]].concat());
        match name {
            // What it wants of the context is not there.
            "copy-ignored-file" => contains(&built.fails(1), &["`a.txt`", "an ignore pattern excludes it"]),
            // Its base runs nothing.
            "no-empty-continuation" => contains(&built.err, &[&told]),
            _ => {
                contains(&built.err, &[&told, &format!("{name}/Dockerfile:")]);
                built.ok();
            }
        }
        let called = world.ctk(&[&["build", "--call=check"][..], &base, more, &[&folder]].concat());
        let words = page(name).replace("json", "JSON");
        let rule: String = words.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        contains(&called.out, &["WARNING: ", &rule]);
    }
}
