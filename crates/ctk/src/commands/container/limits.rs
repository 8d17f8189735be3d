//! Limits: options become `linux.resources`.

use serde_json::{Map, Value, json};

use super::options::LimitOptions;
use super::parse;
use crate::failure::Failure;

/// `linux.resources`, but for devices.
pub fn resources(options: &LimitOptions) -> Result<Map<String, Value>, Failure> {
    let mut all = Map::new();
    let mut put = |group: &str, name: &str, value: Value| {
        let entry = all.entry(group).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(name.into(), value);
        }
    };
    let memory = options.memory.filter(|bytes| *bytes > 0);
    if let Some(bytes) = memory {
        put("memory", "limit", json!(bytes));
    }
    match (memory, options.memory_swap) {
        (None, Some(swap)) if swap > 0 => {
            let hint = Some("give --memory, too");
            return Err(Failure::sentence("--memory-swap is of memory and swap together, and needs --memory", hint));
        }
        (Some(memory), Some(swap)) if swap > 0 && (swap as u64) < memory => {
            let what = "--memory-swap is of memory and swap together, and cannot be less than --memory";
            return Err(Failure::sentence(what, None));
        }
        (_, Some(0)) | (None, None) => {}
        (_, Some(swap)) => put("memory", "swap", json!(swap)),
        // As docker has it: as much swap as memory.
        (Some(memory), None) => put("memory", "swap", json!(memory.saturating_mul(2).min(i64::MAX as u64))),
    }
    if let Some(bytes) = options.memory_reservation.filter(|bytes| *bytes > 0) {
        if memory.is_some_and(|memory| memory < bytes) {
            return Err(Failure::sentence("--memory-reservation cannot be more than --memory", None));
        }
        put("memory", "reservation", json!(bytes));
    }
    if let Some(swappiness) = options.memory_swappiness {
        put("memory", "swappiness", json!(swappiness));
    }
    if let Some(millis) = options.cpus.filter(|millis| *millis > 0) {
        if options.cpu_period.is_some() || options.cpu_quota.is_some() {
            return Err(Failure::sentence(
                "--cpus says what --cpu-period and --cpu-quota say",
                Some("give one of them"),
            ));
        }
        put("cpu", "period", json!(100_000));
        put("cpu", "quota", json!(millis * 100));
    }
    for (name, value) in [("shares", options.cpu_shares), ("period", options.cpu_period)] {
        if let Some(value) = value.filter(|value| *value > 0) {
            put("cpu", name, json!(value));
        }
    }
    if let Some(quota) = options.cpu_quota.filter(|quota| *quota != 0) {
        put("cpu", "quota", json!(quota));
    }
    for (name, value) in [("cpus", &options.cpuset_cpus), ("mems", &options.cpuset_mems)] {
        if let Some(value) = value {
            put("cpu", name, json!(value));
        }
    }
    if let Some(pids) = options.pids_limit.filter(|pids| *pids > 0) {
        put("pids", "limit", json!(pids));
    }
    if let Some(weight) = options.blkio_weight.filter(|weight| *weight > 0) {
        if weight < 10 {
            return Err(Failure::sentence("--blkio-weight is 10 to 1000", None));
        }
        put("blockIO", "weight", json!(weight));
    }
    let weight = |text: &str| text.parse::<u64>().ok().filter(|n| (10..=1000).contains(n));
    let count = |text: &str| text.parse::<u64>().ok();
    let size = |text: &str| parse::bytes(text).ok();
    type Read<'a> = &'a dyn Fn(&str) -> Option<u64>;
    let lists: [(&str, &str, &str, &[String], Read<'_>); 5] = [
        ("--blkio-weight-device", "weightDevice", "weight", &options.blkio_weight_device, &weight),
        ("--device-read-bps", "throttleReadBpsDevice", "rate", &options.device_read_bps, &size),
        ("--device-write-bps", "throttleWriteBpsDevice", "rate", &options.device_write_bps, &size),
        ("--device-read-iops", "throttleReadIOPSDevice", "rate", &options.device_read_iops, &count),
        ("--device-write-iops", "throttleWriteIOPSDevice", "rate", &options.device_write_iops, &count),
    ];
    for (option, field, word, given, read) in lists {
        if given.is_empty() {
            continue;
        }
        let devices = given.iter().map(|text| device(option, text, word, read)).collect::<Result<Vec<_>, _>>()?;
        put("blockIO", field, Value::Array(devices));
    }
    Ok(all)
}

/// `/dev/sda:1MiB`.
fn device(option: &str, text: &str, word: &str, read: &dyn Fn(&str) -> Option<u64>) -> Result<Value, Failure> {
    let wrong = |why: String| Failure::sentence(format!("{option} `{text}`: {why}"), None);
    let (path, value) = text.rsplit_once(':').ok_or_else(|| wrong("expected DEVICE:VALUE".into()))?;
    let expected = if word == "weight" {
        "a weight from 10 to 1000"
    } else {
        "a rate: bytes as `1MiB`, or a number of operations"
    };
    let value = read(value).ok_or_else(|| wrong(format!("`{value}` is not {expected}")))?;
    let stat = rustix::fs::stat(path).map_err(|e| wrong(format!("cannot look at {path}: {e}")))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::BlockDevice {
        return Err(wrong(format!("{path} is no block device")));
    }
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(json!({ "major": major, "minor": minor, word: value }))
}

/// Where its cgroups are: directly below the root, so that nothing is left when they go.
pub fn cgroups_path(options: &LimitOptions, id: &str) -> String {
    let name = format!("ctk-{}", id.get(..12).unwrap_or(id));
    match &options.cgroup_parent {
        Some(parent) => format!("/{}/{name}", parent.trim_matches('/')),
        None => format!("/{name}"),
    }
}

/// `--storage-opt size=SIZE`: bytes that the container's own layer may have.
pub fn storage(given: &[String]) -> Result<Option<u64>, Failure> {
    let mut size = None;
    for text in given {
        let wrong = |why: String| {
            let hint = Some("there is `size=SIZE`, e.g. `size=10GiB`");
            Failure::sentence(format!("--storage-opt `{text}`: {why}"), hint)
        };
        match text.split_once('=') {
            Some(("size", value)) => match parse::bytes(value).map_err(&wrong)? {
                0 => return Err(wrong("nothing fits into it".into())),
                bytes => size = Some(bytes),
            },
            _ => return Err(wrong("there is no such option".into())),
        }
    }
    Ok(size)
}

/// What xfs says of itself (`XFS_SUPER_MAGIC`). Quotas of ext4 do not bind who has CAP_SYS_RESOURCE, and what a container
/// writes into its layer is written in the name of who mounted that.
const XFS: u64 = 0x5846_5342;

/// Has a directory, and all that will be made in it, take at most so many bytes.
pub fn limit_directory(path: &std::path::Path, id: &str, bytes: u64) -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let failed =
        |error: std::io::Error| Failure::during(format!("--storage-opt: cannot limit {}", path.display()))(error);
    std::fs::create_dir_all(path).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let xfs = rustix::fs::fstatfs(&directory).is_ok_and(|found| found.f_type as u64 == XFS);
    // The upper half of the numbers is ours: those that people give to projects are small.
    let number = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(1);
    let project = number >> 1 | 1 << 31;
    let limited = match xfs {
        true => ctk_sys::limit_directory(std::os::fd::AsFd::as_fd(&directory), project, bytes),
        false => Err(Errno::OPNOTSUPP),
    };
    match limited {
        Ok(()) => Ok(()),
        Err(Errno::SRCH | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
            let what = "--storage-opt size: the store's file system cannot limit a container's layer";
            let hint = "it has to be xfs, mounted with `prjquota`; `--root DIR` puts the store elsewhere";
            Err(Failure::sentence(what, Some(hint)))
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_options_are_checked() {
        assert!(storage(&["size=10MiB".into()]).is_ok_and(|size| size == Some(10 << 20)));
        for (text, expected) in [
            ("size", "no such option"),
            ("sise=5", "no such option"),
            ("size=many", "expected a size"),
            ("size=0", "nothing fits"),
        ] {
            let said = storage(&[text.into()]).expect_err(text).text();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
