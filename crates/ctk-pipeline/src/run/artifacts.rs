//! What goes out after the steps: files to buckets, packages to repositories.

use std::path::Path;

use super::event::Event;
use super::execute::Run;
use super::storage::{Here, put};
use super::{packages, paths};
use crate::cloudbuild::Artifact;

/// Uploads an artifact; the error says what could not be uploaded.
pub(crate) fn deliver(run: &Run<'_>, artifact: &Artifact) -> Result<(), String> {
    let workspace = run.request.journal.folder.join("workspace");
    let here = |address: &str| run.request.settings.mapping.here(address);
    match artifact {
        Artifact::Objects { location, paths } => {
            let target = match location.strip_prefix("record:") {
                Some(name) => Here::Folder(run.request.journal.folder.join("artifacts").join(name)),
                None => here(location.trim_end_matches('/'))?,
            };
            let files = found(&workspace, paths)?;
            let mut manifest = String::new();
            for file in &files {
                let path = workspace.join(file);
                // Cloud Build puts files of all folders into one.
                let name = file.rsplit('/').next().unwrap_or(file);
                send(run, &target, name, &path, location)?;
                let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let line = serde_json::json!({
                    "location": format!("{}/{name}", location.trim_end_matches('/')),
                    "file_hash": [{ "file_hash": [{ "type": 2, "value": packages::md5_base64(&bytes) }] }],
                });
                manifest += &format!("{line}\n");
            }
            if !location.starts_with("gs://") {
                return Ok(());
            }
            let id = run.request.job.labels.get("BUILD_ID").cloned();
            let id = id.filter(|id| id.contains(|c| c != '0' && c != '-'));
            let name = format!("artifacts-{}.json", id.unwrap_or_else(|| run.request.journal.header.id.clone()));
            let path = run.request.journal.folder.join(&name);
            std::fs::write(&path, manifest).map_err(|error| format!("{}: {error}", path.display()))?;
            send(run, &target, &name, &path, location)
        }
        Artifact::Python { repository, paths } => {
            let target = here(repository.trim_end_matches('/'))?;
            for file in found(&workspace, paths)? {
                let path = workspace.join(&file);
                let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
                match &target {
                    Here::Web(url) => {
                        run.try_again(&format!("upload `{file}` to {repository}"), || packages::python(url, &path))?;
                        run.tell(Event::Uploaded { file: file.clone(), to: repository.clone() });
                    }
                    target => send(run, target, &name, &path, repository)?,
                }
            }
            Ok(())
        }
        Artifact::Maven { repository, path, coordinates } => {
            let target = here(repository.trim_end_matches('/'))?;
            let file = paths::below(&workspace, path).ok_or_else(|| format!("`{path}` leads out of the workspace"))?;
            for (name, file) in packages::maven(&run.request.journal.folder, &file, coordinates)? {
                send(run, &target, &name, &file, repository)?;
            }
            Ok(())
        }
        Artifact::Npm { repository, path } => {
            let target = here(repository.trim_end_matches('/'))?;
            let folder =
                paths::below(&workspace, path).ok_or_else(|| format!("`{path}` leads out of the workspace"))?;
            let package = packages::npm(&run.request.journal.folder, &folder)?;
            match &target {
                Here::Web(url) => {
                    run.try_again(&format!("publish {} to {repository}", package.name), || package.publish(url))?;
                    run.tell(Event::Uploaded { file: path.clone(), to: repository.clone() });
                    Ok(())
                }
                target => send(run, target, &package.file_name(), &package.file, repository),
            }
        }
        Artifact::Go { repository, source, module } => {
            let [name, location, project] = repository;
            let address = format!("https://{location}-go.pkg.dev/{project}/{name}");
            let target = here(&address)?;
            let folder =
                paths::below(&workspace, source).ok_or_else(|| format!("`{source}` leads out of the workspace"))?;
            for (name, file) in packages::go(&run.request.journal.folder, &folder, module)? {
                send(run, &target, &name, &file, &address)?;
            }
            Ok(())
        }
    }
}

/// Files that patterns name; none is a mistake, as in Cloud Build.
fn found(workspace: &Path, patterns: &[String]) -> Result<Vec<String>, String> {
    let own: Vec<String> =
        patterns.iter().map(|one| one.strip_prefix("/workspace/").unwrap_or(one).to_owned()).collect();
    for pattern in &own {
        let files =
            paths::files(workspace, std::slice::from_ref(pattern)).map_err(|error| super::error::chain(&error))?;
        if files.is_empty() {
            return Err(format!("no file of the workspace fits artifact `{pattern}`"));
        }
    }
    paths::files(workspace, &own).map_err(|error| super::error::chain(&error))
}

fn send(run: &Run<'_>, target: &Here, name: &str, file: &Path, address: &str) -> Result<(), String> {
    // What a step made to look like an artifact may be a link to anything of this machine.
    let is_file = std::fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return Err(format!("artifact `{name}` is no file"));
    }
    run.try_again(&format!("upload `{name}` to {address}"), || put(target, name, file))?;
    run.tell(Event::Uploaded { file: name.to_owned(), to: address.to_owned() });
    Ok(())
}
