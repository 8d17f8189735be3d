//! `linux.netDevices`: network interfaces of the host that go into the container.

use std::collections::BTreeMap;

use crate::Error;
use crate::spec::NetDevice;

/// Moves interfaces into the network namespace of a process.
pub(crate) fn move_all(devices: &BTreeMap<String, NetDevice>, _pid: i32) -> Result<(), Error> {
    match devices.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported {
            what: format!("linux.netDevices.{name}"),
            reason: "this runtime moves no interfaces; a createRuntime hook can".into(),
        }),
    }
}
