//! Error codes and error bodies (distribution-spec 1.1, "Error Codes"): one table for both sides.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::ERROR_ENTRIES_LIMIT;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal $message:literal;)*) => {
        /// What a registry says went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self { $(Code::$name => $word,)* }
            }

            /// The HTTP status that goes with it by default.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// A sentence for people.
            pub fn message(self) -> &'static str {
                match self { $(Code::$name => $message,)* }
            }
        }
    };
}

codes! {
    /// The blob is not in this repository.
    BlobUnknown "BLOB_UNKNOWN" 404 "blob unknown to repository";
    /// The upload cannot go on.
    BlobUploadInvalid "BLOB_UPLOAD_INVALID" 400 "blob upload invalid";
    /// No such upload session.
    BlobUploadUnknown "BLOB_UPLOAD_UNKNOWN" 404 "blob upload unknown to registry";
    /// The content does not hash to the digest, or the digest is malformed.
    DigestInvalid "DIGEST_INVALID" 400 "provided digest did not match uploaded content";
    /// A manifest names a blob that is not here.
    ManifestBlobUnknown "MANIFEST_BLOB_UNKNOWN" 404 "manifest references a manifest or blob unknown to registry";
    /// The manifest is malformed.
    ManifestInvalid "MANIFEST_INVALID" 400 "manifest invalid";
    /// No such manifest or tag.
    ManifestUnknown "MANIFEST_UNKNOWN" 404 "manifest unknown to registry";
    /// The repository's name is malformed.
    NameInvalid "NAME_INVALID" 400 "invalid repository name";
    /// No such repository.
    NameUnknown "NAME_UNKNOWN" 404 "repository name not known to registry";
    /// The length does not match the content, or is too large.
    SizeInvalid "SIZE_INVALID" 400 "provided length did not match content length";
    /// Nobody proved who asks.
    Unauthorized "UNAUTHORIZED" 401 "authentication required";
    /// Known, but not allowed.
    Denied "DENIED" 403 "requested access to the resource is denied";
    /// The operation is not supported.
    Unsupported "UNSUPPORTED" 405 "the operation is unsupported";
    /// Too many requests at once.
    TooManyRequests "TOOMANYREQUESTS" 429 "too many requests";
    /// A parameter of a list makes no sense (distribution's own code).
    PaginationNumberInvalid "PAGINATION_NUMBER_INVALID" 400 "invalid number of results requested";
    /// The registry itself failed (distribution's own code).
    Unknown "UNKNOWN" 500 "unknown error";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The body of an error answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// At least one, by the specification.
    pub errors: Vec<ErrorEntry>,
}

/// One error in a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// A [`Code`]'s word, or a registry's own.
    #[serde(default)]
    pub code: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Anything.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

impl ErrorBody {
    /// A body of one error.
    pub fn of(code: Code, detail: serde_json::Value) -> ErrorBody {
        ErrorBody { errors: vec![ErrorEntry { code: code.word().into(), message: code.message().into(), detail }] }
    }

    /// Reads a body; whatever is no such JSON (a proxy's HTML page, say) gives an empty list.
    pub fn parse(body: &[u8]) -> ErrorBody {
        let mut parsed: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        parsed.errors.truncate(ERROR_ENTRIES_LIMIT);
        parsed
    }

    /// Whether one of the entries has this code.
    pub fn has(&self, code: Code) -> bool {
        self.errors.iter().any(|e| e.code.eq_ignore_ascii_case(code.word()))
    }
}

impl fmt::Display for ErrorBody {
    /// `CODE: message` of the entries, separated by `; `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, entry) in self.errors.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            match (entry.code.as_str(), entry.message.as_str()) {
                (code, "") => write!(f, "{separator}{code}")?,
                ("", message) => write!(f, "{separator}{message}")?,
                (code, message) => write!(f, "{separator}{code}: {message}")?,
            }
            if let serde_json::Value::String(detail) = &entry.detail {
                write!(f, " ({detail})")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read() {
        let body = ErrorBody::parse(
            br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no","detail":{"name":"x"}},{"code":"DENIED"}]}"#,
        );
        assert_eq!(body.to_string(), "NAME_UNKNOWN: no; DENIED");
        assert!(body.has(Code::Denied) && !body.has(Code::Unknown));
        assert_eq!(ErrorBody::parse(b"<html>").errors, []);
    }

    #[test]
    fn what_is_written_is_read() {
        for code in Code::ALL {
            let body = ErrorBody::of(*code, serde_json::Value::Null);
            let text = serde_json::to_vec(&body).unwrap();
            assert_eq!(ErrorBody::parse(&text), body);
            assert!((400..600).contains(&code.status()));
        }
    }
}
