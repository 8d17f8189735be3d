//! Values of switches: text in, what the libraries take out. Every error is one sentence.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use ctk_apply::adhoc::{
    Entitlements, HostAddress, NetworkMode, Resources, RunSettings, SecretSource, SshSource, Ulimit, fields,
};
use ctk_syntax::{nearest, parse_size};

use super::switches::RunSwitches;
use crate::env::Environment;

/// Names of `--ulimit`: `RLIMIT_*` in small letters.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
const RESOURCES: [&str; 7] =
    ["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];
const ENTITLEMENTS: [&str; 3] = ["network.host", "security.insecure", "device"];

/// `NAME=VALUE`, or a name whose value the environment has; one that it has not is left out.
pub fn build_arg(text: &str, environment: &Environment) -> Result<Option<(String, String)>, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, environment.raw(text)),
    };
    if name.is_empty() {
        return Err(format!("`--build-arg {text}` has no name; expected NAME=VALUE"));
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// A file of build arguments: a line each, `#` begins a comment.
pub fn build_arg_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `NAME=VALUE`; a name alone has an empty value.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        Err(format!("`--label {text}` has no name; expected NAME=VALUE"))
    } else {
        Ok((name.into(), value.into()))
    }
}

/// `id=NAME[,type=file|env][,src=FILE][,env=VARIABLE]`
pub fn secret(text: &str, environment: &Environment) -> Result<(String, SecretSource), String> {
    let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
    for field in fields(text)? {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("`{field}` in `--secret {text}` is no KEY=VALUE"))?;
        match key.to_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(format!("`{value}` is no type of secret; there are file and env")),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            key => return Err(unknown("--secret", key, &["id", "type", "src", "source", "env"])),
        }
    }
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| {
        let name = variable.as_deref().or(file.as_deref()).unwrap_or_default();
        let name = name.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("NAME");
        format!("`--secret {text}` has no id; expected e.g. `id={name},{text}`")
    })?;
    let source = match (variable, file) {
        (Some(variable), _) => SecretSource::Env(variable),
        (None, Some(file)) => SecretSource::File(file.into()),
        // As docker: the variable of that name, else the file.
        (None, None) if environment.raw(&id).is_some() => SecretSource::Env(id.clone()),
        (None, None) => SecretSource::File(id.clone().into()),
    };
    match &source {
        SecretSource::Env(name) if environment.raw(name).is_none() => {
            Err(format!("secret `{id}`: the environment has no `{name}`"))
        }
        SecretSource::Env(_) => Ok((id, source)),
        SecretSource::File(path) => match ctk_store::open_given(path) {
            Ok(_) => Ok((id, source)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("secret `{id}`: there is no file {}; expected `id={id},src=FILE`", path.display()))
            }
            Err(error) => Err(format!("secret `{id}`: cannot read {}: {error}", path.display())),
        },
    }
}

/// `--source-date-epoch`: seconds since 1970 that a date of an image can be, or `context`.
pub fn epoch(text: &str) -> Result<String, String> {
    match text {
        "context" => Ok(text.to_owned()),
        _ => seconds(text).map(|seconds| seconds.to_string()).ok_or_else(|| ctk_oci::EPOCH_EXPECTED.to_owned()),
    }
}

/// Seconds since 1970 that a date of an image can be.
pub fn seconds(text: &str) -> Option<i64> {
    text.parse().ok().filter(|seconds| (0..=ctk_oci::EPOCH_MAX_SECONDS).contains(seconds))
}

/// What all switches about RUN say together.
pub fn run_settings(switches: &RunSwitches, environment: &Environment) -> Result<RunSettings, String> {
    let mut settings = RunSettings::default();
    match switches.network.as_deref() {
        None | Some("" | "default" | "bridge" | "private" | "sandbox") => {}
        Some("none") => settings.network = NetworkMode::None,
        Some("host") => {
            settings.network = NetworkMode::Host;
            settings.entitlements.network_host = true;
        }
        Some(other) => return Err(format!("`{other}` is no network of a build; there are default, none and host")),
    }
    for text in &switches.allow {
        allow(text, &mut settings.entitlements)?;
    }
    for text in switches.add_hosts.iter().flat_map(|text| text.split(',')) {
        settings.add_hosts.push(add_host(text)?);
    }
    if let Some(text) = &switches.shm_size {
        settings.shm_size_bytes = Some(size("--shm-size", text)?);
    }
    for text in &switches.ulimits {
        settings.ulimits.push(ulimit(text)?);
    }
    for text in &switches.resources {
        for field in fields(text)? {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("`{field}` in `--resource` is no NAME=VALUE"))?;
            resource(key, value, &mut settings.resources)?;
        }
    }
    for (key, value) in [
        ("memory", &switches.memory),
        ("memory-swap", &switches.memory_swap),
        ("cpu-shares", &switches.cpu_shares),
        ("cpu-period", &switches.cpu_period),
        ("cpu-quota", &switches.cpu_quota),
        ("cpuset-cpus", &switches.cpuset_cpus),
        ("cpuset-mems", &switches.cpuset_mems),
    ] {
        if let Some(value) = value {
            resource(key, value, &mut settings.resources)?;
        }
    }
    settings.cgroup_parent.clone_from(&switches.cgroup_parent);
    for text in &switches.ssh {
        let (id, source) = ssh(text, environment)?;
        if settings.ssh.insert(id.clone(), source).is_some() {
            return Err(format!("`--ssh` names `{id}` twice"));
        }
    }
    Ok(settings)
}

fn allow(text: &str, entitlements: &mut Entitlements) -> Result<(), String> {
    match text.split_once('=') {
        None if text == "network.host" => entitlements.network_host = true,
        None if text == "security.insecure" => entitlements.security_insecure = true,
        None if text == "device" => entitlements.devices.extend(["*".to_owned()]),
        Some(("device", name)) => entitlements.devices.extend(name.split(',').next().map(str::to_owned)),
        _ => return Err(unknown("--allow", text, &ENTITLEMENTS)),
    }
    Ok(())
}

/// `HOST:IP`, `HOST=IP`, with an IPv6 address in brackets or not.
fn add_host(text: &str) -> Result<(String, HostAddress), String> {
    let bad = || format!("`--add-host {text}`: expected HOST:IP, e.g. `db:10.0.0.2`, or HOST:host-gateway");
    let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if host.is_empty() {
        return Err(bad());
    }
    let address = match address {
        "host-gateway" => HostAddress::Gateway,
        address => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            HostAddress::Address(bare.parse::<IpAddr>().map_err(|_| bad())?)
        }
    };
    Ok((host.to_owned(), address))
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("`--ulimit {text}`: expected NAME=SOFT[:HARD], e.g. `nofile=1024:2048`");
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    if !ULIMITS.contains(&name) {
        return Err(unknown("--ulimit", name, &ULIMITS));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| bad()),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(format!("`--ulimit {text}`: the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn resource(key: &str, value: &str, resources: &mut Resources) -> Result<(), String> {
    let number = || value.parse::<u64>().map_err(|_| format!("`{key}={value}` is no number"));
    let list = || match value
        .split(',')
        .all(|part| part.split('-').count() <= 2 && part.split('-').all(|n| n.parse::<u32>().is_ok()))
    {
        true => Ok(Some(value.to_owned())),
        false => Err(format!("`{key}={value}`: expected a list such as `0-3,5`")),
    };
    match key {
        "memory" => resources.memory_bytes = Some(size("memory", value)?).filter(|n| *n > 0),
        "memory-swap" if value == "-1" => resources.memory_swap_bytes = Some(-1),
        "memory-swap" => {
            let bytes = i64::try_from(size("memory-swap", value)?).map_err(|_| format!("`{value}` is too much"))?;
            resources.memory_swap_bytes = Some(bytes).filter(|n| *n > 0);
        }
        "cpu-shares" => resources.cpu_shares = Some(number()?).filter(|n| *n > 0),
        "cpu-period" => resources.cpu_period = Some(number()?).filter(|n| *n > 0),
        "cpu-quota" => {
            let quota: i64 = value.parse().map_err(|_| format!("`{key}={value}` is no number"))?;
            resources.cpu_quota = Some(quota).filter(|n| *n != 0);
        }
        "cpuset-cpus" => resources.cpuset_cpus = list()?,
        "cpuset-mems" => resources.cpuset_mems = list()?,
        key => return Err(unknown("--resource", key, &RESOURCES)),
    }
    Ok(())
}

/// `default`, `ID`, `ID=SOCKET`, `ID=KEY,KEY`.
fn ssh(text: &str, environment: &Environment) -> Result<(String, SshSource), String> {
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => (id, paths),
        None => (text, ""),
    };
    if id.is_empty() {
        return Err(format!("`--ssh {text}` has no id; expected `default` or `ID=SOCKET`"));
    }
    if paths.is_empty() {
        let socket = environment.get("SSH_AUTH_SOCK");
        let socket = socket.ok_or_else(|| format!("`--ssh {id}`: no agent runs, SSH_AUTH_SOCK is not set"))?;
        return Ok((id.to_owned(), SshSource::Agent(socket.into())));
    }
    let paths: Vec<PathBuf> = paths.split(',').map(PathBuf::from).collect();
    let mut sockets = 0;
    for path in &paths {
        let found =
            path.metadata().map_err(|error| format!("`--ssh {id}`: cannot read {}: {error}", path.display()))?;
        sockets += usize::from(found.file_type().is_socket());
    }
    let mut paths = paths;
    match (sockets, paths.len()) {
        (0, _) => Ok((id.to_owned(), SshSource::Keys(paths))),
        (1, 1) => Ok((id.to_owned(), SshSource::Agent(paths.remove(0)))),
        _ => Err(format!("`--ssh {id}`: one agent's socket, or keys, but not both")),
    }
}

fn size(what: &str, text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("`{what} {text}`: expected a size such as `128m` or `1GiB`"))
}

fn unknown(switch: &str, word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("`{switch}` does not know `{word}`; did you mean `{near}`?"),
        None => format!("`{switch}` does not know `{word}`; there are {}", known.join(", ")),
    }
}

/// `true`, `1`, …; `None` if it is neither truth nor falsehood.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Labels and arguments as a map; the last of a name counts.
pub fn map(
    pairs: impl IntoIterator<Item = Result<(String, String), String>>,
) -> Result<BTreeMap<String, String>, String> {
    pairs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(switches: RunSwitches) -> Result<RunSettings, String> {
        run_settings(&switches, &Environment::of([("SSH_AUTH_SOCK", "/agent")]))
    }

    #[test]
    fn what_run_gets() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let all = settings(RunSwitches {
            ssh: words(&["default"]),
            network: Some("host".into()),
            allow: words(&["security.insecure", "device=gpu"]),
            add_hosts: words(&["db:10.0.0.2", "six=[::1]", "seven:::2", "up:host-gateway"]),
            shm_size: Some("1m".into()),
            ulimits: words(&["nofile=10:20", "core=-1"]),
            resources: words(&["memory=1g,cpu-quota=-1"]),
            cpuset_cpus: Some("0-1,3".into()),
            ..RunSwitches::default()
        });
        let all = all.unwrap();
        assert_eq!(all.network, NetworkMode::Host);
        assert!(all.entitlements.network_host && all.entitlements.security_insecure);
        assert_eq!(all.entitlements.devices.iter().next().unwrap(), "gpu");
        assert_eq!(all.ssh["default"], SshSource::Agent("/agent".into()));
        assert_eq!(all.add_hosts[1], ("six".into(), HostAddress::Address("::1".parse().unwrap())));
        assert_eq!(all.add_hosts[2], ("seven".into(), HostAddress::Address("::2".parse().unwrap())));
        assert_eq!(all.add_hosts[3], ("up".into(), HostAddress::Gateway));
        assert_eq!(all.shm_size_bytes, Some(1 << 20));
        assert_eq!(all.ulimits[0], Ulimit { name: "nofile".into(), soft: Some(10), hard: Some(20) });
        assert_eq!(all.ulimits[1], Ulimit { name: "core".into(), soft: None, hard: None });
        assert_eq!((all.resources.memory_bytes, all.resources.cpu_quota), (Some(1 << 30), Some(-1)));
        assert_eq!(all.resources.cpuset_cpus.as_deref(), Some("0-1,3"));
    }

    #[test]
    fn mistakes_name_the_nearest() {
        let check = |switches: RunSwitches, expected: &str| assert_eq!(settings(switches).unwrap_err(), expected);
        let none = RunSwitches::default;
        check(
            RunSwitches { allow: vec!["network.hst".into()], ..none() },
            "`--allow` does not know `network.hst`; did you mean `network.host`?",
        );
        check(
            RunSwitches { ulimits: vec!["nofiles=1".into()], ..none() },
            "`--ulimit` does not know `nofiles`; did you mean `nofile`?",
        );
        check(
            RunSwitches { ulimits: vec!["nofile=3:2".into()], ..none() },
            "`--ulimit nofile=3:2`: the soft limit is above the hard one",
        );
        check(
            RunSwitches { network: Some("nat".into()), ..none() },
            "`nat` is no network of a build; there are default, none and host",
        );
        check(
            RunSwitches { resources: vec!["memry=1".into()], ..none() },
            "`--resource` does not know `memry`; did you mean `memory`?",
        );
    }

    #[test]
    fn secrets_come_from_files_and_the_environment() {
        let environment = Environment::of([("TOKEN", "x"), ("EMPTY", "")]);
        let good = |text: &str| secret(text, &environment).unwrap();
        assert_eq!(good("id=TOKEN"), ("TOKEN".into(), SecretSource::Env("TOKEN".into())));
        assert_eq!(good("id=a,env=TOKEN"), ("a".into(), SecretSource::Env("TOKEN".into())));
        assert_eq!(good("id=a,env=EMPTY"), ("a".into(), SecretSource::Env("EMPTY".into())));
        assert_eq!(good("id=a,type=env,src=TOKEN"), ("a".into(), SecretSource::Env("TOKEN".into())));
        assert_eq!(good("id=a,src=/etc/passwd"), ("a".into(), SecretSource::File("/etc/passwd".into())));
        assert!(secret("id=a,src=/no/such", &environment).unwrap_err().contains("no file /no/such"));
        assert!(secret("id=a,env=NOPE", &environment).unwrap_err().contains("has no `NOPE`"));
        assert!(secret("idd=a", &environment).unwrap_err().contains("did you mean `id`?"));
        let missing = |text: &str| secret(text, &environment).unwrap_err();
        assert_eq!(missing("env=TOKEN"), "`--secret env=TOKEN` has no id; expected e.g. `id=TOKEN,env=TOKEN`");
        assert!(missing("src=/etc/passwd").ends_with("expected e.g. `id=passwd,src=/etc/passwd`"));
    }

    #[test]
    fn arguments_may_come_from_the_environment() {
        let environment = Environment::of([("A", "1"), ("E", "")]);
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(build_arg(text, &environment), Ok(expected), "{text}");
        };
        check("X=y=z", Some(("X", "y=z")));
        check("A", Some(("A", "1")));
        check("E", Some(("E", "")));
        check("NOPE", None);
        assert!(build_arg("=x", &environment).is_err());
        assert_eq!(build_arg_lines("# c\nA=1\n\n B=2 \n").collect::<Vec<_>>(), ["A=1", "B=2"]);
    }
}
