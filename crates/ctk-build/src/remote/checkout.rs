//! Files of a commit, as BuildKit has them: 0755 for folders and programs, 0644 for other files, nobody's but root's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::program::{Access, Git};
use crate::BuildError;

/// Where files go and which of them.
pub(super) struct Files {
    pub directory: PathBuf,
    pub subdir: Option<String>,
}

/// Writes the files of the tree `tree` of the repository `repository` into `directory`. Links to submodules become empty
/// folders.
pub(super) fn write(git: &Git<'_>, repository: &Path, tree: &str, directory: &Path) -> Result<(), BuildError> {
    let scratch = git.given.world.store.scratch()?;
    let index = scratch.path().join("index");
    fs::create_dir_all(directory).map_err(BuildError::read("create", directory))?;
    let environment = [("GIT_INDEX_FILE", index.as_path()), ("GIT_WORK_TREE", directory)];
    git.run(repository, Access::Nothing, &environment, &["read-tree", tree])?;
    git.run(repository, Access::Nothing, &environment, &["checkout-index", "--all", "--force", "--quiet"])?;
    Ok(())
}

/// Gives everything below `directory` the permissions and owner it should have, and `seconds` as its time.
pub(super) fn settle(directory: &Path, seconds: Option<i64>) -> Result<(), BuildError> {
    let mut waiting = vec![directory.to_owned()];
    let mut folders = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).map_err(BuildError::read("list", &folder))? {
            let path = entry.map_err(BuildError::read("list", &folder))?.path();
            let meta = fs::symlink_metadata(&path).map_err(BuildError::read("stat", &path))?;
            if meta.uid() != 0 || meta.gid() != 0 {
                // Without the right to, files are ours, and so is all that is built from them.
                let _ = lchown(&path, Some(0), Some(0));
            }
            if meta.is_symlink() {
                time(&path, seconds)?;
                continue;
            }
            let mode = if meta.is_dir() || meta.mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            if meta.mode() & 0o7777 != mode {
                fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(BuildError::read("chmod", &path))?;
            }
            if meta.is_dir() {
                waiting.push(path.clone());
                folders.push(path);
            } else {
                time(&path, seconds)?;
            }
        }
    }
    folders.iter().try_for_each(|folder| time(folder, seconds))
}

fn time(path: &Path, seconds: Option<i64>) -> Result<(), BuildError> {
    let Some(seconds) = seconds else { return Ok(()) };
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let both = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| BuildError::read("set the time of", path)(error.into()))
}
