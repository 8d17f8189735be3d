//! `local` and `tar`: the files of an image, without the image.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ctk_layer::{Entry, EntryKind, TarWriter};
use ctk_oci::{ImageConfig, Manifest};
use ctk_snapshot::copy::{Mtime, extract};
use ctk_snapshot::{Merged, SnapshotError};

use super::{ExportError, ExportRequest, Files, file_error};

/// Writes the files as a tar stream. Several platforms have a folder each, `linux_amd64/`, or share one as far as none has
/// a file of another's name.
pub(super) fn tar<W: Write>(request: &ExportRequest<'_>, files: &Files, out: W) -> Result<W, ExportError> {
    let platforms = request.image.manifests;
    let split = files.split.unwrap_or(platforms.len() > 1);
    let mut merged = (!split && platforms.len() > 1).then(Merged::default);
    let mut tar = TarWriter::new(out);
    for (platform, descriptor) in platforms {
        let manifest = request.store.document::<Manifest>("image manifest", descriptor)?.into_value();
        let config = request.store.document::<ImageConfig>("image config", &manifest.config)?.into_value();
        let created = config.created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let layers = request.snapshots.unpack_image(&manifest, None, request.cancel)?;
        let prefix = if split { platform.to_string().replace('/', "_") } else { String::new() };
        if split {
            let entry = Entry::new(prefix.clone(), EntryKind::Directory, 0o755);
            tar.append(&entry, io::empty()).map_err(ExportError::Tar)?;
        }
        let epoch = created.map(|time| time.as_second());
        let written = request.snapshots.flatten(&layers, &prefix, epoch, (&mut tar, merged.as_mut()), request.cancel);
        written.map_err(|error| match error {
            SnapshotError::Taken { path } => ExportError::Refused(format!(
                "`{path}` of {platform} would replace that of another platform; leave `platform-split=false` out"
            )),
            error => error.into(),
        })?;
    }
    tar.finish().map_err(ExportError::Tar)
}

/// Files that are complete, in a folder that nobody else uses yet.
pub(super) struct StagedFolder {
    folder: PathBuf,
    dest: PathBuf,
    /// Whether what is not of the image goes.
    delete: bool,
}

/// Brings the files beside their destination, or into it if it is there already, out of sight. They belong to whoever
/// runs this; modes, links, times and attributes are the image's.
pub(super) fn stage(request: &ExportRequest<'_>, files: &Files, dest: &Path) -> Result<StagedFolder, ExportError> {
    let name = format!(".ctk-export-{}", std::process::id());
    let folder = match fs::metadata(dest) {
        Ok(found) if found.is_dir() => dest.join(name),
        Ok(_) => {
            let text = format!("{} is no folder; `type=tar` writes a file", dest.display());
            return Err(ExportError::Refused(text));
        }
        Err(_) => {
            let parent = dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(parent).map_err(file_error("create", parent))?;
            parent.join(name)
        }
    };
    fs::create_dir(&folder).map_err(file_error("create", &folder))?;
    let staged = StagedFolder { folder, dest: dest.to_path_buf(), delete: files.delete };
    let root = File::open(&staged.folder).map_err(file_error("open", &staged.folder))?;
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (reader, writer) = io::pipe().map_err(file_error("make a pipe for", dest))?;
    let (written, extracted) = std::thread::scope(|scope| {
        let writing = scope.spawn(move || tar(request, files, writer).map(drop));
        let what = dest.display().to_string();
        let extracted =
            extract(std::os::fd::AsFd::as_fd(&root), b"/", &what, reader, Some(owner), Mtime::Keep, request.cancel);
        (writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), extracted)
    });
    // A reader that stops breaks the writer's pipe: then its reason is the story, and the writer's otherwise.
    match (written, extracted) {
        (Err(error @ ExportError::Refused(_)), _) | (Err(error), Ok(_)) => Err(error),
        (_, Err(error)) => Err(error.into()),
        (Ok(()), Ok(_)) => Ok(staged),
    }
}

impl StagedFolder {
    /// Moves the files to where they belong, each by a rename.
    pub(super) fn publish(self) -> Result<(), ExportError> {
        if self.dest.is_dir() {
            merge(&self.folder, &self.dest, self.delete).map_err(file_error("write to", &self.dest))
        } else {
            fs::rename(&self.folder, &self.dest).map_err(file_error("rename into place", &self.dest))
        }
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn merge(from: &Path, to: &Path, delete: bool) -> io::Result<()> {
    if delete {
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            let there = from.join(entry.file_name()).symlink_metadata().is_ok();
            if !there && entry.path() != from {
                remove(&entry.path())?;
            }
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let is_folder = entry.file_type()?.is_dir();
        match target.symlink_metadata() {
            Ok(old) if old.is_dir() && is_folder => {
                merge(&entry.path(), &target, delete)?;
                let new = entry.metadata()?;
                fs::set_permissions(&target, new.permissions())?;
                File::open(&target)?.set_modified(new.modified()?)?;
            }
            Ok(old) => {
                // A rename replaces a file, but no folder, and no file by a folder.
                if old.is_dir() || is_folder {
                    remove(&target)?;
                }
                fs::rename(entry.path(), &target)?;
            }
            Err(_) => fs::rename(entry.path(), &target)?,
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_merged_and_files_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for (path, text) in [("from/a/new", "1"), ("from/f", "2"), ("from/d/x", "3"), ("to/a/old", "4")] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(to.join("f/was-a-folder")).unwrap();
        fs::write(to.join("d"), "was a file").unwrap();
        fs::write(to.join("stays"), "").unwrap();
        merge(&from, &to, false).unwrap();
        let read = |path: &str| fs::read_to_string(to.join(path)).unwrap();
        assert_eq!(
            (read("a/new"), read("a/old"), read("f"), read("d/x")),
            ("1".into(), "4".into(), "2".into(), "3".into())
        );
        assert!(to.join("stays").exists());
        fs::create_dir_all(from.join("a")).unwrap();
        merge(&from, &to, true).unwrap();
        assert!(
            !to.join("stays").exists() && !to.join("f").exists() && !to.join("a/old").exists() && to.join("a").exists()
        );
    }
}
