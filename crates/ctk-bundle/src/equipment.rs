//! What a container's processes are in: cgroups with their limits, a scope of systemd's, a class of caches.

use std::io;

use ctk_runtime::Hierarchy;

use crate::Error;
use crate::cgroup::{self, Cgroups};
use crate::container::Options;
use crate::plan::Plan;
use crate::resources::{self, Rule};
use crate::spec::{Resources, Spec};
use crate::state::{Kept, Record};
use crate::systemd::{self, Holder, Scope};

/// Changes limits of a container.
pub fn update(kept: &Kept, resources: &Resources) -> Result<(), Error> {
    let cgroups = &kept.record.cgroups;
    let rules = match resources.devices.is_empty() {
        true => Vec::new(),
        false => resources::device_rules(&resources.devices, true)?,
    };
    if let Some(scope) = &kept.record.scope {
        scope.update(resources, &rules, systemd::Version::of(&cgroup::hierarchies()))?;
    }
    if !rules.is_empty() {
        cgroups.allow_devices(&rules)?;
    }
    cgroups.apply(resources)
}

/// Makes what processes will be in: cgroups with their limits, a class of caches. What is given back keeps a scope of
/// systemd's alive until one is.
pub(crate) fn make(
    kept: &mut Kept,
    spec: &Spec,
    plan: &Plan,
    rules: &[Rule],
    options: &Options,
    hierarchies: &[Hierarchy],
) -> Result<Option<Holder>, Error> {
    let linux = spec.linux.as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path.as_deref());
    let mut scope = None;
    match &options.systemd {
        None => kept.record.cgroups = Cgroups::place(hierarchies, path, &options.id)?,
        Some(manager) => scope = Some(Scope::place(path, &options.id, manager)?),
    }
    if let Some(rdt) = &plan.rdt {
        let (class, own) = rdt.place()?;
        (kept.record.rdt_class, kept.record.rdt_own) = (Some(class), own);
    }
    // Before anything is in them: whoever cleans up knows where.
    kept.write()?;
    let held = scope.map(|scope| systemd::begin(kept, scope, spec, rules, hierarchies)).transpose()?;
    kept.record.cgroups.make(hierarchies)?;
    if let Some(uid) = cgroup::owner(spec) {
        kept.record.cgroups.give(uid)?;
    }
    kept.record.cgroups.allow_devices(rules)?;
    if let Some(resources) = linux.and_then(|linux| linux.resources.as_ref()) {
        kept.record.cgroups.apply(resources)?;
    }
    Ok(held)
}

/// Removes what a container's processes were in.
pub(crate) fn remove(record: &Record) -> Vec<Error> {
    let mut errors = Vec::new();
    if let Some(scope) = &record.scope {
        // Else systemd waits for processes that do not hear its first signal.
        record.cgroups.signal(libc::SIGKILL);
        errors.extend(scope.stop().err());
    }
    if !record.cgroups.remove() {
        let path = record.cgroups.directories.first().map(|d| d.path.clone()).unwrap_or_default();
        errors.push(Error::Cgroup { path, field: String::new(), source: io::ErrorKind::ResourceBusy.into() });
    }
    errors
}
