//! The codes of this crate's diagnostics and errors. Each has a page `docs/errors/<area>/<name>.md`.

/// A location that cannot be read, or of a kind that does not exist.
pub const BAD_LOCATION: &str = "push::bad-location";
/// A tag that the target cannot have.
pub const BAD_TAG: &str = "push::bad-tag";
/// A target without a host, and no `registry` in the project.
pub const NO_REGISTRY: &str = "push::no-registry";
/// An image that this project does not build.
pub const NOT_BUILT_HERE: &str = "push::not-built-here";
/// One place named twice.
pub const DUPLICATE_TARGET: &str = "push::duplicate-target";
/// An ability that a later version brings.
pub const NOT_YET: &str = "push::not-yet";

/// Every code of this crate with its meaning in one line.
pub const CODES: &[(&str, &str)] = &[
    (BAD_LOCATION, "A location that cannot be read, or of a kind that does not exist."),
    (BAD_TAG, "A tag that the target cannot have."),
    (NO_REGISTRY, "A target without a host, and no `registry` in the project."),
    (NOT_BUILT_HERE, "An image that this project does not build."),
    (DUPLICATE_TARGET, "One place named twice."),
    (NOT_YET, "An ability that a later version brings."),
];
