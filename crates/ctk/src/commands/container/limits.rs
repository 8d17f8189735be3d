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
    let value = read(value).ok_or_else(|| wrong(format!("`{value}` is no value for it")))?;
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
