//! `ctk cp`: files from and to containers, whether they run or not.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use clap::Args;
use ctk_monitor::Container;
use ctk_plan::Cancel;
use ctk_snapshot::copy::{self, CopiedXattrs, CopyOptions, Mtime};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};

use super::Desk;
use super::reach::{outside, with_root};
use crate::context::Context;
use crate::failure::Failure;

/// Copy files between containers and the host
///
/// A directory goes into a directory that is there, under its own name; with `/.` behind it, only what is in it does.
/// What is not there is made, but not the directory that it is in. `-` is a tar archive: standard input into a directory,
/// or standard output.
#[derive(Args)]
pub struct Cp {
    /// Keep users and groups, set-user-ID bits too [default: they become root's in a container, and yours outside]
    #[arg(short, long)]
    archive: bool,
    /// A link as the source stands for what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Accepted because fingers know it: nothing is told anyway
    #[arg(short, long, hide = true)]
    quiet: bool,
    /// Accepted because fingers know it: what is in the way is replaced, but no directory by a file
    #[arg(long, hide = true)]
    overwrite: bool,
    /// From where: `CONTAINER:PATH`, a path, or `-`
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to: `CONTAINER:PATH`, a path, or `-`
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Host(String),
    Container(String, String),
    Stream,
}

/// Reads `CONTAINER:PATH`, a path, or `-`. A path with a colon begins with `/` or `.`.
fn place(text: &str) -> Place {
    match text.split_once(':') {
        _ if text == "-" => Place::Stream,
        Some((name, path)) if !name.is_empty() && !text.starts_with(['/', '.']) && !name.contains('/') => {
            Place::Container(name.into(), path.into())
        }
        _ => Place::Host(text.into()),
    }
}

impl Cp {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let cancel = context.cancel_on_interrupt();
        match (place(&self.source), place(&self.destination)) {
            (Place::Container(from, path), Place::Stream) => {
                if io::stdout().is_terminal() {
                    let hint = Some("redirect it, e.g. `| tar -t`");
                    return Err(Failure::sentence("an archive is no text for a terminal", hint));
                }
                let container = desk.find(&from)?;
                with_root(&desk, &container, |root| self.to_stream(root, &path, &cancel))
            }
            (Place::Stream, Place::Container(to, path)) => {
                let container = desk.find(&to)?;
                with_root(&desk, &container, |root| from_stream(root, &path, &self.destination, &cancel))
            }
            (Place::Container(from, path), Place::Host(to)) => {
                let container = desk.find(&from)?;
                let to = self.on_host(&to)?;
                let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                with_root(&desk, &container, |root| {
                    self.copy((root, &path), (host()?.as_fd(), &to), owner, false, &cancel)
                })
            }
            (Place::Host(from), Place::Container(to, path)) => {
                let container = desk.find(&to)?;
                let from = self.on_host(&from)?;
                let owner = outside(&container, (0, 0))?;
                with_root(&desk, &container, |root| {
                    self.copy((host()?.as_fd(), &from), (root, &path), owner, true, &cancel)
                })
            }
            (Place::Container(from, path), Place::Container(to, target)) => {
                let (from, to) = (desk.find(&from)?, desk.find(&to)?);
                self.between(&desk, (&from, &path), (&to, &target), &cancel)
            }
            _ => {
                let hint = "it is `ctk cp CONTAINER:PATH PATH` or `ctk cp PATH CONTAINER:PATH`";
                Err(Failure::sentence("one of the two has to be in a container", Some(hint)))
            }
        }
    }

    /// From one container to another, or within one.
    fn between(
        &self,
        desk: &Desk,
        (from, path): (&Container, &str),
        (to, target): (&Container, &str),
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let owner = outside(to, (0, 0))?;
        if from.id() == to.id() {
            return with_root(desk, from, |root| self.copy((root, path), (root, target), owner, true, cancel));
        }
        with_root(desk, from, |source| {
            with_root(desk, to, |root| self.copy((source, path), (root, target), owner, true, cancel))
        })
    }

    /// An absolute path, with the `/` or `/.` that it ends with.
    fn on_host(&self, path: &str) -> Result<String, Failure> {
        let absolute = std::path::absolute(path).map_err(Failure::during(format!("cannot use {path}")))?;
        let Some(text) = absolute.to_str() else { return Err(Failure::sentence("the path is no UTF-8", None)) };
        let end =
            ["/.", "/"].into_iter().find(|end| path.ends_with(end)).unwrap_or(if path == "." { "/." } else { "" });
        Ok(format!("{}{end}", text.trim_end_matches("/.").trim_end_matches('/')))
    }

    fn to_stream(&self, root: BorrowedFd<'_>, path: &str, cancel: &Cancel) -> Result<(), Failure> {
        let source = Source::look(root, path, self.follow_link)?;
        let name = if source.contents { "" } else { source.name };
        let mut tar = ctk_layer::TarWriter::new(io::BufWriter::with_capacity(1 << 18, io::stdout().lock()));
        ctk_snapshot::archive(root, (source.path.as_bytes(), source.follow), name.as_bytes(), &mut tar, cancel)?;
        let mut out = tar.finish()?;
        io::Write::flush(&mut out).map_err(Failure::during("cannot write to standard output"))
    }

    fn copy(
        &self,
        (from, path): (BorrowedFd<'_>, &str),
        (to, target): (BorrowedFd<'_>, &str),
        owner: (u32, u32),
        into_container: bool,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let source = Source::look(from, path, self.follow_link)?;
        let wrong = |why: String| Failure::sentence(format!("cannot copy {path} to {target}: {why}"), None);
        let plain = target.trim_end_matches("/.").trim_end_matches('/');
        let there = look(to, plain, true).map_err(Failure::during(format!("cannot look at {target}")))?;
        let inside = || format!("{plain}/{}", source.name);
        let (dest, made) = match (source.directory, there.as_ref().map(is_directory)) {
            (false, Some(false)) if target.ends_with('/') => return Err(wrong(format!("{plain} is no directory"))),
            (false, Some(false)) => (plain.to_owned(), false),
            (true, Some(false)) => return Err(wrong(format!("{plain} is no directory"))),
            (true, Some(true)) if source.contents => (plain.to_owned(), false),
            (_, Some(true)) => {
                let dest = inside();
                let new = look(to, &dest, true).is_ok_and(|found| found.is_none());
                (dest, source.directory && new)
            }
            (false, None) if target.ends_with('/') => return Err(wrong(format!("there is no directory {plain}"))),
            (directory, None) => {
                let parent = Path::new(plain).parent().map_or("", |parent| parent.to_str().unwrap_or_default());
                match look(to, parent, true).ok().flatten() {
                    Some(found) if is_directory(&found) => (plain.to_owned(), directory),
                    _ => {
                        return Err(wrong(format!(
                            "there is no directory {}",
                            if parent.is_empty() { "/" } else { parent }
                        )));
                    }
                }
            }
        };
        // Whose files become somebody else's do not run as that one.
        let powerless = |mode: u32, _: bool| mode & 0o1777;
        let options = CopyOptions {
            owner: (!self.archive).then_some(owner),
            mode: (!self.archive && !into_container).then_some(&powerless),
            parents_mode: 0o755,
            mtime: Mtime::Keep,
            follow: source.follow,
            xattrs: if into_container || self.archive { CopiedXattrs::All } else { CopiedXattrs::User },
            filter: None,
        };
        copy::copy_into(to, dest.as_bytes(), from, source.path.as_bytes(), &options, cancel)?;
        if made && let Some(directory) = open(to, &dest, true, OFlags::RDONLY | OFlags::DIRECTORY).ok().flatten() {
            let failed = || Failure::during(format!("cannot set the mode of {dest}"));
            let stat = &source.stat;
            if self.archive {
                let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
                rustix::fs::fchown(&directory, Some(uid), Some(gid)).map_err(failed())?;
            }
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed())?;
            let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&directory, &times).map_err(failed())?;
        }
        Ok(())
    }
}

/// What is copied.
struct Source<'a> {
    /// Its path, without what it ends with.
    path: &'a str,
    /// Its last name; empty for a root.
    name: &'a str,
    directory: bool,
    /// Whether only what is in it is meant.
    contents: bool,
    follow: bool,
    stat: Stat,
}

impl Source<'_> {
    fn look<'a>(root: BorrowedFd<'_>, path: &'a str, follow: bool) -> Result<Source<'a>, Failure> {
        let contents = path.ends_with("/.") || path == ".";
        let plain = path.trim_end_matches("/.").trim_end_matches('/');
        let plain = if plain == "." { "" } else { plain };
        let follow = follow || path.ends_with('/') || contents;
        let found = look(root, plain, follow).map_err(Failure::during(format!("cannot look at {path}")))?;
        let missing = || Failure::sentence(format!("there is no {path} to copy"), None);
        let stat = found.ok_or_else(missing)?;
        let directory = is_directory(&stat);
        if !directory && path.ends_with(['/', '.']) && (contents || path.ends_with('/')) {
            return Err(Failure::sentence(format!("{plain} is no directory"), None));
        }
        let name = plain.rsplit('/').next().unwrap_or_default();
        let contents = contents || matches!(name, "" | "..");
        Ok(Source { path: plain, name, directory, contents: contents && directory, follow, stat })
    }
}

fn from_stream(root: BorrowedFd<'_>, path: &str, shown: &str, cancel: &Cancel) -> Result<(), Failure> {
    let found = look(root, path, true).map_err(Failure::during(format!("cannot look at {shown}")))?;
    if !found.as_ref().is_some_and(is_directory) {
        let what = format!("{shown} is no directory, and an archive is unpacked into one");
        return Err(Failure::sentence(what, None));
    }
    copy::extract(root, path.as_bytes(), "of standard input", io::stdin(), None, Mtime::Keep, cancel)?;
    Ok(())
}

/// The host's files.
fn host() -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_err(Failure::during("cannot open /"))
}

fn open(root: BorrowedFd<'_>, path: &str, follow: bool, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = if follow { flags } else { flags | OFlags::NOFOLLOW };
    let path = if path.is_empty() { "." } else { path };
    match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What is at a path, resolved inside the root.
fn look(root: BorrowedFd<'_>, path: &str, follow: bool) -> io::Result<Option<Stat>> {
    let found = open(root, path, follow, OFlags::PATH)?;
    Ok(found.map(|found| rustix::fs::fstat(&found)).transpose()?)
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_is_of_a_container_unless_a_path_begins() {
        let container = |name: &str, path: &str| Place::Container(name.into(), path.into());
        assert_eq!(place("web:/etc/hosts"), container("web", "/etc/hosts"));
        assert_eq!(place("web:"), container("web", ""));
        assert_eq!(place("./a:b"), Place::Host("./a:b".into()));
        assert_eq!(place("/a:b"), Place::Host("/a:b".into()));
        assert_eq!(place("dir/a:b"), Place::Host("dir/a:b".into()));
        assert_eq!(place("file"), Place::Host("file".into()));
        assert_eq!(place("-"), Place::Stream);
    }
}
