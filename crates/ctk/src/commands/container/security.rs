//! How far a container is confined.

use std::path::PathBuf;

use ctk_container::Wanted;
use serde_json::Value;

use super::options::{Isolation, SecurityOptions};
use crate::failure::Failure;

/// Fills in capabilities, filters, labels, and what is masked.
pub fn choose(options: &SecurityOptions, wanted: &mut Wanted) -> Result<(), Failure> {
    wanted.privileged = options.privileged;
    wanted.security.add_capabilities = options.cap_add.clone();
    wanted.security.drop_capabilities = options.cap_drop.clone();
    for option in &options.security_opt {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => wanted.security.no_new_privileges = true,
            ("no-new-privileges", "false") => wanted.security.no_new_privileges = false,
            ("seccomp", "unconfined") => wanted.seccomp = Some(Value::Null),
            ("seccomp", "" | "default") => wanted.seccomp = None,
            ("seccomp", path) => wanted.seccomp = Some(profile(path)?),
            ("apparmor", "unconfined") => wanted.apparmor = Some("unconfined".into()),
            ("apparmor", profile) if !profile.is_empty() => wanted.apparmor = Some(profile.into()),
            // Without SELinux there is nothing to label and nothing to switch off.
            ("label", "disable") => wanted.label = None,
            ("label", label) if !label.is_empty() => label_of(label, wanted)?,
            ("mask", paths) if !paths.is_empty() => wanted.mask.extend(paths.split(':').map(str::to_owned)),
            ("unmask", paths) if !paths.is_empty() => wanted.unmask.extend(paths.split(':').map(unmask)),
            _ => {
                let hint = "it is `seccomp=FILE|unconfined`, `apparmor=PROFILE`, `label=…`, `no-new-privileges`, \
                            `mask=PATHS` or `unmask=PATHS|ALL`";
                return Err(Failure::sentence(format!("--security-opt `{option}` cannot be understood"), Some(hint)));
            }
        }
    }
    Ok(())
}

fn unmask(path: &str) -> String {
    if path.eq_ignore_ascii_case("all") { "ALL".into() } else { path.into() }
}

/// `type:x`, `level:x`, `user:x`, `role:x`, together a context.
fn label_of(text: &str, wanted: &mut Wanted) -> Result<(), Failure> {
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let what = format!("--security-opt label={text} needs SELinux, which this kernel does not have in use");
        return Err(Failure::sentence(what, Some("leave it out, or `label=disable`")));
    }
    let before = wanted.label.clone().unwrap_or_else(|| "system_u:system_r:container_t:s0".into());
    let mut parts: Vec<String> = before.splitn(4, ':').map(str::to_owned).collect();
    let (name, value) = text.split_once(':').unwrap_or(("", text));
    let at = ["user", "role", "type", "level"].iter().position(|part| *part == name);
    match at.and_then(|at| parts.get_mut(at)) {
        Some(part) => *part = value.into(),
        None => {
            let hint = Some("it is `user:…`, `role:…`, `type:…`, `level:…` or `disable`");
            return Err(Failure::sentence(format!("--security-opt label={text} cannot be understood"), hint));
        }
    }
    wanted.label = Some(parts.join(":"));
    Ok(())
}

/// A filter of system calls from a file, as docker and podman have them: what depends on capabilities or the kernel is
/// decided by who reads it, which is not done here; so only plain profiles of the specification are taken.
fn profile(path: &str) -> Result<Value, Failure> {
    let text = ctk_store::read_given_text(std::path::Path::new(path))
        .map_err(Failure::during(format!("cannot read --security-opt seccomp={path}")))?;
    let value: Value = serde_json::from_str(&text).map_err(Failure::during(format!("{path} is no JSON")))?;
    if value.get("defaultAction").is_none() {
        let hint = "a profile has a `defaultAction` and `syscalls` (runtime specification, config-linux.md#seccomp)";
        return Err(Failure::sentence(format!("{path} is no seccomp profile"), Some(hint)));
    }
    Ok(value)
}

/// Another runtime than ours.
pub fn runtime(options: &SecurityOptions) -> Result<Option<PathBuf>, Failure> {
    let gvisor = (options.isolation == Some(Isolation::Gvisor)).then_some("runsc");
    let Some(name) = options.runtime.as_deref().or(gvisor) else { return Ok(None) };
    if name == "ctk" || name == "ctk-runtime" {
        return Ok(None);
    }
    if name.contains('/') {
        let path = std::path::absolute(name)?;
        return match path.exists() {
            true => Ok(Some(path)),
            false => Err(Failure::sentence(format!("there is no runtime {}", path.display()), None)),
        };
    }
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = places.iter().map(|place| std::path::Path::new(place).join(name)).find(|path| path.exists());
    found.map(Some).ok_or_else(|| {
        let hint = match name {
            "runsc" => "gVisor has to be installed; `--isolation userns` needs nothing".to_owned(),
            name => format!("install {name}, or give its path"),
        };
        Failure::sentence(format!("the runtime `{name}` is not installed"), Some(&hint))
    })
}
