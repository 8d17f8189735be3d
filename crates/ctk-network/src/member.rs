//! Who is on a network: a file for each, believed as long as the kernel shows its device.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Interface, Member, PublishedPort, files, host};

/// A member as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) interface: Interface,
    #[serde(default)]
    pub(crate) ports: Vec<PublishedPort>,
    /// The host's end of the pair.
    pub(crate) device: String,
    /// The boot it was made in.
    pub(crate) boot: String,
    /// The host's network namespace.
    pub(crate) namespace: (u64, u64),
    /// The container's.
    #[serde(default)]
    pub(crate) inside: (u64, u64),
}

/// Where and when we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) boot: String,
    pub(crate) namespace: (u64, u64),
}

impl Here {
    pub(crate) fn now() -> Result<Here, Error> {
        Ok(Here { boot: host::boot()?, namespace: host::namespace()? })
    }
}

/// What is known about somebody who was a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its device is there, or we cannot know: it is on a host that we do not see.
    There,
    /// Its device is gone, but what the host was told about it may be there.
    Gone,
    /// Nothing of it is left: it is of an earlier boot.
    Past,
}

impl Record {
    /// Whether it is of this boot and of this host's namespace.
    pub(crate) fn is_here(&self, here: &Here) -> bool {
        self.boot == here.boot && self.namespace == here.namespace
    }

    /// Only to be asked by who holds the network's lock: while a member comes, its file is there before its device.
    pub(crate) fn standing(&self, here: &Here) -> Result<Standing, Error> {
        if self.boot != here.boot {
            return Ok(Standing::Past);
        }
        if self.namespace != here.namespace {
            return Ok(Standing::There);
        }
        let failed = |source| Error::Kernel { attempt: format!("look for the device `{}`", self.device), source };
        let index = ctk_netlink::index_of(&self.device).map_err(failed)?;
        Ok(if index.is_some() { Standing::There } else { Standing::Gone })
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.interface.addresses.iter().map(|net| net.addr())
    }

    pub(crate) fn into_member(self) -> Member {
        Member { id: self.id, name: self.name, interface: self.interface, ports: self.ports }
    }
}

/// A network's folder.
#[derive(Clone)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn definition(&self) -> PathBuf {
        self.0.join("network")
    }

    pub(crate) fn members(&self) -> PathBuf {
        self.0.join("members")
    }

    /// Who left, and whose devices may still be there.
    pub(crate) fn leaving(&self) -> PathBuf {
        self.0.join("leaving")
    }

    pub(crate) fn member(&self, id: &str) -> PathBuf {
        self.members().join(id)
    }

    pub(crate) fn lock(&self) -> Result<files::Lock, Error> {
        files::lock(self.0.join("lock"), false)
    }

    /// Everybody who is written down.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for id in files::names(&self.members())? {
            // A record appears as a whole: one that is half written is what a machine without power left.
            match files::load(&self.member(&id)) {
                Ok(record) => records.extend(record),
                Err(Error::State { source, .. }) if is_broken(&source) => {
                    files::remove(&self.member(&id))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// The addresses given last.
    pub(crate) fn last_given(&self) -> Vec<IpAddr> {
        // It only saves others from an address that was just given back: without it they begin at the lowest.
        files::load(&self.0.join("last")).ok().flatten().unwrap_or_default()
    }

    pub(crate) fn give(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        files::save(&self.0.join("last"), &addresses, false)
    }
}

fn is_broken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Addresses that somebody has.
pub(crate) fn used(records: &[Record]) -> HashSet<IpAddr> {
    records.iter().flat_map(Record::addresses).collect()
}
