//! Results of steps that say what they read: the same image, command and files give the same files again.
//!
//! `<store>/pipeline-cache/<key>/` is what a step made, as it lies in the workspace; it appears by one rename.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::RunError;
use super::error::{chain, on};
use super::execute::Run;
use super::job::{Task, TaskWork};
use super::paths;

/// Raised when what a key means changes.
const SEMANTICS: u32 = 1;

/// What a step's result is called: the hash of all that it depends on. None: it is no container, or its files cannot be
/// read; then it runs.
pub(crate) fn key(run: &Run<'_>, task: &Task) -> Option<String> {
    let cache = task.cache.as_ref()?;
    let TaskWork::Container { image, .. } = &task.work else { return None };
    let image = run.images.get(image, &|_| {}).ok()?;
    let workspace = run.request.journal.folder.join("workspace");
    let mut text = format!("{SEMANTICS}\n{}\n{}\n", image.descriptor.digest, task.definition());
    for service in &task.services {
        let image = run.images.get(&service.image, &|_| {}).ok()?;
        text += &format!("{}\n", image.descriptor.digest);
    }
    for variable in task.secret_env.values() {
        // The secret itself would have to be in the key; its hash alone could be guessed.
        text += &format!("secret {variable}\n");
    }
    for name in paths::files(&workspace, &cache.reads).ok()? {
        let path = workspace.join(&name);
        let metadata = fs::symlink_metadata(&path).ok()?;
        let content = match metadata.is_symlink() {
            true => fs::read_link(&path).ok()?.display().to_string(),
            false => digest(&path)?,
        };
        text += &format!("{:o} {name} {content}\n", metadata.permissions().mode());
    }
    let digest = ctk_oci::Digest::of(text.as_bytes()).to_string();
    Some(digest.trim_start_matches("sha256:").to_owned())
}

fn digest(path: &Path) -> Option<String> {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    let mut file = fs::File::open(path).ok()?;
    std::io::copy(&mut file, &mut Writer(&mut hasher)).ok()?;
    Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Writer<'a>(&'a mut sha2::Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn folder(records: &Path) -> PathBuf {
    // `<store>/pipelines/<id>` is the record's.
    let store = records.parent().and_then(Path::parent).unwrap_or(records);
    store.join("pipeline-cache")
}

/// Brings back what an earlier success made; whether there was one.
pub(crate) fn restore(run: &Run<'_>, task: &Task, key: &str) -> bool {
    let record = &run.request.journal.folder;
    let from = folder(record).join(key);
    let Some(cache) = &task.cache else { return false };
    if !from.is_dir() {
        return false;
    }
    let restored = copy(&from, &record.join("workspace"), &["**".into()]);
    match restored {
        Ok(_) => {
            // What is used stays.
            if let Ok(file) = fs::File::open(&from) {
                let _ = file.set_modified(SystemTime::now());
            }
            true
        }
        Err(error) => {
            let message = format!("its kept result cannot be used ({}): {}", cache.makes.join(" "), chain(&error));
            run.tell(super::Event::Warning { step: Some(task.number), message });
            false
        }
    }
}

/// Keeps what a step made.
pub(crate) fn keep(run: &Run<'_>, task: &Task, key: &str) -> Result<(), String> {
    let record = &run.request.journal.folder;
    let (folder, Some(cache)) = (folder(record), &task.cache) else { return Ok(()) };
    let to = folder.join(key);
    if to.is_dir() {
        return Ok(());
    }
    let new = folder.join(format!("{key}.{}-{}", run.request.journal.header.id, task.number));
    let kept = fs::create_dir_all(&new).map_err(on("make", &new)).and_then(|()| {
        copy(&record.join("workspace"), &new, &cache.makes)?;
        match fs::rename(&new, &to) {
            // Somebody else was as fast.
            Err(_) if to.is_dir() => super::record::remove(&new),
            result => result.map_err(on("keep", &to)),
        }
    });
    kept.map_err(|error| {
        let _ = fs::remove_dir_all(&new);
        chain(&error)
    })
}

fn copy(from: &Path, to: &Path, patterns: &[String]) -> Result<(), RunError> {
    for name in paths::files(from, patterns)? {
        let (source, target) = (from.join(&name), to.join(&name));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(on("make", parent))?;
        }
        let metadata = fs::symlink_metadata(&source).map_err(on("look at", &source))?;
        let _ = fs::remove_file(&target);
        if metadata.is_symlink() {
            let link = fs::read_link(&source).map_err(on("read", &source))?;
            std::os::unix::fs::symlink(link, &target).map_err(on("link", &target))?;
        } else {
            fs::copy(&source, &target).map_err(on("copy", &source))?;
        }
    }
    Ok(())
}

/// Removes results that were not used for `age`; gives back how many.
pub(crate) fn prune(records: &Path, age: Duration) -> usize {
    let store = records.parent().unwrap_or(records);
    let Ok(entries) = fs::read_dir(store.join("pipeline-cache")) else { return 0 };
    let old = |entry: &fs::DirEntry| {
        let used = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        used.is_some_and(|used| used + age <= SystemTime::now())
    };
    entries.flatten().filter(old).filter(|entry| fs::remove_dir_all(entry.path()).is_ok()).count()
}
