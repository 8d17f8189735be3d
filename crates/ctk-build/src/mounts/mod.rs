//! What a RUN sees besides its root, a kind of mount a file.

mod bind;
mod cache;
mod private;
mod ssh;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use ctk_buildgraph::{Access, Exec, MountKind};
use ctk_oci::Mount;
use ctk_snapshot::Ephemeral;
use ctk_store::Scratch;

use crate::BuildError;
use crate::ops::Work;
use cache::Caches;
pub(crate) use cache::SharedCache;
use private::PrivateDirectory;
use ssh::Forward;

/// Mounts ready for a container, and what must live as long.
#[derive(Default)]
pub(crate) struct Mounts {
    pub list: Vec<Mount>,
    /// Variables of secrets.
    pub env: Vec<String>,
    caches: Caches,
    views: Vec<Ephemeral>,
    scratch: Vec<Scratch>,
    files: Vec<OwnedFd>,
    // Before the directory that their sockets are in.
    forwards: Vec<Forward>,
    private: Option<PrivateDirectory>,
}

impl Mounts {
    pub fn prepare(work: &Work<'_>, exec: &Exec) -> Result<Mounts, BuildError> {
        let mut mounts = Mounts { caches: Caches::lock(work, exec)?, ..Mounts::default() };
        for mount in &exec.mounts {
            let target = mount.target.as_deref();
            let write = mount.access == Access::ReadWrite;
            match &mount.kind {
                MountKind::Cache { .. } => {
                    let directory = mounts.caches.directory(work, &mount.kind)?;
                    // What a build left there may be a link: only what was opened is mounted.
                    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
                    mounts.bind(Path::new(&path), target, write);
                    mounts.files.push(directory);
                }
                MountKind::Tmpfs { size_bytes } => {
                    let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
                    options.extend(size_bytes.map(|size| format!("size={size}")));
                    options.extend(mode_of(work, target)?.map(|mode| format!("mode={mode:o}")));
                    options.extend((!write).then(|| "ro".to_owned()));
                    mounts.list.extend(target.map(|t| Mount { options, ..Mount::new("tmpfs", "tmpfs", t, &[]) }));
                }
                MountKind::Inline { content, mode } => {
                    let scratch = work.job.request.world.store.scratch()?;
                    let path = scratch.path().join("inline");
                    write_file(&path, content.as_bytes(), *mode, (0, 0))?;
                    mounts.bind(&path, target, write);
                    mounts.scratch.push(scratch);
                }
                MountKind::Secret { id, env, required, mode, uid, gid } => {
                    let declared = work.job.request.decl.secrets.get(id);
                    let secret = work.job.request.world.secrets.secret(id, declared);
                    if let Some(name) = env {
                        // As with BuildKit, one that is not given is empty.
                        let value = secret.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                        mounts.env.push(format!("{name}={value}"));
                    }
                    match (secret, target) {
                        (None, _) if *required => return Err(BuildError::SecretMissing { id: id.clone() }),
                        (Some(secret), Some(_)) => {
                            let path = mounts.private(work)?.place();
                            write_file(&path, &secret, *mode, (*uid, *gid))?;
                            mounts.bind(&path, target, false);
                            let closed = ["nosuid", "noexec"].map(str::to_owned);
                            mounts.list.last_mut().into_iter().for_each(|mount| mount.options.extend(closed.clone()));
                        }
                        _ => {}
                    }
                }
                MountKind::Ssh { id, required, mode, uid, gid } => {
                    let place = || Ok(mounts.private(work)?.place());
                    let Some(agent) = ssh::agent(work, id, place)? else {
                        if *required {
                            return Err(BuildError::AgentMissing { id: id.clone() });
                        }
                        continue;
                    };
                    let path = mounts.private(work)?.place();
                    mounts.forwards.push(Forward::listen(&path, agent, *mode, (*uid, *gid))?);
                    mounts.bind(&path, target, false);
                }
                MountKind::Bind { input, source, selection } => {
                    mounts.files(work, *input, source, selection.as_ref(), target, write)?
                }
            }
        }
        // As with BuildKit: whatever the order they are written in, none covers one below it.
        mounts.list.sort_by(|a, b| a.destination.cmp(&b.destination));
        Ok(mounts)
    }

    fn bind(&mut self, source: &Path, target: Option<&str>, write: bool) {
        let access = if write { "rw" } else { "ro" };
        let mount = |t| Mount::new("bind", &source.to_string_lossy(), t, &["rbind", "nodev", access]);
        self.list.extend(target.map(mount));
    }

    fn private(&mut self, work: &Work<'_>) -> Result<&mut PrivateDirectory, BuildError> {
        match &mut self.private {
            Some(directory) => Ok(directory),
            none => Ok(none.insert(PrivateDirectory::new(&work.job.request.state_directory)?)),
        }
    }
}

/// The permissions of a directory that a tmpfs will cover: it takes them over.
fn mode_of(work: &Work<'_>, target: Option<&str>) -> Result<Option<u32>, BuildError> {
    let Some(target) = target else { return Ok(None) };
    Ok(work.tree(0)?.stat(target)?.map(|node| node.mode))
}

fn write_file(path: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), BuildError> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(BuildError::read("create", path))?;
    file.write_all(content).map_err(BuildError::read("write", path))?;
    chown(path, Some(owner.0), Some(owner.1)).map_err(BuildError::read("chown", path))?;
    file.set_permissions(PermissionsExt::from_mode(mode)).map_err(BuildError::read("chmod", path))
}
