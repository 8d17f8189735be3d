//! Checks of a container's health: one at a time, each a process in the container.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ctk_bundle::exec;
use ctk_bundle::spec::List;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::run::{Ended, Run, reap, with_streams};
use crate::config::Health;
use crate::containers::Container;
use crate::limits::{HEALTH_OUTPUT_BYTES, HEALTH_RESULTS};
use crate::state::{Checked, HealthState, HealthStatus};
use crate::{Error, time};

/// When a container's health is found out next, or how far that is.
pub(super) struct Checks {
    next: Instant,
    running: Option<Check>,
}

struct Check {
    pidfd: OwnedFd,
    output: OwnedFd,
    text: Vec<u8>,
    start: u64,
    deadline: Instant,
    late: bool,
}

impl Checks {
    /// The first check comes after an interval.
    pub(super) fn new(health: &Health) -> Checks {
        Checks { next: Instant::now() + health.interval(health.start_millis > 0), running: None }
    }

    /// When something is due: a check, or the end of one that takes too long.
    pub(super) fn due(&self) -> Instant {
        match &self.running {
            Some(check) if check.late => Instant::now() + Duration::from_secs(1),
            Some(check) => check.deadline,
            None => self.next,
        }
    }

    /// A check at once, unless there is one.
    pub(super) fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// What is to be polled: the process and its output.
    pub(super) fn files(&self) -> Option<(&OwnedFd, &OwnedFd)> {
        self.running.as_ref().map(|check| (&check.pidfd, &check.output))
    }

    /// Takes what a check wrote.
    pub(super) fn read_output(&mut self) {
        let Some(check) = &mut self.running else { return };
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(&check.output, &mut buffer) {
            let room = HEALTH_OUTPUT_BYTES.saturating_sub(check.text.len());
            check.text.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
        }
    }

    /// Begins a check that is due, or ends one that takes too long.
    pub(super) fn act(&mut self, container: &Container, run: &Run, health: &Health) -> Option<Checked> {
        let now = Instant::now();
        match &mut self.running {
            Some(check) if !check.late && now >= check.deadline => {
                check.late = true;
                let _ = pidfd_send_signal(&check.pidfd, Signal::KILL);
                None
            }
            Some(_) => None,
            None if now < self.next => None,
            None => {
                let start = time::now();
                match Check::begin(container, run, health) {
                    Ok(check) => {
                        self.running = Some(check);
                        None
                    }
                    // A program that is not there is a failure as others are.
                    Err(error) => {
                        self.next =
                            now + health.interval(now < run.started + Duration::from_millis(health.start_millis));
                        Some(Checked { start, end: time::now(), exit_code: -1, output: error.line() })
                    }
                }
            }
        }
    }

    /// The result of a check whose process has ended.
    pub(super) fn end(&mut self, run: &Run, health: &Health) -> Option<Checked> {
        self.read_output();
        let check = self.running.take()?;
        let ended = reap(&check.pidfd);
        let now = Instant::now();
        self.next = now + health.interval(now < run.started + Duration::from_millis(health.start_millis));
        let (exit_code, output) = match (check.late, ended) {
            (true, _) => (-1, format!("took longer than {} ms", health.timeout_millis)),
            (false, Ended::Code(code)) => (code, String::from_utf8_lossy(&check.text).into_owned()),
            (false, Ended::Unseen) => (-1, String::from_utf8_lossy(&check.text).into_owned()),
        };
        Some(Checked { start: check.start, end: time::now(), exit_code, output })
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(check) = &self.running {
            let _ = pidfd_send_signal(&check.pidfd, Signal::KILL);
            reap(&check.pidfd);
        }
    }
}

impl Check {
    fn begin(container: &Container, run: &Run, health: &Health) -> Result<Check, Error> {
        let failed = |errno: Errno| Error::file("make", "a pipe")(errno);
        let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(failed)?;
        let deadline = Instant::now() + Duration::from_millis(health.timeout_millis);
        if let Some(runtime) = &container.config()?.runtime {
            let mut command = crate::foreign::command(runtime, container, &["exec"]);
            command.arg(container.id()).args(&health.command);
            let error = write.try_clone().map_err(Error::file("copy", "a pipe"))?;
            let child = command.stdout(write).stderr(error).spawn();
            let child = child.map_err(|source| Error::Monitor { program: runtime.clone(), source })?;
            let pid = rustix::process::Pid::from_child(&child);
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(failed)?;
            return Ok(Check { pidfd, output, text: Vec::new(), start: time::now(), deadline, late: false });
        }
        let options = exec::Options {
            root: container.runtime_root(),
            id: container.id().into(),
            preserve_fds: 0,
            console: None,
            pid_file: None,
            ignore_paused: false,
            cgroups: Vec::new(),
        };
        let mut process = run.process.clone().unwrap_or_default();
        process.terminal = false;
        process.args = List(health.command.clone());
        let null = ctk_bundle::container::null_file()?;
        let (_, pidfd, _) = with_streams([&null, &write, &write], || exec::exec(options, |_| Ok(process)))?;
        Ok(Check { pidfd, output, text: Vec::new(), start: time::now(), deadline, late: false })
    }
}

/// What a result makes of what was known; whether it has become unhealthy by it. Failures before `settled` do not
/// count.
pub(super) fn judge(state: &mut HealthState, checked: Checked, retries: u32, settled: bool) -> bool {
    let good = checked.exit_code == 0;
    let before = state.status;
    match good {
        true => (state.status, state.failures) = (HealthStatus::Healthy, 0),
        false if settled || state.status == HealthStatus::Healthy => {
            state.failures += 1;
            if state.failures >= retries.max(1) {
                state.status = HealthStatus::Unhealthy;
            }
        }
        false => {}
    }
    state.log.push(checked);
    let over = state.log.len().saturating_sub(HEALTH_RESULTS);
    state.log.drain(..over);
    before != HealthStatus::Unhealthy && state.status == HealthStatus::Unhealthy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy() {
        let mut state = HealthState::default();
        let mut check = |code: i32, settled: bool| {
            let checked = Checked { start: 0, end: 0, exit_code: code, output: String::new() };
            let became = judge(&mut state, checked, 2, settled);
            (state.status.word(), state.failures, became)
        };
        assert_eq!(check(1, false), ("starting", 0, false));
        assert_eq!(check(1, true), ("starting", 1, false));
        assert_eq!(check(0, true), ("healthy", 0, false));
        assert_eq!(check(1, false), ("healthy", 1, false));
        assert_eq!(check(-1, true), ("unhealthy", 2, true));
        assert_eq!(check(1, true), ("unhealthy", 3, false));
        assert_eq!(check(0, true), ("healthy", 0, false));
        assert_eq!(state.log.len(), HEALTH_RESULTS);
    }
}
