//! The codes of failures that are nobody's text: what was tried, and did not work. Each has a page
//! `docs/errors/<area>/<name>.md`.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code of this crate with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    PROJECT_MISSING = "apply::no-project", "There is no project file.";
    PROJECT_UNREADABLE = "apply::unreadable", "A file of the project cannot be read.";
    UNKNOWN_ADDRESS = "apply::unknown-address", "An address names nothing in this project.";
    STORE_NAME = "apply::store-name", "Two images would have the same name in the store.";
    CACHE_PLACE = "apply::cache-place", "The caches of two images would be written to one place.";
    LOCKED = "apply::locked", "The lock file lacks an entry, and `--locked` forbids adding it.";
    LOCK_FILE = "apply::lock-file", "The lock file cannot be read or written.";
    STORE = "apply::store", "The store cannot be used.";
    BUILD_FAILED = "build::failed", "An image could not be built.";
    NOT_REPRODUCIBLE = "build::not-reproducible", "An image is not the same when it is built again.";
    EXPORT_FAILED = "build::export", "What was built could not be brought to where `--output` says.";
    TEST_FAILED = "test::failed", "Assertions of a test did not hold.";
    TEST_BROKEN = "test::broken", "A test could not be carried out.";
    PUSH_FAILED = "push::failed", "An image could not be brought to a target.";
    SERVICE_FAILED = "service::failed", "A service could not be started or stopped.";
    SERVE_FAILED = "registry::failed", "The embedded registry could not be served.";
}
