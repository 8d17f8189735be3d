//! A JSON document together with the bytes it was read from.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Descriptor, Digest};

/// A parsed document and its exact bytes: what was received is kept as received.
#[derive(Clone, Debug)]
pub struct Document<T> {
    bytes: Vec<u8>,
    value: T,
}

/// Why bytes are not the document they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of this shape.
    #[error("cannot parse {what} {digest}")]
    Parse {
        /// What was expected, e.g. `image manifest`.
        what: &'static str,
        /// Digest of the offending bytes.
        digest: Digest,
        /// The parser's word.
        #[source]
        cause: serde_json::Error,
    },
}

impl<T: DeserializeOwned> Document<T> {
    /// Parses `bytes` and keeps them. `what` names the document in an error.
    pub fn parse(what: &'static str, bytes: Vec<u8>) -> Result<Document<T>, DocumentError> {
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Document { bytes, value }),
            Err(cause) => Err(DocumentError::Parse { what, digest: Digest::of(&bytes), cause }),
        }
    }
}

impl<T: Serialize> Document<T> {
    /// Writes a new document: compact JSON, fields in declaration order, maps sorted.
    pub fn new(value: T) -> Document<T> {
        let bytes = serde_json::to_vec(&value).expect("plain data serialises");
        Document { bytes, value }
    }
}

impl<T> Document<T> {
    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The parsed value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The parsed value alone; the bytes are dropped.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Names the bytes.
    pub fn descriptor(&self, media_type: impl Into<String>) -> Descriptor {
        Descriptor::of(media_type, &self.bytes)
    }
}
