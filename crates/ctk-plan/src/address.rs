//! Addresses: the names that `needs`, the command line, the plan and every error use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kinds of resources a project file declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Something to build.
    Image,
    /// Assertions about an image.
    Test,
    /// Where images go.
    Push,
    /// A container that runs.
    Service,
    /// A registry that this project serves.
    Registry,
    /// Steps that are run when somebody says so.
    Pipeline,
}

impl Kind {
    /// Every kind, in the order of the life of an image.
    pub const ALL: [Kind; 6] = [Kind::Image, Kind::Test, Kind::Push, Kind::Service, Kind::Registry, Kind::Pipeline];

    /// Whether an apply makes it so: registries are served and pipelines are run when somebody says so.
    pub fn is_applied(self) -> bool {
        !matches!(self, Kind::Registry | Kind::Pipeline)
    }

    /// The word in the project file and in addresses.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Image => "image",
            Kind::Test => "test",
            Kind::Push => "push",
            Kind::Service => "service",
            Kind::Registry => "registry",
            Kind::Pipeline => "pipeline",
        }
    }
}

/// `kind:name`, e.g. `image:api`, `image:services/cart:api`, `image:svc[os=debian]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// What it is.
    pub kind: Kind,
    /// The name within its kind; may hold `/` and `:` from includes and `[…]` from a matrix.
    pub name: String,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address; expected `kind:name` with one of the kinds image, test, push, service, registry, pipeline"
)]
pub struct AddressError(String);

impl Address {
    /// The address `kind:name`.
    pub fn new(kind: Kind, name: impl Into<String>) -> Address {
        Address { kind, name: name.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.name)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let bad = || AddressError(text.into());
        let (word, name) = text.split_once(':').ok_or_else(bad)?;
        let kind = Kind::ALL.into_iter().find(|k| k.word() == word).ok_or_else(bad)?;
        if name.is_empty() {
            return Err(bad());
        }
        Ok(Address::new(kind, name))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["image:api", "image:services/cart:api", "test:svc[os=debian,tls=on]"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["api", "image:", "thing:x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
