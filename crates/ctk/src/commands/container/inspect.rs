//! What `ctk inspect` says of a container, in the words of docker and podman.

use ctk_monitor::config::Network;
use ctk_monitor::state::{State, Status};
use ctk_monitor::{Config, Container, time};
use serde_json::{Value, json};

/// Everything about a container.
pub fn inspect(container: &Container, config: &Config, state: &State) -> Value {
    let spec: Value = std::fs::read(container.bundle().join("config.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let at = |pointer: &str| spec.pointer(pointer).cloned().unwrap_or_default();
    let moment = |nanos: u64| if nanos > 0 { time::text(nanos) } else { "0001-01-01T00:00:00Z".into() };
    // A secret stays one.
    let secrets: Vec<String> = config
        .asked
        .get("secretVariables")
        .and_then(|list| serde_json::from_value(list.clone()).ok())
        .unwrap_or_default();
    let env: Vec<Value> = at("/process/env").as_array().cloned().unwrap_or_default();
    let env: Vec<Value> = env
        .into_iter()
        .map(|entry| match entry.as_str().and_then(|text| text.split_once('=')) {
            Some((name, _)) if secrets.iter().any(|secret| secret == name) => json!(format!("{name}=*******")),
            _ => entry,
        })
        .collect();
    let asked = |name: &str| config.asked.get(name).cloned().unwrap_or_default();
    let (program, arguments) = match config.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let number = |pointer: &str| at(pointer).as_i64().unwrap_or_default();
    let (quota, period) = (number("/linux/resources/cpu/quota"), number("/linux/resources/cpu/period"));
    let network_mode = match &config.network {
        Network::None => "none".to_owned(),
        Network::Host => "host".into(),
        Network::Namespace(path) => format!("ns:{}", path.display()),
        Network::Joined(_) => "bridge".into(),
    };
    json!({
        "Id": config.id,
        "Name": config.name,
        "Created": moment(config.created),
        "Path": program,
        "Args": arguments,
        "Image": config.image_digests.as_ref().map(|(_, config)| config.clone()).unwrap_or_default(),
        "ImageName": config.image,
        "ImageDigest": config.image_digests.as_ref().map(|(manifest, _)| manifest.clone()).unwrap_or_default(),
        "State": {
            "Status": state.status.word(),
            "Running": matches!(state.status, Status::Running | Status::Stopping),
            "Paused": state.status == Status::Paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Pid": state.pid,
            "MonitorPid": state.monitor,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": moment(state.started),
            "FinishedAt": moment(state.finished),
            "LogLostBytes": state.log_lost_bytes,
            "Health": state.health.as_ref().map(|health| json!({
                "Status": health.status.word(),
                "FailingStreak": health.failures,
                "Log": health.log.iter().map(|checked| json!({
                    "Start": moment(checked.start), "End": moment(checked.end),
                    "ExitCode": checked.exit_code, "Output": checked.output,
                })).collect::<Vec<_>>(),
            })),
        },
        "RestartCount": state.restarts,
        "Config": {
            "Hostname": at("/hostname"),
            "Domainname": at("/domainname"),
            "User": at("/process/user"),
            "Env": env,
            "Image": config.image,
            "Cmd": config.command,
            "WorkingDir": at("/process/cwd"),
            "Labels": config.labels,
            "Annotations": at("/annotations"),
            "Tty": config.terminal,
            "OpenStdin": config.interactive,
            "StopSignal": config.stop_signal,
            "StopTimeout": config.stop_seconds,
            "Timeout": config.timeout_millis,
            "Healthcheck": config.health,
            "CreateCommand": asked("options"),
        },
        "HostConfig": {
            "NetworkMode": network_mode,
            "RestartPolicy": { "Name": config.restart.policy.word(), "MaximumRetryCount": config.restart.most },
            "AutoRemove": config.remove,
            "ReadonlyRootfs": at("/root/readonly"),
            "LogConfig": config.log,
            "Resources": at("/linux/resources"),
            "Memory": number("/linux/resources/memory/limit"),
            "MemorySwap": number("/linux/resources/memory/swap"),
            "MemoryReservation": number("/linux/resources/memory/reservation"),
            "CpuShares": number("/linux/resources/cpu/shares"),
            "CpuQuota": quota,
            "CpuPeriod": period,
            "NanoCpus": if quota > 0 && period > 0 { quota * 1_000_000_000 / period } else { 0 },
            "CpusetCpus": at("/linux/resources/cpu/cpus").as_str().unwrap_or_default(),
            "PidsLimit": number("/linux/resources/pids/limit"),
            "OomScoreAdj": number("/process/oomScoreAdj"),
            "CgroupsPath": at("/linux/cgroupsPath"),
            "CapBounding": at("/process/capabilities/bounding"),
            "Ulimits": at("/process/rlimits"),
            "Devices": at("/linux/devices"),
            "Sysctls": at("/linux/sysctl"),
            "PortBindings": asked("ports"),
            "Runtime": config.runtime,
        },
        "NetworkSettings": network_settings(&state.network),
        "Mounts": asked("mounts"),
        "Layers": config.layers,
        "LogPath": container.log(),
        "OCIConfigPath": container.bundle().join("config.json"),
    })
}

/// What is known of its networks, and the same in the words of docker and podman: the first device's address by itself,
/// each network's by the network's name.
fn network_settings(known: &Value) -> Value {
    let list = |name: &str| known.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let network = |interface: &Value| {
        let first = |name: &str, is_ipv6: bool| -> String {
            let all = interface.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
            let found = all.iter().filter_map(Value::as_str).find(|text| text.contains(':') == is_ipv6);
            found.unwrap_or_default().to_owned()
        };
        let split = |text: String| match text.split_once('/') {
            Some((address, length)) => (address.to_owned(), length.parse().unwrap_or(0)),
            None => (String::new(), 0_u64),
        };
        let (ipv4, ipv6) = (split(first("addresses", false)), split(first("addresses", true)));
        json!({
            "IPAddress": ipv4.0, "IPPrefixLen": ipv4.1, "Gateway": first("gateways", false),
            "GlobalIPv6Address": ipv6.0, "GlobalIPv6PrefixLen": ipv6.1, "IPv6Gateway": first("gateways", true),
            "MacAddress": interface.get("mac").cloned().unwrap_or_default(),
            "Aliases": interface.get("aliases").cloned().unwrap_or_else(|| json!([])),
        })
    };
    let interfaces = list("interfaces");
    let mut settings = network(interfaces.first().unwrap_or(&Value::Null));
    if let Some(more) = known.as_object() {
        more.iter().for_each(|(name, value)| settings[name] = value.clone());
    }
    let name = |interface: &Value| interface.get("network").and_then(Value::as_str).unwrap_or_default().to_owned();
    settings["Networks"] =
        interfaces.iter().map(|one| (name(one), network(one))).collect::<serde_json::Map<_, _>>().into();
    let mut ports = serde_json::Map::new();
    for port in list("ports") {
        let field = |name: &str| match port.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let inside = format!("{}/{}", field("container_port"), field("protocol"));
        let bound = json!({ "HostIp": field("host_ip"), "HostPort": field("host_port") });
        if let Value::Array(all) = ports.entry(inside).or_insert_with(|| json!([])) {
            all.push(bound);
        }
    }
    settings["Ports"] = ports.into();
    settings
}
