//! How a command ends when it does not succeed, and how that is said.

use std::error::Error;

use ctk_client::ClientError;
use ctk_store::{FetchError, StoreError};

/// Exit codes; 0 is success.
pub mod code {
    /// Something failed and was explained on standard error.
    pub const FAILURE: u8 = 1;
    /// `plan --detailed-exitcode`: there is something to do.
    pub const CHANGES: u8 = 2;
    /// The command line itself was wrong (`EX_USAGE` of sysexits).
    pub const USAGE: u8 = 64;
    /// `run`: the container could not be started.
    pub const RUN_FAILED: u8 = 125;
    /// Interrupted by the user.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command did not succeed.
pub enum Failure {
    /// An error for a person: what failed, then its causes.
    Error {
        /// Printed in brackets: `push::denied`.
        code: Option<&'static str>,
        /// What failed.
        error: Box<dyn Error>,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Already explained in full, e.g. diagnostics with places.
    Explained(String),
    /// Nothing failed, but the exit code says something.
    Exit(u8),
    /// The user stopped it.
    Interrupted,
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        if is_cancelled(&error) {
            return Failure::Interrupted;
        }
        Failure::Error { code: None, error: Box::new(error), hint: None }
    }
}

/// Whether somewhere below it was the user who stopped it.
fn is_cancelled(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        matches!(error.downcast_ref(), Some(ClientError::Cancelled))
            || matches!(error.downcast_ref(), Some(StoreError::Cancelled))
            || matches!(error.downcast_ref(), Some(FetchError::Cancelled))
    })
}

/// What was tried, and why it failed.
#[derive(Debug)]
struct Attempt(String, Box<dyn Error>);

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Attempt {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.1)
    }
}

/// What a registry answered, with what the user can do about it.
pub fn of_client(error: ctk_client::ClientError) -> Failure {
    if matches!(error, ClientError::Cancelled) {
        return Failure::Interrupted;
    }
    let hint = error.hint();
    Failure::Error { code: None, error: Box::new(error), hint }
}

/// A failure that is only a sentence.
#[derive(Debug)]
struct Sentence(String);

impl std::fmt::Display for Sentence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Sentence {}

impl Failure {
    /// A failure in one sentence, with what to do.
    pub fn sentence(text: impl Into<String>, hint: Option<&str>) -> Failure {
        Failure::Error { code: None, error: Box::new(Sentence(text.into())), hint: hint.map(str::to_owned) }
    }

    /// An error with what was tried before it, e.g. with the name that only the caller knows.
    pub fn during<E: Error + 'static>(attempt: impl Into<String>) -> impl FnOnce(E) -> Failure {
        let attempt = attempt.into();
        move |error| Attempt(attempt, Box::new(error)).into()
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Error { .. } | Failure::Explained(_) => code::FAILURE,
            Failure::Exit(code) => *code,
            Failure::Interrupted => code::INTERRUPTED,
        }
    }

    /// What standard error gets; empty when nothing is to be said.
    pub fn text(&self) -> String {
        match self {
            Failure::Error { code, error, hint } => ctk_apply::explain(*code, &**error, hint.as_deref()),
            Failure::Explained(text) => text.clone(),
            Failure::Exit(_) => String::new(),
            Failure::Interrupted => "interrupted; run it again to go on\n".into(),
        }
    }
}
