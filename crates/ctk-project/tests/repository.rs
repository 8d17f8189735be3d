//! The project files of this repository: the own one passes, and `ctk fmt` has nothing to do anywhere.

use std::collections::BTreeMap;
use std::path::Path;

use ctk_project::{Inputs, MemoryFiles, format, no_git, parse};
use ctk_syntax::Sources;

fn project_files(folder: &Path, root: &Path, out: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            project_files(&path, root, out);
        } else if path.extension().is_some_and(|e| e == "kdl") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            out.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn our_own_files_are_in_order() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = BTreeMap::new();
    project_files(&top.join("examples"), &top, &mut files);
    files.insert("containers.kdl".into(), std::fs::read_to_string(top.join("containers.kdl")).unwrap());
    let inputs = Inputs { vars: BTreeMap::new(), env: &|_| None, git: &no_git, default_name: "folder".into() };
    let mut sources = Sources::new();
    let text = files["containers.kdl"].clone();
    let (_, found) = parse(&mut sources, "containers.kdl", text, &MemoryFiles(files.clone()), &inputs);
    assert!(found.is_empty(), "{}", found.render(&sources, false));
    for (name, text) in files {
        let id = sources.add(name.clone(), text.clone());
        assert_eq!(format(&mut sources, id).unwrap(), text, "{name}");
    }
}
