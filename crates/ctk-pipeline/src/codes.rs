//! The codes of this crate's diagnostics. Each has a page `docs/errors/pipeline/<name>.md`.

/// The file is no YAML or JSON.
pub const SYNTAX: &str = "pipeline::syntax";
/// A field that Cloud Build does not know.
pub const UNKNOWN_FIELD: &str = "pipeline::unknown-field";
/// A value of another type than the field has.
pub const WRONG_TYPE: &str = "pipeline::wrong-type";
/// A field is written twice; the first counts.
pub const DUPLICATE_FIELD: &str = "pipeline::duplicate-field";
/// A single value where a list is expected.
pub const NO_LIST: &str = "pipeline::no-list";
/// A field that must be there is not.
pub const MISSING_FIELD: &str = "pipeline::missing-field";
/// A value that the field cannot have.
pub const BAD_VALUE: &str = "pipeline::bad-value";
/// More, or longer, than Cloud Build takes.
pub const OVER_LIMIT: &str = "pipeline::over-limit";
/// Two things of the file that exclude each other.
pub const CONFLICT: &str = "pipeline::conflict";
/// A step waits for one that is not before it.
pub const BAD_WAIT: &str = "pipeline::bad-wait";
/// A substitution that cannot be made, or is never used.
pub const SUBSTITUTION: &str = "pipeline::substitution";
/// A secret that is not declared, not used, or declared twice.
pub const SECRET: &str = "pipeline::secret";
/// A field that only Cloud Build itself sets, or that a file cannot have.
pub const NOT_IN_A_FILE: &str = "pipeline::not-in-a-file";
/// What is written is taken, and probably not meant.
pub const SUSPICIOUS: &str = "pipeline::suspicious";
/// A builder image's arguments that cannot be carried out without a Docker daemon.
pub const BUILDER: &str = "pipeline::builder";

/// Every code of this crate with its meaning in one line.
pub const CODES: &[(&str, &str)] = &[
    (SYNTAX, "The file is no YAML or JSON."),
    (UNKNOWN_FIELD, "A field that Cloud Build does not know."),
    (WRONG_TYPE, "A value of another type than the field has."),
    (DUPLICATE_FIELD, "A field is written twice; the first counts."),
    (NO_LIST, "A single value where a list is expected."),
    (MISSING_FIELD, "A field that must be there is not."),
    (BAD_VALUE, "A value that the field cannot have."),
    (OVER_LIMIT, "More, or longer, than Cloud Build takes."),
    (CONFLICT, "Two things of the file that exclude each other."),
    (BAD_WAIT, "A step waits for one that is not before it."),
    (SUBSTITUTION, "A substitution that cannot be made, or is never used."),
    (SECRET, "A secret that is not declared, not used, or declared twice."),
    (NOT_IN_A_FILE, "A field that only Cloud Build itself sets, or that a file cannot have."),
    (SUSPICIOUS, "What is written is taken, and probably not meant."),
    (BUILDER, "A builder image's arguments that cannot be carried out without a Docker daemon."),
];
