//! File operations: COPY, ADD, WORKDIR's directory, here-documents, accounts.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use ctk_buildgraph::{FileAction, FileMode, Owner, Selection};
use ctk_layer::Time;
use ctk_snapshot::copy::{self, Attributes, CopiedXattrs, CopyOptions, Mtime, Verdict};
use ctk_snapshot::{LayerKey, Made, SnapshotError, users};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat};

use super::Work;
use crate::context::{EntryKind, Found, below, shown};
use crate::limits::ACCOUNT_FILE_BYTES;
use crate::{BuildError, StatIndex};

/// Where files come from and what of it.
struct Source<'a> {
    root: BorrowedFd<'a>,
    found: &'a [Found],
    /// From a host directory: times there mean nothing to others.
    local: bool,
}

/// Does the actions, in order.
pub(super) fn run(
    work: &Work<'_>,
    actions: &[FileAction],
    link: bool,
    key: &LayerKey,
) -> Result<Option<LayerKey>, BuildError> {
    work.file(actions, link, key)
}

impl Work<'_> {
    fn file(&self, actions: &[FileAction], link: bool, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
        let mut workspace = if link { self.job.request.world.snapshots.begin(&[])? } else { self.workspace()? };
        {
            let root = workspace.open_root()?;
            for action in actions {
                self.action(root.as_fd(), action)?;
            }
        }
        workspace.without_programs();
        self.commit(workspace, key)
    }

    /// Now: packing brings it down to the epoch, and commands see files that are not from the future.
    fn time(&self) -> Time {
        Made::stamp(self.job.request.world.now_seconds)
    }

    fn action(&self, root: BorrowedFd<'_>, action: &FileAction) -> Result<(), BuildError> {
        match action {
            FileAction::Copy { input, selection: Some(selection), .. } => {
                let context = self.job.contexts.get(&selection.context)?;
                let found = self.job.contexts.find_all(selection)?;
                let _ = input;
                self.copy(root, action, &Source { root: context.root(), found: &found, local: true })?;
                self.job.contexts.unchanged(selection)
            }
            FileAction::Copy { input, sources, exclude, parents, .. } => {
                let (_tree, context) = self.tree_context(*input)?;
                let (paths, exclude, parents) = (sources.clone(), exclude.clone(), *parents);
                let selection = Selection { context: String::new(), paths, exclude, parents };
                let found = context.find(&selection, &StatIndex::in_memory(), 0)?;
                self.copy(root, action, &Source { root: context.root(), found: &found, local: false })
            }
            FileAction::Mkdir { path, mode, owner } => {
                if !is_directory(root, path) {
                    let owner = self.known_owner(root, path, owner)?;
                    let new = Attributes { owner, mode: *mode, mtime: Some(self.time()) };
                    copy::mkdir(root, path.as_bytes(), &new, true)?;
                }
                Ok(())
            }
            FileAction::Mkfile { dest, name, content, mode, owner } => {
                let mode = mode.as_deref().map(parse_mode).transpose()?;
                let parents_mode = mode.as_ref().map_or(0o755, FileMode::of_parents);
                let mode = mode.map_or(0o644, |mode| mode.apply(0o644, false));
                let new = Attributes { owner: lookup(root, owner)?, mode, mtime: Some(self.time()) };
                let path = into_directory(root, dest, name.as_bytes());
                Ok(copy::mkfile(root, &path, content.as_bytes(), &new, parents_mode)?)
            }
            FileAction::Rm { path, required } => {
                if !copy::remove(root, path.as_bytes())? && *required {
                    let container = "the stage".to_owned();
                    return Err(BuildError::SourceMissing {
                        path: path.clone(),
                        container,
                        ignored: false,
                        near: None,
                    });
                }
                Ok(())
            }
            FileAction::AddUser { name, uid, gid, home, shell } => self.add_user(root, name, *uid, *gid, home, shell),
        }
    }

    /// Who owns the directory of a WORKDIR: the USER, as far as the image knows them. As with BuildKit, an unknown group
    /// is the user's own, and an unknown user is root: it is a mistake when somebody runs as them.
    fn known_owner(&self, root: BorrowedFd<'_>, path: &str, owner: &Option<Owner>) -> Result<(u32, u32), BuildError> {
        let Some(Owner(wanted)) = owner else { return Ok((0, 0)) };
        for word in [wanted, wanted.split(':').next().unwrap_or_default()] {
            match users::lookup_owner(root, word) {
                Err(SnapshotError::NoSuchUser { .. } | SnapshotError::Refused { .. }) => {}
                found => return Ok(found?),
            }
        }
        let message = format!("WORKDIR {path} is root's: the image has no user `{wanted}`");
        self.job.request.world.reporter.warn(message);
        Ok((0, 0))
    }

    fn copy(&self, root: BorrowedFd<'_>, action: &FileAction, source: &Source<'_>) -> Result<(), BuildError> {
        let FileAction::Copy { dest, owner, mode, extract, .. } = action else { return Ok(()) };
        let mode = mode.as_deref().map(parse_mode).transpose()?;
        let change = |bits: u32, directory: bool| mode.as_ref().map_or(bits, |mode| mode.apply(bits, directory));
        let given = owner.is_some();
        let owner = lookup(root, owner)?;
        let mtime = if source.local { Mtime::Set(self.time()) } else { Mtime::Keep };
        for found in source.found {
            let directory = found.all().first().is_some_and(|e| e.kind == EntryKind::Directory);
            let name = &found.named[found.named.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1)..];
            let path = if directory { dest.clone().into_bytes() } else { into_directory(root, dest, name) };
            if *extract && !directory && self.extract(root, dest, source, found, given.then_some(owner))? {
                continue;
            }
            let allowed: HashSet<&[u8]> = found.all().iter().map(|e| below(&found.path, &e.path)).collect();
            let filter = |path: &[u8], _: bool| if allowed.contains(path) { Verdict::Take } else { Verdict::Skip };
            let options = CopyOptions {
                // A local file's owner is an accident of this machine; another tree's was chosen.
                owner: (given || source.local).then_some(owner),
                mode: mode.is_some().then_some(&change),
                parents_mode: mode.as_ref().map_or(0o755, FileMode::of_parents),
                mtime,
                follow: true,
                xattrs: if source.local { CopiedXattrs::User } else { CopiedXattrs::All },
                filter: Some(&filter),
            };
            copy::copy_into(root, &path, source.root, &found.path, &options, self.cancel)?;
        }
        Ok(())
    }

    /// Unpacks an archive, if it is one.
    fn extract(
        &self,
        root: BorrowedFd<'_>,
        dest: &str,
        source: &Source<'_>,
        found: &Found,
        owner: Option<(u32, u32)>,
    ) -> Result<bool, BuildError> {
        let open = || -> Result<std::fs::File, BuildError> {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let fd = openat2(source.root, &found.path[..], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
            Ok(fd.map_err(|e| BuildError::read("open", shown(&found.path))(e.into()))?.into())
        };
        if !matches!(found.all().first(), Some(entry) if matches!(entry.kind, EntryKind::File(_)))
            || !copy::is_archive(open()?)
        {
            return Ok(false);
        }
        copy::extract(root, dest.as_bytes(), &shown(&found.named), open()?, owner, Mtime::Keep, self.cancel)?;
        Ok(true)
    }

    /// Adds an account where there is none of that name.
    fn add_user(
        &self,
        root: BorrowedFd<'_>,
        name: &str,
        uid: u32,
        gid: u32,
        home: &str,
        shell: &str,
    ) -> Result<(), BuildError> {
        let lines = [
            ("/etc/passwd", format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n"), 0o644, true),
            ("/etc/group", format!("{name}:x:{gid}:\n"), 0o644, true),
            ("/etc/shadow", format!("{name}:!:::::::\n"), 0o640, false),
            ("/etc/gshadow", format!("{name}:!::\n"), 0o640, false),
        ];
        for (path, line, mode, always) in lines {
            let before = read_small(root, path)?;
            let stat = statat(root, &path[1..], AtFlags::SYMLINK_NOFOLLOW).ok();
            let Some(mut text) = before.or_else(|| always.then(|| self.root_account(path))) else { continue };
            let taken = text.lines().find(|l| l.split(':').next() == Some(name)).map(str::to_owned);
            if let Some(taken) = taken {
                if path == "/etc/passwd" && taken.split(':').nth(2) != Some(uid.to_string().as_str()) {
                    return Err(BuildError::BadOption(format!(
                        "user `{name}` exists already with another uid: `{taken}`"
                    )));
                }
                continue;
            }
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&line);
            let owner = stat.as_ref().map_or((0, 0), |s| (s.st_uid, s.st_gid));
            let mode = stat.as_ref().map_or(mode, |s| s.st_mode & 0o7777);
            let new = Attributes { owner, mode, mtime: Some(self.time()) };
            copy::mkfile(root, path.as_bytes(), text.as_bytes(), &new, 0o755)?;
        }
        Ok(())
    }

    /// What an account file starts with where there is none: an image without root would confuse every tool.
    fn root_account(&self, path: &str) -> String {
        match path {
            "/etc/passwd" => "root:x:0:0:root:/root:/sbin/nologin\n".into(),
            _ => "root:x:0:\n".into(),
        }
    }
}

fn read_small(root: BorrowedFd<'_>, path: &str) -> Result<Option<String>, BuildError> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(fd) = openat2(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve) else { return Ok(None) };
    let mut text = Vec::new();
    let file = std::fs::File::from(fd);
    file.take(ACCOUNT_FILE_BYTES).read_to_end(&mut text).map_err(BuildError::read("read", path))?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

fn lookup(root: BorrowedFd<'_>, owner: &Option<Owner>) -> Result<(u32, u32), BuildError> {
    match owner {
        None => Ok((0, 0)),
        Some(owner) => Ok(users::lookup_owner(root, &owner.0)?),
    }
}

/// The permissions that `--chmod` says.
fn parse_mode(text: &str) -> Result<FileMode, BuildError> {
    FileMode::parse(text).ok_or_else(|| BuildError::BadOption(format!("`{text}` is no mode")))
}

fn is_directory(root: BorrowedFd<'_>, path: &str) -> bool {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
        .and_then(|fd| rustix::fs::fstat(&fd))
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// `dest`, or `name` in it if it is a directory or says so.
fn into_directory(root: BorrowedFd<'_>, dest: &str, name: &[u8]) -> Vec<u8> {
    if dest.ends_with('/') || is_directory(root, dest) {
        [dest.trim_end_matches('/').as_bytes(), b"/", name].concat()
    } else {
        dest.as_bytes().to_vec()
    }
}
