//! The systemd driver: a container lives in a scope, a unit of systemd's whose cgroup is made by systemd and delegated to
//! us. Where `linux.cgroupsPath` is `slice:prefix:name`, the scope is `prefix-name.scope` in `slice`.
//!
//! A scope is started with a process in it, and lives as long as one is: [`Holder`] is that process until the container's
//! own is there. Limits become properties of the scope, so that systemd does not set them back, and are written to the
//! files of its cgroup as well, since not all of them have a property.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ctk_runtime::Hierarchy;
use ctk_sys::{Start, Step};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bus::{Connection, Failure, Target, Value};
use crate::cgroup::Cgroups;
use crate::resources::{self, Rule};
use crate::spec::{Resources, Spec};
use crate::state::Kept;

/// Which systemd is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The machine's.
    System,
    /// An ordinary user's own.
    User {
        /// `XDG_RUNTIME_DIR`.
        runtime: Option<PathBuf>,
        /// `DBUS_SESSION_BUS_ADDRESS`.
        bus: Option<String>,
    },
}

impl Manager {
    /// Sockets to try in this order, and whether systemd is alone there. Its own comes first: it needs no bus.
    fn sockets(&self) -> Vec<(PathBuf, bool)> {
        match self {
            Manager::System => {
                vec![("/run/systemd/private".into(), true), ("/run/dbus/system_bus_socket".into(), false)]
            }
            Manager::User { runtime, bus } => {
                let mut all = Vec::new();
                if let Some(runtime) = runtime {
                    all.push((runtime.join("systemd/private"), true));
                }
                let of_bus = bus.as_deref().and_then(bus_path).or_else(|| Some(runtime.as_ref()?.join("bus")));
                all.extend(of_bus.map(|path| (path, false)));
                all
            }
        }
    }
}

/// The first path of an address as `unix:path=/run/user/1000/bus,guid=…;…`.
fn bus_path(address: &str) -> Option<PathBuf> {
    let mut parts = address.split(';').filter_map(|one| one.strip_prefix("unix:"));
    parts.find_map(|rest| rest.split(',').find_map(|pair| pair.strip_prefix("path="))).map(PathBuf::from)
}

/// A container's scope, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `ctk-box.scope`.
    pub unit: String,
    /// `system.slice`.
    pub slice: String,
    /// Where systemd is asked: a socket, and whether systemd is alone there.
    sockets: Vec<(PathBuf, bool)>,
    /// Whose it is, as `file:/run/ctk-runtime/box`.
    owner: String,
    /// Whether we know that it is ours. One of this name may be somebody else's before.
    started: bool,
}

const FIELD: &str = "linux.cgroupsPath";
/// The start of annotations that are properties of the scope.
pub(crate) const ANNOTATION: &str = "org.systemd.property.";

impl Scope {
    /// What the scope of a container is called. `path` is `linux.cgroupsPath`.
    pub fn place(path: Option<&str>, id: &str, manager: &Manager) -> Result<Scope, Error> {
        let usual = match manager {
            Manager::System => "system.slice",
            Manager::User { .. } => "user.slice",
        };
        let (slice, prefix, name) = match path.filter(|path| !path.is_empty()) {
            None => ("", "ctk", id),
            Some(path) => match path.split(':').collect::<Vec<_>>().as_slice() {
                [slice, prefix, name] => (*slice, *prefix, *name),
                _ => {
                    let reason = "must be `slice:prefix:name` with --systemd-cgroup, as `system.slice:ctk:box`";
                    return Err(Error::config(FIELD, format!("`{path}` {reason}")));
                }
            },
        };
        let slice = if slice.is_empty() { usual } else { slice };
        check_slice(slice)?;
        if name.is_empty() || name.contains('/') || prefix.contains('/') {
            return Err(Error::config(FIELD, format!("`{prefix}` and `{name}` give a unit of systemd no name")));
        }
        if name.ends_with(".slice") {
            return Err(Error::config(FIELD, format!("`{name}` is a slice; a container is a scope in one")));
        }
        let bare = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        let unit = format!("{}.scope", escape(&bare));
        if unit.len() > UNIT_CHARACTERS {
            return Err(Error::config(FIELD, format!("`{unit}` is longer than {UNIT_CHARACTERS} characters")));
        }
        Ok(Scope { unit, slice: slice.into(), sockets: manager.sockets(), owner: String::new(), started: false })
    }

    /// Starts it with the process `pid` in it, and gives the path of its cgroup below every hierarchy's root.
    pub fn start(&self, spec: &Spec, rules: &[Rule], id: &str, pid: i32, version: Version) -> Result<PathBuf, Error> {
        let attempt = format!("start the scope `{}`", self.unit);
        let own = annotations(spec)?;
        let mut systemd = self.connect(&attempt)?;
        let mut properties = vec![
            ("Description".to_owned(), Value::Text(format!("ctk container {id}"))),
            ("Documentation".into(), Value::texts(&[&self.owner])),
            ("Slice".into(), Value::Text(self.slice.clone())),
            ("Delegate".into(), Value::Bool(true)),
            ("PIDs".into(), Value::Array("u".into(), vec![Value::Uint32(pid as u32)])),
            ("DefaultDependencies".into(), Value::Bool(false)),
            ("MemoryAccounting".into(), Value::Bool(true)),
            ("CPUAccounting".into(), Value::Bool(true)),
            (version.name("IOAccounting", "BlockIOAccounting").into(), Value::Bool(true)),
            ("TasksAccounting".into(), Value::Bool(true)),
        ];
        if let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
            properties.extend(self::properties(resources, version, systemd.release())?);
        }
        properties.extend(device_properties(rules, &known_devices(), version));
        // What is asked for by name wins.
        properties.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
        properties.extend(own);
        let values = [
            Value::Text(self.unit.clone()),
            Value::Text("replace".into()),
            pairs(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let started = match systemd.job("StartTransientUnit", &values) {
            Err(Failure::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => {
                // One that failed and that nobody has reset.
                let _ = systemd.call("ResetFailedUnit", &values[..1]);
                systemd.job("StartTransientUnit", &values)
            }
            other => other,
        };
        let done = started.map_err(|failure| failed(&attempt, failure))?;
        if done != "done" {
            return Err(Error::Systemd { attempt, reason: format!("the job ended as `{done}`") });
        }
        let group = systemd.control_group(&self.unit).map_err(|failure| failed(&attempt, failure))?;
        Ok(PathBuf::from(group.trim_start_matches('/')))
    }

    /// Moves a process into it, which we may not do ourselves.
    pub fn attach(&self, pid: i32) -> Result<(), Error> {
        let attempt = format!("move process {pid} into the scope `{}`", self.unit);
        let mut systemd = self.connect(&attempt)?;
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid as u32)]);
        let values = [Value::Text(self.unit.clone()), Value::Text(String::new()), pids];
        systemd.call("AttachProcessesToUnit", &values).map(drop).map_err(|failure| failed(&attempt, failure))
    }

    /// Changes its limits.
    pub fn update(&self, resources: &Resources, rules: &[Rule], version: Version) -> Result<(), Error> {
        let attempt = format!("change the scope `{}`", self.unit);
        let mut systemd = self.connect(&attempt)?;
        let mut properties = properties(resources, version, systemd.release())?;
        properties.extend(device_properties(rules, &known_devices(), version));
        if properties.is_empty() {
            return Ok(());
        }
        let values = [Value::Text(self.unit.clone()), Value::Bool(true), pairs(properties)];
        systemd.call("SetUnitProperties", &values).map(drop).map_err(|failure| failed(&attempt, failure))
    }

    /// Stops it, if it still is: one without processes ends by itself.
    pub fn stop(&self) -> Result<(), Error> {
        let attempt = format!("stop the scope `{}`", self.unit);
        let mut systemd = self.connect(&attempt)?;
        let gone = |failure: &Failure| matches!(failure, Failure::Refused { name, .. } if name == "org.freedesktop.systemd1.NoSuchUnit");
        let name = Value::Text(self.unit.clone());
        if !self.started {
            match systemd.owners(&self.unit) {
                Ok(owners) if owners.contains(&self.owner) => {}
                Err(failure) if !gone(&failure) => return Err(failed(&attempt, failure)),
                _ => return Ok(()),
            }
        }
        match systemd.job("StopUnit", &[name.clone(), Value::Text("replace".into())]) {
            Err(failure) if !gone(&failure) => return Err(failed(&attempt, failure)),
            _ => {}
        }
        match systemd.call("ResetFailedUnit", &[name]) {
            Err(failure) if !gone(&failure) => Err(failed(&attempt, failure)),
            _ => Ok(()),
        }
    }

    fn connect(&self, attempt: &str) -> Result<Systemd, Error> {
        let mut told = Vec::new();
        for (socket, alone) in &self.sockets {
            match Systemd::open(socket, *alone) {
                Ok(systemd) => return Ok(systemd),
                Err(Failure::Connection(error)) => told.push(format!("{}: {error}", socket.display())),
                Err(Failure::Refused { message, .. }) => told.push(format!("{}: {message}", socket.display())),
            }
        }
        let advice =
            "; without systemd choose `--cgroup-manager cgroupfs` (podman), `native.cgroupdriver=cgroupfs` (docker)";
        let told = if told.is_empty() { "XDG_RUNTIME_DIR is not set".into() } else { told.join(", ") };
        Err(Error::Systemd { attempt: attempt.into(), reason: format!("it cannot be reached ({told}){advice}") })
    }
}

/// Longest name that systemd takes.
const UNIT_CHARACTERS: usize = 255;

fn failed(attempt: &str, failure: Failure) -> Error {
    let reason = match failure {
        Failure::Connection(error) if error.kind() == io::ErrorKind::TimedOut => "no answer in 30 s".into(),
        Failure::Connection(error) => error.to_string(),
        Failure::Refused { message, name } if message.is_empty() => name,
        Failure::Refused { message, .. } => message,
    };
    Error::Systemd { attempt: attempt.into(), reason }
}

/// A slice is `a-b.slice`, which is in `a.slice`; `-.slice` is that of all.
fn check_slice(slice: &str) -> Result<(), Error> {
    let bare = slice.strip_suffix(".slice").filter(|bare| !bare.contains('/'));
    match bare.is_some_and(|bare| bare == "-" || bare.split('-').all(|part| !part.is_empty())) {
        true => Ok(()),
        false => Err(Error::config(FIELD, format!("`{slice}` is no slice, as `system.slice` or `a-b.slice`"))),
    }
}

/// What a unit's name cannot have, as `\x2b`.
fn escape(name: &str) -> String {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.' | b'\\' | b'@');
    name.bytes().map(|byte| if usual(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") }).collect()
}

/// Which controllers a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Those of version 1, maybe beside version 2.
    Legacy,
    /// Those of version 2.
    Unified,
}

impl Version {
    /// Of this machine.
    pub fn of(hierarchies: &[Hierarchy]) -> Version {
        let legacy = |h: &Hierarchy| h.controllers.iter().any(|controller| controller == "memory");
        if hierarchies.iter().any(legacy) { Version::Legacy } else { Version::Unified }
    }

    fn name(self, unified: &'static str, legacy: &'static str) -> &'static str {
        if self == Version::Unified { unified } else { legacy }
    }
}

type Properties = Vec<(String, Value)>;

/// `a(sv)`.
fn pairs(properties: Properties) -> Value {
    let pair = |(name, value)| Value::Structure(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(pair).collect())
}

/// Properties of the scope that annotations name, as `org.systemd.property.TimeoutStopUSec: uint64 5000000`. A name that
/// ends in `Sec` is in seconds.
fn annotations(spec: &Spec) -> Result<Properties, Error> {
    let mut all = Vec::new();
    for (annotation, text) in spec.annotations.iter().flatten() {
        let Some(name) = annotation.strip_prefix(ANNOTATION) else { continue };
        let field = format!("annotations.{annotation}");
        if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            return Err(Error::config(&field, "is no name of a property"));
        }
        let value = Value::parse(text).map_err(|reason| Error::config(&field, reason))?;
        let seconds = name.strip_suffix("Sec").filter(|name| !name.ends_with('U'));
        all.push(match (seconds, value) {
            (None, value) => (name.to_owned(), value),
            (Some(bare), value) => {
                let micros = match value {
                    Value::Int32(seconds) => u64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000_000)),
                    Value::Int64(seconds) => u64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000_000)),
                    Value::Uint32(seconds) => u64::from(seconds).checked_mul(1_000_000),
                    Value::Uint64(seconds) => seconds.checked_mul(1_000_000),
                    Value::Double(seconds) if seconds >= 0.0 => Some((seconds * 1e6) as u64),
                    _ => None,
                };
                let micros = micros.ok_or_else(|| Error::config(&field, "is no number of seconds"))?;
                (format!("{bare}USec"), Value::Uint64(micros))
            }
        });
    }
    Ok(all)
}

/// Limits as properties (systemd.resource-control(5)). What has none is written to the cgroup's files only. `release` is
/// systemd's: older ones do not know all.
pub fn properties(resources: &Resources, version: Version, release: u32) -> Result<Properties, Error> {
    let mut all: Properties = Vec::new();
    let mut put = |name: &str, value: Value| {
        all.retain(|(other, _)| other != name);
        all.push((name.to_owned(), value));
    };
    let bytes = |value: i64| Value::Uint64(u64::try_from(value).unwrap_or(u64::MAX));
    if let Some(memory) = &resources.memory {
        if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
            put(version.name("MemoryMax", "MemoryLimit"), bytes(limit));
        }
        if version == Version::Unified {
            if let Some(low) = memory.reservation.filter(|low| *low != 0) {
                put("MemoryLow", bytes(low));
            }
            // Both together, in the specification; here swap alone. What does not fit is told when files are written.
            match (memory.swap, memory.limit) {
                (Some(-1), _) => put("MemorySwapMax", Value::Uint64(u64::MAX)),
                (Some(both), Some(limit)) if limit > 0 && both >= limit => put("MemorySwapMax", bytes(both - limit)),
                _ => {}
            }
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            match version {
                Version::Unified => put("CPUWeight", Value::Uint64(resources::weight(shares))),
                Version::Legacy => put("CPUShares", Value::Uint64(shares)),
            }
        }
        let (quota, period) = (cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period != 0));
        if quota.is_some() || period.is_some() {
            quota_properties(quota, period, release, &mut put);
        }
        let sets = [(&cpu.cpus, "AllowedCPUs", "cpu.cpus"), (&cpu.mems, "AllowedMemoryNodes", "cpu.mems")];
        for (list, name, field) in sets {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty() && release >= 244) {
                put(name, bit_mask(list, &format!("linux.resources.{field}"))?);
            }
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        put("TasksMax", Value::Uint64(u64::try_from(limit).ok().filter(|limit| *limit != 0).unwrap_or(u64::MAX)));
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|io| io.weight).filter(|weight| *weight != 0) {
        match version {
            Version::Legacy => put("BlockIOWeight", Value::Uint64(weight.into())),
            Version::Unified => put("IOWeight", Value::Uint64(resources::io_weight(weight))),
        }
    }
    for (file, value) in resources.unified.iter().flatten().filter(|_| version == Version::Unified) {
        let number = || match value.trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        };
        let name = match file.as_str() {
            "memory.max" => "MemoryMax",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpuset.cpus" | "cpuset.mems" if release >= 244 && !value.trim().is_empty() => {
                let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                put(name, bit_mask(value.trim(), &format!("linux.resources.unified.{file}"))?);
                continue;
            }
            "cpu.max" => {
                let (quota, period) = value.trim().split_once(' ').unwrap_or((value.trim(), "100000"));
                if let Ok(period) = period.trim().parse() {
                    quota_properties(quota.parse().ok().or(Some(-1)), Some(period), release, &mut put);
                }
                continue;
            }
            _ => continue,
        };
        // A text that is no number is told when the file is written.
        if let Some(number) = number() {
            put(name, Value::Uint64(number));
        }
    }
    Ok(all)
}

fn known_devices() -> String {
    std::fs::read_to_string("/proc/devices").unwrap_or_default()
}

/// Devices, for version 1 only: whenever systemd is reloaded there, it writes what it thinks is allowed. With version 2
/// its program is one beside ours, and both must say yes. `known` is the text of `/proc/devices`.
fn device_properties(rules: &[Rule], known: &str, version: Version) -> Properties {
    if version == Version::Unified || rules.is_empty() {
        return Vec::new();
    }
    let mut all = false;
    let mut allowed: Vec<(String, String)> = Vec::new();
    for rule in rules {
        let kinds: &[(&str, char)] = match rule.kind {
            'b' => &[("block", 'b')],
            'c' => &[("char", 'c')],
            _ => &[("char", 'c'), ("block", 'b')],
        };
        if rule.kind == 'a' && (rule.major, rule.minor) == (None, None) {
            (all, allowed) = (rule.allow, Vec::new());
            continue;
        }
        for (word, kind) in kinds {
            let name = match (rule.major, rule.minor) {
                (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
                (Some(major), None) => match driver(known, *kind, major) {
                    Some(name) => format!("{word}-{name}"),
                    None => continue,
                },
                (None, None) => format!("{word}-*"),
                (None, Some(_)) => continue,
            };
            allowed.retain(|(other, _)| rule.allow || *other != name);
            if rule.allow {
                let letters = [(4, 'r'), (2, 'w'), (1, 'm')].iter().filter(|(bit, _)| rule.access & bit != 0);
                allowed.push((name, letters.map(|(_, letter)| *letter).collect()));
            }
        }
    }
    let policy = if all { "auto" } else { "strict" };
    let pair = |(name, access)| Value::Structure(vec![Value::Text(name), Value::Text(access)]);
    let list = |values: Vec<Value>| ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), values));
    // An empty list takes back what was said before.
    let allowed = if all { Vec::new() } else { allowed.into_iter().map(pair).collect() };
    vec![("DevicePolicy".into(), Value::Text(policy.into())), list(Vec::new()), list(allowed)]
}

/// The name of a major number, as `136 pts` in the text of `/proc/devices`.
fn driver(known: &str, kind: char, major: u32) -> Option<&str> {
    let start = if kind == 'b' { "Block devices:" } else { "Character devices:" };
    let lines = known.lines().skip_while(|line| *line != start).skip(1).take_while(|line| !line.is_empty());
    let mut pairs = lines.filter_map(|line| line.trim_start().split_once(' '));
    pairs.find(|(number, _)| number.parse() == Ok(major)).map(|(_, name)| name)
}

fn quota_properties(quota: Option<i64>, period: Option<u64>, release: u32, put: &mut impl FnMut(&str, Value)) {
    let used = period.unwrap_or(100_000);
    if period.is_some() && release >= 242 {
        put("CPUQuotaPeriodUSec", Value::Uint64(used));
    }
    let per_second = match quota.and_then(|quota| u64::try_from(quota).ok()) {
        None => u64::MAX,
        // Systemd counts in parts of a hundred of a processor, 10 ms of a second, and rounds down.
        Some(quota) => (u128::from(quota) * 1_000_000 / u128::from(used)).min(u64::MAX.into()) as u64,
    };
    let rounded = if per_second == u64::MAX { per_second } else { per_second.div_ceil(10_000).saturating_mul(10_000) };
    put("CPUQuotaPerSecUSec", Value::Uint64(rounded));
}

/// `0-1,9` as the bytes 0x03 0x02.
fn bit_mask(list: &str, field: &str) -> Result<Value, Error> {
    let words = crate::process::bits(list, field)?;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    while bytes.len() > 1 && bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect()))
}

/// A connection to systemd.
struct Systemd {
    connection: Connection,
    release: Option<u32>,
}

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: Target<'static> =
    Target { destination: NAME, path: "/org/freedesktop/systemd1", interface: "org.freedesktop.systemd1.Manager" };
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

impl Systemd {
    fn open(socket: &Path, alone: bool) -> Result<Systemd, Failure> {
        let mut connection = Connection::open(socket, alone)?;
        if !alone {
            connection.listen("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'")?;
            connection.call(MANAGER, "Subscribe", &[])?;
        }
        Ok(Systemd { connection, release: None })
    }

    fn call(&mut self, member: &str, values: &[Value]) -> Result<crate::bus::Answer, Failure> {
        self.connection.call(MANAGER, member, values)
    }

    /// A call whose work is a job; how that ended.
    fn job(&mut self, member: &str, values: &[Value]) -> Result<String, Failure> {
        let job = self.call(member, values)?.values().text()?;
        self.connection.wait_for("JobRemoved", |mut values| {
            let (_, path) = (values.number()?, values.text()?);
            let (_, result) = (values.text()?, values.text()?);
            Ok((path == job).then_some(result))
        })
    }

    /// The number of its release; 0 if it does not tell.
    fn release(&mut self) -> u32 {
        if let Some(release) = self.release {
            return release;
        }
        let target = Target { interface: PROPERTIES, ..MANAGER };
        let values = [Value::Text(MANAGER.interface.into()), Value::Text("Version".into())];
        let text =
            self.connection.call(target, "Get", &values).ok().and_then(|answer| answer.values().variant_text().ok());
        // As `252.38-1~deb12u1`.
        let digits = |text: String| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        let release = text.and_then(|text| digits(text).parse().ok()).unwrap_or(0);
        self.release = Some(release);
        release
    }

    fn control_group(&mut self, unit: &str) -> Result<String, Failure> {
        Ok(self.property(unit, "Scope", "ControlGroup")?.values().variant_text()?)
    }

    fn owners(&mut self, unit: &str) -> Result<Vec<String>, Failure> {
        Ok(self.property(unit, "Unit", "Documentation")?.values().variant_texts()?)
    }

    fn property(&mut self, unit: &str, kind: &str, name: &str) -> Result<crate::bus::Answer, Failure> {
        let path = self.call("GetUnit", &[Value::Text(unit.into())])?.values().text()?;
        let target = Target { path: &path, interface: PROPERTIES, ..MANAGER };
        let values = [Value::Text(format!("org.freedesktop.systemd1.{kind}")), Value::Text(name.into())];
        self.connection.call(target, "Get", &values)
    }
}

/// Starts the scope of a container that is to have one, and says where its cgroups are. The holder is in it until the
/// container's own process is.
///
/// It is written down before. Should we be killed now, it ends with the holder, and that with us; but systemd may not
/// notice the end of a process that it is about to take in.
pub(crate) fn begin(
    kept: &mut Kept,
    mut scope: Scope,
    spec: &Spec,
    rules: &[Rule],
    hierarchies: &[Hierarchy],
) -> Result<Holder, Error> {
    scope.owner = format!("file:{}", kept.directory().display());
    kept.record.scope = Some(scope.clone());
    kept.write()?;
    let holder = Holder::new()?;
    let path = scope.start(spec, rules, &kept.record.id, holder.pid, Version::of(hierarchies))?;
    kept.record.cgroups = Cgroups::at(hierarchies, &path);
    scope.started = true;
    kept.record.scope = Some(scope);
    kept.write()?;
    Ok(holder)
}

/// A process that does nothing, until the scope has another. It dies with us.
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    process: OwnedFd,
}

impl Holder {
    /// Makes it.
    pub fn new() -> Result<Holder, Error> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::Clone(e.into()))?;
        // With its own copy of the other end, so that the pipe never ends.
        let steps = [Step::DieWithParent, Step::Hide, Step::Await { file: pipe.0.as_raw_fd(), other: -1 }];
        let child = ctk_sys::start(&Start { namespaces: 0, cgroup: None, steps: &steps });
        let child = child.map_err(|e| Error::Clone(e.into()))?;
        Ok(Holder { pid: child.pid, process: child.into_pidfd() })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        crate::launch::discard(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Cpu, Memory, Pids};

    const USER: Manager = Manager::User { runtime: None, bus: None };

    #[track_caller]
    fn placed(path: &str, expected: &str) {
        let scope = Scope::place(Some(path), "box", &Manager::System);
        let told = scope.map_or_else(|error| error.to_string(), |scope| format!("{}/{}", scope.slice, scope.unit));
        assert_eq!(told, expected, "{path}");
    }

    #[test]
    fn paths_are_units_in_slices() {
        placed("machine.slice:libpod:0123", "machine.slice/libpod-0123.scope");
        placed("a-b-c.slice:x:y", "a-b-c.slice/x-y.scope");
        placed("-.slice::y", "-.slice/y.scope");
        placed(":x:a+b", "system.slice/x-a\\x2bb.scope");
        placed("", "system.slice/ctk-box.scope");
        let wrong = |reason: &str| format!("config.json: linux.cgroupsPath: {reason}");
        placed("/a/b", &wrong("`/a/b` must be `slice:prefix:name` with --systemd-cgroup, as `system.slice:ctk:box`"));
        placed("a:x:y", &wrong("`a` is no slice, as `system.slice` or `a-b.slice`"));
        placed("a--b.slice:x:y", &wrong("`a--b.slice` is no slice, as `system.slice` or `a-b.slice`"));
        placed("a/b.slice:x:y", &wrong("`a/b.slice` is no slice, as `system.slice` or `a-b.slice`"));
        placed("a.slice:x:", &wrong("`x` and `` give a unit of systemd no name"));
        placed("a.slice:x:p.slice", &wrong("`p.slice` is a slice; a container is a scope in one"));
        assert_eq!(Scope::place(None, "box", &USER).unwrap().slice, "user.slice");
    }

    #[test]
    fn systemd_is_asked_at_its_own_socket_first() {
        let user = |runtime: Option<&str>, bus: Option<&str>| {
            let manager = Manager::User { runtime: runtime.map(PathBuf::from), bus: bus.map(String::from) };
            manager.sockets().iter().map(|(path, alone)| format!("{} {alone}", path.display())).collect::<Vec<_>>()
        };
        assert_eq!(user(Some("/run/user/7"), None), ["/run/user/7/systemd/private true", "/run/user/7/bus false"]);
        assert_eq!(user(None, Some("tcp:host=x;unix:path=/b,guid=0")), ["/b false"]);
        assert!(user(None, None).is_empty());
        let scope = Scope::place(None, "box", &USER).unwrap();
        let told = scope.stop().unwrap_err().to_string();
        assert!(told.starts_with("failed to stop the scope `ctk-box.scope`: it cannot be reached"), "{told}");
    }

    #[track_caller]
    fn has(resources: Resources, version: Version, release: u32, expected: &[(&str, Value)]) {
        let expected: Properties = expected.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        assert_eq!(properties(&resources, version, release).unwrap(), expected);
    }

    #[test]
    fn limits_are_properties() {
        use Value::Uint64;
        let memory = |limit, swap| Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() };
        let all = Resources {
            memory: Some(memory(1 << 20, 3 << 20)),
            cpu: Some(Cpu {
                shares: Some(1024),
                quota: Some(25_500),
                period: Some(50_000),
                cpus: Some("0-1,9".into()),
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: Some(9) }),
            ..Resources::default()
        };
        let mask = Value::Array("y".into(), vec![Value::Byte(3), Value::Byte(2)]);
        let unified = [
            ("MemoryMax", Uint64(1 << 20)),
            ("MemorySwapMax", Uint64(2 << 20)),
            ("CPUWeight", Uint64(resources::weight(1024))),
            ("CPUQuotaPeriodUSec", Uint64(50_000)),
            ("CPUQuotaPerSecUSec", Uint64(510_000)),
            ("AllowedCPUs", mask),
            ("TasksMax", Uint64(9)),
        ];
        has(all.clone(), Version::Unified, 252, &unified);
        let legacy = [
            ("MemoryLimit", Uint64(1 << 20)),
            ("CPUShares", Uint64(1024)),
            ("CPUQuotaPerSecUSec", Uint64(510_000)),
            ("TasksMax", Uint64(9)),
        ];
        has(all, Version::Legacy, 239, &legacy);
        let unlimited = Resources {
            memory: Some(memory(-1, -1)),
            cpu: Some(Cpu { quota: Some(-1), ..Cpu::default() }),
            pids: Some(Pids { limit: Some(-1) }),
            ..Resources::default()
        };
        let names = ["MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax"];
        has(unlimited, Version::Unified, 252, &names.map(|name| (name, Uint64(u64::MAX))));
        let words = [("cpu.max", "20000 100000"), ("memory.high", "max"), ("pids.max", "7"), ("io.max", "8:0 rbps=1")];
        let words = words.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let unified = Resources { unified: Some(words.into()), ..Resources::default() };
        let expected = [
            ("CPUQuotaPeriodUSec", Uint64(100_000)),
            ("CPUQuotaPerSecUSec", Uint64(200_000)),
            ("MemoryHigh", Uint64(u64::MAX)),
            ("TasksMax", Uint64(7)),
        ];
        has(unified, Version::Unified, 252, &expected);
    }

    #[test]
    fn devices_are_properties_of_version_1() {
        let known = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        let rule = |kind, major, minor, access, allow| Rule { kind, major, minor, access, allow };
        let rules = [
            rule('a', None, None, 7, false),
            rule('c', None, None, 1, true),
            rule('c', Some(1), Some(3), 7, true),
            rule('c', Some(136), None, 6, true),
            rule('b', Some(8), None, 4, true),
            rule('b', Some(9), None, 4, true),
            rule('c', Some(1), Some(3), 7, false),
        ];
        let list = |pairs: &[(&str, &str)]| {
            let pair = |(name, access): &(&str, &str)| {
                Value::Structure(vec![Value::Text((*name).into()), Value::Text((*access).into())])
            };
            ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), pairs.iter().map(pair).collect()))
        };
        let policy = |word: &str| ("DevicePolicy".to_owned(), Value::Text(word.into()));
        let expected = [policy("strict"), list(&[]), list(&[("char-*", "m"), ("char-pts", "rw"), ("block-sd", "r")])];
        assert_eq!(device_properties(&rules, known, Version::Legacy), expected);
        let all = [rule('a', None, None, 7, true)];
        assert_eq!(device_properties(&all, known, Version::Legacy), [policy("auto"), list(&[]), list(&[])]);
        assert_eq!(device_properties(&rules, known, Version::Unified), []);
    }

    #[test]
    fn annotations_are_properties() {
        let with = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            annotations(&Spec { annotations: Some(pairs.collect()), ..Spec::default() })
        };
        let found = with(&[
            ("a", "b"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("org.systemd.property.TimeoutStopSec", "2.5"),
            ("org.systemd.property.TimeoutStopUSec", "uint64 7"),
        ]);
        let expected = [
            ("CollectMode".to_owned(), Value::Text("inactive-or-failed".into())),
            ("TimeoutStopUSec".into(), Value::Uint64(2_500_000)),
            ("TimeoutStopUSec".into(), Value::Uint64(7)),
        ];
        assert_eq!(found.unwrap(), expected);
        let told = |pairs: &[(&str, &str)]| with(pairs).unwrap_err().to_string();
        let field = "config.json: annotations.org.systemd.property";
        assert_eq!(told(&[("org.systemd.property.A b", "1")]), format!("{field}.A b: is no name of a property"));
        let reason = "`inactive` is no value; words stand in quotes";
        assert_eq!(told(&[("org.systemd.property.CollectMode", "inactive")]), format!("{field}.CollectMode: {reason}"));
        assert_eq!(told(&[("org.systemd.property.FooSec", "'x'")]), format!("{field}.FooSec: is no number of seconds"));
    }

    #[test]
    fn a_holder_lives_until_it_is_dropped() {
        let holder = Holder::new().unwrap();
        let alive = |pid: i32| crate::state::start_time(pid).is_some();
        let pid = holder.pid;
        assert!(alive(pid));
        drop(holder);
        assert!(!alive(pid));
    }
}
