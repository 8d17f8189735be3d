//! `golden/<name>/`: a project, and either its complaints or its graph.
//!
//! A case is a folder with `containers.kdl`, other files it includes, optionally `vars` (`name=value` lines: as given
//! by `--var`; `$NAME=value` lines: the environment), and `expected.txt`. Copy one to add one. `CTK_BLESS=1` writes
//! what was seen.

use std::collections::BTreeMap;
use std::path::Path;

use ctk_project::{Format, Inputs, MemoryFiles, graph, parse};
use ctk_syntax::Sources;

fn read(folder: &Path, under: &str, files: &mut BTreeMap<String, String>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap()).collect();
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let name = format!("{under}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read_to_string(entry.path()).unwrap());
        }
    }
}

fn run(folder: &Path) -> String {
    let mut files = BTreeMap::new();
    read(folder, "", &mut files);
    let text = files["containers.kdl"].clone();
    let (mut vars, mut env) = (BTreeMap::new(), BTreeMap::new());
    for line in files.get("vars").map(String::as_str).unwrap_or("").lines() {
        let (name, value) = line.split_once('=').unwrap();
        match name.strip_prefix('$') {
            Some(name) => env.insert(name.to_string(), value.to_string()),
            None => vars.insert(name.to_string(), value.to_string()),
        };
    }
    let inputs = Inputs {
        vars,
        env: &|name| env.get(name).cloned(),
        git: &|name| match name {
            "short" => Ok("abc1234".into()),
            _ => Err("this folder is in no git work tree".into()),
        },
        default_name: "folder".into(),
    };
    let mut sources = Sources::new();
    let (project, diagnostics) = parse(&mut sources, "containers.kdl", text, &MemoryFiles(files), &inputs);
    let mut out = diagnostics.render(&sources, false);
    if !diagnostics.has_errors() {
        out.push_str(&graph(&project, Format::Text));
        out.push('\n');
        for resource in &project.resources {
            out.push_str(&format!("{}\n", resource.node.canonical()));
            for cache in &resource.caches {
                out.push_str(&format!("  {} in {:?}\n", cache.node.canonical(), cache.directory));
            }
        }
        for (name, members) in &project.groups {
            let members: Vec<String> = members.iter().map(|a| a.to_string()).collect();
            out.push_str(&format!("group {name}: {}\n", members.join(" ")));
        }
    }
    out
}

#[test]
fn every_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("CTK_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let folder = entry.unwrap().path();
        count += 1;
        let seen = run(&folder);
        let expected = folder.join("expected.txt");
        if bless {
            std::fs::write(&expected, &seen).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != seen {
            wrong.push(format!("{}:\n{seen}", folder.file_name().unwrap().to_string_lossy()));
        }
    }
    assert!(count > 10);
    assert!(wrong.is_empty(), "these differ from expected.txt (CTK_BLESS=1 accepts them):\n{}", wrong.join("\n"));
}
