//! Why a session cannot go on, told to the person who can act.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use ctk_check::Report;
use ctk_client::ClientError;
use ctk_packages::PackagesError;
use ctk_plan::Address;
use ctk_project::SelectError;
use ctk_store::StoreError;

use crate::codes;

/// Why opening, planning or applying failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no project file.
    #[error("there is no project file {}", path.display())]
    NoProject {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The project file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The project has mistakes.
    #[error("the project has {} mistakes", reports.len())]
    Invalid {
        /// All of them, rendered for people.
        text: String,
        /// The same with colours.
        colored: String,
        /// The same as data.
        reports: Vec<ctk_syntax::Report>,
    },
    /// A word names nothing of this project.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The lock file cannot be read.
    #[error("cannot read {}", path.display())]
    ReadLock {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The lock file cannot be written.
    #[error("cannot write {}", path.display())]
    WriteLock {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// Leftovers of a killed process cannot be removed.
    #[error("cannot clean up after an earlier run")]
    CleanUp(#[source] ctk_container::Error),
    /// Units failed; everything that did not need them was done.
    #[error("{} failed", list(failures))]
    Failed {
        /// What failed, in the order in which it happened.
        failures: Vec<UnitFailure>,
        /// What the tests that ran said.
        reports: Vec<Report>,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// A unit that failed.
#[derive(Clone, Debug)]
pub struct UnitFailure {
    /// Which.
    pub address: Address,
    /// What kind of failure, e.g. `build::failed`.
    pub code: &'static str,
    /// The whole story for people; several lines.
    pub text: String,
}

impl UnitFailure {
    /// What failed, in one line: the first error, whatever warnings stand before it.
    pub fn summary(&self) -> &str {
        let first = || self.text.lines().next().unwrap_or_default();
        self.text.lines().find(|line| line.starts_with("error")).unwrap_or_else(first)
    }
}

fn list(failures: &[UnitFailure]) -> String {
    failures.iter().map(|failure| failure.address.to_string()).collect::<Vec<_>>().join(", ")
}

impl ApplyError {
    /// What standard error gets: code, place, causes and what to do.
    pub fn explain(&self, color: bool) -> String {
        match self {
            ApplyError::Invalid { text, colored, .. } => if color { colored } else { text }.clone(),
            ApplyError::Failed { failures, .. } => {
                failures.iter().map(|failure| failure.text.as_str()).collect::<Vec<_>>().join("\n")
            }
            ApplyError::NoProject { .. } => explain(Some(codes::PROJECT_MISSING), self, Some("`ctk init` writes one")),
            ApplyError::Read { .. } => explain(Some(codes::PROJECT_UNREADABLE), self, None),
            ApplyError::Select(_) => {
                explain(Some(codes::UNKNOWN_ADDRESS), self, Some("`ctk graph` lists the addresses"))
            }
            ApplyError::ReadLock { .. } | ApplyError::WriteLock { .. } => explain(Some(codes::LOCK_FILE), self, None),
            ApplyError::Store(_) | ApplyError::CleanUp(_) => {
                let hint = "the store's folder is set by CTK_ROOT or --root; it must be writable";
                explain(Some(codes::STORE), self, Some(hint))
            }
            ApplyError::Cancelled => explain(None, self, None),
        }
    }

    /// What the tests that ran said, if any did.
    pub fn reports(&self) -> &[Report] {
        match self {
            ApplyError::Failed { reports, .. } => reports,
            _ => &[],
        }
    }
}

/// The error, its causes one a line, and what to do.
pub fn explain(code: Option<&str>, error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let first = brief(&error.to_string());
    let mut text = match code {
        Some(code) => format!("error[{code}]: {first}\n"),
        None => format!("error: {first}\n"),
    };
    let mut last = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        // A transparent wrapper repeats its cause word for word.
        if sentence != last {
            let _ = writeln!(text, "  caused by: {}", brief(sentence.trim_end()).replace('\n', "\n    "));
        }
        last = sentence;
        cause = error.source();
    }
    if let Some(hint) = hint.map(str::to_owned).or_else(|| chain(error).find_map(advice)) {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}

/// The error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The kernel's number for "operation not permitted".
const EPERM: i32 = 1;
const EMLINK: i32 = 31;
const EINVAL: i32 = 22;

/// What to do about an error that is known wherever it comes from.
/// The sentence, with words that nobody would read to their end cut in the middle: paths longer than any can be.
fn brief(sentence: &str) -> String {
    let short = |word: &str| match word.len() {
        length if length > WORD_BYTES => {
            let (head, tail) =
                (word.floor_char_boundary(WORD_BYTES / 2), word.ceil_char_boundary(length - WORD_BYTES / 4));
            format!("{}…{} bytes…{}", &word[..head], tail - head, &word[tail..])
        }
        _ => word.to_owned(),
    };
    sentence.split_inclusive(char::is_whitespace).map(short).collect()
}

/// Longest word of an error that is shown whole, in bytes: far more than people name, far less than the 4096 of a path.
const WORD_BYTES: usize = 512;

fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = find::<ClientError>(error) {
        return error.hint();
    }
    match find::<PackagesError>(error) {
        Some(PackagesError::Status { url, status }) if url.ends_with(".deb") && status.starts_with("404") => {
            return Some("the mirror no longer has what is locked; `ctk update` locks what it has now".into());
        }
        _ => {}
    }
    let cause = |code| error.downcast_ref::<io::Error>().is_some_and(|cause| cause.raw_os_error() == Some(code));
    if cause(EMLINK) {
        return Some(
            "the store's filesystem allows a file fewer names than others do; `--root` keeps it elsewhere".into(),
        );
    }
    // What the kernel forbids, not a file that may not be read or executed: that is no matter of privileges.
    if cause(EPERM) {
        let text = match ctk_runtime::in_user_namespace() {
            false => "building and running need root or a user namespace: overlay mounts, file owners, namespaces",
            true => "in a user namespace some things are not to be had, such as device nodes; root has them",
        };
        return Some(text.into());
    }
    let unknown = cause(EINVAL) && ctk_runtime::rootless::is_alone();
    unknown.then(|| {
        "there are no ids but root's here, so that nothing can belong to somebody else; subordinate ids are more: \
         `usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER`"
            .into()
    })
}

/// The error as an `E`, also if it is in a box, which is an error of its own.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error.downcast_ref::<E>().or_else(|| error.downcast_ref::<Box<E>>().map(|boxed| &**boxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_long_words_are_cut_in_the_middle() {
        let path = "a/".repeat(3000);
        let text = explain(None, &io::Error::other(format!("there is no folder `{path}`, sorry")), None);
        assert!(text.starts_with("error: there is no folder `a/a/") && text.ends_with("/a/`, sorry\n"), "{text}");
        assert!(text.len() < 500 && text.contains("…5620 bytes…"), "{text}");
        let short = explain(None, &io::Error::other(format!("ä{}", "b".repeat(500))), None);
        assert!(!short.contains('…'), "{short}");
    }

    #[test]
    fn causes_follow_and_are_not_repeated() {
        let error = ApplyError::Read { path: "x".into(), source: io::Error::other("no such thing") };
        let expected = "error[apply::unreadable]: cannot read x\n  caused by: no such thing\n";
        assert_eq!(error.explain(false), expected);
    }
}
