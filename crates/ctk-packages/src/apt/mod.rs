//! Debian's family.
pub(crate) mod conf;
pub(crate) mod deb822;
pub(crate) mod sources;

use std::path::{Path, PathBuf};

use ctk_plan::{Cancel, Step};

use crate::{HostSources, Locked, PackagesError, Request};

pub(crate) fn resolve(
    _request: &Request,
    _host: &HostSources,
    _cache: &Path,
    _step: &Step,
    _cancel: &Cancel,
) -> Result<Locked, PackagesError> {
    Err(PackagesError::Cancelled)
}

pub(crate) fn fetch(
    _locked: &Locked,
    _host: &HostSources,
    _mirror: Option<&str>,
    _cache: &Path,
    _step: &Step,
    _cancel: &Cancel,
) -> Result<Vec<PathBuf>, PackagesError> {
    Err(PackagesError::Cancelled)
}
