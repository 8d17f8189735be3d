//! Containers whose monitor was killed, or that were running when the machine went down.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client;
use crate::containers::{Container, Containers, Locked};
use crate::state::{State, Status};
use crate::{Error, time};

/// How long a monitor may take to lock what it takes over.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// What a container does, for who only looks: a container whose monitor is gone runs if its process does, and has ended
/// otherwise. Changes nothing.
pub fn look(container: &Container) -> Result<State, Error> {
    let mut state = container.state()?;
    let lives = || container.kept().is_ok_and(|kept| kept.process().is_some());
    if state.status.is_alive() && !container.is_locked() && !lives() {
        state.status = Status::Exited;
        state.exit_code = -1;
        state.finished = state.finished.max(state.started);
    }
    Ok(state)
}

/// What a container does, after that was put in order: one that lives without a monitor gets a new one (`program`), one
/// that is said to run and does not has ended, and `leave` is called for what its monitor would have freed. Looking at a
/// container whose monitor lives changes nothing.
pub fn settle(
    containers: &Containers,
    container: &Container,
    program: &Path,
    leave: impl FnOnce(&Locked),
) -> Result<State, Error> {
    let state = container.state()?;
    if !state.status.is_alive() || container.is_locked() {
        return Ok(state);
    }
    let Some(locked) = container.try_lock()? else { return container.state() };
    // It may have ended in good order while we looked.
    let mut state = container.written_state()?;
    if !state.status.is_alive() {
        return Ok(state);
    }
    let lives = container.kept().is_ok_and(|kept| kept.process().is_some());
    if lives {
        drop(locked);
        client::take_over(container, program)?;
        let deadline = Instant::now() + TAKE_OVER;
        while !container.is_locked() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        return container.state();
    }
    // With the lock, and before the directory may go: nobody finds it after that.
    leave(&locked);
    let _ = ctk_bundle::container::delete(&container.runtime_root(), container.id(), true);
    let config = container.config()?;
    if config.remove {
        let name = container.id().chars().take(12).collect();
        containers.remove_with_volumes(locked, &config)?;
        return Err(Error::Missing { name });
    }
    state.status = Status::Exited;
    state.pid = 0;
    state.monitor = 0;
    state.exit_code = -1;
    state.finished = time::now();
    state.network = serde_json::Value::Null;
    state.error = "its monitor was killed, or the machine went down; how it ended was not seen".into();
    container.write_state(&state)?;
    Ok(state)
}
