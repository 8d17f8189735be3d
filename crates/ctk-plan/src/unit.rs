//! Units: what the planner orders, named by everything their results depend on.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Address;

/// Hash of everything a unit's result depends on: 64 hexadecimal digits of BLAKE3.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The hexadecimal text; also the key of result records.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that a unit's result depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Input {
    /// The resource's own text, with everything interpolated.
    Declaration,
    /// The leaf's semantics number: what the same declaration means.
    Semantics,
    /// A base image or a service's image, by its reference.
    Base(String),
    /// The packages of a stage, as locked.
    Packages(String),
    /// A file of a context, as `context:path`; the path alone for the context `.`.
    File(String),
    /// Something else with a name: a build argument, a URL.
    Named(String),
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Declaration => f.write_str("declaration"),
            Input::Semantics => f.write_str("semantics"),
            Input::Base(name) => write!(f, "base {name}"),
            Input::Packages(name) => write!(f, "packages {name}"),
            Input::File(name) => write!(f, "file {name}"),
            Input::Named(name) => write!(f, "input {name}"),
        }
    }
}

impl From<Input> for String {
    fn from(input: Input) -> String {
        input.to_string()
    }
}

/// A text that names no input; records of other versions of the program may hold one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` names no input")]
pub struct InputError(String);

impl TryFrom<String> for Input {
    type Error = InputError;

    fn try_from(text: String) -> Result<Input, InputError> {
        match text.split_once(' ') {
            None if text == "declaration" => Ok(Input::Declaration),
            None if text == "semantics" => Ok(Input::Semantics),
            Some(("base", name)) => Ok(Input::Base(name.into())),
            Some(("packages", name)) => Ok(Input::Packages(name.into())),
            Some(("file", name)) => Ok(Input::File(name.into())),
            Some(("input", name)) => Ok(Input::Named(name.into())),
            _ => Err(InputError(text)),
        }
    }
}

/// What the planner orders: a resource, what it needs, and what its result depends on.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its name.
    pub address: Address,
    /// Units that must have succeeded before.
    pub needs: Vec<Address>,
    /// Every input with a digest of it. Needs are inputs by themselves and not repeated here.
    pub inputs: BTreeMap<Input, String>,
    /// For a push: the places it writes, `host/repository:tag` and the like.
    pub targets: Vec<String>,
}

impl Unit {
    /// The fingerprint, from the fingerprints of the needs in the order of their addresses.
    pub fn fingerprint(&self, needs: &BTreeMap<&Address, &Fingerprint>) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_derive_key("ctk 1 unit fingerprint");
        let mut field = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        field(self.address.kind.word());
        for (input, digest) in &self.inputs {
            field(&input.to_string());
            field(digest);
        }
        for (address, fingerprint) in needs.iter().filter(|(address, _)| crate::plan::is_input(address)) {
            field(&address.to_string());
            field(fingerprint.as_str());
        }
        Fingerprint(hasher.finalize().to_hex().to_string())
    }
}

/// A short hash of any text, for [`Unit::inputs`]: 64 hexadecimal digits.
pub fn hash_text(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
