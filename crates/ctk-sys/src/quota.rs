//! Quotas of projects (`quotactl_fd(2)`, `ioctl_fs(2)`): a directory and all that is made in it count as one.

use core::mem::size_of;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use syscalls::{Sysno, syscall};

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of `linux/quota.h`.
#[repr(C)]
#[derive(Default)]
struct Limits {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// What is made in the directory belongs to its project, too.
const INHERIT: u32 = 0x200;
/// `FS_IOC_FSGETXATTR`: `_IOR('X', 31, struct fsxattr)`.
const GET: u64 = 2 << 30 | (size_of::<Attributes>() as u64) << 16 | 0x58 << 8 | 31;
/// `FS_IOC_FSSETXATTR`: `_IOW('X', 32, struct fsxattr)`.
const SET: u64 = 1 << 30 | (size_of::<Attributes>() as u64) << 16 | 0x58 << 8 | 32;
/// `QCMD(Q_SETQUOTA, PRJQUOTA)`.
const SET_QUOTA: u32 = 0x80_0008 << 8 | 2;
/// `QIF_BLIMITS`: the limits of blocks are given.
const OF_BLOCKS: u32 = 1;
/// What blocks of a quota are, in bytes.
const BLOCK_BYTES: u64 = 1024;

/// Makes an empty directory, and what will be made in it, the project `project` of its file system, which may have `bytes`.
/// `ESRCH`: the file system has no quotas of projects in use; `EOPNOTSUPP`, `ENOTTY`, `ENOSYS`: it cannot have any.
pub fn limit_directory(directory: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<(), Errno> {
    let limits = Limits { hard_blocks: bytes.div_ceil(BLOCK_BYTES), valid: OF_BLOCKS, ..Limits::default() };
    let failed = |e: syscalls::Errno| Errno::from_raw_os_error(e.into_raw());
    // First the limit: without quotas nothing is changed.
    // SAFETY: the limits are of the kernel's form, and outlive the call.
    let result = unsafe { syscall!(Sysno::quotactl_fd, directory.as_raw_fd(), SET_QUOTA, project, &raw const limits) };
    result.map_err(failed)?;
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes the attributes, which are of the size that the request says.
    let result = unsafe { syscall!(Sysno::ioctl, directory.as_raw_fd(), GET, &raw mut attributes) };
    result.map_err(failed)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the kernel reads the attributes, which are of the size that the request says.
    let result = unsafe { syscall!(Sysno::ioctl, directory.as_raw_fd(), SET, &raw const attributes) };
    result.map(drop).map_err(failed)
}
