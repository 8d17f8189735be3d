//! A step in a container, with the services beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ctk_container::{ExecOptions, ExitStatus, Network, RunOptions, Security, Stdin, Stdio, Switch};
use ctk_oci::Mount;
use ctk_plan::{Cancel, Stream};

use super::error::chain;
use super::execute::{Ended, Run};
use super::job::{Service, Task, TaskWork};
use super::stop::Handle;

/// Where a step finds its script.
const SCRIPT: &str = "/builder/script";
/// Where a step writes what it has to say to the build.
const OUTPUTS: &str = "/builder/outputs";
/// Between two questions whether a service is ready.
const READY_PAUSE: Duration = Duration::from_millis(100);

/// A container of a service; its root must outlive it.
struct Beside {
    container: ctk_container::Container,
    _root: ctk_snapshot::Ephemeral,
}

/// Runs the step's container to its end.
pub(crate) fn run(run: &Run<'_>, task: &Task) -> Ended {
    match attempt(run, task) {
        Ok(ended) => ended,
        Err(message) => Ended::broken(message),
    }
}

fn attempt(run: &Run<'_>, task: &Task) -> Result<Ended, String> {
    let TaskWork::Container { image: name, entrypoint, args, script } = &task.work else {
        return Err("no container".into());
    };
    let say = |line: String| run.say(task, Stream::Err, &line);
    let image = run.images.get(name, &say)?;
    let root = run.request.snapshots.view(&image.layers).map_err(|error| chain(&error))?;
    let mount = root.root_mount().map_err(|error| chain(&error))?;
    let switch = match task.services.is_empty() {
        true => None,
        false => Some(Switch::new().map_err(|error| chain(&error))?),
    };
    let beside = match &switch {
        Some(switch) => services(run, task, switch)?,
        None => Vec::new(),
    };
    let mut options = RunOptions::new(mount, &image.config.config, run.request.state);
    options.entrypoint = entrypoint.clone();
    options.args = (!args.is_empty()).then(|| args.clone());
    options.mounts = mounts(run, task)?;
    if let Some(script) = script {
        let path = run.request.journal.folder.join("scripts").join(task.number.to_string());
        write_script(&path, script)?;
        options.mounts.push(Mount::new("bind", &path.to_string_lossy(), SCRIPT, &["ro"]));
        // The kernel reads a first line that names who reads the rest.
        let words = if script.starts_with("#!") { vec![SCRIPT] } else { vec!["/bin/sh", SCRIPT] };
        options.entrypoint = Some(words.into_iter().map(str::to_owned).collect());
        options.args = None;
    }
    let mut env: BTreeMap<&str, &str> = BTreeMap::from([("HOME", "/builder/home"), ("BUILDER_OUTPUT", OUTPUTS)]);
    // A variable that is no secret wins over one that is.
    for (variable, secret) in &task.secret_env {
        env.extend(run.request.secrets.get(secret).map(|value| (variable.as_str(), value.as_str())));
    }
    env.extend(task.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    options.env = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    options.workdir = Some(task.directory.clone());
    options.network = match &switch {
        Some(switch) => Network::Private { switch, names: vec!["step".into()] },
        None => Network::Host,
    };
    options.hosts = run.hosts();
    options.security = match run.request.settings.privileged {
        true => Security {
            add_capabilities: vec!["ALL".into()],
            drop_capabilities: Vec::new(),
            no_new_privileges: false,
            seccomp: false,
            mask_paths: false,
            devices: true,
        },
        // As in `ctk run`.
        false => Security { no_new_privileges: false, ..Security::default() },
    };
    options.timeout = task.timeout;
    options.stdin = Stdin::Null;
    options.stdio = Stdio::Lines(run.sink(task));
    let container = ctk_container::run(options).map_err(|error| match error.is_missing_program() {
        true => format!("{}; is it in image `{name}`?", chain(&error)),
        false => chain(&error),
    })?;
    let container = Arc::new(container);
    run.stops.began(task, Handle::Container(Arc::clone(&container)));
    let status = container.wait(&Cancel::new());
    run.stops.ended(task);
    // Before its root, and before what is beside it.
    drop(container);
    drop(beside);
    let status = status.map_err(|error| chain(&error))?;
    Ok(match status {
        ExitStatus::Code(code) => Ended::with_code(code),
        ExitStatus::TimedOut => {
            Ended::late(format!("it took longer than its timeout, {:?}", task.timeout.unwrap_or_default()))
        }
        status => Ended::failed(status.shell_code(), status.to_string()),
    })
}

fn mounts(run: &Run<'_>, task: &Task) -> Result<Vec<Mount>, String> {
    let folder = &run.request.journal.folder;
    fs::create_dir_all(run.logins()).map_err(|error| format!("cannot make a place for logins: {error}"))?;
    let outputs = folder.join("outputs").join(task.number.to_string());
    fs::create_dir_all(&outputs).map_err(|error| format!("cannot make {}: {error}", outputs.display()))?;
    let bind = |from: &Path, to: &str| Mount::new("bind", &from.to_string_lossy(), to, &["rbind"]);
    let mut mounts = vec![
        bind(&folder.join("workspace"), "/workspace"),
        bind(&folder.join("home"), "/builder/home"),
        bind(&outputs, OUTPUTS),
        bind(&run.logins(), "/builder/home/.docker"),
    ];
    mounts.extend(task.volumes.iter().map(|volume| bind(&folder.join("volumes").join(&volume.name), &volume.path)));
    Ok(mounts)
}

fn write_script(path: &Path, script: &str) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    fs::write(path, script).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed)
}

/// Starts the services, and waits until each is ready.
fn services(run: &Run<'_>, task: &Task, switch: &Switch) -> Result<Vec<Beside>, String> {
    let mut all = Vec::new();
    for service in &task.services {
        all.push(start(run, task, switch, service)?);
    }
    for (service, beside) in task.services.iter().zip(&all) {
        await_ready(run, task, service, beside)?;
    }
    Ok(all)
}

fn start(run: &Run<'_>, task: &Task, switch: &Switch, service: &Service) -> Result<Beside, String> {
    let why = |why: String| format!("service `{}`: {why}", service.name);
    let image = run.images.get(&service.image, &|line| run.say(task, Stream::Err, &line)).map_err(why)?;
    let root = run.request.snapshots.view(&image.layers).map_err(|error| why(chain(&error)))?;
    let mount = root.root_mount().map_err(|error| why(chain(&error)))?;
    let mut options = RunOptions::new(mount, &image.config.config, run.request.state);
    options.args = (!service.args.is_empty()).then(|| service.args.clone());
    options.env = service.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    options.hostname = Some(service.name.clone());
    options.network = Network::Private { switch, names: vec![service.name.clone()] };
    options.security.no_new_privileges = false;
    let (sink, name) = (run.sink(task), service.name.clone());
    options.stdio = Stdio::Lines(Arc::new(move |stream, line| sink(stream, &format!("{name}: {line}"))));
    let container = ctk_container::run(options).map_err(|error| why(chain(&error)))?;
    Ok(Beside { container, _root: root })
}

fn await_ready(run: &Run<'_>, task: &Task, service: &Service, beside: &Beside) -> Result<(), String> {
    if service.ready.is_empty() {
        return Ok(());
    }
    let until = Instant::now() + service.within;
    loop {
        if run.stops.ends(task).is_some() {
            return Err("stopped before its services were ready".into());
        }
        let ended = beside.container.try_wait().map_err(|error| chain(&error))?;
        if let Some(status) = ended {
            return Err(format!("service `{}` ended before it was ready: {status}", service.name));
        }
        let mut options = ExecOptions::new(service.ready.clone());
        options.stdio = Stdio::Null;
        options.timeout = Some(until.saturating_duration_since(Instant::now()).max(READY_PAUSE));
        let why = match beside.container.exec(options, run.request.cancel) {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => chain(&error),
        };
        if Instant::now() >= until {
            let words = service.ready.join(" ");
            return Err(format!(
                "service `{}` was not ready within {:?}: `{words}`: {why}",
                service.name, service.within
            ));
        }
        std::thread::sleep(READY_PAUSE);
    }
}
