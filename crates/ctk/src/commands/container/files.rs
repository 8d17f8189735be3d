//! What a container finds in its file system: mounts, volumes, devices, secrets.

use std::path::Path;

use ctk_container::{Device, Wanted};
use ctk_monitor::Container;
use ctk_oci::Mount;
use ctk_runtime::Root;
use serde_json::{Value, json};

use super::Desk;
use super::make::Base;
use super::options::{FileOptions, MakeOptions};
use crate::context::Context;
use crate::failure::Failure;

/// What mounts a container has.
#[derive(Default)]
pub struct Mounts {
    /// For the specification.
    pub all: Vec<Mount>,
    /// As `inspect` tells them.
    pub told: Vec<Value>,
    /// Names of volumes that go with the container.
    pub anonymous: Vec<String>,
    /// Names of other volumes.
    pub named: Vec<String>,
    /// Variables that secrets became.
    pub env: Vec<String>,
}

/// One mount as it was asked for.
struct Asked {
    kind: Kind,
    destination: String,
    options: Vec<String>,
}

enum Kind {
    Bind(String),
    Volume(Option<String>),
    Tmpfs,
}

/// Reads all options of mounts, and makes the volumes that are not there.
pub fn mounts(
    _context: &Context,
    desk: &Desk,
    options: &MakeOptions,
    base: &Base,
    _root: &Root,
    _ids: (u32, u32),
    _container: &Container,
) -> Result<Mounts, Failure> {
    let mut asked = Vec::new();
    for text in &options.files.volume {
        asked.push(volume(text)?);
    }
    for text in &options.files.mount {
        asked.push(in_words(text)?);
    }
    for text in &options.files.tmpfs {
        let (path, settings) = text.split_once(':').unwrap_or((text, ""));
        let settings = settings.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        asked.push(Asked { kind: Kind::Tmpfs, destination: absolute("--tmpfs", text, path)?, options: settings });
    }
    for path in base.image.volumes.keys() {
        if !asked.iter().any(|asked| asked.destination == clean(path)) {
            asked.push(Asked { kind: Kind::Volume(None), destination: clean(path), options: Vec::new() });
        }
    }
    if options.files.read_only && options.files.read_only_tmpfs {
        for path in ["/run", "/tmp", "/var/tmp"] {
            if !asked.iter().any(|asked| asked.destination == path) {
                let options = vec!["rw".into(), "nosuid".into(), "nodev".into(), "mode=1777".into()];
                asked.push(Asked { kind: Kind::Tmpfs, destination: path.into(), options });
            }
        }
    }
    let mut mounts = Mounts::default();
    let mut seen: Vec<String> = Vec::new();
    for Asked { kind, destination, options } in asked {
        if seen.contains(&destination) {
            return Err(Failure::sentence(format!("two mounts at {destination}"), Some("leave one of them out")));
        }
        seen.push(destination.clone());
        let writable = !options.iter().any(|option| option == "ro" || option == "readonly");
        match kind {
            Kind::Bind(source) => {
                mounts
                    .told
                    .push(json!({ "Type": "bind", "Source": source, "Destination": destination, "RW": writable }));
                mounts.all.push(bind(&source, &destination, &options)?);
            }
            Kind::Volume(name) => {
                let anonymous = name.is_none();
                let name = name.unwrap_or_else(super::identity::id);
                let source = desk.volume(&name, anonymous)?;
                let text = source.to_string_lossy();
                mounts.told.push(json!({
                    "Type": "volume", "Name": name, "Source": text, "Destination": destination, "RW": writable,
                }));
                mounts.all.push(bind(&text, &destination, &options)?);
                if anonymous { &mut mounts.anonymous } else { &mut mounts.named }.push(name);
            }
            Kind::Tmpfs => {
                let mut words = vec!["nosuid".to_owned(), "nodev".into()];
                words.extend(options);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                mounts.told.push(json!({ "Type": "tmpfs", "Source": "", "Destination": destination, "RW": writable }));
                mounts.all.push(Mount::new("tmpfs", "tmpfs", &destination, &words));
            }
        }
    }
    Ok(mounts)
}

/// `[HOST|VOLUME:]PATH[:OPTIONS]`.
fn volume(text: &str) -> Result<Asked, Failure> {
    let wrong = || {
        let hint = "it is `HOST:PATH[:ro]` for a folder or file of the host, `NAME:PATH[:ro]` for a volume, or `PATH`";
        Failure::sentence(format!("--volume `{text}` cannot be understood"), Some(hint))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, options) = match parts.as_slice() {
        [path] => ("", *path, ""),
        [source, path] => (*source, *path, ""),
        [source, path, options] => (*source, *path, *options),
        _ => return Err(wrong()),
    };
    let destination = absolute("--volume", text, path)?;
    let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    let kind = match source {
        "" if parts.len() == 1 => Kind::Volume(None),
        "" => return Err(wrong()),
        host if host.starts_with(['/', '.']) => Kind::Bind(host_path("--volume", host)?),
        name => {
            ctk_monitor::check_name(name).map_err(|_| wrong())?;
            Kind::Volume(Some(name.into()))
        }
    };
    Ok(Asked { kind, destination, options })
}

/// `type=bind,src=…,dst=…,ro`.
fn in_words(text: &str) -> Result<Asked, Failure> {
    let wrong = |why: String| Failure::sentence(format!("--mount `{text}`: {why}"), None);
    let (mut kind, mut source, mut target, mut options) = ("volume", None, None, Vec::new());
    for word in text.split(',') {
        let (name, value) = word.split_once('=').unwrap_or((word, "true"));
        match name {
            "type" => kind = value,
            "src" | "source" => source = Some(value),
            "dst" | "destination" | "target" => target = Some(value),
            "ro" | "readonly" => options.push(if value == "false" { "rw" } else { "ro" }.to_owned()),
            "rw" => options.push(if value == "false" { "ro" } else { "rw" }.to_owned()),
            "bind-propagation" => options.push(value.into()),
            "tmpfs-size" => options.push(format!("size={}", super::parse::bytes(value).map_err(wrong)?)),
            "tmpfs-mode" => options.push(format!("mode={value}")),
            "consistency" => {}
            "relabel" | "U" | "chown" | "idmap" | "tmpcopyup" | "noexec" | "nosuid" | "nodev" | "volume-nocopy" => {
                options.push(if value == "true" { name.into() } else { word.into() });
            }
            other => {
                let known = ["type", "src", "dst", "source", "target", "destination", "ro", "bind-propagation"];
                let near = ctk_syntax::nearest(other, known).map(|near| format!("; did you mean `{near}`?"));
                return Err(wrong(format!("there is no `{other}`{}", near.unwrap_or_default())));
            }
        }
    }
    let target = target.ok_or_else(|| wrong("`dst=PATH` is missing".into()))?;
    let destination = absolute("--mount", text, target)?;
    let kind = match (kind, source) {
        ("bind", Some(source)) => Kind::Bind(host_path("--mount", source)?),
        ("bind", None) => return Err(wrong("`src=PATH` is missing".into())),
        ("volume", source) => Kind::Volume(source.map(str::to_owned)),
        ("tmpfs", None) => Kind::Tmpfs,
        ("tmpfs", Some(_)) => return Err(wrong("a tmpfs has no source".into())),
        (other, _) => return Err(wrong(format!("`{other}` is none of bind, volume, tmpfs"))),
    };
    Ok(Asked { kind, destination, options })
}

fn host_path(option: &str, path: &str) -> Result<String, Failure> {
    let path = Path::new(path).canonicalize().map_err(|e| {
        let hint = Some("it has to be there before it can be mounted");
        Failure::sentence(format!("{option}: cannot mount {path}: {e}"), hint)
    })?;
    path.into_os_string().into_string().map_err(|_| Failure::sentence(format!("{option}: the path is no UTF-8"), None))
}

fn absolute(option: &str, text: &str, path: &str) -> Result<String, Failure> {
    match path.starts_with('/') && clean(path) != "/" {
        true => Ok(clean(path)),
        false => {
            let what = format!("{option} `{text}`: `{path}` is no path in the container; it begins with `/`, and more");
            Err(Failure::sentence(what, None))
        }
    }
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn bind(source: &str, destination: &str, options: &[String]) -> Result<Mount, Failure> {
    let mut words = vec!["rbind"];
    for option in options {
        match option.as_str() {
            // Nothing to relabel without SELinux; and a volume that has been filled is not filled again.
            "z" | "Z" | "relabel" | "nocopy" | "volume-nocopy" | "copy" => {}
            "bind" | "rbind" | "ro" | "rw" | "nosuid" | "suid" | "nodev" | "dev" | "noexec" | "exec" | "shared"
            | "rshared" | "slave" | "rslave" | "private" | "rprivate" | "unbindable" | "runbindable" | "rro"
            | "readonly" => words.push(if option == "readonly" { "ro" } else { option }),
            other => {
                let what = format!("`{other}` is no option of a mount at {destination}");
                return Err(Failure::sentence(what, Some("as `ro`, `rw`, `z`, `rslave`, `noexec`")));
            }
        }
    }
    if !words.iter().any(|word| word.contains("shared") || word.contains("slave") || word.contains("private")) {
        words.push("rprivate");
    }
    Ok(Mount::new("bind", source, destination, &words))
}

/// Devices that were asked for by name; with `privileged`, all that the host has.
pub fn devices(options: &FileOptions, privileged: bool, wanted: &mut Wanted) -> Result<(), Failure> {
    for text in &options.device {
        if text.contains('=') && !text.starts_with('/') {
            return Err(Failure::sentence(format!("--device `{text}`: CDI is not there yet"), None));
        }
        wanted.devices.extend(device(text)?);
    }
    if privileged {
        let mut all = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), &mut |path, target| all.extend(node(path, target, "rwm")), 0);
        all.retain(|device: &Device| !wanted.devices.iter().any(|given| given.path == device.path));
        wanted.devices.extend(all);
    }
    Ok(())
}

/// `HOST[:PATH][:rwm]`; a folder means the devices in it.
fn device(text: &str) -> Result<Vec<Device>, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let access = |word: &str| !word.is_empty() && word.chars().all(|c| "rwm".contains(c));
    let (host, path, rights) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, rights] if access(rights) => (*host, *host, *rights),
        [host, path] => (*host, *path, "rwm"),
        [host, path, rights] if access(rights) => (*host, *path, *rights),
        _ => {
            let what = format!("--device `{text}` cannot be understood; expected HOST[:PATH][:rwm]");
            return Err(Failure::sentence(what, None));
        }
    };
    let mut found = Vec::new();
    if Path::new(host).is_dir() {
        walk(Path::new(host), Path::new(path), &mut |from, to| found.extend(node(from, to, rights)), 0);
    } else {
        found.extend(node(Path::new(host), Path::new(path), rights));
    }
    if found.is_empty() {
        return Err(Failure::sentence(format!("--device `{text}`: {host} is no device"), None));
    }
    Ok(found)
}

fn node(from: &Path, to: &Path, access: &str) -> Option<Device> {
    use rustix::fs::FileType;
    let stat = rustix::fs::stat(from).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return None,
    };
    Some(Device {
        path: to.to_str()?.into(),
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        access: access.into(),
        mode: stat.st_mode & 0o777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}

/// What is below a folder of devices, but for what every container has of its own.
fn walk(from: &Path, to: &Path, found: &mut dyn FnMut(&Path, &Path), depth: usize) {
    const DEPTH: usize = 8;
    const OWN: [&str; 8] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "tty"];
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if depth == 0 && OWN.iter().any(|own| name == *own) || depth > DEPTH {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &to.join(&name), found, depth + 1),
            Ok(kind) if kind.is_symlink() => {}
            _ => found(&entry.path(), &to.join(&name)),
        }
    }
}
