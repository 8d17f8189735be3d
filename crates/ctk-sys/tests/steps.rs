//! Children that need no privilege.

use std::ffi::CStr;
use std::os::fd::AsFd;

use ctk_sys::{Failure, Pointer, Start, Step, start};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn check(steps: &[Step<'_>], executed: Result<(), Failure>, code: i32) {
    let child = start(&Start { namespaces: 0, cgroup: None, steps }).unwrap();
    let (pidfd, result) = child.executed();
    assert_eq!(result, executed);
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(code));
}

fn shell<'a>(candidates: &'a [&'a CStr], arguments: &'a [Pointer<'a>]) -> Step<'a> {
    const NOTHING: &[Pointer<'_>] = &[Pointer::END];
    Step::Execute { candidates, arguments, environment: NOTHING }
}

#[test]
fn a_program_runs_and_its_code_comes_back() {
    let arguments = [Pointer::new(c"sh"), Pointer::new(c"-c"), Pointer::new(c"exit 9"), Pointer::END];
    check(&[Step::ResetSignals, shell(&[c"/no/sh", c"/bin/sh"], &arguments)], Ok(()), 9);
}

#[test]
fn a_failing_step_is_told() {
    let absent = [Pointer::new(c"x"), Pointer::END];
    check(&[Step::NewSession, shell(&[c"/no/x"], &absent)], Err(Failure { step: 1, errno: libc::ENOENT }), 127);
    // One of the candidates is there, but may not be executed.
    check(&[shell(&[c"/etc/passwd", c"/no/x"], &absent)], Err(Failure { step: 0, errno: libc::EACCES }), 127);
    let directory = Step::WorkingDirectory { path: c"/no" };
    check(&[Step::Umask { mask: 0 }, directory], Err(Failure { step: 1, errno: libc::ENOENT }), 127);
    // A vector without an end would let the kernel read beyond it.
    check(&[shell(&[c"/bin/sh"], &absent[..1])], Err(Failure { step: 0, errno: libc::EINVAL }), 127);
}

#[test]
fn no_steps_is_success() {
    check(&[], Ok(()), 0);
}

#[test]
fn threads_may_start_children_while_others_allocate() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = AtomicBool::new(false);
    let arguments = [Pointer::new(c"true"), Pointer::END];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(vec![0_u8; 4096]);
                }
            });
        }
        for _ in 0..100 {
            check(&[Step::DieWithParent, Step::ResetSignals, shell(&[c"/bin/true"], &arguments)], Ok(()), 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
}
