//! What a container uses, in the form that `runc events` has.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cgroup::Cgroups;

fn number(directory: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    // No limit: the largest number there is.
    if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
}

/// `name value` lines.
fn pairs(directory: &Path, file: &str) -> Map<String, Value> {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), Value::from(value.trim().parse::<u64>().ok()?)))
    };
    text.lines().filter_map(pair).collect()
}

fn of(pairs: &Map<String, Value>, name: &str) -> u64 {
    pairs.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// The `data` of a `stats` event.
pub fn stats(cgroups: &Cgroups) -> Value {
    let mut data = Map::new();
    if let Some(cpu) = cpu(cgroups) {
        data.insert("cpu".into(), cpu);
    }
    if let Some(memory) = memory(cgroups) {
        data.insert("memory".into(), memory);
    }
    let pids = cgroups.legacy("pids").or_else(|| cgroups.unified_with("pids"));
    let pids = match pids.and_then(|directory| Some((directory, number(directory, "pids.current")?))) {
        Some((directory, current)) => {
            let limit = number(directory, "pids.max").filter(|limit| *limit != u64::MAX);
            json!({ "current": current, "limit": limit.unwrap_or(0) })
        }
        // Counted by hand where no controller counts.
        None => json!({ "current": cgroups.pids().len() }),
    };
    data.insert("pids".into(), pids);
    data.insert("blkio".into(), block_io(cgroups));
    Value::Object(data)
}

fn cpu(cgroups: &Cgroups) -> Option<Value> {
    if let Some(directory) = cgroups.legacy("cpuacct") {
        let usage = number(directory, "cpuacct.usage")?;
        let per_cpu: Vec<u64> = fs::read_to_string(directory.join("cpuacct.usage_percpu"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        // In ticks of a hundredth of a second.
        const TICK: u64 = 10_000_000;
        let split = pairs(directory, "cpuacct.stat");
        let throttling = cgroups.legacy("cpu").map(|directory| pairs(directory, "cpu.stat")).unwrap_or_default();
        return Some(json!({
            "usage": { "total": usage, "percpu": per_cpu, "kernel": of(&split, "system") * TICK, "user": of(&split, "user") * TICK },
            "throttling": {
                "periods": of(&throttling, "nr_periods"),
                "throttledPeriods": of(&throttling, "nr_throttled"),
                "throttledTime": of(&throttling, "throttled_time"),
            },
        }));
    }
    let directory = &cgroups.directories.iter().find(|directory| directory.controllers.is_empty())?.path;
    let all = pairs(directory, "cpu.stat");
    Some(json!({
        "usage": {
            "total": of(&all, "usage_usec") * 1000,
            "kernel": of(&all, "system_usec") * 1000,
            "user": of(&all, "user_usec") * 1000,
        },
        "throttling": {
            "periods": of(&all, "nr_periods"),
            "throttledPeriods": of(&all, "nr_throttled"),
            "throttledTime": of(&all, "throttled_usec") * 1000,
        },
    }))
}

fn memory(cgroups: &Cgroups) -> Option<Value> {
    if let Some(directory) = cgroups.legacy("memory") {
        let entry = |prefix: &str| {
            json!({
                "usage": number(directory, &format!("memory.{prefix}usage_in_bytes")).unwrap_or(0),
                "max": number(directory, &format!("memory.{prefix}max_usage_in_bytes")).unwrap_or(0),
                "failcnt": number(directory, &format!("memory.{prefix}failcnt")).unwrap_or(0),
                "limit": number(directory, &format!("memory.{prefix}limit_in_bytes")).unwrap_or(0),
            })
        };
        let raw = pairs(directory, "memory.stat");
        let cache = of(&raw, "cache");
        return Some(json!({ "cache": cache, "usage": entry(""), "swap": entry("memsw."), "raw": raw }));
    }
    let directory = cgroups.unified_with("memory")?;
    let raw = pairs(directory, "memory.stat");
    Some(json!({
        "cache": of(&raw, "file"),
        "usage": {
            "usage": number(directory, "memory.current").unwrap_or(0),
            "max": number(directory, "memory.peak").unwrap_or(0),
            "limit": number(directory, "memory.max").unwrap_or(0),
            "failcnt": of(&pairs(directory, "memory.events"), "max"),
        },
        "swap": {
            "usage": number(directory, "memory.swap.current").unwrap_or(0),
            "limit": number(directory, "memory.swap.max").unwrap_or(0),
        },
        "raw": raw,
    }))
}

fn block_io(cgroups: &Cgroups) -> Value {
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    let mut add = |list: bool, device: &str, op: &str, value: u64| {
        let (major, minor) = device.split_once(':').unwrap_or((device, "0"));
        let (major, minor) = (major.parse::<u64>().unwrap_or(0), minor.parse::<u64>().unwrap_or(0));
        let entry = json!({ "major": major, "minor": minor, "op": op, "value": value });
        if list { operations.push(entry) } else { bytes.push(entry) }
    };
    if let Some(directory) = cgroups.legacy("blkio") {
        for (operations, file) in [(false, "blkio.throttle.io_service_bytes"), (true, "blkio.throttle.io_serviced")] {
            let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let [device, op, value] = words.as_slice()
                    && let Ok(value) = value.parse()
                {
                    add(operations, device, op, value);
                }
            }
        }
    } else if let Some(directory) = cgroups.unified_with("io") {
        let text = fs::read_to_string(directory.join("io.stat")).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(device) = words.next() else { continue };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let Ok(value) = value.parse::<u64>() else { continue };
                match key {
                    "rbytes" => add(false, device, "Read", value),
                    "wbytes" => add(false, device, "Write", value),
                    "rios" => add(true, device, "Read", value),
                    "wios" => add(true, device, "Write", value),
                    _ => {}
                }
            }
        }
    }
    json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations })
}
