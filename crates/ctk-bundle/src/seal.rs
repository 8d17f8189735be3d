//! The runtime's own program, out of reach of containers (CVE-2019-5736).
//!
//! A process that is about to become a container's program is still this one: whoever finds a way to its
//! `/proc/<pid>/exe`, or has `#!/proc/self/exe` executed, holds the file of the host. So the runtime runs from a
//! read-only view of that file, a mount of its own that is attached nowhere: there is no path by which anybody could
//! make it writable again.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use ctk_sys::Pointer;
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;

const OWN: &str = "/proc/self/exe";

/// Makes sure that this process runs from a read-only view of its program: comes back if it does already, or if nobody
/// in a container could write the file anyhow.
pub fn seal(arguments: &[CString], environment: &[CString]) -> Result<(), Error> {
    // An ordinary user's containers have no right to write what he cannot write.
    if ctk_runtime::is_ordinary()
        || rustix::fs::statvfs(OWN).is_ok_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY))
    {
        return Ok(());
    }
    let failed = |errno: rustix::io::Errno| Error::File { attempt: "seal", path: OWN.into(), source: errno.into() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view: OwnedFd = open_tree(CWD, OWN, flags).map_err(failed)?;
    ctk_sys::mount_change(view.as_fd(), false, crate::options::READ_ONLY, 0, libc::MS_PRIVATE).map_err(failed)?;
    let arguments: Vec<Pointer<'_>> = arguments.iter().map(|one| Pointer::new(one)).chain([Pointer::END]).collect();
    let environment: Vec<Pointer<'_>> = environment.iter().map(|one| Pointer::new(one)).chain([Pointer::END]).collect();
    Err(failed(ctk_sys::execute_file(view.as_fd(), &arguments, &environment)))
}
