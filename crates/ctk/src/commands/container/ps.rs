//! `ctk ps`: which containers there are.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use ctk_monitor::state::{State, Status};
use ctk_monitor::{Config, time};
use serde_json::{Value, json};

use super::Desk;
use super::stats;
use super::table::Table;
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// List containers
#[derive(Args)]
pub struct Ps {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Their ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or a template as `{{.Names}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only those: `name=`, `id=`, `status=`, `label=`, `ancestor=`, `health=`, `exited=`, `network=`, `volume=`,
    /// `before=`, `since=`, `until=`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// The newest only, whatever it does
    #[arg(short, long)]
    latest: bool,
    /// So many of the newest, whatever they do
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// How much each has written, and with its image; takes a look at every file
    #[arg(short, long)]
    size: bool,
    /// In this order: `command`, `created`, `id`, `image`, `names`, `runningfor`, `size`, `status` [default: the newest first]
    #[arg(long, value_name = "FIELD", value_enum, hide_possible_values = true)]
    sort: Option<Order>,
    /// No line with the names of columns
    #[arg(long)]
    noheading: bool,
}

/// What `--sort` goes by.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    Command,
    Created,
    Id,
    Image,
    Names,
    Runningfor,
    Size,
    Status,
}

impl Order {
    fn field(self) -> &'static str {
        match self {
            Order::Command => "Command",
            Order::Created => "Created",
            Order::Id => "ID",
            Order::Image => "Image",
            Order::Names => "Names",
            Order::Runningfor => "StartedAt",
            Order::Size => "SizeRw",
            Order::Status => "State",
        }
    }
}

impl Ps {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let filters = filters(&self.filter)?;
        let last = if self.latest { Some(1) } else { self.last };
        let asks_status = filters.iter().any(|filter| filter.key == "status");
        let everything = self.all || last.is_some() || asks_status;
        let all = desk.all()?;
        let created = |name: &str| {
            let found = all.iter().find(|(one, config, _)| config.name == name || one.id().starts_with(name));
            found.map(|(_, config, _)| config.created)
        };
        let asks_size = self.format.as_ref().is_some_and(|format| format.contains(".Size"));
        let has_size = self.size || asks_size || self.sort == Some(Order::Size);
        let mut rows = Vec::new();
        for (_, config, state) in &all {
            let listed = everything || state.status.is_alive();
            let in_time = filters.iter().all(|filter| match filter.key.as_str() {
                "before" => created(&filter.value).is_some_and(|time| config.created < time),
                "since" => created(&filter.value).is_some_and(|time| config.created > time),
                _ => true,
            });
            let taken = filters.iter().all(|filter| filter.takes(config, state));
            if listed && in_time && taken && last.is_none_or(|last| rows.len() < last) {
                let mut row = row(config, state, self.no_trunc);
                if has_size {
                    let (written, all) = sizes(config);
                    row["Size"] = format!("{} (virtual {})", stats::size(written), stats::size(all)).into();
                    row["SizeRw"] = written.into();
                    row["SizeRootFs"] = all.into();
                }
                rows.push(row);
            }
        }
        if let Some(order) = self.sort {
            let of = |row: &Value| match row.get(order.field()) {
                Some(Value::String(text)) => (0, text.clone()),
                other => (other.and_then(Value::as_u64).unwrap_or_default(), String::new()),
            };
            rows.sort_by_key(of);
        }
        if self.quiet {
            let id = |row: &Value| row.get("ID").and_then(Value::as_str).unwrap_or_default().to_owned();
            return output(&rows.iter().map(|row| id(row) + "\n").collect::<String>());
        }
        let mut columns = vec![
            ("CONTAINER ID", "ID"),
            ("IMAGE", "Image"),
            ("COMMAND", "Command"),
            ("CREATED", "CreatedAt"),
            ("STATUS", "Status"),
            ("PORTS", "Ports"),
            ("NAMES", "Names"),
        ];
        columns.extend(self.size.then_some(("SIZE", "Size")));
        output(&Table { columns: &columns, rows }.text(self.format.as_deref(), self.noheading)?)
    }
}

/// Bytes that a container has written, and those with its image's: of layers that are trees. What goes away meanwhile
/// does not count, nor what we may not read.
fn sizes(config: &Config) -> (u64, u64) {
    let folders = |begin: &str| -> u64 {
        let values = config.root.options.iter().filter_map(|option| option.strip_prefix(begin));
        values.flat_map(|value| value.split(':')).map(|folder| tree(Path::new(folder))).sum()
    };
    let written = folders("upperdir=");
    (written, written + folders("lowerdir=") + folders("lowerdir+="))
}

fn tree(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let one = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => tree(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.filter_map(Result::ok).map(one).sum()
}

/// A container as a row.
pub fn row(config: &Config, state: &State, whole: bool) -> Value {
    let id = if whole { config.id.as_str() } else { config.short_id() };
    let mut command = config.command.join(" ");
    if !whole && command.chars().count() > 30 {
        command = command.chars().take(29).collect::<String>() + "…";
    }
    let labels: Vec<String> = config.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "ID": id,
        "Image": config.image,
        "ImageID": config.image_digests.as_ref().map(|(_, config)| config.clone()).unwrap_or_default(),
        "Command": command,
        "CreatedAt": format!("{} ago", ago(config.created)),
        "Created": time::text(config.created),
        "Status": status(state),
        "State": state.status.word(),
        "Health": state.health.as_ref().map_or("", |health| health.status.word()),
        "ExitCode": state.exit_code,
        "Pid": state.pid,
        "Restarts": state.restarts,
        "Ports": ports(state),
        "Networks": networks(state).join(","),
        "Names": config.name,
        "Labels": labels.join(","),
        "Mounts": mounts(config).join(","),
        "StartedAt": if state.started > 0 { time::text(state.started) } else { String::new() },
        "ExitedAt": if state.finished > 0 { time::text(state.finished) } else { String::new() },
    })
}

/// `Up 3 minutes (healthy)`, `Exited (0) 5 seconds ago`.
fn status(state: &State) -> String {
    let health = state.health.as_ref().map(|health| format!(" ({})", health.status.word())).unwrap_or_default();
    match state.status {
        Status::Created => "Created".into(),
        Status::Starting => "Starting".into(),
        Status::Running | Status::Stopping => format!("Up {}{health}", ago(state.started)),
        Status::Paused => format!("Up {} (Paused)", ago(state.started)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, ago(state.finished)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(state.finished)),
    }
}

/// How long ago, in one unit.
fn ago(nanos: u64) -> String {
    let seconds = time::now().saturating_sub(nanos) / 1_000_000_000;
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Published ports, as docker shows them.
pub fn ports(state: &State) -> String {
    let list = state.network.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let one = |port: &Value| {
        let text = |name: &str| match port.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let host = text("host_ip");
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("{host}:{}->{}/{}", text("host_port"), text("container_port"), text("protocol"))
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn networks(state: &State) -> Vec<String> {
    let list = state.network.get("interfaces").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|one| Some(one.get("network")?.as_str()?.to_owned())).collect()
}

fn mounts(config: &Config) -> Vec<String> {
    let list = config.asked.get("mounts").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|one| Some(one.get("Destination")?.as_str()?.to_owned())).collect()
}

/// One `--filter`.
pub struct Filter {
    key: String,
    value: String,
    negated: bool,
    until: u64,
}

/// Reads `--filter`.
pub fn filters(given: &[String]) -> Result<Vec<Filter>, Failure> {
    const KEYS: [&str; 13] = [
        "name",
        "id",
        "status",
        "label",
        "ancestor",
        "health",
        "exited",
        "network",
        "volume",
        "before",
        "since",
        "until",
        "restart-policy",
    ];
    let one = |text: &String| {
        let wrong = |hint: &str| Failure::sentence(format!("--filter `{text}` cannot be understood"), Some(hint));
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is KEY=VALUE"))?;
        let (key, negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
        if !KEYS.contains(&key) {
            let near = ctk_syntax::nearest(key, KEYS).map(|near| format!("did you mean `{near}`?"));
            return Err(wrong(&near.unwrap_or_else(|| format!("keys are {}", KEYS.join(", ")))));
        }
        let until = match key {
            "until" => {
                let age: Duration = super::parse::duration(value).map_err(|e| wrong(&e))?;
                time::now().saturating_sub(age.as_nanos() as u64)
            }
            _ => 0,
        };
        Ok(Filter { key: key.into(), value: value.into(), negated, until })
    };
    given.iter().map(one).collect()
}

impl Filter {
    /// Whether a container is meant. `before` and `since` look at others, too, and are decided elsewhere.
    pub fn takes(&self, config: &Config, state: &State) -> bool {
        let value = self.value.as_str();
        let found = match self.key.as_str() {
            "name" => config.name.contains(value),
            "id" => config.id.starts_with(value),
            "status" => state.status.word() == value,
            "label" => match value.split_once('=') {
                Some((name, value)) => config.labels.get(name).is_some_and(|found| found == value),
                None => config.labels.contains_key(value),
            },
            "ancestor" => {
                let digest = |(manifest, id): &(String, String)| manifest.contains(value) || id.contains(value);
                config.image == value
                    || config
                        .image
                        .rsplit('/')
                        .next()
                        .is_some_and(|last| last == value || last.split(':').next() == Some(value))
                    || config.image_digests.as_ref().is_some_and(digest)
            }
            "health" => state.health.as_ref().map_or("none", |health| health.status.word()) == value,
            "exited" => state.status == Status::Exited && state.exit_code.to_string() == value,
            "network" => networks(state).iter().any(|network| network == value),
            "volume" => config.volumes.iter().any(|name| name == value) || mounts(config).iter().any(|at| at == value),
            "restart-policy" => config.restart.policy.word() == value,
            "until" => config.created <= self.until,
            _ => true,
        };
        found != self.negated
    }
}
