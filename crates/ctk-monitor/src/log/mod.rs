//! What containers wrote, kept in files.
//!
//! An entry is a line as Kubernetes' container runtimes write them (CRI): a time, `stdout` or `stderr`, `F` for the end
//! of a line or `P` for a part of one, and the text. Nothing is held back until a line ends: whatever the container
//! wrote before something crashed is in the file. A file is only ever added to; when it is large enough it becomes
//! `log.1`, and what was `log.1` becomes `log.2`.

mod read;
mod write;

pub use read::{Filter, read};
pub use write::Writer;

use std::path::{Path, PathBuf};

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and what a terminal shows.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        }
    }
}

/// The name of an older file.
fn older(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => path.with_extension(number.to_string()),
    }
}
