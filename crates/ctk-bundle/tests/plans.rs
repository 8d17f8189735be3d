//! `config.json` → plan, as text: `test_data/plans/<name>/config.json` beside the `plan` or the `error` that comes out.
//! A file `host` may say `unprivileged`, `unified`, `apparmor`, `selinux`, `waits`, `no-pivot`, `no-keyring`, one a line. To take over what
//! came out after a look at it: `CTK_BLESS=1 cargo test -p ctk-bundle --test plans`.

use std::fs;
use std::path::Path;

use ctk_bundle::plan::{Host, HostCgroups, Switches, check_hooks, plan};
use ctk_bundle::{process, resources, seccomp, state};

fn host(words: &str) -> Host {
    let has = |word: &str| words.lines().any(|line| line == word);
    let legacy = HostCgroups::Legacy {
        names: ["cpu,cpuacct", "memory", "unified"].map(String::from).into(),
        links: vec![("cpu".into(), "cpu,cpuacct".into())],
    };
    Host {
        bundle: "/bundle".into(),
        id: "box".into(),
        cgroups: if has("unified") { HostCgroups::Unified } else { legacy },
        makes_nodes: !has("unprivileged"),
        capabilities: u64::MAX,
        apparmor: has("apparmor"),
        selinux: has("selinux"),
        landlock: if has("landlock") { 6 } else { 1 },
        switches: Switches {
            no_pivot: has("no-pivot"),
            no_new_keyring: has("no-keyring"),
            preserve_fds: 0,
            waits: has("waits"),
            moved: has("moved"),
        },
    }
}

/// Everything that is decided before anything is done.
fn decide(config: &str, host: &Host) -> Result<String, ctk_bundle::Error> {
    let spec = state::parse(config)?;
    check_hooks(&spec)?;
    let mut text = plan(&spec, host)?.to_string();
    if let Some(process) = &spec.process {
        process::program(process, None)?;
    }
    let Some(linux) = &spec.linux else { return Ok(text) };
    if let Some(seccomp) = &linux.seccomp {
        let compiled = seccomp::compile(seccomp)?;
        text.push_str(&format!("seccomp flags {} notifies {}\n", compiled.flags, compiled.notifies));
    }
    if let Some(wanted) = &linux.resources {
        for rule in resources::device_rules(&wanted.devices, false)? {
            text.push_str(&format!("device {} {rule}\n", if rule.allow { "allow" } else { "deny" }));
        }
        for setting in resources::version_1(wanted) {
            text.push_str(&format!("v1 {setting}  # {}\n", setting.field));
        }
        for setting in resources::version_2(wanted)? {
            text.push_str(&format!("v2 {setting}  # {}\n", setting.field));
        }
    }
    Ok(text)
}

fn check(folder: &Path) -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (name, text) = match decide(&read("config.json"), &host(&read("host"))) {
        Ok(plan) => ("plan", plan),
        Err(error) => ("error", format!("{}\n", error.line())),
    };
    if std::env::var_os("CTK_BLESS").is_some() {
        for other in ["plan", "error"] {
            let _ = fs::remove_file(folder.join(other));
        }
        fs::write(folder.join(name), &text).expect("a file");
    }
    let expected = read(name);
    match expected == text {
        true => Ok(()),
        false => Err(format!("{}: {name} is\n{text}\n--- and not\n{expected}", folder.display())),
    }
}

#[test]
fn plans_are_as_they_should_be() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/plans");
    let mut cases: Vec<_> = fs::read_dir(folder).expect("plans").map(|entry| entry.expect("a plan").path()).collect();
    cases.sort();
    assert!(cases.len() > 20, "{} plans", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
