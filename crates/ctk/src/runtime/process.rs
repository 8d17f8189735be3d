//! The process of `exec`, from a file or from options and the container's own.

use ctk_bundle::spec::{Capabilities, List, Process, Spec};

use super::Failure;
use super::arguments::Arguments;

/// What to run in a container with this configuration.
pub fn process(arguments: &Arguments, spec: &Spec) -> Result<Process, String> {
    if let Some(path) = arguments.value("process") {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read `{path}`: {e}"))?;
        return ctk_bundle::spec::read(&text).map_err(|wrong| format!("{path}: {}: {}", wrong.field, wrong.reason));
    }
    let mut process = spec.process.clone().unwrap_or_default();
    let words = arguments.operands.get(1..).unwrap_or_default();
    if words.is_empty() {
        return Err("a command is needed, or --process".into());
    }
    process.args = List(words.to_vec());
    process.terminal = arguments.is_on("tty");
    process.console_size = None;
    if let Some(cwd) = arguments.value("cwd") {
        process.cwd = cwd.into();
    }
    for entry in arguments.values("env") {
        let name = entry.split('=').next().unwrap_or_default();
        process.env.0.retain(|old| old.split('=').next() != Some(name));
        process.env.0.push(entry.into());
    }
    if let Some(user) = arguments.value("user") {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        process.user.uid = id(uid)?;
        process.user.gid = gid.map_or(Ok(process.user.gid), id)?;
    }
    for group in arguments.values("additional-gids") {
        process.user.additional_gids.0.push(id(group)?);
    }
    if arguments.is_on("no-new-privs") {
        process.no_new_privileges = true;
    }
    for (name, label) in [("apparmor", &mut process.apparmor_profile), ("process-label", &mut process.selinux_label)] {
        if let Some(value) = arguments.value(name) {
            *label = Some(value.into());
        }
    }
    let more: Vec<String> = arguments.values("cap").map(String::from).collect();
    if !more.is_empty() {
        let capabilities = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted] {
            set.0.extend(more.iter().cloned());
        }
    }
    Ok(process)
}

/// A user or group id: digits and nothing else, and not the one that means "unchanged" (CVE-2026-30892).
fn id(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no user or group id: a number from 0 to 4294967294 is needed");
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|number| digits && *number != u32::MAX);
    number.ok_or_else(wrong)
}

/// `SIGTERM`, `TERM`, `15`; `0` only asks whether there is somebody.
pub fn signal(word: &str) -> Result<i32, Failure> {
    let number = if word == "0" { Some(0) } else { ctk_runtime::signal_number(word) };
    number.ok_or_else(|| format!("unknown signal `{word}`").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_and_nothing_else() {
        assert_eq!((id("0"), id("4294967294")), (Ok(0), Ok(4_294_967_294)));
        for bad in ["", "-1", "+1", "1x", " 1", "4294967295", "4294967296", "0x1", "root"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (word, expected) in [("SIGKILL", 9), ("0", 0), ("SIGRTMIN+3", 37), ("40", 40)] {
            assert_eq!(signal(word).ok(), Some(expected));
        }
        assert!(signal("SIGFOO").is_err());
    }
}
