//! Namespaces of a container: its own, the host's, or somebody else's.

use std::path::PathBuf;

use ctk_container::{Namespace, Wanted};

use super::Desk;
use super::options::{Isolation, MakeOptions};
use crate::failure::Failure;

/// Fills in the namespaces, and the mappings of a namespace of users.
pub fn choose(desk: &Desk, options: &MakeOptions, network: &Namespace, wanted: &mut Wanted) -> Result<(), Failure> {
    let process = &options.process;
    let all = &mut wanted.namespaces;
    all.network = network.clone();
    all.pid = mode(desk, "--pid", process.pid.as_deref(), "pid", &[])?;
    all.ipc = mode(desk, "--ipc", process.ipc.as_deref(), "ipc", &["shareable", "none"])?;
    all.uts = mode(desk, "--uts", process.uts.as_deref(), "uts", &[])?;
    all.cgroup = mode(desk, "--cgroupns", process.cgroupns.as_deref(), "cgroup", &[])?;
    users(desk, options, wanted)
}

/// `private`, `host`, `container:NAME`, `ns:PATH`.
pub fn mode(desk: &Desk, option: &str, text: Option<&str>, file: &str, private: &[&str]) -> Result<Namespace, Failure> {
    let Some(text) = text else { return Ok(Namespace::Private) };
    match text.split_once(':') {
        None if text == "private" || text.is_empty() || private.contains(&text) => Ok(Namespace::Private),
        None if text == "host" => Ok(Namespace::Host),
        Some(("container", name)) => Ok(Namespace::Path(of_container(desk, name, file)?)),
        Some(("ns", path)) if std::path::Path::new(path).exists() => Ok(Namespace::Path(path.into())),
        Some(("ns", path)) => Err(Failure::sentence(format!("{option} `{text}`: there is no `{path}`"), None)),
        _ => {
            let others: Vec<String> = private.iter().map(|word| format!("`{word}`, ")).collect();
            let hint = format!("it is `private`, `host`, {}`container:NAME` or `ns:PATH`", others.concat());
            Err(Failure::sentence(format!("{option} `{text}` cannot be understood"), Some(&hint)))
        }
    }
}

/// The namespace of another container, which has to run.
pub fn of_container(desk: &Desk, name: &str, file: &str) -> Result<PathBuf, Failure> {
    let container = desk.find(name)?;
    let state = desk.settle(&container)?;
    if state.pid == 0 {
        let hint = format!("`ctk start {name}`");
        let what = format!("container {name} is {}, so it has no namespaces to join", state.status.word());
        return Err(Failure::sentence(what, Some(&hint)));
    }
    Ok(format!("/proc/{}/ns/{file}", state.pid).into())
}

/// `INSIDE:OUTSIDE:COUNT`.
fn mapping(option: &str, text: &str) -> Result<(u32, u32, u32), Failure> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([inside, outside]) => Ok((*inside, *outside, 1)),
        Some([inside, outside, count]) if *count > 0 => Ok((*inside, *outside, *count)),
        _ => {
            let what = format!("{option} `{text}` cannot be understood; expected INSIDE:OUTSIDE[:COUNT]");
            Err(Failure::sentence(what, None))
        }
    }
}

fn users(desk: &Desk, options: &MakeOptions, wanted: &mut Wanted) -> Result<(), Failure> {
    let security = &options.security;
    for text in &security.uidmap {
        wanted.uid_mappings.push(mapping("--uidmap", text)?);
    }
    for text in &security.gidmap {
        wanted.gid_mappings.push(mapping("--gidmap", text)?);
    }
    // One of them stands for both, as with other tools.
    if wanted.gid_mappings.is_empty() {
        wanted.gid_mappings = wanted.uid_mappings.clone();
    } else if wanted.uid_mappings.is_empty() {
        wanted.uid_mappings = wanted.gid_mappings.clone();
    }
    let isolated = (security.isolation == Some(Isolation::Userns)).then_some("auto");
    match security.userns.as_deref().or(isolated) {
        None | Some("host") => {}
        Some("auto") => {
            let range = desk.automatic_range()?;
            wanted.uid_mappings = vec![(0, range.0, range.1)];
            wanted.gid_mappings = vec![(0, range.0, range.1)];
        }
        Some(text @ ("keep-id" | "nomap")) => {
            let (why, hint) = match ctk_runtime::is_ordinary() {
                true => (
                    "is not supported: an ordinary user is root in his containers",
                    "leave it out: what root writes there into folders of yours is yours",
                ),
                false => (
                    "is for ordinary users, whose ids are mapped anyway",
                    "root has `auto`, `host`, --uidmap and --gidmap",
                ),
            };
            return Err(Failure::sentence(format!("--userns {text} {why}"), Some(hint)));
        }
        Some(text) => {
            let namespace = mode(desk, "--userns", Some(text), "user", &["auto", "keep-id", "nomap"])?;
            wanted.namespaces.user = namespace;
        }
    }
    Ok(())
}
