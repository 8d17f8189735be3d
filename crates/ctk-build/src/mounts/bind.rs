//! Files of a context, a stage or an image. What is written there is thrown away.
//!
//! Nothing is copied where a mount can do it: a stage or an image is the overlay of its layers, a context is a bind of
//! its directory, or an overlay over it where it may be written. Only a context with ignored files, or one whose files
//! do not belong to root as they do in BuildKit's mounts, is copied.

use std::collections::HashSet;
use std::os::fd::AsFd;

use ctk_buildgraph::{Op, Selection};
use ctk_oci::Mount;
use ctk_snapshot::copy::{CopiedXattrs, CopyOptions, Mtime, Verdict, copy_into};
use rustix::fs::{AtFlags, Mode, OFlags, statat};

use super::Mounts;
use crate::BuildError;
use crate::context::{Context, EntryKind, Found, below};
use crate::ops::Work;

impl Mounts {
    pub(super) fn files(
        &mut self,
        work: &Work<'_>,
        input: usize,
        source: &str,
        selection: Option<&Selection>,
        target: Option<&str>,
        write: bool,
    ) -> Result<(), BuildError> {
        let Some(target) = target else { return Ok(()) };
        let graph = &work.job.plan.lowered.graph;
        match (selection, &graph.get(work.vertex.inputs[input]).op) {
            (Some(selection), Op::Local { context: name }) => {
                let context = work.job.contexts.get(name)?;
                let found = work.job.contexts.find_all(selection)?;
                let missing = || missing(source, "the context");
                let only = found.first().ok_or_else(missing)?;
                let path = std::str::from_utf8(&only.path);
                if let Ok(path) = path
                    && context.is_whole()
                    && belongs_to_root(&context, &found)
                {
                    let root = std::path::absolute(&context.path).map_err(BuildError::read("find", &context.path))?;
                    if !write {
                        self.bind(&root.join(path), Some(target), false);
                        return Ok(());
                    }
                    let view = work.job.request.world.snapshots.view_of(&root)?;
                    // Not every file system can be below an overlay.
                    if view.open_root().is_ok() {
                        self.list.push(view.part_mount(path, target, true)?);
                        self.views.push(view);
                        return Ok(());
                    }
                }
                self.copy(work, &context, &found, target, write)
            }
            _ => {
                if !source.is_empty() && work.tree(input)?.stat(source)?.is_none() {
                    let name = &graph.get(work.vertex.inputs[input]).name;
                    return Err(missing(source, &format!("the result of `{name}`")));
                }
                let keys = work.unpacked(&work.inputs[input])?;
                let view = work.job.request.world.snapshots.view(&keys)?;
                let mount: Mount = view.part_mount(source, target, write)?;
                self.list.push(mount);
                self.views.push(view);
                Ok(())
            }
        }
    }

    fn copy(
        &mut self,
        work: &Work<'_>,
        context: &Context,
        found: &[Found],
        target: &str,
        write: bool,
    ) -> Result<(), BuildError> {
        let scratch = work.job.request.world.store.scratch()?;
        let place = scratch.path().join("files");
        let root = rustix::fs::open(scratch.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|e| BuildError::read("open", scratch.path())(e.into()))?;
        for found in found {
            let allowed: HashSet<&[u8]> = found.all().iter().map(|e| below(&found.path, &e.path)).collect();
            let filter = |path: &[u8], _: bool| if allowed.contains(path) { Verdict::Take } else { Verdict::Skip };
            if found.all().first().is_some_and(|e| e.kind == EntryKind::Directory) {
                std::fs::create_dir_all(&place).map_err(BuildError::read("create", &place))?;
            }
            let options = CopyOptions {
                owner: Some((0, 0)),
                mode: None,
                mtime: Mtime::Keep,
                follow: true,
                parents_mode: 0o755,
                xattrs: CopiedXattrs::User,
                filter: Some(&filter),
            };
            copy_into(root.as_fd(), b"/files", context.root(), &found.path, &options, work.cancel)?;
        }
        self.bind(&place, Some(target), write);
        self.scratch.push(scratch);
        Ok(())
    }
}

pub(super) fn missing(path: &str, container: &str) -> BuildError {
    BuildError::SourceMissing { path: path.to_owned(), container: container.to_owned(), ignored: false, near: None }
}

/// Whether root owns all of it.
fn belongs_to_root(context: &Context, found: &[Found]) -> bool {
    found.iter().flat_map(|found| found.all()).all(|entry| {
        let path = if entry.path.is_empty() { b"." } else { &entry.path[..] };
        statat(context.root(), path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (0, 0))
    })
}
