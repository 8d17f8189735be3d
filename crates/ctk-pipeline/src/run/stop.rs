//! Ending what runs: a signal first, and after a grace the one that nobody ignores.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctk_container::Container;
use rustix::process::{Pid, Signal, kill_process_group};

use super::job::{Task, When};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Why everything ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A step failed. Steps that run in any case still do.
    Failure,
    /// The user said so.
    Cancel,
    /// The run took too long.
    Time,
}

/// Something that runs.
#[derive(Clone)]
pub(crate) enum Handle {
    Container(Arc<Container>),
    /// A child that leads its process group.
    Child(Pid),
}

impl Handle {
    /// Asks it to end. The first process of a container hears no signal that it does not handle: waiting for that one
    /// would be for nothing.
    fn ask(&self) {
        match self {
            Handle::Container(container) => {
                let signal = if is_deaf(container.pid()) { SIGKILL } else { SIGTERM };
                let _ = container.signal(signal);
            }
            Handle::Child(pid) => drop(kill_process_group(*pid, Signal::TERM)),
        }
    }

    fn kill(&self) {
        match self {
            Handle::Container(container) => drop(container.signal(SIGKILL)),
            Handle::Child(pid) => drop(kill_process_group(*pid, Signal::KILL)),
        }
    }
}

/// Whether a process does not know what SIGTERM is: it neither handles nor ignores it.
fn is_deaf(pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let bit = 1 << (SIGTERM - 1);
    match (mask("SigCgt:"), mask("SigIgn:")) {
        (Some(caught), Some(ignored)) => (caught | ignored) & bit == 0,
        _ => false,
    }
}

#[derive(Default)]
struct State {
    reason: Option<Reason>,
    running: HashMap<usize, (Handle, bool)>,
}

/// What runs, and whether it should.
pub(crate) struct Stops {
    grace: Duration,
    state: Mutex<State>,
    ended: Condvar,
}

impl Stops {
    pub fn new(grace: Duration) -> Stops {
        Stops { grace, state: Mutex::default(), ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why everything ends, if it does.
    pub fn reason(&self) -> Option<Reason> {
        self.lock().reason
    }

    /// Whether a step must end now.
    pub fn ends(&self, task: &Task) -> Option<Reason> {
        self.reason().filter(|reason| *reason != Reason::Failure || task.when == When::Success)
    }

    /// Something of a step runs now.
    pub fn began(&self, task: &Task, handle: Handle) {
        let stays = task.when != When::Success;
        let mut state = self.lock();
        let ends = match state.reason {
            None => false,
            Some(Reason::Failure) => !stays,
            Some(_) => true,
        };
        if ends {
            handle.ask();
        }
        state.running.insert(task.number, (handle, stays));
    }

    /// It ended.
    pub fn ended(&self, task: &Task) {
        self.lock().running.remove(&task.number);
        self.ended.notify_all();
    }

    /// Everything ends. The first reason stays, unless the user has one.
    pub fn stop(&self, reason: Reason) {
        let mut state = self.lock();
        if state.reason.is_some() && reason == Reason::Failure {
            return;
        }
        state.reason = Some(reason);
        for (handle, stays) in state.running.values() {
            if reason != Reason::Failure || !stays {
                handle.ask();
            }
        }
    }

    /// Those that wait look again.
    pub fn wake(&self) {
        let _state = self.lock();
        self.ended.notify_all();
    }

    /// Kills what was asked to end and has not after the grace, until the run is over. What begins late is asked, too.
    pub fn enforce(&self, is_over: &dyn Fn() -> bool) {
        let until = Instant::now() + self.grace;
        let mut state = self.lock();
        loop {
            let all = state.reason != Some(Reason::Failure);
            let left: Vec<Handle> =
                state.running.values().filter(|(_, stays)| all || !stays).map(|(handle, _)| handle.clone()).collect();
            if is_over() {
                return;
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                left.iter().for_each(Handle::kill);
            }
            let rest = rest.clamp(Duration::from_millis(50), Duration::from_millis(200));
            state = self.ended.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
