//! What happens in a run, as data: what the user is told, and what the record keeps.

use ctk_plan::Stream;
use serde::{Deserialize, Serialize};

/// How a step or a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Well.
    Succeeded,
    /// Not well.
    Failed,
    /// Not well, and that is allowed.
    Allowed,
    /// It took longer than it may.
    TimedOut,
    /// Somebody stopped it.
    Cancelled,
    /// It never ran.
    Skipped,
    /// An earlier success counts: nothing that it reads has changed.
    Cached,
    /// It succeeded before the run was resumed.
    Kept,
}

impl Ending {
    /// Whether what needs it may run.
    pub fn is_good(self) -> bool {
        matches!(self, Ending::Succeeded | Ending::Allowed | Ending::Cached | Ending::Kept)
    }

    /// As one sign in front of a line.
    pub fn mark(self) -> char {
        match self {
            Ending::Succeeded => '✓',
            Ending::Cached | Ending::Kept => '=',
            Ending::Failed | Ending::TimedOut => '✗',
            Ending::Allowed => '~',
            Ending::Cancelled | Ending::Skipped => '-',
        }
    }

    /// In one word or two.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Succeeded => "succeeded",
            Ending::Failed => "failed",
            Ending::Allowed => "failed, which is allowed",
            Ending::TimedOut => "timed out",
            Ending::Cancelled => "cancelled",
            Ending::Skipped => "skipped",
            Ending::Cached => "cached",
            Ending::Kept => "kept",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The run began, or was resumed.
    RunStarted {
        /// Its id.
        run: String,
        /// What is run.
        name: String,
        /// How many steps it has.
        steps: usize,
        /// Whether it was begun before.
        resumed: bool,
    },
    /// A step began.
    StepStarted {
        /// Which.
        step: usize,
        /// From 1.
        attempt: u32,
    },
    /// A step printed a line.
    StepLog {
        /// Which.
        step: usize,
        /// Where to.
        stream: Stream,
        /// The line, without its end, secrets replaced.
        line: String,
    },
    /// A step ended, or will not run.
    StepFinished {
        /// Which.
        step: usize,
        /// The last try.
        attempt: u32,
        /// How.
        ending: Ending,
        /// Of the last try.
        seconds: f64,
        /// Of its process, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// Why it did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// What it wrote to `$BUILDER_OUTPUT/output`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// The SHA-256 of its definition.
        #[serde(default)]
        definition: String,
    },
    /// An image was pushed.
    Pushed {
        /// Its name.
        image: String,
        /// Its digest.
        digest: String,
    },
    /// A file or package was uploaded.
    Uploaded {
        /// The file.
        file: String,
        /// Where to.
        to: String,
    },
    /// Something that the user should know, and that fails nothing.
    Warning {
        /// The step that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<usize>,
        /// One sentence.
        message: String,
    },
    /// The run ended.
    RunFinished {
        /// How.
        ending: Ending,
        /// All of it; of a resumed run, since it was resumed.
        seconds: f64,
        /// What failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// Hears of everything, from any thread; must not block for long.
pub trait Watch: Send + Sync {
    /// Something happened.
    fn hear(&self, event: &Event);
}

/// Hears nothing.
pub struct Deaf;

impl Watch for Deaf {
    fn hear(&self, _: &Event) {}
}
