//! What the host as a whole must allow, and what it was before.
//!
//! A bridge needs a host that forwards packets. Whoever sets up the first bridge of the host turns that on and leaves
//! what was before with the table `inet ctk`, in the kernel: it lives and ends with the settings that it is about,
//! whichever store's container was first and whichever's is last. One lock file of the host orders first and last.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::nft::{INET, Nft};
use crate::{Error, Network, rules};

/// Orders those who set up the first bridge and remove the last; whatever stores they work for.
const LOCK: &str = "/run/ctk-network.lock";

/// Most bytes that the kernel keeps with a table.
const USERDATA_BYTES: usize = 256;

const FORWARD_4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Excludes all others who set up or remove.
fn lock() -> Result<File, Error> {
    let failed = |source| Error::State { attempt: "lock", path: LOCK.into(), source };
    let file = File::options().create(true).truncate(false).write(true).open(LOCK).map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(file)
}

fn kernel(attempt: &str) -> impl Fn(io::Error) -> Error + use<> {
    let attempt = attempt.to_owned();
    move |source| Error::Kernel { attempt: attempt.clone(), source }
}

/// A connection to the packet filter.
pub(crate) fn filter() -> Result<Nft, Error> {
    Nft::open().map_err(|source| match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::PROTONOSUPPORT.raw_os_error() => missing(),
        _ => Error::Kernel { attempt: "open a connection to the packet filter".into(), source },
    })
}

fn missing() -> Error {
    Error::Unsupported {
        what: "a bridge network".into(),
        needs: "needs a kernel with nf_tables (CONFIG_NF_TABLES, modules nf_tables and nft_nat); without it there are \
                --network none, host and container:NAME"
            .into(),
    }
}

/// Whether who asks may make bridges here: root may, and root of a user namespace in a network namespace of its own.
/// Others' containers go through a relay.
pub fn may_make_bridges() -> bool {
    let asked = Nft::open().and_then(|nft| nft.userdata(INET, rules::TABLE));
    !asked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether the host is set up for a bridge.
pub(crate) fn is_ready(nft: &Nft, bridge: &str) -> Result<bool, Error> {
    nft.has(INET, rules::TABLE, "bridges", &rules::device(bridge)).map_err(kernel("ask the packet filter"))
}

/// Sets the host up for a network's bridge. Harmless if it is.
pub(crate) fn set_up(nft: &Nft, network: &Network) -> Result<(), Error> {
    let _lock = lock()?;
    let has_ipv6 = network.subnets.iter().any(|subnet| subnet.gateway.is_ipv6());
    let there = nft.userdata(INET, rules::TABLE).map_err(|source| match source.raw_os_error() {
        // No subsystem of this number.
        Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() => missing(),
        _ => Error::Kernel { attempt: "ask the packet filter".into(), source },
    })?;
    let before = there.as_deref().map(Before::parse).unwrap_or_default();
    let after = before.with_forwarding(has_ipv6);
    let mut batch = rules::batch();
    let bytes = after.text().into_bytes();
    match &there {
        None => rules::base(&mut batch, &bytes),
        // A table's bytes cannot be changed: it is made again, with all that is in it.
        Some(old) if *old != bytes => {
            let kept = contents(nft)?;
            batch.remove_table(rules::TABLE);
            rules::base(&mut batch, &bytes);
            for (set, elements) in &kept {
                batch.add(rules::TABLE, set, elements, false);
            }
        }
        Some(_) => {}
    }
    for (set, elements) in rules::bridge(network) {
        batch.add(rules::TABLE, set, &elements, false);
    }
    nft.commit(batch).map_err(kernel("set up the packet filter"))?;
    // After the record of what was: killed in between, nothing is lost.
    after.allow(has_ipv6)
}

/// All keys and values of the table.
fn contents(nft: &Nft) -> Result<Vec<(&'static str, crate::nft::Elements)>, Error> {
    let one = |set| nft.elements(INET, rules::TABLE, set).map(|elements| (set, elements));
    rules::SETS.into_iter().map(one).collect::<io::Result<_>>().map_err(kernel("ask the packet filter"))
}

/// Takes a network's bridge out, and everything back if it was the last.
pub(crate) fn take_down(nft: &Nft, network: &Network) -> Result<(), Error> {
    let _lock = lock()?;
    let Some(userdata) = nft.userdata(INET, rules::TABLE).map_err(kernel("ask the packet filter"))? else {
        return Ok(());
    };
    let mut batch = rules::batch();
    // A key that is added is there to be removed, whether it was there or not.
    let bridge = rules::bridge(network);
    for (set, elements) in &bridge {
        batch.add(rules::TABLE, set, elements, false);
        batch.remove(rules::TABLE, set, elements);
    }
    let own = rules::device(&network.bridge);
    let bridges = nft.elements(INET, rules::TABLE, "bridges").map_err(kernel("ask the packet filter"))?;
    let is_last = bridges.iter().all(|one| one.key == own || !is_device(&one.key));
    if is_last {
        batch = rules::batch();
        batch.remove_table(rules::TABLE);
        Before::parse(&userdata).restore();
    }
    nft.commit(batch).map_err(kernel("change the packet filter"))
}

/// Whether a bridge of the set is still a device: another store's that nobody looks after any more holds nothing up.
fn is_device(key: &[u8]) -> bool {
    let name = String::from_utf8_lossy(key);
    !matches!(ctk_netlink::index_of(name.trim_end_matches('\0')), Ok(None))
}

/// What the host's settings were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// IPv4 was not forwarded.
    no_forward_4: bool,
    /// IPv6 was not forwarded.
    no_forward_6: bool,
    /// Devices that listened to router advertisements, which a router does only if it is told twice.
    advised: Vec<String>,
}

impl Before {
    /// `4`, `6`, `a:DEVICE`, one after the other.
    pub(crate) fn parse(bytes: &[u8]) -> Before {
        let text = String::from_utf8_lossy(bytes);
        let mut before = Before::default();
        for word in text.split(' ') {
            match word {
                "4" => before.no_forward_4 = true,
                "6" => before.no_forward_6 = true,
                word => before.advised.extend(word.strip_prefix("a:").map(str::to_owned)),
            }
        }
        before
    }

    pub(crate) fn text(&self) -> String {
        let mut words = vec!["v1".to_owned()];
        words.extend(self.no_forward_4.then(|| "4".into()));
        words.extend(self.no_forward_6.then(|| "6".into()));
        let mut text = words.join(" ");
        for device in &self.advised {
            // What does not fit is not put back: more than a dozen uplinks that all listen to routers.
            if text.len() + 3 + device.len() <= USERDATA_BYTES {
                text += &format!(" a:{device}");
            }
        }
        text
    }

    /// What has to be remembered when forwarding is turned on now.
    fn with_forwarding(&self, has_ipv6: bool) -> Before {
        let mut after = self.clone();
        after.no_forward_4 |= read(FORWARD_4).as_deref() == Some("0");
        if has_ipv6 && read(FORWARD_6).as_deref() == Some("0") {
            after.no_forward_6 = true;
            after.advised = listening();
        }
        after
    }

    fn allow(&self, has_ipv6: bool) -> Result<(), Error> {
        set(FORWARD_4, "1")?;
        if has_ipv6 && read(FORWARD_6).as_deref() != Some("1") {
            for device in &self.advised {
                set(&accepts(device), "2")?;
            }
            set(FORWARD_6, "1")?;
        }
        Ok(())
    }

    /// Puts everything back; what cannot be (a device that is gone) has no meaning any more.
    fn restore(&self) {
        if self.no_forward_4 {
            let _ = fs::write(FORWARD_4, "0");
        }
        if self.no_forward_6 {
            let _ = fs::write(FORWARD_6, "0");
        }
        for device in &self.advised {
            let _ = fs::write(accepts(device), "1");
        }
    }
}

fn accepts(device: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/accept_ra")
}

fn listening() -> Vec<String> {
    let devices = fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    let names = devices.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| !matches!(name.as_str(), "all" | "default" | "lo") && !name.starts_with("ctk"))
        .filter(|name| read(&accepts(name)).as_deref() == Some("1"))
        .collect();
    names.sort();
    names
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Writes a setting of the kernel, unless it is so.
pub(crate) fn set(path: &str, value: &str) -> Result<(), Error> {
    if read(path).as_deref() == Some(value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound if path.contains("/ipv6/") => {
            Error::Unsupported { what: "an IPv6 network".into(), needs: "needs a kernel with IPv6".into() }
        }
        _ => Error::State { attempt: "write", path: path.into(), source },
    })
}

/// The network namespace of the calling thread.
pub(crate) fn namespace() -> Result<(u64, u64), Error> {
    use std::os::unix::fs::MetadataExt;
    let path = Path::new("/proc/thread-self/ns/net");
    let stat = fs::metadata(path).map_err(|source| Error::State { attempt: "read", path: path.into(), source })?;
    Ok((stat.dev(), stat.ino()))
}

/// What tells an open namespace from others.
pub(crate) fn identity(namespace: BorrowedFd<'_>) -> Result<(u64, u64), Error> {
    let stat = rustix::fs::fstat(namespace);
    let stat = stat.map_err(|error| kernel("look at the container's network namespace")(error.into()))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Which boot of the machine this is.
pub(crate) fn boot() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text =
        fs::read_to_string(path).map_err(|source| Error::State { attempt: "read", path: path.into(), source })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_is_found_again() {
        let before = Before { no_forward_4: true, no_forward_6: true, advised: vec!["eth0".into(), "wlan0".into()] };
        assert_eq!(before.text(), "v1 4 6 a:eth0 a:wlan0");
        assert_eq!(Before::parse(before.text().as_bytes()), before);
        assert_eq!(Before::parse(b""), Before::default());
    }
}
