//! What a build's switches make of its RUN instructions, before keys are made: the settings that count in keys, and
//! whether everything asked for is allowed.

use ctk_buildgraph::{Exec, Lowered, NetworkMode, SecurityMode};
use ctk_syntax::{Diagnostic, Diagnostics};

use crate::recipe::Loaded;
use crate::{BuildError, BuildRequest, Ulimit, codes};

/// Settles every process that the image needs. All refusals are reported at once.
pub(crate) fn settle(lowered: &mut Lowered, request: &BuildRequest<'_>, loaded: &Loaded) -> Result<(), BuildError> {
    let settings = request.run;
    let mut diagnostics = Diagnostics::new();
    let target = lowered.image.vertex;
    for (exec, name, origin) in lowered.graph.processes_mut(target) {
        if exec.network == NetworkMode::Default {
            exec.network = settings.network;
        }
        let keyed = &mut exec.settings;
        keyed.host_names = settings.add_hosts.iter().map(|(name, _)| name.clone()).collect();
        keyed.shm_size_bytes = settings.shm_size_bytes;
        keyed.ulimits = settings.ulimits.iter().map(shown).collect();
        keyed.cgroup_parent = settings.cgroup_parent.clone();
        for entitlement in refused(exec, request) {
            let message = format!("`{name}` needs the entitlement `{entitlement}`, which nobody gave");
            let hint = format!("allow it by `--allow {entitlement}`, or in a project file by `allow {entitlement:?}`");
            let diagnostic = Diagnostic::error(codes::NOT_ALLOWED, message);
            diagnostics.push(match origin {
                Some(span) => diagnostic.at(span, hint),
                None => diagnostic,
            });
        }
    }
    if diagnostics.has_errors() { Err(loaded.invalid(diagnostics)) } else { Ok(()) }
}

/// The entitlements that a process asks for and does not have.
fn refused(exec: &Exec, request: &BuildRequest<'_>) -> Vec<String> {
    let given = [&request.run.entitlements, &request.decl.allow];
    let mut missing = Vec::new();
    if exec.network == NetworkMode::Host && !given.iter().any(|g| g.network_host) {
        missing.push("network.host".to_owned());
    }
    if exec.security == SecurityMode::Insecure && !given.iter().any(|g| g.security_insecure) {
        missing.push("security.insecure".to_owned());
    }
    for device in &exec.devices {
        if !given.iter().any(|g| g.has_device(&device.name)) {
            missing.push(format!("device={}", device.name));
        }
    }
    missing
}

fn shown(ulimit: &Ulimit) -> String {
    let side = |limit: Option<u64>| limit.map_or("unlimited".into(), |limit| limit.to_string());
    format!("{}={}:{}", ulimit.name, side(ulimit.soft), side(ulimit.hard))
}
