//! What a RUN sees besides its root: caches, binds, secrets, files written in place.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ctk_buildgraph::{Access, Exec, MountKind, Op, Selection, Sharing};
use ctk_oci::Mount;
use ctk_snapshot::copy::{CopyOptions, Mtime, Verdict, copy_into};
use ctk_store::Scratch;
use rustix::fs::{FlockOperation, flock};

use crate::context::EntryKind;
use crate::ops::Work;
use crate::{BuildError, StatIndex};

/// Mounts ready for a container, and what must live as long.
pub(crate) struct Mounts {
    pub list: Vec<Mount>,
    /// Variables of secrets.
    pub env: Vec<String>,
    _scratch: Vec<Scratch>,
    _locks: Vec<File>,
    _secrets: Option<SecretDirectory>,
}

impl Mounts {
    pub fn prepare(work: &Work<'_>, exec: &Exec) -> Result<Mounts, BuildError> {
        let mut mounts =
            Mounts { list: Vec::new(), env: Vec::new(), _scratch: Vec::new(), _locks: Vec::new(), _secrets: None };
        for mount in &exec.mounts {
            let target = mount.target.as_deref();
            let write = mount.access == Access::ReadWrite;
            let access = if write { "rw" } else { "ro" };
            match &mount.kind {
                MountKind::Cache { id, sharing, mode, uid, gid } => {
                    let (directory, lock) = cache(work, id, *sharing, *mode, (*uid, *gid))?;
                    mounts._locks.push(lock);
                    mounts.bind(&directory, target, access);
                }
                MountKind::Tmpfs { size_bytes } => {
                    let size = size_bytes.map(|s| format!("size={s}"));
                    let mut options = vec!["nosuid", "nodev"];
                    options.extend(size.as_deref());
                    mounts.list.extend(target.map(|t| Mount::new("tmpfs", "tmpfs", t, &options)));
                }
                MountKind::Inline { content, mode } => {
                    let scratch = work.job.request.world.store.scratch()?;
                    let path = scratch.path().join("inline");
                    write_file(&path, content.as_bytes(), *mode, (0, 0))?;
                    mounts.bind(&path, target, access);
                    mounts._scratch.push(scratch);
                }
                MountKind::Secret { id, env, required, mode, uid, gid } => {
                    let declared = work.job.request.decl.secrets.get(id);
                    let Some(secret) = work.job.request.secrets.secret(id, declared) else {
                        if *required {
                            return Err(BuildError::SecretMissing { id: id.clone() });
                        }
                        continue;
                    };
                    if let Some(name) = env {
                        mounts.env.push(format!("{name}={}", String::from_utf8_lossy(&secret)));
                    }
                    if target.is_some() {
                        if mounts._secrets.is_none() {
                            mounts._secrets = Some(SecretDirectory::new(&work.job.request.state_directory)?);
                        }
                        let directory = mounts._secrets.as_mut().expect("just made");
                        let path = directory.add(&secret, *mode, (*uid, *gid))?;
                        mounts.bind(&path, target, "ro");
                    }
                }
                MountKind::Bind { input, source, selection } => {
                    mounts.files(work, *input, source, selection.as_ref(), target, write)?
                }
            }
        }
        Ok(mounts)
    }

    fn bind(&mut self, source: &Path, target: Option<&str>, access: &str) {
        self.list.extend(target.map(|t| Mount::new("bind", &source.to_string_lossy(), t, &["rbind", access])));
    }

    /// Files of a context, a stage or an image. What is written there is thrown away.
    fn files(
        &mut self,
        work: &Work<'_>,
        input: usize,
        source: &str,
        selection: Option<&Selection>,
        target: Option<&str>,
        write: bool,
    ) -> Result<(), BuildError> {
        let access = if write { "rw" } else { "ro" };
        let graph = &work.job.plan.lowered.graph;
        let scratch = work.job.request.world.store.scratch()?;
        let place = scratch.path().join("files");
        let (_tree, context, found) = match (selection, &graph.get(work.vertex.inputs[input]).op) {
            (Some(selection), Op::Local { context: name }) => {
                let context = work.job.contexts.get(name)?;
                let found = work.job.contexts.find(selection)?;
                if let ([only], true, false) = (found.as_slice(), context.is_whole(), write) {
                    let path = if only.path.is_empty() { context.path.clone() } else { context.path.join(&only.path) };
                    let path = std::path::absolute(&path).map_err(BuildError::read("find", &path))?;
                    self.bind(&path, target, access);
                    return Ok(());
                }
                (None, context, found)
            }
            _ => {
                let (tree, context) = work.tree_context(input)?;
                let all = Selection { context: String::new(), paths: vec![source.to_owned()], exclude: Vec::new() };
                let found = context.find(&all, &StatIndex::in_memory(), 0)?;
                (Some(tree), std::sync::Arc::new(context), std::sync::Arc::new(found))
            }
        };
        let root = rustix::fs::open(
            scratch.path(),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let root = root.map_err(|e| BuildError::read("open", scratch.path())(e.into()))?;
        for found in found.iter() {
            let inside = |path: &str| path.strip_prefix(&found.path).unwrap_or(path).trim_start_matches('/').to_owned();
            let allowed: std::collections::HashSet<Vec<u8>> =
                found.entries.iter().map(|e| inside(&e.path).into_bytes()).collect();
            let filter = |path: &[u8], _: bool| if allowed.contains(path) { Verdict::Take } else { Verdict::Skip };
            if found.entries.first().is_some_and(|e| e.kind == EntryKind::Directory) {
                fs::create_dir_all(&place).map_err(BuildError::read("create", &place))?;
            }
            let options = CopyOptions {
                owner: None,
                mode: None,
                mtime: Mtime::Keep,
                follow: true,
                xattrs: true,
                filter: Some(&filter),
            };
            use std::os::fd::AsFd;
            copy_into(root.as_fd(), b"/files", context.root(), found.path.as_bytes(), &options, work.cancel)?;
        }
        self.bind(&place, target, access);
        self._scratch.push(scratch);
        Ok(())
    }
}

/// A cache directory and the lock that says who uses it.
fn cache(
    work: &Work<'_>,
    id: &str,
    sharing: Sharing,
    mode: u32,
    owner: (u32, u32),
) -> Result<(PathBuf, File), BuildError> {
    /// Private caches of one name: as many as a machine would ever run side by side.
    const PRIVATE_MAX: usize = 1000;
    let root = work.job.request.world.store.root().join("cache");
    fs::create_dir_all(&root).map_err(BuildError::read("create", &root))?;
    let name = blake3::hash(id.as_bytes()).to_hex()[..32].to_owned();
    let lock = |name: &str| {
        let path = root.join(format!("{name}.lock"));
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(BuildError::read("open", path))
    };
    let try_lock = |file: &File, operation| match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(BuildError::read("lock", &root)(e.into())),
    };
    let (name, file) = match sharing {
        Sharing::Private => {
            let mut found = None;
            for number in 0..PRIVATE_MAX {
                let name = if number == 0 { name.clone() } else { format!("{name}-{number}") };
                let file = lock(&name)?;
                if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                    found = Some((name, file));
                    break;
                }
            }
            found.ok_or_else(|| BuildError::BadOption(format!("cache `{id}` is used {PRIVATE_MAX} times at once")))?
        }
        Sharing::Shared | Sharing::Locked => {
            let operation = match sharing {
                Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
                _ => FlockOperation::NonBlockingLockShared,
            };
            let file = lock(&name)?;
            while !try_lock(&file, operation)? {
                if work.cancel.is_cancelled() {
                    return Err(BuildError::Cancelled);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (name, file)
        }
    };
    let directory = root.join(name);
    match fs::create_dir(&directory) {
        Ok(()) => {
            chown(&directory, Some(owner.0), Some(owner.1)).map_err(BuildError::read("chown", &directory))?;
            fs::set_permissions(&directory, Permissions::from_mode(mode))
                .map_err(BuildError::read("chmod", &directory))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(BuildError::read("create", directory)(e)),
    }
    Ok((directory, file))
}

/// Secrets as files, in the state directory (memory on usual hosts), readable by nobody else, gone when dropped.
struct SecretDirectory {
    path: PathBuf,
    count: usize,
}

impl SecretDirectory {
    fn new(state: &Path) -> Result<SecretDirectory, BuildError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(state).map_err(BuildError::read("create", state))?;
        clear_dead(state);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = state.join(format!("secrets-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).map_err(BuildError::read("create", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(BuildError::read("chmod", &path))?;
        Ok(SecretDirectory { path, count: 0 })
    }

    fn add(&mut self, secret: &[u8], mode: u32, owner: (u32, u32)) -> Result<PathBuf, BuildError> {
        self.count += 1;
        let path = self.path.join(self.count.to_string());
        write_file(&path, secret, mode, owner)?;
        Ok(path)
    }
}

impl Drop for SecretDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes secrets that killed processes left.
fn clear_dead(state: &Path) {
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("secrets-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn write_file(path: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), BuildError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(BuildError::read("create", path))?;
    file.write_all(content).map_err(BuildError::read("write", path))?;
    chown(path, Some(owner.0), Some(owner.1)).map_err(BuildError::read("chown", path))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(BuildError::read("chmod", path))
}
