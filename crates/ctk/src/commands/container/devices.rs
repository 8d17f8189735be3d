//! Devices of a container: by their paths, by CDI, by rules.

use std::path::{Path, PathBuf};

use ctk_container::cdi::{Cdi, CdiError};
use ctk_container::{Device, Wanted};

use super::options::FileOptions;
use crate::failure::Failure;

/// Devices that were asked for: by path, by the name of CDI; with `privileged`, all that the host has.
pub fn choose(options: &FileOptions, privileged: bool, wanted: &mut Wanted) -> Result<(), Failure> {
    let mut named = Vec::new();
    for text in &options.device {
        match text.starts_with('/') || !text.contains('=') {
            true => wanted.devices.extend(device(text)?),
            false => named.push(text.clone()),
        }
    }
    for text in &options.gpus {
        named.extend(gpus(text)?);
    }
    if !named.is_empty() {
        let usual = ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from);
        let folders = if options.cdi_spec_dir.is_empty() { usual.to_vec() } else { options.cdi_spec_dir.clone() };
        Cdi::read(&folders).apply(&named, wanted).map_err(|error| {
            let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            let hint = match &error {
                CdiError::Missing { known, .. } => format!("{known}; specifications are below {}", places.join(", ")),
                CdiError::Twice { .. } => "one of the two has to go".into(),
                CdiError::Edit { .. } => "its vendor's tool writes the specification anew".into(),
            };
            Failure::sentence(format!("--device: {error}"), Some(&hint))
        })?;
    }
    for text in &options.device_cgroup_rule {
        check_rule(text)?;
    }
    if privileged {
        let mut all = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), &mut |path, target| all.extend(node(path, target, "rwm")), 0);
        all.retain(|device: &Device| !wanted.devices.iter().any(|given| given.path == device.path));
        wanted.devices.extend(all);
    }
    Ok(())
}

/// `all`, a number of them, or `device=0,1`: names of CDI.
fn gpus(text: &str) -> Result<Vec<String>, Failure> {
    let name = |one: &str| format!("nvidia.com/gpu={one}");
    let inner = text.trim_matches('"');
    match inner.strip_prefix("device=") {
        Some(list) if !list.is_empty() && list.split(',').all(|one| !one.is_empty()) => {
            Ok(list.split(',').map(name).collect())
        }
        None if inner == "all" || inner == "-1" => Ok(vec![name("all")]),
        None if inner.parse::<u8>().is_ok_and(|count| count > 0) => {
            Ok((0..inner.parse::<u8>().unwrap_or_default()).map(|index| name(&index.to_string())).collect())
        }
        _ => {
            let what = format!("--gpus `{text}` cannot be understood");
            Err(Failure::sentence(what, Some("it is `all`, how many, or `device=0,1`")))
        }
    }
}

/// `c 1:3 rwm`.
fn check_rule(text: &str) -> Result<(), Failure> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
    let good = match words.as_slice() {
        [kind, numbers, access] => {
            let numbered = numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
            matches!(*kind, "a" | "b" | "c") && numbered && access.chars().all(|c| "rwm".contains(c))
        }
        _ => false,
    };
    match good {
        true => Ok(()),
        false => {
            let hint = "it is `TYPE MAJOR:MINOR ACCESS` with a, b or c, numbers or `*`, and of r, w, m: `c 10:200 rwm`";
            Err(Failure::sentence(format!("--device-cgroup-rule `{text}` cannot be understood"), Some(hint)))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_counts_are_checked() {
        for good in ["c 1:3 rwm", "b *:* r", "a *:* rwm"] {
            assert!(check_rule(good).is_ok(), "{good}");
        }
        for bad in ["", "c 1:3", "d 1:3 r", "c 1 r", "c x:3 r", "c 1:3 rx"] {
            assert!(check_rule(bad).expect_err(bad).text().contains("`c 10:200 rwm`"), "{bad}");
        }
        assert!(gpus("2").is_ok_and(|names| names == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]));
        assert!(gpus("\"device=0,GPU-1\"").is_ok_and(|names| names == ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1"]));
        for bad in ["", "some", "0", "device="] {
            assert!(gpus(bad).is_err(), "{bad}");
        }
        let said = device("/etc/hostname").expect_err("no device").text();
        assert!(said.contains("is no device"), "{said}");
    }
}
