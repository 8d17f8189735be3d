//! Making a container: an image and options become a directory with everything that its monitor and the runtime need.

use std::path::{Path, PathBuf};

use ctk_container::{Security, Wanted};
use ctk_monitor::config::{Config, Health, Log, Network, OnFailure};
use ctk_monitor::limits::LOG_FILES_MAX;
use ctk_monitor::{Container, Locked, check_name, time};
use ctk_oci::{ContainerConfig, Mount};
use ctk_plan::Cancel;
use ctk_snapshot::Snapshots;
use ctk_store::Store;
use serde_json::json;

use super::image::{self, Found};
use super::options::{self, MakeOptions};
use super::{Desk, devices, files, identity, limits, namespaces, network, parse, secrets, security, zone};
use crate::context::Context;
use crate::failure::Failure;

/// A container that was made, and is not started yet.
pub struct Made {
    /// Its directory.
    pub container: Container,
    /// What it is.
    pub config: Config,
}

/// The root of a container, before there is one.
pub struct Base {
    /// The image's config; empty for a folder.
    pub image: ContainerConfig,
    /// How it is called.
    pub name: String,
    /// The digests of its manifest and config.
    pub digests: Option<(String, String)>,
    /// Its layers.
    pub layers: Vec<ctk_snapshot::LayerKey>,
    /// A folder instead of layers, and whether it stays as it is.
    pub folder: Option<(PathBuf, bool)>,
}

/// An image that is in the store, whatever it is called there.
pub struct Named<'a> {
    /// How people call it.
    pub name: &'a str,
    /// Its manifest or index.
    pub descriptor: &'a ctk_oci::Descriptor,
}

/// Makes a container. `command` is what stands behind the image's name.
pub fn make(
    context: &Context,
    desk: &Desk,
    options: &MakeOptions,
    image: &str,
    named: Option<Named<'_>>,
    command: &[String],
    asked: serde_json::Value,
) -> Result<Made, Failure> {
    // Before anything is made.
    for name in &options.life.requires {
        desk.find(name)?;
    }
    let store = context.store()?;
    let snapshots = Snapshots::open_as(&store, context.layers()?);
    let cancel = Cancel::new();
    let base = base(context, &store, &snapshots, options, image, named, &cancel)?;
    if options.life.replace
        && let Some(name) = &options.life.name
    {
        desk.remove_if_there(name)?;
    }
    let id = identity::id();
    let (locked, name) = reserve(desk, &id, options.life.name.as_deref())?;
    match fill(context, desk, &snapshots, options, &base, command, &locked, &name, asked) {
        Ok(config) => {
            let container = Container::clone(&locked);
            drop(locked);
            Ok(Made { container, config })
        }
        Err(failure) => {
            // Nothing is left of one that cannot be made.
            let _ = desk.containers.remove(locked);
            Err(failure)
        }
    }
}

/// The program that is first in a container with `--init`: its own copy, for the next `ctk` may have another.
fn init(container: &Container) -> Result<PathBuf, Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = container.directory().join("init");
    if ctk_sys::INIT.is_empty() {
        return Err(Failure::sentence("there is no --init program for this processor", None));
    }
    let made = std::fs::File::options().write(true).create_new(true).mode(0o755).open(&path);
    let written = made.and_then(|mut file| {
        file.write_all(ctk_sys::INIT)?;
        // Whatever the umask is: a container with users of its own is somebody else.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
    });
    written.map_err(Failure::during(format!("cannot write {}", path.display())))?;
    Ok(path)
}

/// A directory under a name: the one that was asked for, or one that nobody has.
fn reserve(desk: &Desk, id: &str, name: Option<&str>) -> Result<(Locked, String), Failure> {
    if let Some(name) = name {
        check_name(name)?;
        let hint = "`--replace` removes that one first; `ctk rm` removes it, `ctk rename` gives it another name";
        return match desk.containers.reserve(id, name) {
            Ok(locked) => Ok((locked, name.to_owned())),
            Err(error @ ctk_monitor::Error::Taken { .. }) => Err(Failure::sentence(error.to_string(), Some(hint))),
            Err(error) => Err(error.into()),
        };
    }
    loop {
        let name = identity::name();
        match desk.containers.reserve(id, &name) {
            Ok(locked) => return Ok((locked, name)),
            Err(ctk_monitor::Error::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn base(
    context: &Context,
    store: &Store,
    snapshots: &Snapshots,
    options: &MakeOptions,
    image: &str,
    named: Option<Named<'_>>,
    cancel: &Cancel,
) -> Result<Base, Failure> {
    if options.image.rootfs {
        let (folder, keeps) = match image.strip_suffix(":O") {
            Some(folder) => (folder, true),
            None => (image, false),
        };
        let folder = Path::new(folder).canonicalize().map_err(Failure::during(format!("cannot use {folder}")))?;
        let image = ContainerConfig::default();
        let folder = Some((folder, keeps));
        return Ok(Base { image, name: String::new(), digests: None, layers: Vec::new(), folder });
    }
    let platform = options.image.platform.as_ref();
    let Found { name, manifest, manifest_digest, config } = match named {
        Some(Named { name, descriptor }) => image::documents(store, name, descriptor, platform)?,
        None => image::find(context, store, image, options.image.pull, platform, cancel)?,
    };
    let layers = snapshots.unpack_image(&manifest, None, cancel)?;
    let digests = Some((manifest_digest.to_string(), manifest.config.digest.to_string()));
    Ok(Base { image: config.config, name, digests, layers, folder: None })
}

#[expect(clippy::too_many_arguments, reason = "everything that a container is made of meets here")]
fn fill(
    context: &Context,
    desk: &Desk,
    snapshots: &Snapshots,
    options: &MakeOptions,
    base: &Base,
    command: &[String],
    locked: &Locked,
    name: &str,
    asked: serde_json::Value,
) -> Result<Config, Failure> {
    let container: &Container = locked;
    let make = |path: PathBuf| {
        std::fs::create_dir_all(&path).map_err(Failure::during(format!("cannot make {}", path.display())))
    };
    // The place that the specification wants; the root itself is mounted by nobody but the container.
    make(container.bundle().join("rootfs"))?;
    make(container.etc(""))?;
    if let Some(bytes) = limits::storage(&options.files.storage_opt)? {
        limits::limit_directory(&container.layer(), container.id(), bytes)?;
    }
    let root = root(snapshots, base, container, !options.life.rm)?;
    let mut network = network::choose(context, desk, &options.network)?;
    let mut wanted = Wanted {
        args: (!command.is_empty()).then(|| command.to_vec()),
        entrypoint: options.process.entrypoint.as_deref().map(entrypoint).transpose()?,
        env: image::environment(context, &options.process.env, &options.process.env_file)?,
        host_env: if options.process.env_host { image::host_environment(context) } else { Vec::new() },
        unset_env: options.process.unsetenv.clone(),
        unset_all_env: options.process.unsetenv_all,
        user: options.process.user.clone(),
        groups: options.process.group_add.clone(),
        workdir: options.process.workdir.clone(),
        domainname: options.process.domainname.clone(),
        terminal: options.process.tty,
        umask: options.process.umask,
        read_only: options.files.read_only,
        shm_bytes: options.files.shm_size,
        device_rules: options.files.device_cgroup_rule.clone(),
        oom_score_adj: options.limits.oom_score_adj,
        rlimits: options.limits.ulimit.clone(),
        sysctl: options.security.sysctl.iter().map(|text| parse::pair(text)).collect(),
        resources: limits::resources(&options.limits)?,
        cgroups_path: limits::cgroups_path(&options.limits, container.id()),
        annotations: options.life.annotation.iter().map(|text| parse::pair(text)).collect(),
        init: options.process.init.then(|| init(container)).transpose()?,
        security: Security { no_new_privileges: false, ..Security::default() },
        ..Wanted::default()
    };
    namespaces::choose(desk, options, &network.namespace, &mut wanted)?;
    wanted.hostname = match (&options.process.hostname, &wanted.namespaces.uts, &wanted.namespaces.network) {
        (Some(name), ..) => name.clone(),
        (None, ctk_container::Namespace::Host, _) | (None, _, ctk_container::Namespace::Host) => identity::hostname(),
        _ => container.id().chars().take(12).collect(),
    };
    if let Some(asked) = &mut network.joining {
        let endpoint = &mut asked.request.endpoint;
        (endpoint.id, endpoint.name) = (container.id().into(), name.into());
        endpoint.hostname.clone_from(&wanted.hostname);
        let exposed = base.image.exposed_ports.keys().chain(&options.network.expose);
        if options.network.publish_all {
            asked.request.ports.extend(network::exposed(exposed)?);
        }
        network.network = Network::Joined(serde_json::to_value(asked)?);
    }
    security::choose(&options.security, &mut wanted)?;
    devices::choose(&options.files, options.security.privileged, &mut wanted)?;
    // What the image's own files say about users is read through its root, mounted for that moment.
    let opened = ctk_runtime::Root::mount(&for_reading(&root, container)?, true)?;
    let read = |path: &str| opened.read_file(path, ctk_container::limits::ACCOUNT_FILE_BYTES);
    let ids = ctk_container::ids(&wanted, &base.image, &read)?;
    let target = files::For {
        context,
        desk,
        snapshots,
        base,
        root: &opened,
        ids,
        uid_mappings: &wanted.uid_mappings,
        gid_mappings: &wanted.gid_mappings,
        container,
    };
    let mounts = files::mounts(&target, options)?;
    hold(snapshots, base, &mounts, container)?;
    let secrets = secrets::show(context, desk, &options.files.secret, container, &|ids| target.outside(ids))?;
    wanted.mounts.extend(mounts.all.iter().chain(&secrets.mounts).cloned());
    wanted.env.extend(secrets.env);
    if let Some(zone) = &options.process.tz {
        wanted.mounts.push(etc(container, "localtime", &zone::read(zone)?)?);
    }
    if !options.network.no_hosts {
        wanted.mounts.push(etc(container, "hosts", network.hosts(&wanted.hostname)?)?);
    }
    if options.network.dns.iter().all(|dns| dns != "none") {
        wanted.mounts.push(etc(container, "resolv.conf", network.resolv_conf())?);
    }
    wanted.mounts.push(etc(container, "hostname", format!("{}\n", wanted.hostname))?);
    let specified = ctk_container::specify(&wanted, &base.image, &read)?;
    drop(opened);
    let path = container.bundle().join("config.json");
    std::fs::write(&path, serde_json::to_vec(&specified.config)?)
        .map_err(Failure::during(format!("cannot write {}", path.display())))?;
    let mut labels = base.image.labels.clone();
    labels.extend(image::lines(&options.life.label_file)?.iter().map(|line| parse::pair(line)));
    labels.extend(options.life.label.iter().map(|text| parse::pair(text)));
    let told = mounts.told.clone();
    let config = Config {
        id: container.id().into(),
        name: name.into(),
        created: time::now(),
        image: base.name.clone(),
        image_digests: base.digests.clone(),
        layers: base.layers.iter().map(ToString::to_string).collect(),
        command: specified.command,
        labels,
        root,
        terminal: options.process.tty,
        interactive: options.process.interactive,
        remove: options.life.rm,
        stop_signal: stop_signal(options, &base.image),
        stop_seconds: options.life.stop_timeout,
        restart: options.life.restart,
        timeout_millis: options.life.timeout.map_or(0, |timeout| timeout.as_millis() as u64),
        log: log(options)?,
        health: health(options, &base.image)?,
        network: network.network,
        runtime: security::runtime(&options.security)?,
        anonymous_volumes: mounts.anonymous().to_vec(),
        volumes: mounts.named.clone(),
        pid_file: options.life.pidfile.as_ref().map(std::path::absolute).transpose()?,
        asked: json!({
            "options": asked,
            "mounts": told,
            "ports": network.ports,
            "requires": options.life.requires,
            "ids": [ids.0, ids.1],
            "secretVariables": secrets.variables,
        }),
    };
    check(options, &config)?;
    container.write_config(&config)?;
    mounts.keep();
    ctk_monitor::events::tell(desk.containers.root(), &config, "create", &[]);
    if let Some(path) = &options.life.cidfile {
        let made = std::fs::File::options().write(true).create_new(true).open(path);
        let written = made.and_then(|mut file| std::io::Write::write_all(&mut file, container.id().as_bytes()));
        written.map_err(Failure::during(format!("cannot make --cidfile {}", path.display())))?;
    }
    Ok(config)
}

/// Keeps all images that it is made of as long as it is there.
fn hold(snapshots: &Snapshots, base: &Base, mounts: &files::Mounts, container: &Container) -> Result<(), Failure> {
    let (mut digests, mut layers) = (Vec::new(), base.layers.clone());
    for text in
        base.digests.iter().map(|(manifest, _)| manifest).chain(mounts.images.iter().map(|(manifest, _)| manifest))
    {
        digests.push(text.parse()?);
    }
    layers.extend(mounts.images.iter().flat_map(|(_, layers)| layers).cloned());
    let layers = snapshots.directories(&layers);
    Ok(snapshots.store().hold_for_container(container.directory(), &digests, &layers)?)
}

/// Wishes that contradict each other.
fn check(options: &MakeOptions, config: &Config) -> Result<(), Failure> {
    use ctk_monitor::config::RestartPolicy;
    let always = matches!(config.restart.policy, RestartPolicy::Always | RestartPolicy::UnlessStopped);
    if config.remove && always {
        let what = format!("--rm and --restart={} contradict each other", config.restart.policy.word());
        return Err(Failure::sentence(what, Some("leave one of them out; `on-failure` goes with --rm")));
    }
    if options.health.health_on_failure != options::OnFailure::None && config.health.is_none() {
        let hint = Some("give --health-cmd, too");
        return Err(Failure::sentence("--health-on-failure needs a health check, and there is none", hint));
    }
    Ok(())
}

/// Its root, for whoever mounts it.
fn root(snapshots: &Snapshots, base: &Base, container: &Container, lasting: bool) -> Result<Mount, Failure> {
    match &base.folder {
        None => Ok(snapshots.own_layer(&base.layers, &container.layer(), lasting)?),
        Some((folder, false)) => Ok(Mount::new("bind", &folder.to_string_lossy(), "/", &["rbind"])),
        Some((folder, true)) => {
            let mut mount = snapshots.own_layer(&[], &container.layer(), lasting)?;
            let lower = format!("lowerdir={}", folder.display());
            mount.options.retain(|option| !option.starts_with("lowerdir="));
            mount.options.insert(0, lower);
            Ok(mount)
        }
    }
}

/// The same without its own layer, which is empty yet: nothing has to be made for that.
fn for_reading(root: &Mount, container: &Container) -> Result<Mount, Failure> {
    let mut mount = root.clone();
    if mount.kind.as_deref() != Some("overlay") {
        return Ok(mount);
    }
    mount.options.retain(|option| !option.starts_with("upperdir=") && !option.starts_with("workdir="));
    mount.options.retain(|option| option != "volatile");
    if mount.options.iter().filter(|option| option.starts_with("lowerdir=")).count() < 2 {
        // An overlay that is only read wants two.
        let empty = container.bundle().join("rootfs");
        mount.options.push(format!("lowerdir={}", empty.display()));
    }
    Ok(mount)
}

/// A file of the container's own below `/etc`.
fn etc(container: &Container, name: &str, text: impl AsRef<[u8]>) -> Result<Mount, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let path = container.etc(name);
    std::fs::write(&path, text.as_ref())
        .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)))
        .map_err(Failure::during(format!("cannot write {}", path.display())))?;
    Ok(Mount::new("bind", &path.to_string_lossy(), &format!("/etc/{name}"), &["bind", "nosuid", "nodev", "noexec"]))
}

/// A program, or a JSON list; an empty text is no entrypoint at all.
fn entrypoint(text: &str) -> Result<Vec<String>, Failure> {
    match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text)
            .map_err(Failure::during(format!("--entrypoint `{text}` is no JSON list of texts"))),
        false if text.is_empty() => Ok(Vec::new()),
        false => Ok(vec![text.to_owned()]),
    }
}

fn stop_signal(options: &MakeOptions, image: &ContainerConfig) -> i32 {
    const SIGTERM: i32 = 15;
    let of_image = || image.stop_signal.as_deref().and_then(ctk_runtime::signal_number);
    options.life.stop_signal.or_else(of_image).unwrap_or(SIGTERM)
}

fn log(options: &MakeOptions) -> Result<Log, Failure> {
    let mut log = Log { kept: options.log.log_driver == parse::LogDriver::File, ..Log::default() };
    for option in &options.log.log_opt {
        let wrong = |expected: &str| {
            Failure::sentence(format!("--log-opt `{option}` cannot be understood; expected {expected}"), None)
        };
        match option.split_once('=') {
            Some(("max-size", "-1" | "0")) => log.file_bytes = 0,
            Some(("max-size", size)) => {
                log.file_bytes = parse::bytes(size).map_err(|_| wrong("max-size=SIZE, e.g. `10MiB`"))?;
            }
            Some(("max-file", files)) => {
                let files = files.parse().ok().filter(|files| (1..=LOG_FILES_MAX).contains(files));
                log.files = files.ok_or_else(|| wrong("max-file=N, 1 to 1000"))?;
            }
            _ => return Err(wrong("`max-size=SIZE` or `max-file=N`")),
        }
    }
    Ok(log)
}

/// How its health is found out: the image's way, with what was given on top.
fn health(options: &MakeOptions, image: &ContainerConfig) -> Result<Option<Health>, Failure> {
    /// As docker has them, in milliseconds and times.
    const INTERVAL: u64 = 30_000;
    const TIMEOUT: u64 = 30_000;
    const START_INTERVAL: u64 = 5_000;
    const RETRIES: u32 = 3;
    let given = &options.health;
    if given.no_healthcheck || given.health_cmd.as_deref() == Some("none") {
        return Ok(None);
    }
    let of_image = image.healthcheck.clone().unwrap_or_default();
    let shell = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    let command = match &given.health_cmd {
        Some(text) if text.trim_start().starts_with('[') => {
            let words: Vec<String> = serde_json::from_str(text)
                .map_err(Failure::during(format!("--health-cmd `{text}` is no JSON list of texts")))?;
            match words.split_first() {
                Some((word, rest)) if word == "CMD" => rest.to_vec(),
                Some((word, [line])) if word == "CMD-SHELL" => shell(line),
                _ => words,
            }
        }
        Some(line) => shell(line.strip_prefix("CMD-SHELL ").unwrap_or(line)),
        None => match of_image.test.split_first() {
            Some((word, rest)) if word == "CMD" => rest.to_vec(),
            Some((word, [line, ..])) if word == "CMD-SHELL" => shell(line),
            _ => return Ok(None),
        },
    };
    if command.is_empty() {
        return Err(Failure::sentence("--health-cmd is empty", Some("`none` is for no health check")));
    }
    let millis = |given: Option<std::time::Duration>, nanos: i64, usual: u64| match (given, nanos) {
        (Some(given), _) => given.as_millis() as u64,
        (None, nanos) if nanos > 0 => nanos as u64 / 1_000_000,
        _ => usual,
    };
    let interval = millis(given.health_interval, of_image.interval, INTERVAL).max(1);
    let start_period = millis(given.health_start_period, of_image.start_period, 0);
    let retries = given.health_retries.or_else(|| u32::try_from(of_image.retries).ok().filter(|n| *n > 0));
    Ok(Some(Health {
        command,
        interval_millis: interval,
        timeout_millis: millis(given.health_timeout, of_image.timeout, TIMEOUT).max(1),
        retries: retries.unwrap_or(RETRIES).max(1),
        start_millis: start_period,
        start_interval_millis: millis(
            given.health_start_interval,
            of_image.start_interval,
            START_INTERVAL.min(interval),
        ),
        on_failure: match given.health_on_failure {
            options::OnFailure::None => OnFailure::None,
            options::OnFailure::Kill => OnFailure::Kill,
            options::OnFailure::Restart => OnFailure::Restart,
            options::OnFailure::Stop => OnFailure::Stop,
        },
    }))
}

/// What a container has of networks, and what stands about it in its files.
pub struct Chosen {
    /// For its monitor.
    pub network: Network,
    /// For the runtime.
    pub namespace: ctk_container::Namespace,
    /// Published ports, as they were given.
    pub ports: Vec<String>,
    /// Lines of `/etc/hosts`.
    pub added_hosts: Vec<(String, String)>,
    /// What stands in `/etc/resolv.conf`.
    pub resolv: String,
    /// Whether the files are the host's own.
    pub of_host: bool,
    /// What is asked of bridge networks; its monitor writes the files then.
    pub joining: Option<crate::runtime::joining::Asked>,
}

impl Chosen {
    fn hosts(&self, hostname: &str) -> Result<String, Failure> {
        let mut text = match self.of_host {
            true => std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| ctk_container::LOCALHOST.into()),
            false => ctk_container::LOCALHOST.into(),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        for (name, address) in &self.added_hosts {
            text.push_str(&format!("{address}\t{name}\n"));
        }
        if matches!(self.network, Network::None) {
            text.push_str(&format!("127.0.1.1\t{hostname}\n"));
        }
        Ok(text)
    }

    fn resolv_conf(&self) -> String {
        match self.of_host && self.resolv.is_empty() {
            true => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            false => self.resolv.clone(),
        }
    }
}
