//! Devices of a container: by their paths, by CDI, by rules.

use std::path::Path;

use ctk_container::{Device, Wanted};

use super::options::FileOptions;
use crate::failure::Failure;

/// Devices that were asked for by name; with `privileged`, all that the host has.
pub fn choose(options: &FileOptions, privileged: bool, wanted: &mut Wanted) -> Result<(), Failure> {
    for text in &options.device {
        if text.contains('=') && !text.starts_with('/') {
            return Err(Failure::sentence(format!("--device `{text}`: CDI is not there yet"), None));
        }
        wanted.devices.extend(device(text)?);
    }
    if privileged {
        let mut all = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), &mut |path, target| all.extend(node(path, target, "rwm")), 0);
        all.retain(|device: &Device| !wanted.devices.iter().any(|given| given.path == device.path));
        wanted.devices.extend(all);
    }
    Ok(())
}

/// `HOST[:PATH][:rwm]`; a folder means the devices in it.
fn device(text: &str) -> Result<Vec<Device>, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let access = |word: &str| !word.is_empty() && word.chars().all(|c| "rwm".contains(c));
    let (host, path, rights) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, rights] if access(rights) => (*host, *host, *rights),
        [host, path] => (*host, *path, "rwm"),
        [host, path, rights] if access(rights) => (*host, *path, *rights),
        _ => {
            let what = format!("--device `{text}` cannot be understood; expected HOST[:PATH][:rwm]");
            return Err(Failure::sentence(what, None));
        }
    };
    let mut found = Vec::new();
    if Path::new(host).is_dir() {
        walk(Path::new(host), Path::new(path), &mut |from, to| found.extend(node(from, to, rights)), 0);
    } else {
        found.extend(node(Path::new(host), Path::new(path), rights));
    }
    if found.is_empty() {
        return Err(Failure::sentence(format!("--device `{text}`: {host} is no device"), None));
    }
    Ok(found)
}

fn node(from: &Path, to: &Path, access: &str) -> Option<Device> {
    use rustix::fs::FileType;
    let stat = rustix::fs::stat(from).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return None,
    };
    Some(Device {
        path: to.to_str()?.into(),
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        access: access.into(),
        mode: stat.st_mode & 0o777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}

/// What is below a folder of devices, but for what every container has of its own.
fn walk(from: &Path, to: &Path, found: &mut dyn FnMut(&Path, &Path), depth: usize) {
    const DEPTH: usize = 8;
    const OWN: [&str; 8] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "tty"];
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if depth == 0 && OWN.iter().any(|own| name == *own) || depth > DEPTH {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &to.join(&name), found, depth + 1),
            Ok(kind) if kind.is_symlink() => {}
            _ => found(&entry.path(), &to.join(&name)),
        }
    }
}
