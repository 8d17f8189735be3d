//! OS package repositories: verify, resolve, download, unpack, configure.
//!
//! [`HostSources::read`] knows the host's own mirrors and keys, [`resolve`] turns a [`Request`] into a [`Locked`] set,
//! [`fetch`] brings its files into a cache, [`install`] makes a root filesystem of them. All calls block.

mod apt;
mod cache;
mod error;
mod install;
mod limits;
mod lock;
mod runner;
mod transport;

use std::path::{Path, PathBuf};

use ctk_plan::{Cancel, Step};

pub use apt::sources::{HostMount, HostSources, ProxyRule, SignedBy, Source};
pub use error::PackagesError;
pub use install::Installed;
pub use lock::{Format, Locked, LockedPackage, Request, Variant, architecture_of};
pub use runner::{RunInRoot, ScriptCommand, ScriptOutput, Scripts};

/// The exact packages for `request`: release files verified against the keyring, indexes by their SHA256, needs closed.
///
/// `cache` keeps verified indexes by digest; several processes may share it. Safe to repeat; asks the mirrors each time.
pub fn resolve(
    request: &Request,
    host: &HostSources,
    cache: &Path,
    step: &Step,
    cancel: &Cancel,
) -> Result<Locked, PackagesError> {
    apt::resolve(request, host, cache, step, cancel)
}

/// The package files of `locked`, in its order, as paths in `cache`; each has the locked SHA256 and size.
///
/// What the cache holds is not asked for again. `mirror` goes before the host's own sources. Files appear in the cache
/// only whole and verified.
pub fn fetch(
    locked: &Locked,
    host: &HostSources,
    mirror: Option<&str>,
    cache: &Path,
    step: &Step,
    cancel: &Cancel,
) -> Result<Vec<PathBuf>, PackagesError> {
    match locked.format {
        Format::Apt => apt::fetch(locked, host, mirror, cache, step, cancel),
    }
}

/// Makes a root filesystem of the fetched `files` in the directory `root`, which is empty or an empty overlay's upper.
///
/// The same `locked` gives the same tree, byte for byte, times included. After an error the directory is to be thrown
/// away.
pub fn install(
    locked: &Locked,
    files: &[PathBuf],
    root: &Path,
    scripts: Scripts<'_>,
    step: &Step,
    cancel: &Cancel,
) -> Result<Installed, PackagesError> {
    match locked.format {
        Format::Apt => install::install(locked, files, root, scripts, step, cancel),
    }
}
