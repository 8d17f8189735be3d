//! `linux.netDevices`: network devices of the runtime's network namespace that go into the container's, with their
//! addresses (`config-linux.md#network-devices`).

use std::os::fd::AsFd;

use ctk_netlink::{Netlink, move_device};

use crate::Error;

const NEW_NETWORK: u32 = libc::CLONE_NEWNET as u32;

/// Moves devices into the network namespace of a process; what the list has is the name here and the name there.
pub(crate) fn move_all(devices: &[(String, String)], pid: i32) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let failed = |source| Error::Step { step: "talk to the network".into(), field: "linux.netDevices".into(), source };
    let open = |path: &str| {
        let path = std::ffi::CString::new(path).unwrap_or_default();
        crate::launch::namespace(&path, "linux.netDevices")
    };
    let (own, theirs) = (open("/proc/self/ns/net")?, open(&format!("/proc/{pid}/ns/net"))?);
    let mut here = Netlink::open().map_err(failed)?;
    ctk_sys::set_controlling_namespace(theirs.as_fd(), NEW_NETWORK).map_err(|e| failed(e.into()))?;
    let there = Netlink::open();
    ctk_sys::set_controlling_namespace(own.as_fd(), NEW_NETWORK).map_err(|e| failed(e.into()))?;
    let mut there = there.map_err(failed)?;
    devices.iter().try_for_each(|(name, new)| {
        move_device(&mut here, &mut there, theirs.as_fd(), name, new).map_err(|source| Error::Step {
            step: format!("move the network device `{name}` into the container as `{new}`"),
            field: format!("linux.netDevices.{name}"),
            source,
        })
    })
}
