//! The codes of this crate's diagnostics. Each has a page `docs/errors/<area>/<name>.md`.

/// A value that a service cannot have.
pub const BAD_VALUE: &str = "service::bad-value";
/// `when=` without a service that it could be about.
pub const NOTHING_TO_WAIT_FOR: &str = "service::nothing-to-wait-for";

/// Every code of this crate with its meaning in one line.
pub const CODES: &[(&str, &str)] = &[
    (BAD_VALUE, "A value that a service cannot have."),
    (NOTHING_TO_WAIT_FOR, "`when=` without a service that it could be about."),
];
