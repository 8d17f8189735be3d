//! Hooks that run in the runtime's own namespaces: prestart, createRuntime, poststart, poststop.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Error;
use crate::spec::Hook;
use crate::state::State;

/// Runs hooks in order; the first that fails ends it.
pub(crate) fn run(hooks: &[Hook], kind: &str, state: &State) -> Result<(), Error> {
    let text = serde_json::to_string(state).unwrap_or_default();
    hooks.iter().enumerate().try_for_each(|(index, hook)| one(hook, &format!("hooks.{kind}[{index}]"), &text))
}

/// Runs hooks in order; what fails is given back, and the others run all the same.
pub(crate) fn run_all(hooks: &[Hook], kind: &str, state: &State) -> Vec<Error> {
    let text = serde_json::to_string(state).unwrap_or_default();
    let result = |(index, hook)| one(hook, &format!("hooks.{kind}[{index}]"), &text).err();
    hooks.iter().enumerate().filter_map(result).collect()
}

fn one(hook: &Hook, field: &str, state: &str) -> Result<(), Error> {
    let failed = |how: String| Error::Hook { path: hook.path.clone(), field: field.into(), how };
    let mut command = Command::new(&hook.path);
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    // Its output is ours, as with other runtimes.
    command.stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(format!("cannot be run: {e}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A hook that does not read is none the worse for it.
        let _ = input.write_all(state.as_bytes());
    }
    let limit = hook.timeout.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds as u64));
    if let Some(limit) = limit
        && !ends_within(child.id() as i32, limit)
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("did not end in time ({} s)", limit.as_secs())));
    }
    let status = child.wait().map_err(|e| failed(format!("cannot be waited for: {e}")))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(failed(format!("ended with exit status {code}"))),
        (None, signal) => Err(failed(format!("was killed by signal {}", signal.unwrap_or(0)))),
    }
}

fn ends_within(pid: i32, limit: Duration) -> bool {
    let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return true };
    let deadline = Instant::now() + limit;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(_) if rest.is_zero() => return false,
            Err(_) => {}
        }
    }
}
