//! `ctk stats`: what containers use.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use ctk_monitor::{Config, Container, usage};
use serde_json::{Value, json};

use super::Desk;
use super::table::Table;
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Show what containers use, again and again
#[derive(Args)]
pub struct Stats {
    /// Once, and no more
    #[arg(long)]
    no_stream: bool,
    /// How long between two looks
    #[arg(short, long, value_name = "DURATION", default_value = "2s", value_parser = super::parse::duration)]
    interval: Duration,
    /// `json`, or a template as `{{.Name}} {{.CPUPerc}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Which: names or ids [default: all that run]
    containers: Vec<String>,
}

/// What was seen of a container.
#[derive(Clone, Copy)]
struct Seen {
    cpu_nanos: u64,
    at: Instant,
}

impl Stats {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        use std::io::IsTerminal;
        let desk = Desk::open(context);
        // Whoever is asked for by name has to be there.
        for name in &self.containers {
            desk.find(name)?;
        }
        let mut before: HashMap<String, Seen> = HashMap::new();
        // The first share of processor time is that of a short while.
        self.look(&desk, &mut before)?;
        std::thread::sleep(Duration::from_millis(200).min(self.interval));
        loop {
            let rows = self.look(&desk, &mut before)?;
            let columns = [
                ("ID", "ID"),
                ("NAME", "Name"),
                ("CPU %", "CPUPerc"),
                ("MEM USAGE / LIMIT", "MemUsage"),
                ("MEM %", "MemPerc"),
                ("NET IO", "NetIO"),
                ("BLOCK IO", "BlockIO"),
                ("PIDS", "PIDs"),
            ];
            let text = Table { columns: &columns, rows }.text(self.format.as_deref(), false)?;
            let live = !self.no_stream && self.format.is_none() && std::io::stdout().is_terminal();
            output(&if live { format!("\x1b[H\x1b[2J{text}") } else { text })?;
            if self.no_stream {
                return Ok(());
            }
            std::thread::sleep(self.interval);
        }
    }

    fn look(&self, desk: &Desk, before: &mut HashMap<String, Seen>) -> Result<Vec<Value>, Failure> {
        let mut rows = Vec::new();
        for (container, config, state) in desk.all()? {
            let named = |name: &String| config.name == *name || config.id.starts_with(name);
            let wanted = self.containers.is_empty() || self.containers.iter().any(named);
            if wanted && (self.all || state.pid != 0 || !self.containers.is_empty()) {
                rows.push(self.row(&container, &config, state.pid, before));
            }
        }
        Ok(rows)
    }

    fn row(&self, container: &Container, config: &Config, pid: i32, before: &mut HashMap<String, Seen>) -> Value {
        let data = usage(container).unwrap_or_default();
        let number = |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let now = Seen { cpu_nanos: number("/cpu/usage/total"), at: Instant::now() };
        let share = before.insert(config.id.clone(), now).map_or(0.0, |seen| {
            let passed = now.at.duration_since(seen.at).as_nanos().max(1) as f64;
            now.cpu_nanos.saturating_sub(seen.cpu_nanos) as f64 / passed * 100.0
        });
        // What the kernel can take back at once is not counted, as docker does.
        let inactive = number("/memory/raw/inactive_file").max(number("/memory/raw/total_inactive_file"));
        let used = number("/memory/usage/usage").saturating_sub(inactive);
        let limit = match number("/memory/usage/limit") {
            0 | 0x7fff_ffff_ffff_f000.. => machine_memory(),
            limit => limit,
        };
        let (received, sent) = network(pid);
        let (read, written) = blocks(&data);
        let percent = if limit > 0 { used as f64 / limit as f64 * 100.0 } else { 0.0 };
        json!({
            "ID": if self.no_trunc { config.id.as_str() } else { config.short_id() },
            "Name": config.name,
            "CPUPerc": format!("{share:.2}%"),
            "MemUsage": format!("{} / {}", size(used), size(limit)),
            "MemUsageBytes": used,
            "MemPerc": format!("{percent:.2}%"),
            "NetIO": format!("{} / {}", size(received), size(sent)),
            "BlockIO": format!("{} / {}", size(read), size(written)),
            "PIDs": number("/pids/current"),
        })
    }
}

fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes received and sent by all interfaces but the loopback.
fn network(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut all = (0, 0);
    for line in text.lines().filter_map(|line| line.split_once(':')) {
        let (name, counts) = (line.0.trim(), line.1);
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let (true, Some(received), Some(sent)) = (name != "lo", counts.first(), counts.get(8)) {
            all = (all.0 + received, all.1 + sent);
        }
    }
    all
}

fn blocks(data: &Value) -> (u64, u64) {
    let mut all = (0, 0);
    let list = data.pointer("/blkio/ioServiceBytesRecursive").and_then(Value::as_array);
    for entry in list.into_iter().flatten() {
        let value = entry.get("value").and_then(Value::as_u64).unwrap_or(0);
        match entry.get("op").and_then(Value::as_str).map(str::to_ascii_lowercase).as_deref() {
            Some("read") => all.0 += value,
            Some("write") => all.1 += value,
            _ => {}
        }
    }
    all
}

/// Bytes for people, in powers of 1024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let word = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 { format!("{bytes}{word}") } else { format!("{value:.1}{word}") }
}
