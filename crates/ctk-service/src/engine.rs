//! Who makes containers, and what an apply asks of him.

use std::time::{Duration, Instant};

use ctk_oci::{Descriptor, Digest};
use ctk_plan::Cancel;

use crate::decl::{ServiceDecl, When};

/// The label of a service's container that says of which declaration it is.
pub const DIGEST_LABEL: &str = "org.ctk.service";
/// The label that says of which project it is.
pub const PROJECT_LABEL: &str = "org.ctk.project";

/// How often a service that is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What is to run.
pub struct Order<'a> {
    /// What was declared.
    pub decl: &'a ServiceDecl,
    /// The project, for a label.
    pub project: &'a str,
    /// The image, which is in the store.
    pub image: &'a Descriptor,
    /// How it is called.
    pub image_name: &'a str,
    /// Of which declaration it is.
    pub digest: &'a Digest,
}

/// A container as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of which declaration it is.
    pub digest: Option<Digest>,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code, if it has ended.
    pub ended: Option<i32>,
    /// Its exit code, if it was started again by its policy since somebody started it.
    pub fell_over: Option<i32>,
    /// Whether its health check succeeds; none if it has none.
    pub healthy: Option<bool>,
    /// Why it could not be started, if so.
    pub error: String,
}

/// Who makes containers: the binary.
pub trait Engine: Send + Sync {
    /// A container by its name; none if there is none. Changes nothing.
    fn seen(&self, container: &str) -> Result<Option<Seen>, String>;
    /// Starts a container, in the place of one of the same name.
    fn start(&self, order: &Order<'_>) -> Result<(), String>;
    /// Stops and removes a container; whether there was one.
    fn remove(&self, container: &str) -> Result<bool, String>;
    /// Names of all containers with a label of this project.
    fn of_project(&self, project: &str) -> Result<Vec<String>, String>;
}

/// Why a service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its container could not be looked at, made or started.
    #[error("failed to {attempt} container `{container}`: {reason}")]
    Engine {
        /// What was tried.
        attempt: &'static str,
        /// Which.
        container: String,
        /// What happened.
        reason: String,
    },
    /// It ended at once.
    #[error("container `{container}` ended with exit code {code}")]
    Ended {
        /// Which.
        container: String,
        /// How.
        code: i32,
    },
    /// What it needs is not ready.
    #[error("container `{container}` was not {what} within {seconds} s")]
    NotReady {
        /// Which.
        container: String,
        /// What it should have been.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// It is waited for to be healthy, and nobody can tell.
    #[error("container `{container}` has no health check, and `when=\"healthy\"` waits for one")]
    NoHealth {
        /// Which.
        container: String,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl ServiceError {
    fn engine(attempt: &'static str, container: &str) -> impl FnOnce(String) -> ServiceError {
        let container = container.to_owned();
        move |reason| ServiceError::Engine { attempt, container, reason }
    }
}

/// What a service's container shows: the digest of the declaration that it is of, as long as it runs, or has ended well
/// where it was to end.
pub fn observe(decl: &ServiceDecl, engine: &dyn Engine) -> Result<Option<Digest>, ServiceError> {
    let seen = engine.seen(&decl.container).map_err(ServiceError::engine("look at", &decl.container))?;
    let good = |seen: &Seen| seen.running || decl.ends && seen.ended == Some(0);
    Ok(seen.filter(good).and_then(|seen| seen.digest))
}

/// Starts a service once what it needs is ready. One that can tell how it is has started when it is well.
pub fn start(
    order: &Order<'_>,
    needed: &[(&ServiceDecl, Option<When>)],
    engine: &dyn Engine,
    cancel: &Cancel,
) -> Result<(), ServiceError> {
    for (other, when) in needed {
        wait(other, *when, engine, cancel)?;
    }
    let container = &order.decl.container;
    engine.start(order).map_err(ServiceError::engine("start", container))?;
    // One that falls over at once is told at once.
    const SETTLE: Duration = Duration::from_millis(300);
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        let seen = engine.seen(container).map_err(ServiceError::engine("look at", container))?.unwrap_or_default();
        match seen.ended.or(seen.fell_over) {
            Some(0) if order.decl.ends => return Ok(()),
            Some(code) => return Err(ServiceError::Ended { container: container.clone(), code }),
            None if seen.healthy.is_some() => return wait(order.decl, Some(When::Healthy), engine, cancel),
            None => std::thread::sleep(POLL),
        }
    }
    Ok(())
}

/// Waits until a service is as far as it should be: without a word, healthy if it can tell, else started.
fn wait(decl: &ServiceDecl, when: Option<When>, engine: &dyn Engine, cancel: &Cancel) -> Result<(), ServiceError> {
    let container = &decl.container;
    let deadline = Instant::now() + decl.within;
    loop {
        if cancel.is_cancelled() {
            return Err(ServiceError::Cancelled);
        }
        let seen = engine.seen(container).map_err(ServiceError::engine("look at", container))?.unwrap_or_default();
        let (ready, what) = match when {
            Some(When::Completed) => (seen.ended == Some(0), "completed"),
            Some(When::Healthy) if seen.running && seen.healthy.is_none() => {
                return Err(ServiceError::NoHealth { container: container.clone() });
            }
            Some(When::Healthy) => (seen.healthy == Some(true), "healthy"),
            Some(When::Started) => (seen.running, "started"),
            None => (seen.running && seen.healthy != Some(false) || decl.ends && seen.ended == Some(0), "ready"),
        };
        if ready {
            return Ok(());
        }
        if let Some(code) = seen.ended.filter(|_| when != Some(When::Completed) || seen.ended != Some(0)) {
            return Err(ServiceError::Ended { container: container.clone(), code });
        }
        if Instant::now() >= deadline {
            let seconds = decl.within.as_secs();
            return Err(ServiceError::NotReady { container: container.clone(), what, seconds });
        }
        std::thread::sleep(POLL);
    }
}
