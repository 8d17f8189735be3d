//! The runtime's own program, out of reach of containers (CVE-2019-5736).
//!
//! A process that is about to become a container's program is still this one: whoever finds a way to its
//! `/proc/<pid>/exe`, or has `#!/proc/self/exe` executed, holds the file of the host. So the runtime runs from a
//! read-only view of that file, a mount of its own that is attached nowhere: there is no path by which anybody could
//! make it writable again. An ordinary user makes no such view. Where the file is his, his containers' root, who is he,
//! could write it: then the runtime runs from a copy in memory that is sealed.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ctk_sys::Pointer;
use rustix::fs::{
    Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, accessat, fcntl_add_seals,
    fcntl_get_seals, memfd_create,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;

const OWN: &str = "/proc/self/exe";

/// Makes sure that this process runs from a program that nobody in a container can write: comes back if it does already,
/// or if the file is nobody's there. To be called before anything is opened.
///
/// What is given back is the view. Letting go of it takes a tenth of a millisecond and more: best when others work.
pub fn seal(arguments: &[CString], environment: &[CString]) -> Result<Option<OwnedFd>, Error> {
    let is_read_only = rustix::fs::statvfs(OWN).is_ok_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only {
        return Ok(ctk_sys::take_executed_file());
    }
    let view = match ctk_runtime::is_ordinary() {
        true if !is_ours() => return Ok(None),
        true => match copy().map_err(|source| Error::File { attempt: "copy", path: OWN.into(), source })? {
            Some(copy) => copy,
            None => return Ok(None),
        },
        false => read_only_view()?,
    };
    let arguments: Vec<Pointer<'_>> = arguments.iter().map(|one| Pointer::new(one)).chain([Pointer::END]).collect();
    let environment: Vec<Pointer<'_>> = environment.iter().map(|one| Pointer::new(one)).chain([Pointer::END]).collect();
    Err(failed(ctk_sys::execute_file(view.as_fd(), &arguments, &environment)))
}

fn failed(errno: Errno) -> Error {
    Error::File { attempt: "seal", path: OWN.into(), source: errno.into() }
}

fn read_only_view() -> Result<OwnedFd, Error> {
    // It stays open until the program that is executed by it lets go of it.
    let view: OwnedFd = open_tree(CWD, OWN, OpenTreeFlags::OPEN_TREE_CLONE).map_err(failed)?;
    ctk_sys::mount_change(view.as_fd(), false, crate::options::READ_ONLY, 0, libc::MS_PRIVATE).map_err(failed)?;
    Ok(view)
}

/// Whether our user may write the file, or let himself.
fn is_ours() -> bool {
    let owner = rustix::fs::stat(OWN).map_or(u32::MAX, |status| status.st_uid);
    owner == rustix::process::geteuid().as_raw() || accessat(CWD, OWN, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// A copy that nobody changes any more; none if it is one already.
fn copy() -> std::io::Result<Option<OwnedFd>> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let mut own = File::open(OWN)?;
    if fcntl_get_seals(&own).is_ok_and(|found| found.contains(seals)) {
        return Ok(None);
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create("ctk-runtime", flags | MemfdFlags::EXEC) {
        // Before linux 6.3 all of them may be executed.
        Err(Errno::INVAL) => memfd_create("ctk-runtime", flags)?,
        other => other?,
    };
    let mut copy = File::from(copy);
    std::io::copy(&mut own, &mut copy)?;
    fcntl_add_seals(&copy, seals)?;
    // One for reading: what is open for writing is not executed.
    let only = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(format!("/proc/self/fd/{}", copy.as_raw_fd()), only, Mode::empty())?))
}
