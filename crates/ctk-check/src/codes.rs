//! The codes of this crate's diagnostics and errors. Each has a page `docs/errors/<area>/<name>.md`.

/// A property that cannot be read as what it should be: a URL, a mode, a pattern.
pub const BAD_VALUE: &str = "check::bad-value";
/// A node without anything to check.
pub const NOTHING_ASKED: &str = "check::nothing-asked";
/// An assertion that speaks to a container which this test does not start.
pub const NO_SUCH_HOST: &str = "check::no-such-host";
/// Two services of one name, or a service called `image`.
pub const DUPLICATE_SERVICE: &str = "check::duplicate-service";
/// An ability that a later version brings.
pub const NOT_YET: &str = "check::not-yet";

/// Every code of this crate with its meaning in one line.
pub const CODES: &[(&str, &str)] = &[
    (BAD_VALUE, "A property that cannot be read as what it should be: a URL, a mode, a pattern."),
    (NOTHING_ASKED, "An assertion that asks nothing."),
    (NO_SUCH_HOST, "An assertion speaks to a container which this test does not start."),
    (DUPLICATE_SERVICE, "Two services of one name, or a service called `image`."),
    (NOT_YET, "An ability that a later version brings."),
];
