//! The files that steps work on: a copy of the source, so that a run changes nothing but itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ctk_plan::Cancel;
use ctk_snapshot::copy::{CopiedXattrs, CopyOptions, Mtime, Verdict, copy_into};

use super::error::{chain, on};
use super::ignore::Ignore;
use super::job::Job;
use super::places::Place;
use super::record::Journal;
use super::{RunError, paths};
use crate::cloudbuild::Dependency;

/// Copies `source` into the run's workspace: by reflink where the file system can. `skip` is a folder below it that is
/// left out, such as the store.
pub fn fill(journal: &Journal, job: &Job, source: Option<&Path>, skip: &Path, cancel: &Cancel) -> Result<(), RunError> {
    let workspace = journal.folder.join("workspace");
    let empty = job.dependencies.iter().any(|one| one.repository.is_none());
    if let (Some(source), false) = (source, empty) {
        let ignore = Ignore::of(source);
        let skip = skip.strip_prefix(source).ok().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
        let filter = |path: &[u8], is_folder: bool| {
            let skips = skip.as_deref() == Some(path) || ignore.skips(path, is_folder);
            if skips { Verdict::Skip } else { Verdict::Take }
        };
        let options = CopyOptions {
            owner: None,
            mode: None,
            parents_mode: 0o755,
            mtime: Mtime::Keep,
            follow: true,
            xattrs: CopiedXattrs::User,
            filter: Some(&filter),
        };
        let open = |path: &Path| fs::File::open(path).map_err(on("open", path));
        let (from, to) = (open(source)?, open(&workspace)?);
        use std::os::fd::AsFd;
        copy_into(to.as_fd(), b"", from.as_fd(), b"", &options, cancel).map_err(|error| RunError::Dependency {
            what: format!("the source {}", source.display()),
            why: chain(&error),
        })?;
    }
    for dependency in &job.dependencies {
        fetch(dependency, &workspace)?;
    }
    Ok(())
}

fn fetch(dependency: &Dependency, workspace: &Path) -> Result<(), RunError> {
    let Some(url) = &dependency.repository else { return Ok(()) };
    let failed = |why: String| RunError::Dependency { what: url.clone(), why };
    let path = dependency.path.as_deref().unwrap_or("");
    let folder = paths::below(workspace, path).ok_or_else(|| failed(format!("`{path}` leads out of the workspace")))?;
    fs::create_dir_all(&folder).map_err(on("make", &folder))?;
    let git = |words: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&folder).args(words).stdin(Stdio::null()).output();
        let output = output.map_err(|error| failed(format!("cannot run git: {error}")))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    };
    git(&["init", "--quiet"])?;
    let depth = format!("--depth={}", dependency.depth.max(1));
    let revision = dependency.revision.as_deref().unwrap_or("HEAD");
    let mut words = vec!["fetch", "--quiet"];
    words.extend((dependency.depth >= 0).then_some(depth.as_str()));
    words.push(if dependency.tags { "--tags" } else { "--no-tags" });
    // Behind `--` nothing is an option, whatever it begins with.
    words.extend(["--", url, revision]);
    git(&words)?;
    git(&["checkout", "--quiet", "FETCH_HEAD"])?;
    if dependency.submodules {
        git(&["submodule", "update", "--init", "--recursive", "--quiet"])?;
    }
    Ok(())
}

/// Where steps see the folders of a run.
pub fn places(journal: &Journal, job: &Job) -> Result<Vec<Place>, RunError> {
    let place = |name: &str, path: &str| Place { folder: journal.folder.join(name), path: path.into() };
    let mut all = vec![place("workspace", "/workspace"), place("home", "/builder/home")];
    for volume in job.tasks.iter().flat_map(|task| &task.volumes) {
        let folder = journal.folder.join("volumes").join(&volume.name);
        fs::create_dir_all(&folder).map_err(on("make", &folder))?;
        if all.iter().all(|place| place.path != volume.path) {
            all.push(Place { folder, path: volume.path.clone() });
        }
    }
    Ok(all)
}
