//! The assertions: a file each, and a line each in [`TABLE`].

mod absent;
mod command;
mod config;
mod file;
mod http;
mod packages;
mod size;

use std::fmt::Debug;

use ctk_syntax::Reader;

use crate::error::CheckError;
use crate::report::AssertionOutcome;
use crate::world::World;

/// Something that should hold of an image, decoded from its node.
pub trait Assertion: Send + Sync + Debug {
    /// For people, without the kind's word, e.g. the path of `file`. Empty when the word says it all.
    fn name(&self) -> String;

    /// The container that it speaks to over the network: `image` or a service's name.
    fn host(&self) -> Option<&str> {
        None
    }

    /// Asks. An error means that it could not be asked, not that it does not hold.
    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError>;
}

/// One kind of assertion.
pub struct Row {
    /// The node's name.
    pub word: &'static str,
    /// Raised when its behaviour changes, so that cached results of the old one do not count.
    pub semantics: u32,
    /// Reads its node. `None` when it reported why not; the caller finishes the reader.
    pub(crate) decode: fn(&mut Reader<'_, '_>) -> Option<Box<dyn Assertion>>,
}

/// Every kind, by name.
pub const TABLE: &[Row] = &[
    Row { word: "absent", semantics: 1, decode: absent::decode },
    Row { word: "command", semantics: 1, decode: command::decode },
    Row { word: "config", semantics: 1, decode: config::decode },
    Row { word: "file", semantics: 1, decode: file::decode },
    Row { word: "http", semantics: 1, decode: http::decode },
    Row { word: "packages", semantics: 1, decode: packages::decode },
    Row { word: "size", semantics: 1, decode: size::decode },
];

/// The row of that word.
pub(crate) fn row(word: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.word == word)
}
