//! Container device interface, version 0.8 (`SPEC.md` of `cncf-tags/container-device-interface`): what a vendor says about
//! his devices, and what a container that gets one needs.
//!
//! A folder holds specifications, JSON or YAML, each of one kind, `vendor.com/class`. A device is named
//! `vendor.com/class=name`. A later folder's devices take the place of an earlier one's; two of the same name in one folder
//! are nobody's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ctk_oci::Mount;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::limits::CDI_FILE_BYTES;
use crate::{Device, Wanted};

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// No specification has it.
    #[error("there is no device `{name}`{}", near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Missing {
        /// What was asked for.
        name: String,
        /// One that is called almost so.
        near: Option<String>,
        /// What is known, and which files could not be read.
        known: String,
    },
    /// Two files of one folder have it.
    #[error("device `{name}` is in `{first}` and in `{second}`")]
    Twice {
        /// What was asked for.
        name: String,
        /// One of them.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// What its specification says cannot be done.
    #[error("device `{name}` of `{path}`: {reason}")]
    Edit {
        /// What was asked for.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Specification {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "part of the format, and of no meaning here")]
    annotations: BTreeMap<String, String>,
    devices: Vec<NamedDevice>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NamedDevice {
    name: String,
    #[serde(default)]
    #[expect(dead_code, reason = "part of the format, and of no meaning here")]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    hooks: Vec<Hook>,
    mounts: Vec<Bind>,
    intel_rdt: Option<Value>,
    additional_gids: Vec<u32>,
    net_devices: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    host_path: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<u32>,
    minor: Option<u32>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bind {
    host_path: String,
    container_path: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    options: Vec<String>,
}

/// A device that some file has.
struct Known {
    path: PathBuf,
    edits: Edits,
    of_all: Edits,
    twice: Option<PathBuf>,
}

/// All devices that the specifications of some folders have.
#[derive(Default)]
pub struct Cdi {
    devices: BTreeMap<String, Known>,
    /// Files that could not be understood, and why.
    broken: Vec<String>,
}

impl Cdi {
    /// Reads all specifications of these folders; later ones count more. One that is not there has none. A file that
    /// cannot be understood is told when a device is not found.
    pub fn read(folders: &[PathBuf]) -> Cdi {
        let mut all = Cdi::default();
        for folder in folders {
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
            files.sort_unstable();
            let mut here = BTreeMap::new();
            for path in files {
                let extension = path.extension().and_then(|extension| extension.to_str());
                if matches!(extension, Some("json" | "yaml" | "yml"))
                    && let Err(why) = read_file(&path, &mut here)
                {
                    all.broken.push(format!("{}: {why}", path.display()));
                }
            }
            all.devices.extend(here);
        }
        all
    }

    /// Names of all devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// Gives the container these devices, and what belongs to them.
    pub fn apply(&self, names: &[String], wanted: &mut Wanted) -> Result<(), CdiError> {
        let mut done: Vec<&Path> = Vec::new();
        for name in names {
            let known = self.devices.get(name).ok_or_else(|| self.missing(name))?;
            if let Some(second) = &known.twice {
                let (first, second) = (known.path.clone(), second.clone());
                return Err(CdiError::Twice { name: name.clone(), first, second });
            }
            let failed = |reason| CdiError::Edit { name: name.clone(), path: known.path.clone(), reason };
            if !done.contains(&known.path.as_path()) {
                done.push(&known.path);
                edit(&known.of_all, wanted).map_err(failed)?;
            }
            edit(&known.edits, wanted).map_err(failed)?;
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> CdiError {
        const SHOWN: usize = 16;
        let near = ctk_syntax::nearest(name, self.names()).map(str::to_owned);
        let kind = name.split('=').next().unwrap_or_default();
        let same: Vec<&str> = self.names().filter(|known| known.split('=').next() == Some(kind)).take(SHOWN).collect();
        let known: Vec<&str> = if same.is_empty() { self.names().take(SHOWN).collect() } else { same };
        let mut text = match known.is_empty() {
            true => "no specification has any device".to_owned(),
            false => format!("there are {}", known.join(", ")),
        };
        for broken in &self.broken {
            text.push_str(&format!("; cannot be understood: {broken}"));
        }
        CdiError::Missing { name: name.into(), near, known: text }
    }
}

fn read_file(path: &Path, known: &mut BTreeMap<String, Known>) -> Result<(), String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(CDI_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > CDI_FILE_BYTES {
        return Err(format!("it has more than {CDI_FILE_BYTES} bytes"));
    }
    let specification = match path.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::from_str::<Specification>(&text).map_err(|error| error.to_string())?,
        false => serde_saphyr::from_str::<Specification>(&text).map_err(|error| error.to_string())?,
    };
    check(&specification)?;
    for device in specification.devices {
        let name = format!("{}={}", specification.kind, device.name);
        let of_all = specification.container_edits.clone();
        let one = Known { path: path.into(), edits: device.container_edits, of_all, twice: None };
        match known.get_mut(&name) {
            Some(other) => other.twice = Some(path.into()),
            None => drop(known.insert(name, one)),
        }
    }
    Ok(())
}

fn check(specification: &Specification) -> Result<(), String> {
    let version = &specification.cdi_version;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let parts = (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten());
    match parts {
        (Some(0), Some(minor), Some(_)) if minor >= 2 => {}
        (Some(1), Some(0), Some(_)) => {}
        _ => return Err(format!("cdiVersion `{version}` is none of 0.2.0 to 1.0.0")),
    }
    let word = |text: &str, more: &[char]| {
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        first && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    match specification.kind.split_once('/') {
        Some((vendor, class)) if word(vendor, &['_', '-', '.']) && word(class, &['_', '-', '.']) => {}
        _ => return Err(format!("kind `{}` is no VENDOR/CLASS", specification.kind)),
    }
    if specification.devices.is_empty() {
        return Err("it has no devices".into());
    }
    match specification.devices.iter().find(|device| !word(&device.name, &['_', '-', '.', ':'])) {
        Some(device) => Err(format!("`{}` is no name of a device", device.name)),
        None => Ok(()),
    }
}

fn edit(edits: &Edits, wanted: &mut Wanted) -> Result<(), String> {
    const HOOKS: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    if edits.intel_rdt.is_some() {
        return Err("`intelRdt` is not supported".into());
    }
    if !edits.net_devices.is_empty() {
        return Err("`netDevices` is not supported".into());
    }
    for entry in &edits.env {
        match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => wanted.env.push(entry.clone()),
            _ => return Err(format!("env `{entry}` is no NAME=VALUE")),
        }
    }
    for node in &edits.device_nodes {
        let device = device(node)?;
        wanted.devices.retain(|other| other.path != device.path);
        wanted.devices.push(device);
    }
    for bind in &edits.mounts {
        if !bind.container_path.starts_with('/') {
            return Err(format!("containerPath `{}` is not absolute", bind.container_path));
        }
        let kind = bind.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("bind");
        let mut options: Vec<&str> = bind.options.iter().map(String::as_str).collect();
        if kind == "bind" {
            if !Path::new(&bind.host_path).exists() {
                return Err(format!("there is no `{}`, which it shows", bind.host_path));
            }
            if !options.iter().any(|option| matches!(*option, "bind" | "rbind")) {
                options.push("rbind");
            }
        }
        wanted.mounts.push(Mount::new(kind, &bind.host_path, &bind.container_path, &options));
    }
    for hook in &edits.hooks {
        if !HOOKS.contains(&hook.hook_name.as_str()) {
            return Err(format!("`{}` is no kind of hook", hook.hook_name));
        }
        let mut one = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
        if let (Some(timeout), Some(one)) = (hook.timeout, one.as_object_mut()) {
            one.insert("timeout".into(), json!(timeout));
        }
        let list = wanted.hooks.entry(hook.hook_name.clone()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(one);
        }
    }
    wanted.groups.extend(edits.additional_gids.iter().filter(|gid| **gid != 0).map(u32::to_string));
    Ok(())
}

fn device(node: &Node) -> Result<Device, String> {
    use rustix::fs::{FileType, major, minor};
    if !node.path.starts_with('/') {
        return Err(format!("device node `{}` is not absolute", node.path));
    }
    let host = node.host_path.as_deref().unwrap_or(&node.path);
    let stat = rustix::fs::stat(host);
    let known = match (&stat, node.kind.as_deref()) {
        (_, Some("c" | "u")) => Some('c'),
        (_, Some("b")) => Some('b'),
        (_, Some(other)) => return Err(format!("type `{other}` of `{}` is neither c nor b", node.path)),
        (Ok(stat), None) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => Some('c'),
            FileType::BlockDevice => Some('b'),
            _ => return Err(format!("`{host}` is no device")),
        },
        (Err(_), None) => None,
    };
    let number = |given: Option<u32>, part: fn(u64) -> u32| given.or_else(|| Some(part(stat.as_ref().ok()?.st_rdev)));
    let (Some(kind), Some(major), Some(minor)) = (known, number(node.major, major), number(node.minor, minor)) else {
        return Err(format!("there is no device `{host}`"));
    };
    let access = node.permissions.clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".into());
    if !access.chars().all(|c| "rwm".contains(c)) {
        return Err(format!("permissions `{access}` of `{}` are not of r, w and m", node.path));
    }
    let of_host = |field: fn(&rustix::fs::Stat) -> u32, usual: u32| stat.as_ref().map_or(usual, field);
    Ok(Device {
        path: node.path.clone(),
        kind,
        major,
        minor,
        access,
        mode: node.file_mode.unwrap_or_else(|| of_host(|stat| stat.st_mode & 0o777, 0o666)),
        uid: node.uid.unwrap_or_else(|| of_host(|stat| stat.st_uid, 0)),
        gid: node.gid.unwrap_or_else(|| of_host(|stat| stat.st_gid, 0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "cdiVersion: \"0.8.0\"
kind: acme.com/gpu
containerEdits:
  env: [ACME=1]
  additionalGids: [44, 0]
devices:
  - name: \"0\"
    containerEdits:
      deviceNodes:
        - path: /dev/acme0
          hostPath: /dev/null
          permissions: rw
      mounts:
        - hostPath: /etc
          containerPath: /opt/acme
          options: [ro, nosuid]
      hooks:
        - hookName: createContainer
          path: /bin/true
          args: [\"true\", x]
  - name: all
    containerEdits: { env: [\"ALL=yes\"] }
";

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Cdi) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let cdi = Cdi::read(&[folder.path().into(), "/not/there".into()]);
        (folder, cdi)
    }

    #[test]
    fn a_device_brings_what_belongs_to_it_once() {
        let (_folder, cdi) = folder(&[("acme.yaml", YAML)]);
        let mut wanted = Wanted::default();
        cdi.apply(&["acme.com/gpu=0".into(), "acme.com/gpu=all".into()], &mut wanted).unwrap();
        assert_eq!(wanted.env, ["ACME=1", "ALL=yes"]);
        assert_eq!(wanted.groups, ["44"]);
        let device = &wanted.devices[0];
        assert_eq!((device.path.as_str(), device.kind, device.major, device.minor), ("/dev/acme0", 'c', 1, 3));
        assert_eq!(wanted.mounts, [Mount::new("bind", "/etc", "/opt/acme", &["ro", "nosuid", "rbind"])]);
        assert_eq!(wanted.hooks["createContainer"][0]["args"], json!(["true", "x"]));
    }

    #[test]
    fn what_is_wrong_is_told_when_it_matters() {
        let json = r#"{"cdiVersion":"0.8.0","kind":"acme.com/gpu","devices":[{"name":"0","containerEdits":{}}]}"#;
        let said = |files: &[(&str, &str)], name: &str| {
            let (_folder, cdi) = folder(files);
            match cdi.apply(&[name.into()], &mut Wanted::default()).unwrap_err() {
                error @ CdiError::Missing { .. } => {
                    let CdiError::Missing { known, .. } = &error else { unreachable!() };
                    format!("{error}; {known}")
                }
                error => error.to_string(),
            }
        };
        assert!(said(&[("a.json", json)], "acme.com/gpu=1").contains("did you mean `acme.com/gpu=0`?"));
        assert!(said(&[], "acme.com/gpu=1").contains("no specification has any device"));
        assert!(said(&[("a.json", json), ("b.json", json)], "acme.com/gpu=0").contains("b.json"));
        let unknown = json.replace("{}", r#"{"frobs":1}"#);
        assert!(said(&[("a.json", &unknown)], "acme.com/gpu=0").contains("unknown field `frobs`"));
        let later = json.replace("0.8.0", "2.0.0");
        assert!(said(&[("a.json", &later)], "acme.com/gpu=0").contains("cdiVersion `2.0.0`"));
        let gone = json.replace("{}", r#"{"deviceNodes":[{"path":"/dev/none-such"}]}"#);
        assert!(said(&[("a.json", &gone)], "acme.com/gpu=0").contains("there is no device `/dev/none-such`"));
    }

    #[test]
    fn a_later_folder_counts_more() {
        let text = |value: &str| YAML.replace("ACME=1", value);
        let (first, _) = folder(&[("acme.yaml", &text("ACME=1"))]);
        let (second, _) = folder(&[("acme.yaml", &text("ACME=2"))]);
        let cdi = Cdi::read(&[first.path().into(), second.path().into()]);
        let mut wanted = Wanted::default();
        cdi.apply(&["acme.com/gpu=0".into()], &mut wanted).unwrap();
        assert_eq!(wanted.env, ["ACME=2"]);
    }
}
