//! The default profile: what containers-common's `seccomp.json` allows, and as docker does, what needs a capability
//! only with that capability. Unknown calls give ENOSYS, so that programs fall back; known and refused ones EPERM.

use libc::{EINVAL, ENOSYS, EPERM};

use super::{Action, Condition, Rule};
use crate::Capabilities;

/// Harmless, or guarded by the kernel itself.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl",
    "arm_fadvise64_64", "arm_sync_file_range", "bind", "breakpoint", "brk", "cacheflush", "cachestat", "capget",
    "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
    "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "file_getattr",
    "file_setattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64",
    "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_mempolicy", "get_robust_list",
    "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid",
    "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid",
    "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid",
    "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday",
    "getuid", "getuid32", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_setup", "io_submit", "ioctl",
    "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listxattr",
    "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise",
    "map_shadow_stack", "mbind", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat",
    "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync",
    "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat",
    "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "pselect6", "pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readdir", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall",
    "riscv_flush_icache", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
    "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl",
    "semget", "semop", "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg",
    "sendmsg", "sendto", "set_mempolicy", "set_mempolicy_home_node", "set_robust_list", "set_thread_area",
    "set_tid_address", "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
    "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt",
    "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
    "sigaction", "sigaltstack", "signal", "signalfd", "signalfd4", "sigpending", "sigprocmask", "sigreturn",
    "sigsuspend", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "sync_file_range2", "syncfs", "syscall", "sysinfo",
    "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
    "timer_gettime64", "timer_settime", "timer_settime64", "timerfd", "timerfd_create", "timerfd_gettime",
    "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64",
    "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64",
    "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];

/// Obsolete or reaching beyond the container; for nobody.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "add_key", "bdflush", "io_pgetevents", "kexec_file_load", "kexec_load", "keyctl", "migrate_pages",
    "move_pages", "nfsservctl", "nice", "oldfstat", "oldlstat", "oldolduname", "oldstat", "olduname",
    "pciconfig_iobase", "pciconfig_read", "pciconfig_write", "request_key", "sgetmask", "ssetmask",
    "swapcontext", "swapoff", "swapon", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
];

/// Allowed with a capability, else refused.
#[rustfmt::skip]
const GUARDED: &[(&str, &[&str])] = &[
    ("SYS_ADMIN", &[
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount",
        "mount_setattr", "move_mount", "open_tree", "perf_event_open", "pivot_root", "quotactl",
        "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    ("SYS_PTRACE", &[
        "kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    ]),
    ("DAC_READ_SEARCH", &[
        "open_by_handle_at",
    ]),
    ("SYS_CHROOT", &[
        "chroot",
    ]),
    ("SYS_MODULE", &[
        "delete_module", "finit_module", "init_module", "query_module",
    ]),
    ("SYS_PACCT", &[
        "acct",
    ]),
    ("SYS_RAWIO", &[
        "ioperm", "iopl",
    ]),
    ("SYS_TIME", &[
        "clock_settime", "clock_settime64", "settimeofday", "stime",
    ]),
    ("SYS_TTY_CONFIG", &[
        "vhangup",
    ]),
    ("SYS_BOOT", &[
        "reboot",
    ]),
];

/// Flags of `clone` that make namespaces.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// Values of `personality` that change nothing dangerous: linux, 32 bits, uname 2.6, both, and the question.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_NETLINK: u32 = 16;
const NETLINK_AUDIT: u32 = 9;

/// What a system call named so does for a process with these capabilities.
pub(super) fn rules(capabilities: Capabilities) -> Vec<(&'static str, Rule)> {
    let has = |name: &str| Capabilities::parse(name).is_some_and(|wanted| capabilities.has(wanted));
    let mut rules = Vec::with_capacity(ALLOWED.len() + REFUSED.len() + 64);
    rules.extend(ALLOWED.iter().map(|name| (*name, Rule::Always(Action::Allow))));
    rules.extend(REFUSED.iter().map(|name| (*name, Rule::Always(Action::Errno(EPERM)))));
    for (capability, names) in GUARDED {
        let action = if has(capability) { Action::Allow } else { Action::Errno(EPERM) };
        rules.extend(names.iter().map(|name| (*name, Rule::Always(action))));
    }
    if has("SYS_ADMIN") {
        rules.push(("clone", Rule::Always(Action::Allow)));
        rules.push(("clone3", Rule::Always(Action::Allow)));
    } else {
        let flags = Condition::AnyBit { argument: 0, bits: NEW_NAMESPACES };
        rules.push(("clone", Rule::When(vec![(vec![flags], Action::Errno(EPERM))], Action::Allow)));
        // Its flags are behind a pointer, which a filter cannot read; the C libraries fall back to `clone`.
        rules.push(("clone3", Rule::Always(Action::Errno(ENOSYS))));
    }
    let known =
        PERSONALITIES.iter().map(|value| (vec![Condition::Equal { argument: 0, value: *value }], Action::Allow));
    rules.push(("personality", Rule::When(known.collect(), Action::Errno(EPERM))));
    let socket = if has("AUDIT_WRITE") {
        Rule::Always(Action::Allow)
    } else {
        let audit = vec![
            Condition::Equal { argument: 0, value: AF_NETLINK },
            Condition::Equal { argument: 2, value: NETLINK_AUDIT },
        ];
        Rule::When(vec![(audit, Action::Errno(EINVAL))], Action::Allow)
    };
    rules.push(("socket", socket));
    rules
}
