//! What runs between `clone3` and `execve`: steps, system calls, nothing else. No function here may allocate, lock or
//! panic; slices are read by `get`.

use core::ffi::{CStr, c_char};
use core::mem::size_of;

use syscalls::{Errno, Sysno, syscall};

use crate::host::MountAttributes;
use crate::step::{Filter, MountKind, RawFd, Step};

mod attributes;
mod copying;
mod mounting;
mod run;
mod terminal;

pub use run::{ENDED, KILLED};

type Done = Result<(), Errno>;

const CWD: i32 = libc::AT_FDCWD;
const EMPTY: &CStr = c"";
const RESOLVE_NO_MAGIC: u64 = 0x02;
const RESOLVE_NO_LINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_FROM_EMPTY: u32 = 0x04;
const MOVE_TO_EMPTY: u32 = 0x40;
const ATTRIBUTE_READ_ONLY: u64 = 0x01;
const ATTRIBUTE_NO_SUID: u64 = 0x02;
const ATTRIBUTE_NO_DEVICES: u64 = 0x04;
const ATTRIBUTE_NO_EXEC: u64 = 0x08;
/// `(major 1, minor 3)` as `statx` tells it.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `struct kernel_sigaction`, all zero for the default action. Large enough for every architecture.
type SignalAction = [u64; 4];

/// What steps leave for later steps.
pub(crate) struct Context {
    report: RawFd,
    mask_directory: RawFd,
    null: RawFd,
}

impl Context {
    pub(crate) fn new(report: RawFd) -> Context {
        Context { report, mask_directory: -1, null: -1 }
    }
}

/// Walks the steps and never comes back.
pub(crate) fn run(context: &mut Context, steps: &[Step<'_>]) -> ! {
    for (index, step) in steps.iter().enumerate() {
        if let Err(errno) = perform(context, step) {
            let _ = report(context.report, index, errno.into_raw());
            exit(127);
        }
        if let Step::Reached { next } = *step {
            if report(context.report, index, 0).is_err() {
                exit(127);
            }
            if next >= 0 {
                close(context.report);
                context.report = next;
            }
        }
    }
    exit(0)
}

pub(crate) fn report(file: RawFd, index: usize, errno: i32) -> Done {
    let [s0, s1, s2, s3] = (index as u32).to_ne_bytes();
    let [e0, e1, e2, e3] = errno.to_ne_bytes();
    write(file, &[s0, s1, s2, s3, e0, e1, e2, e3])
}

pub(crate) fn close(file: RawFd) {
    // SAFETY: the child has one thread; the descriptor is its own copy.
    let _ = unsafe { syscall!(Sysno::close, file) };
}

pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: ends the process.
        let _ = unsafe { syscall!(Sysno::exit_group, code) };
    }
}

fn perform(context: &mut Context, step: &Step<'_>) -> Done {
    match *step {
        Step::DieWithParent => die_with_parent(context.report),
        // SAFETY: takes numbers. The memory is this process's own copy, so the parent stays as it is.
        Step::Hide => unsafe { syscall!(Sysno::prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.map(drop),
        Step::Write { file, bytes } => write(file, bytes),
        // SAFETY: takes a number.
        Step::Unshare { namespaces } => unsafe { syscall!(Sysno::unshare, namespaces) }.map(drop),
        // SAFETY: takes two numbers.
        Step::Join { of, namespaces } => unsafe { syscall!(Sysno::setns, of, namespaces) }.map(drop),
        Step::Close { file } => {
            close(file);
            Ok(())
        }
        // SAFETY: takes numbers; what is closed is this process's own copy.
        Step::Release { from } => unsafe { syscall!(Sysno::close_range, from, u32::MAX, 0) }.map(drop),
        Step::Detach => crate::clone::detach().map(|is_child| {
            if !is_child {
                exit(0);
            }
        }),
        // SAFETY: takes a number.
        Step::SyncFilesystem { file } => unsafe { syscall!(Sysno::syncfs, file) }.map(drop),
        Step::Rename { directory, from, to } => rename(directory, from, to),
        Step::LoopbackUp => loopback_up(),
        // SAFETY: pointer and length of one slice.
        Step::HostName { name } => unsafe { syscall!(Sysno::sethostname, name.as_ptr(), name.len()) }.map(drop),
        Step::PrivateMounts => private_mounts(),
        Step::EnterRoot { mount } => enter_root(mount),
        Step::Make { path, kind, mode } => make(path, kind, mode),
        Step::Attach { mount, at, no_links } => attach(mount, at, no_links),
        Step::Mount { kind, options, attributes, at, optional } => {
            match new_mount(kind, options, attributes) {
                Ok(mount) => {
                    // /proc and the like decide what others see: no link may send them elsewhere.
                    let result = attach(mount, at, true);
                    close(mount);
                    result
                }
                Err(_) if optional => Ok(()),
                Err(errno) => Err(errno),
            }
        }
        Step::Bind { from, at } => {
            let file = open(from, libc::O_PATH, false)?;
            let tree = clone_tree(file, false)?;
            close(file);
            let result = attach(tree, at, true);
            close(tree);
            result
        }
        Step::Mask { path } => mask(context, path),
        Step::ReadOnly { path } => read_only(path),
        // SAFETY: takes nothing.
        Step::NewSession => unsafe { syscall!(Sysno::setsid) }.map(drop),
        // SAFETY: TIOCSCTTY takes a number.
        Step::ControllingTerminal { file } => unsafe { syscall!(Sysno::ioctl, file, libc::TIOCSCTTY, 0) }.map(drop),
        Step::Duplicate { from, to } => duplicate(from, to),
        Step::CloseFrom { from } => {
            // SAFETY: takes numbers.
            unsafe { syscall!(Sysno::close_range, from, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }.map(drop)
        }
        Step::Rlimit { resource, soft, hard } => {
            let limit: [u64; 2] = [soft, hard];
            // SAFETY: `struct rlimit64` is two u64; it outlives the call.
            unsafe { syscall!(Sysno::prlimit64, 0, resource, limit.as_ptr(), 0_usize) }.map(drop)
        }
        Step::BoundingSet { keep } => bounding_set(keep),
        Step::Capabilities { set } => capabilities(set),
        Step::Groups { groups, optional } => {
            // SAFETY: pointer and count of one slice.
            match unsafe { syscall!(Sysno::setgroups, groups.len(), groups.as_ptr()) } {
                Err(Errno::EPERM) if optional => Ok(()),
                result => result.map(drop),
            }
        }
        // SAFETY: takes numbers; one thread, so no other is left behind.
        Step::Gid { gid } => unsafe { syscall!(Sysno::setresgid, gid, gid, gid) }.map(drop),
        // SAFETY: as above.
        Step::Uid { uid } => unsafe { syscall!(Sysno::setresuid, uid, uid, uid) }.map(drop),
        // SAFETY: takes numbers.
        Step::NoNewPrivileges => unsafe { syscall!(Sysno::prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.map(drop),
        Step::Seccomp { program } => seccomp(program),
        Step::WorkingDirectory { path } => working_directory(path),
        // SAFETY: takes a number.
        Step::Umask { mask } => unsafe { syscall!(Sysno::umask, mask) }.map(drop),
        Step::ResetSignals => reset_signals(),
        Step::Await { file, other } => {
            if other >= 0 {
                close(other);
            }
            wait_for_byte(file)
        }
        // Told by the caller, who knows the number of the step.
        Step::Reached { .. } => Ok(()),
        Step::Landlock { files, scoped } => attributes::landlock(files, scoped),
        Step::Propagation { at, flags } => mounting::propagation(at, flags),
        Step::PlaceRoot { mount, at } => mounting::place_root(mount, at),
        Step::PlaceDirectory { path, at } => mounting::place_directory(path, at),
        Step::NullStreams => null_streams(),
        Step::EnterPlaced { pivot } => mounting::enter_placed(pivot),
        // SAFETY: pointer and length of one slice.
        Step::DomainName { name } => unsafe { syscall!(Sysno::setdomainname, name.as_ptr(), name.len()) }.map(drop),
        Step::Keyring { name } => attributes::keyring(name),
        Step::Setting { path, value } => mounting::setting(path, value),
        Step::Node { path, mode, device, uid, gid } => mounting::node(path, mode, device, (uid, gid)),
        Step::Link { target, path } => mounting::link(target, path),
        Step::NewMount { kind, options, attributes, propagation, at, no_links, ref copy } => {
            if let Some(limits) = copy {
                return copying::new_mount_with(kind, options, attributes, propagation, at, no_links, limits);
            }
            let mount = new_mount(kind, options, attributes)?;
            let result = match propagation {
                0 => Ok(()),
                _ => mounting::set_attributes(mount, false, 0, 0, propagation),
            };
            let result = result.and_then(|()| attach(mount, at, no_links));
            close(mount);
            result
        }
        Step::BindHost { from, recursive, at } => mounting::bind_host(from, recursive, at),
        Step::Remount { at, recursive, set, clear, propagation } => {
            let file = open(at, libc::O_PATH, false)?;
            let result = mounting::set_attributes(file, recursive, set, clear, propagation);
            close(file);
            result
        }
        Step::Terminal { socket, uid, gid, size, console } => terminal::open(socket, (uid, gid), size, console),
        // SAFETY: TIOCSCTTY takes a number.
        Step::TakeTerminal => unsafe { syscall!(Sysno::ioctl, 0, libc::TIOCSCTTY, 0) }.map(drop),
        // SAFETY: takes a number.
        Step::Personality { persona } => unsafe { syscall!(Sysno::personality, persona) }.map(drop),
        // SAFETY: takes numbers; 1 is IOPRIO_WHO_PROCESS, 0 this one.
        Step::IoPriority { value } => unsafe { syscall!(Sysno::ioprio_set, 1, 0, value) }.map(drop),
        Step::Scheduler { attributes } => attributes::scheduler(attributes),
        Step::Affinity { mask } => {
            // SAFETY: pointer and length in bytes of one slice.
            unsafe { syscall!(Sysno::sched_setaffinity, 0, core::mem::size_of_val(mask), mask.as_ptr()) }.map(drop)
        }
        Step::MemoryPolicy { mode, nodes } => attributes::memory_policy(mode, nodes),
        // SAFETY: takes numbers.
        Step::KeepCapabilities => unsafe { syscall!(Sysno::prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.map(drop),
        Step::CapabilitySets { effective, permitted, inheritable, ambient } => {
            attributes::capability_sets(effective, permitted, inheritable, ambient)
        }
        Step::Filter { program, flags, listener, state } => attributes::filter(program, flags, listener, state),
        Step::Run { program, arguments, environment, input, timeout_ms } => {
            run::to_its_end(program, arguments, environment, input, timeout_ms)
        }
        Step::Look { candidates } => look(candidates),
        Step::WriteTo { path, bytes } => {
            // SAFETY: NUL-terminated path.
            let file = unsafe {
                syscall!(Sysno::openat, CWD, path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NOCTTY, 0)
            }? as RawFd;
            let result = write(file, bytes);
            close(file);
            result
        }
        Step::Execute { candidates, arguments, environment } => {
            let ended = |vector: &[crate::Pointer<'_>]| vector.last().is_some_and(|end| end.0.is_null());
            if !ended(arguments) || !ended(environment) {
                return Err(Errno::EINVAL);
            }
            Err(execute(candidates, arguments.as_ptr().cast(), environment.as_ptr().cast()))
        }
    }
}

fn write(file: RawFd, mut bytes: &[u8]) -> Done {
    while !bytes.is_empty() {
        // SAFETY: pointer and length of one slice.
        match unsafe { syscall!(Sysno::write, file, bytes.as_ptr(), bytes.len()) } {
            Ok(count) => bytes = bytes.get(count..).unwrap_or(&[]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Waits for one byte of a file.
fn wait_for_byte(file: RawFd) -> Done {
    let mut byte = [0_u8; 1];
    loop {
        // SAFETY: pointer and length of one buffer.
        match unsafe { syscall!(Sysno::read, file, byte.as_mut_ptr(), 1) } {
            Ok(0) => return Err(Errno::EPIPE),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn rename(directory: RawFd, from: &CStr, to: &CStr) -> Done {
    // SAFETY: NUL-terminated paths that outlive the call.
    match unsafe { syscall!(Sysno::renameat2, directory, from.as_ptr(), directory, to.as_ptr(), 0) } {
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn die_with_parent(report: RawFd) -> Done {
    // SAFETY: takes numbers.
    unsafe { syscall!(Sysno::prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }?;
    // If the parent died before, nobody holds the other end of the pipe any more, and nobody will send the signal.
    let mut poll = libc::pollfd { fd: report, events: 0, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one pollfd, one timespec, no mask; all outlive the call.
    let _ = unsafe { syscall!(Sysno::ppoll, &raw mut poll, 1, &raw const now, 0_usize, 8) };
    if poll.revents & libc::POLLERR != 0 {
        exit(127);
    }
    Ok(())
}

fn loopback_up() -> Done {
    // SAFETY: takes numbers.
    let socket = unsafe { syscall!(Sysno::socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }? as RawFd;
    // `struct ifreq`: 16 bytes of name, then flags; 40 bytes on 64 bits, 32 on 32.
    let mut request = [0_u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    // IFF_UP | IFF_RUNNING
    let [low, high] = 0x41_u16.to_ne_bytes();
    request[16] = low;
    request[17] = high;
    // SAFETY: the buffer is at least as large as `struct ifreq`, which is what SIOCSIFFLAGS reads.
    let result = unsafe { syscall!(Sysno::ioctl, socket, libc::SIOCSIFFLAGS, request.as_mut_ptr()) };
    close(socket);
    result.map(drop)
}

fn private_mounts() -> Done {
    // SAFETY: NUL-terminated constants; source, type and data may be null for a change of propagation.
    unsafe { syscall!(Sysno::mount, 0_usize, c"/".as_ptr(), 0_usize, libc::MS_REC | libc::MS_PRIVATE, 0_usize) }
        .map(drop)
}

fn enter_root(mount: RawFd) -> Done {
    // The new root goes on top of the old one, so no directory of the host is needed as a mount point.
    // SAFETY: NUL-terminated constants.
    unsafe {
        syscall!(Sysno::move_mount, mount, EMPTY.as_ptr(), CWD, c"/".as_ptr(), MOVE_FROM_EMPTY)?;
        syscall!(Sysno::fchdir, mount)?;
        // pivot_root(".", "."): the old root ends up stacked on the new one, from where it is let go.
        syscall!(Sysno::pivot_root, c".".as_ptr(), c".".as_ptr())?;
        syscall!(Sysno::umount2, c".".as_ptr(), libc::MNT_DETACH)?;
        syscall!(Sysno::chdir, c"/".as_ptr())?;
    }
    Ok(())
}

/// Opens a path inside the root. The working directory must be `/`.
fn open(path: &CStr, flags: i32, no_links: bool) -> Result<RawFd, Errno> {
    open_at(path.as_ptr(), flags, no_links)
}

fn open_at(path: *const c_char, flags: i32, no_links: bool) -> Result<RawFd, Errno> {
    let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGIC | if no_links { RESOLVE_NO_LINKS } else { 0 };
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    // SAFETY: callers pass a NUL-terminated path; `how` is of the size given.
    let file = unsafe { syscall!(Sysno::openat2, CWD, path, &raw const how, size_of::<OpenHow>()) }?;
    Ok(file as RawFd)
}

fn make(path: &CStr, kind: MountKind, mode: u32) -> Done {
    let wanted = if kind == MountKind::Directory { libc::O_DIRECTORY } else { 0 };
    match open(path, libc::O_PATH | wanted, false) {
        Ok(file) => {
            close(file);
            return Ok(());
        }
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let bytes = path.to_bytes();
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    if bytes.len() >= buffer.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    // Each ancestor in turn: resolve what exists inside the root, make what does not in the directory held open.
    let (mut parent, mut start) = match nearest(bytes, &mut buffer) {
        Some(found) => found,
        None => (open(c"/", libc::O_PATH | libc::O_DIRECTORY, false)?, 0),
    };
    while start < bytes.len() {
        let end = bytes.iter().skip(start).position(|b| *b == b'/').map_or(bytes.len(), |found| start + found);
        let last = bytes.iter().skip(end).all(|b| *b == b'/');
        let name = bytes.get(start..end).unwrap_or(&[]);
        if name.is_empty() {
            start = end + 1;
            continue;
        }
        if name == b".." || name == b"." {
            close(parent);
            return Err(Errno::EINVAL);
        }
        // The name alone, for making it.
        fill(&mut buffer, name);
        let made = if last && kind == MountKind::File {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            // SAFETY: `fill` NUL-terminated the name; the parent is a directory we hold.
            unsafe { syscall!(Sysno::openat, parent, buffer.as_ptr(), flags, mode) }.map(|file| close(file as RawFd))
        } else {
            // SAFETY: as above.
            unsafe { syscall!(Sysno::mkdirat, parent, buffer.as_ptr(), mode) }.map(drop)
        };
        match made {
            Ok(()) | Err(Errno::EEXIST) => {}
            // Reached through a link, or on something read-only: what matters is whether it opens.
            Err(Errno::EROFS) => {}
            Err(errno) => {
                close(parent);
                return Err(errno);
            }
        }
        // The whole prefix, for going on.
        fill(&mut buffer, bytes.get(..end).unwrap_or(&[]));
        close(parent);
        let wanted = if last && kind == MountKind::File { 0 } else { libc::O_DIRECTORY };
        parent = open_at(buffer.as_ptr().cast(), libc::O_PATH | wanted, false)?;
        start = end + 1;
    }
    close(parent);
    Ok(())
}

/// The directory of a path's last name and where that begins, if nothing but the last is missing, as it is most often.
fn nearest(path: &[u8], buffer: &mut [u8]) -> Option<(RawFd, usize)> {
    if path.split(|byte| *byte == b'/').any(|name| name == b"." || name == b"..") {
        return None;
    }
    let end = path.iter().rposition(|byte| *byte == b'/').filter(|end| *end > 0)?;
    fill(buffer, path.get(..end)?);
    let parent = open_at(buffer.as_ptr().cast(), libc::O_PATH | libc::O_DIRECTORY, false).ok()?;
    Some((parent, end + 1))
}

/// Writes `text` and a NUL; `text` is shorter than the buffer.
fn fill(buffer: &mut [u8], text: &[u8]) {
    for (to, from) in buffer.iter_mut().zip(text.iter().chain(core::iter::once(&0))) {
        *to = *from;
    }
}

fn attach(mount: RawFd, at: &CStr, no_links: bool) -> Done {
    let target = open(at, libc::O_PATH, no_links)?;
    let result = attach_to(mount, target);
    close(target);
    result
}

fn attach_to(mount: RawFd, target: RawFd) -> Done {
    let flags = MOVE_FROM_EMPTY | MOVE_TO_EMPTY;
    // SAFETY: NUL-terminated constants.
    unsafe { syscall!(Sysno::move_mount, mount, EMPTY.as_ptr(), target, EMPTY.as_ptr(), flags) }.map(drop)
}

fn new_mount(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Result<RawFd, Errno> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    const CREATE: u32 = 6;
    const CLOEXEC: u32 = 1;
    // SAFETY: every pointer is of a `&CStr` that outlives its call, or null where the command takes none.
    unsafe {
        let context = syscall!(Sysno::fsopen, kind.as_ptr(), CLOEXEC)? as RawFd;
        for (key, value) in options {
            let result = if value.is_empty() {
                syscall!(Sysno::fsconfig, context, SET_FLAG, key.as_ptr(), 0_usize, 0)
            } else {
                syscall!(Sysno::fsconfig, context, SET_STRING, key.as_ptr(), value.as_ptr(), 0)
            };
            if let Err(errno) = result {
                close(context);
                return Err(errno);
            }
        }
        let mount = syscall!(Sysno::fsconfig, context, CREATE, 0_usize, 0_usize, 0)
            .and_then(|_| syscall!(Sysno::fsmount, context, CLOEXEC, attributes));
        close(context);
        mount.map(|fd| fd as RawFd)
    }
}

fn clone_tree(file: RawFd, recursive: bool) -> Result<RawFd, Errno> {
    let deep = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32 | deep;
    // SAFETY: a NUL-terminated constant.
    let tree = unsafe { syscall!(Sysno::open_tree, file, EMPTY.as_ptr(), flags) }?;
    Ok(tree as RawFd)
}

fn mask(context: &mut Context, path: &CStr) -> Done {
    match open(path, libc::O_PATH | libc::O_DIRECTORY, false) {
        Ok(target) => {
            let result = mask_directory(context, target);
            close(target);
            return result;
        }
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR) => {}
        Err(errno) => return Err(errno),
    }
    let target = match open(path, libc::O_PATH, false) {
        Ok(target) => target,
        // A parent that is no directory.
        Err(Errno::ENOTDIR | Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if context.null < 0 {
        let file = open(c"/dev/null", libc::O_PATH, true)?;
        check_null(file)?;
        context.null = file;
    }
    let tree = clone_tree(context.null, false)?;
    let result = attach_to(tree, target);
    close(tree);
    close(target);
    result
}

fn mask_directory(context: &mut Context, target: RawFd) -> Done {
    if context.mask_directory >= 0 {
        let tree = clone_tree(context.mask_directory, false)?;
        let result = attach_to(tree, target);
        close(tree);
        return result;
    }
    let attributes = ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_SUID | ATTRIBUTE_NO_DEVICES | ATTRIBUTE_NO_EXEC;
    let mount = new_mount(c"tmpfs", &[(c"mode", c"0555")], attributes)?;
    attach_to(mount, target)?;
    context.mask_directory = mount;
    Ok(())
}

/// What masks a file must be the null device and nothing an image put in its place.
fn check_null(file: RawFd) -> Done {
    let mut status = core::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the buffer is a `struct statx`; all-zero is a valid value of it.
    let status = unsafe {
        syscall!(Sysno::statx, file, EMPTY.as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_TYPE, status.as_mut_ptr())?;
        status.assume_init()
    };
    let character = u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFCHR;
    if character && (status.stx_rdev_major, status.stx_rdev_minor) == NULL_DEVICE { Ok(()) } else { Err(Errno::ENODEV) }
}

fn null_streams() -> Done {
    for stream in 0..3 {
        if check_null(stream).is_err() {
            continue;
        }
        let Ok(path) = open(c"/dev/null", libc::O_PATH, true) else { return Ok(()) };
        let there = check_null(path);
        close(path);
        if there.is_err() {
            return Ok(());
        }
        // SAFETY: takes numbers.
        let flags = unsafe { syscall!(Sysno::fcntl, stream, libc::F_GETFL) }? as i32;
        let file = open(c"/dev/null", flags & libc::O_ACCMODE, true)?;
        let result = duplicate(file, stream);
        close(file);
        result?;
    }
    Ok(())
}

fn read_only(path: &CStr) -> Done {
    let target = match open(path, libc::O_PATH, false) {
        Ok(target) => target,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let tree = clone_tree(target, true)?;
    let attributes = MountAttributes { set: ATTRIBUTE_READ_ONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: a NUL-terminated constant and attributes of the size given.
    unsafe {
        syscall!(Sysno::mount_setattr, tree, EMPTY.as_ptr(), flags, &raw const attributes, size_of::<MountAttributes>())
    }?;
    let result = attach_to(tree, target);
    close(tree);
    close(target);
    result
}

fn duplicate(from: RawFd, to: RawFd) -> Done {
    if from == to {
        // dup3 refuses equal numbers, and the flag must go.
        // SAFETY: takes numbers.
        return unsafe { syscall!(Sysno::fcntl, from, libc::F_SETFD, 0) }.map(drop);
    }
    // SAFETY: takes numbers; the child has one thread and its own file table.
    unsafe { syscall!(Sysno::dup3, from, to, 0) }.map(drop)
}

fn bounding_set(keep: u64) -> Done {
    for capability in 0..64_u32 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        // SAFETY: takes numbers.
        match unsafe { syscall!(Sysno::prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } {
            Ok(_) => {}
            // Beyond the last one this kernel knows.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn capabilities(set: u64) -> Done {
    const CLEAR_ALL: i32 = 4;
    // SAFETY: takes numbers.
    unsafe { syscall!(Sysno::prctl, libc::PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0) }?;
    // _LINUX_CAPABILITY_VERSION_3, this process; then (effective, permitted, inheritable) twice, low words first.
    let header: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: version 3 reads a header of two and data of six words.
    unsafe { syscall!(Sysno::capset, header.as_ptr(), data.as_ptr()) }.map(drop)
}

fn seccomp(program: &[Filter]) -> Done {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const Filter,
    }
    const SET_MODE_FILTER: u32 = 1;
    let Ok(length) = u16::try_from(program.len()) else { return Err(Errno::E2BIG) };
    let program = Program { length, filter: program.as_ptr() };
    // SAFETY: `Program` is `struct sock_fprog`, pointing to `length` instructions that outlive the call.
    unsafe { syscall!(Sysno::seccomp, SET_MODE_FILTER, 0, &raw const program) }.map(drop)
}

fn working_directory(path: &CStr) -> Done {
    // SAFETY: NUL-terminated path.
    unsafe { syscall!(Sysno::chdir, path.as_ptr()) }?;
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: pointer and length of one buffer.
    unsafe { syscall!(Sysno::getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    // A directory outside the root is told as "(unreachable)/…".
    if buffer.first() == Some(&b'/') { Ok(()) } else { Err(Errno::EXDEV) }
}

fn reset_signals() -> Done {
    let default: SignalAction = [0; 4];
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the action is at least as large as the kernel's structure, and zero means the default.
        unsafe { syscall!(Sysno::rt_sigaction, signal, default.as_ptr(), 0_usize, 8) }?;
    }
    let none: u64 = 0;
    // SAFETY: a mask of the size given.
    unsafe { syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0_usize, 8) }.map(drop)
}

fn execute(candidates: &[&CStr], arguments: *const *const c_char, environment: *const *const c_char) -> Errno {
    let mut denied = false;
    for path in candidates {
        // SAFETY: the caller checked that both vectors end with null; their strings are borrowed for longer than this.
        let result = unsafe { syscall!(Sysno::execve, path.as_ptr(), arguments, environment) };
        match result {
            Err(Errno::EACCES) => denied = true,
            Err(Errno::ENOENT | Errno::ENOTDIR) | Ok(_) => {}
            Err(errno) => return errno,
        }
    }
    if denied { Errno::EACCES } else { Errno::ENOENT }
}

/// What [`execute`] would say, without doing it.
fn look(candidates: &[&CStr]) -> Done {
    let mut denied = false;
    for path in candidates {
        let executable = libc::X_OK;
        // SAFETY: NUL-terminated path. The effective ids count: AT_EACCESS.
        let result = unsafe { syscall!(Sysno::faccessat2, CWD, path.as_ptr(), executable, libc::AT_EACCESS) };
        let directory = || open(path, libc::O_PATH | libc::O_DIRECTORY, false);
        match result {
            Ok(_) => match directory() {
                Ok(file) => {
                    close(file);
                    denied = true;
                }
                Err(_) => return Ok(()),
            },
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    Err(if denied { Errno::EACCES } else { Errno::ENOENT })
}
