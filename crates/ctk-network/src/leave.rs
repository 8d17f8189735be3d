//! Containers leave.
//!
//! To let go is quick: the record moves from `members/` to `leaving/`, published ports lead nowhere, the address is
//! free. To remove the devices is not: the kernel waits until all processors have passed a quiescent state, 20 to 40 ms
//! for a pair, 20 to 50 more for a bridge and its table. So that is done afterwards, without the network's lock, and
//! the bridge stays for [`BRIDGE_STAYS`]: who comes meanwhile goes on with it. Whoever does it holds the record's file;
//! what is left of one who was killed, the next who comes to the network removes.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::thread;

use ctk_netlink::{Device, Netlink, index_of};

use crate::attach::kernel;
use crate::limits::{BRIDGE_STAYS, PAIR_GOES};
use crate::member::{Folder, Here, Record, Standing};
use crate::networks::{is_name, remove_device};
use crate::publish::is_taken;
use crate::{Error, Network, Networks, PublishedPort, conntrack, files, host, rules};

/// What a container that left still has on the host: devices, and perhaps a bridge that nobody else is on. Dropped, it
/// is left to the next who comes to the network.
#[derive(Debug, Default)]
pub struct Leaving(Vec<Left>);

/// The same of one network.
#[derive(Debug)]
struct Left {
    networks: Networks,
    network: String,
    /// Its file in `leaving/`, and its lock.
    path: PathBuf,
    _held: files::Lock,
    /// The host's end of the pair.
    index: Option<u32>,
    was_last: bool,
}

/// What becomes of a bridge without members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lonely {
    /// Somebody is about to come, or somebody else sees to it.
    Stays,
    /// It goes, if we know it to be ours.
    Goes,
    /// It goes: one who was on it left it.
    IsLeft,
    /// The same, unless others who left it are about to say so, later.
    IsLeftLast,
}

impl Networks {
    /// Takes a container off one network. Ports that it publishes there are no longer.
    pub fn disconnect(&self, id: &str, network: &str) -> Result<(), Error> {
        let network = self.get(network)?;
        if self.leave(id, &network.name)? {
            return Ok(());
        }
        Err(Error::NotJoined { container: id.into(), network: network.name })
    }

    /// Takes a container off all networks, and what the host had for it away. Harmless if it is on none.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        for name in self.names()? {
            self.leave(id, &name)?;
        }
        Ok(())
    }

    /// Lets go of all networks, but only where this very namespace is: a container that was started again under its id
    /// meanwhile stays on its networks. When this returns, address and ports are others' to take.
    pub(crate) fn let_go_namespace(&self, id: &str, namespace: BorrowedFd<'_>) -> Result<Leaving, Error> {
        let identity = host::identity(namespace)?;
        let mut leaving = Leaving::default();
        for record in self.records_of(id)? {
            if record.inside == identity {
                leaving.0.extend(self.let_go(id, &record.interface.network, Some(identity))?.1);
            }
        }
        Ok(leaving)
    }

    /// Whether it was there.
    pub(crate) fn leave(&self, id: &str, name: &str) -> Result<bool, Error> {
        let (was_there, left) = self.let_go(id, name, None)?;
        if let Some(left) = left {
            left.remove()?;
            left.settle(Lonely::IsLeft)?;
        }
        Ok(was_there)
    }

    /// Whether it was there, and what it left on this host.
    fn let_go(&self, id: &str, name: &str, inside: Option<(u64, u64)>) -> Result<(bool, Option<Left>), Error> {
        let folder = self.folder(name);
        if !is_name(id) || !folder.member(id).exists() {
            return Ok((false, None));
        }
        let _lock = self.lock(true)?;
        if !folder.definition().exists() {
            return Ok((false, None));
        }
        let _lock = folder.lock()?;
        let Some(record) = files::load::<Record>(&folder.member(id))? else { return Ok((false, None)) };
        if inside.is_some_and(|inside| inside != record.inside) {
            return Ok((false, None));
        }
        let here = Here::now()?;
        if !record.is_here(&here) {
            files::remove(&folder.member(id))?;
            self.changed()?;
            return Ok((true, None));
        }
        let index = index_of(&record.device).map_err(kernel(format!("look for the device `{}`", record.device)))?;
        let others = folder.records()?.into_iter().filter(|other| other.id != record.id && other.is_here(&here));
        let was_last = others.count() == 0;
        let path = folder.leaving().join(format!("{}.{}", record.device, index.unwrap_or_default()));
        fs::create_dir_all(folder.leaving()).map_err(files::failed("make", &folder.leaving()))?;
        let held = files::lock(folder.member(id), false)?;
        fs::rename(folder.member(id), &path).map_err(files::failed("rename", &folder.member(id)))?;
        let left = Left { networks: self.clone(), network: name.into(), path, _held: held, index, was_last };
        forget_ports(&record)?;
        self.changed()?;
        Ok((true, Some(left)))
    }
}

impl Leaving {
    /// Removes the devices, and a bridge that nobody came back to. It takes a second and more, for which nobody should
    /// wait. The container's processes have ended, or are about to.
    pub fn clean_up(self) {
        if self.0.is_empty() {
            return;
        }
        // With the container's namespace its devices go, and more cheaply, since with those of others.
        thread::sleep(PAIR_GOES);
        // Whatever fails here, the next who comes to the network does.
        let mut last = Vec::new();
        for left in self.0 {
            if left.remove().is_ok() && left.was_last {
                last.push(left);
            } else {
                let _ = left.settle(Lonely::Stays);
            }
        }
        if last.is_empty() {
            return;
        }
        thread::sleep(BRIDGE_STAYS.saturating_sub(PAIR_GOES));
        for left in last {
            let _ = left.settle(Lonely::IsLeftLast);
        }
    }

    /// Removes the devices now, where the container is about to come back.
    pub fn remove_devices(self) {
        for left in self.0 {
            if left.remove().is_ok() {
                let _ = left.settle(Lonely::Stays);
            }
        }
    }
}

impl Left {
    fn remove(&self) -> Result<(), Error> {
        let Some(index) = self.index else { return Ok(()) };
        let removed = Netlink::open().and_then(|mut netlink| netlink.remove(Device::Index(index)));
        removed.map(drop).map_err(kernel(format!("remove device number {index}")))
    }

    /// Its devices are gone: it is forgotten.
    fn settle(self, lonely: Lonely) -> Result<(), Error> {
        let _lock = self.networks.lock(true)?;
        let folder = self.networks.folder(&self.network);
        // Somebody removed the network, and everything with it.
        let Some(network) = files::load::<Network>(&folder.definition())? else { return Ok(()) };
        let _lock = folder.lock()?;
        files::remove(&self.path)?;
        if lonely == Lonely::Stays {
            return Ok(());
        }
        settle(&self.networks, &network, &folder, &Here::now()?, lonely).map(drop)
    }
}

/// Removes what is left of members that are gone, and the bridge if nobody is left and it is not to stay. Those who are
/// there; the caller holds the network's lock.
pub(crate) fn settle(
    networks: &Networks,
    network: &Network,
    folder: &Folder,
    here: &Here,
    lonely: Lonely,
) -> Result<Vec<Record>, Error> {
    let mut there = Vec::new();
    let (mut gone, mut was_used) = (false, matches!(lonely, Lonely::IsLeft | Lonely::IsLeftLast));
    for record in folder.records()? {
        was_used |= record.is_here(here);
        match record.standing(here)? {
            Standing::There => {
                there.push(record);
                continue;
            }
            Standing::Gone => forget_ports(&record)?,
            Standing::Past => {}
        }
        files::remove(&folder.member(&record.id))?;
        gone = true;
    }
    let mut at_work = false;
    for name in files::names(&folder.leaving())? {
        let path = folder.leaving().join(&name);
        match files::try_lock(&path)? {
            Some(_lock) => was_used |= finish(&path, here)?,
            // On another host with this folder, it is at work on that one's bridge.
            None => at_work |= files::load::<Record>(&path)?.is_some_and(|record| record.is_here(here)),
        }
    }
    if gone {
        networks.changed()?;
    }
    let stays = lonely == Lonely::Stays || (lonely == Lonely::IsLeftLast && at_work);
    if !stays && !there.iter().any(|record| record.namespace == here.namespace) {
        take_bridge_down(network, was_used)?;
    }
    Ok(there)
}

/// Removes what one has who left and does not see to it any more, or whose device's name is wanted. Whether it was here.
/// The caller holds the network's lock.
fn finish(path: &Path, here: &Here) -> Result<bool, Error> {
    let record = match files::load::<Record>(path) {
        Ok(Some(record)) => record,
        // Half written, by a machine without power: of an earlier boot.
        Ok(None) | Err(Error::State { .. }) => return files::remove(path).map(|_| false),
        Err(error) => return Err(error),
    };
    if record.boot == here.boot && !record.is_here(here) {
        return Ok(false);
    }
    let is_here = record.is_here(here);
    if is_here {
        forget_ports(&record)?;
        remove_device(&record.device)?;
    }
    files::remove(path)?;
    Ok(is_here)
}

/// Makes a device's name free that one who left may still have. The caller holds the network's lock.
pub(crate) fn finish_device(folder: &Folder, device: &str, here: &Here) -> Result<(), Error> {
    for name in files::names(&folder.leaving())? {
        if name.strip_prefix(device).is_some_and(|rest| rest.starts_with('.')) {
            finish(&folder.leaving().join(name), here)?;
        }
    }
    Ok(())
}

/// Whether a device of the bridge's name is ours, the packet filter knows; or its members, where somebody emptied that.
fn take_bridge_down(network: &Network, was_used: bool) -> Result<(), Error> {
    let is_device = index_of(&network.bridge).map_err(kernel("look for the bridge"))?.is_some();
    let is_ours = host::filter().and_then(|nft| Ok((host::is_ready(&nft, &network.bridge)?, nft)));
    let nft = match is_ours {
        Ok((is_known, nft)) if is_known || was_used => nft,
        // A device of this name that we did not make, or nothing.
        Ok(_) => return Ok(()),
        // Without root there is none of ours; without nf_tables neither.
        Err(_) if !is_device => return Ok(()),
        Err(Error::Unsupported { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    // The device first: as long as it is in the set, it is known to be ours.
    remove_device(&network.bridge)?;
    host::take_down(&nft, network)
}

/// Ports of somebody who leaves lead nowhere; those of others stay.
fn forget_ports(record: &Record) -> Result<(), Error> {
    if record.ports.is_empty() {
        return Ok(());
    }
    let nft = host::filter()?;
    let remove = |ports: &[PublishedPort]| {
        let mut batch = rules::batch();
        // Adding what is there changes nothing, and fails if it is another's: so only ours are removed, there or not.
        for (set, elements) in rules::ports(ports) {
            batch.add(rules::TABLE, set, &elements, false);
            batch.remove(rules::TABLE, set, &elements);
        }
        nft.commit(batch)
    };
    let is_nothing = |error: &io::Error| is_taken(error) || error.kind() == io::ErrorKind::NotFound;
    match remove(&record.ports) {
        Err(error) if is_nothing(&error) => {
            for port in record.ports.chunks(1) {
                remove(port)
                    .or_else(|error| if is_nothing(&error) { Ok(()) } else { Err(error) })
                    .map_err(kernel("take published ports back"))?;
            }
        }
        other => other.map_err(kernel("take published ports back"))?,
    }
    conntrack::forget(&record.ports);
    Ok(())
}
