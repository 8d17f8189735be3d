//! Maintainer scripts, all in one process tree inside the new root.
//!
//! dpkg would run the same scripts with the same words, but starts itself, reads and syncs its database for each; one
//! shell that walks a list takes a fraction of the time and fails with the name of the script that failed. Every script
//! sees the environment that dpkg gives (deb-postinst(5)), and the database in the state after unpacking.

use std::fmt::Write as _;

use crate::apt::deb822::Stanza;
use crate::install::database::{info_name, triggers};
use crate::install::deb::Deb;
use crate::install::rootfs::Root;
use crate::{PackagesError, RunInRoot, ScriptCommand, limits};

/// In the root, first in the path of scripts, gone afterwards.
pub(crate) const HELPER_DIRECTORY: &str = "usr/lib/.ctk-scripts";

const MARK: &str = "ctk-script-failed:";

const PRELUDE: &str = r#"umask 022
run() {
    export DPKG_MAINTSCRIPT_PACKAGE="$1" DPKG_MAINTSCRIPT_ARCH="$2" DPKG_MAINTSCRIPT_NAME="$4"
    script="/var/lib/dpkg/info/$3.$4"
    package="$1" name="$4"
    shift 4
    "$script" "$@" </dev/null
    code=$?
    if [ "$code" -ne 0 ]; then
        echo
        echo "ctk-script-failed: $package $name $code"
        exit 1
    fi
}
"#;

/// One call of one script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: usize,
    pub(crate) script: &'static str,
    pub(crate) args: Vec<String>,
}

/// `preinst install` of the packages that have one, in order.
pub(crate) fn preinsts(debs: &[Deb<'_>], numbers: impl Iterator<Item = usize>) -> Vec<Call> {
    let with = numbers.filter(|n| debs[*n].file("preinst").is_some());
    with.map(|number| Call { number, script: "preinst", args: vec!["install".into()] }).collect()
}

/// `postinst configure` of all, then `postinst triggered` for what was activated after its owner had been configured.
pub(crate) fn postinsts(debs: &[Deb<'_>]) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut pending: Vec<(usize, String)> = Vec::new();
    let lines: Vec<_> = debs.iter().map(triggers).collect();
    for (number, deb) in debs.iter().enumerate() {
        for activated in lines[number].iter().filter(|t| !t.interest) {
            let earlier = (0..number).filter(|n| lines[*n].iter().any(|t| t.interest && t.name == activated.name));
            for owner in earlier {
                if !pending.contains(&(owner, activated.name.clone())) {
                    pending.push((owner, activated.name.clone()));
                }
            }
        }
        if deb.file("postinst").is_some() {
            calls.push(Call { number, script: "postinst", args: vec!["configure".into(), String::new()] });
        }
    }
    calls.extend(triggered(debs, pending));
    calls
}

/// `postinst triggered "a b"` for owners and names of triggers.
pub(crate) fn triggered(debs: &[Deb<'_>], mut pending: Vec<(usize, String)>) -> Vec<Call> {
    pending.sort();
    let mut calls: Vec<Call> = Vec::new();
    for (number, name) in pending {
        if debs[number].file("postinst").is_none() {
            continue;
        }
        match calls.last_mut().filter(|c| c.number == number) {
            Some(call) => {
                call.args[1].push(' ');
                call.args[1].push_str(&name);
            }
            None => calls.push(Call { number, script: "postinst", args: vec!["triggered".into(), name] }),
        }
    }
    calls
}

/// What scripts have activated through `dpkg-trigger`: taken out of `triggers/Unincorp`.
pub(crate) fn activated(root: &Root, debs: &[Deb<'_>]) -> Result<Vec<(usize, String)>, PackagesError> {
    let path = "var/lib/dpkg/triggers/Unincorp";
    let failed = |source| PackagesError::Root { path: format!("/{path}"), source };
    let text = match root.read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    root.write(path, b"", 0o644).map_err(failed)?;
    let mut found = Vec::new();
    for name in text.lines().filter_map(|l| l.split_whitespace().next()) {
        for (number, deb) in debs.iter().enumerate() {
            let hit = triggers(deb).iter().any(|t| {
                t.interest && (t.name == name || (t.name.starts_with('/') && name.starts_with(&format!("{}/", t.name))))
            });
            if hit {
                found.push((number, name.to_string()));
            }
        }
    }
    Ok(found)
}

/// Runs the calls in one process; the first failing script is the error.
pub(crate) fn run(
    runner: &dyn RunInRoot,
    debs: &[Deb<'_>],
    calls: &[Call],
    epoch_seconds: i64,
    line: &mut dyn FnMut(&str),
) -> Result<(), PackagesError> {
    if calls.is_empty() {
        return Ok(());
    }
    let mut script = PRELUDE.to_string();
    for call in calls {
        let deb = &debs[call.number];
        let words = [&deb.package.name, &deb.package.architecture, &info_name(deb), call.script].map(quote);
        let _ = write!(script, "run {}", words.join(" "));
        for arg in &call.args {
            let _ = write!(script, " {}", quote(arg));
        }
        script.push('\n');
    }
    let dpkg = debs.iter().find(|d| d.package.name == "dpkg");
    let version = dpkg.map_or("1.21.0", |d| d.package.version.as_str());
    let env = [
        ("PATH", "/usr/lib/.ctk-scripts:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_MAINTSCRIPT_DEBUG", "0"),
        ("DPKG_ROOT", ""),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_FORCE", "security-mac,downgrade"),
        ("DPKG_RUNNING_VERSION", version),
        ("DPKG_COLORS", "never"),
        ("SYSTEMD_OFFLINE", "1"),
    ];
    let mut env: Vec<(String, String)> = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    env.push(("SOURCE_DATE_EPOCH".into(), epoch_seconds.to_string()));
    // Through standard input: the list of thousands of packages would be too long for an argument.
    let command = ScriptCommand { argv: vec!["/bin/sh".into(), "-s".into()], env, stdin: script.into_bytes() };
    let done = runner.run(&command).map_err(PackagesError::Runner)?;
    let output = String::from_utf8_lossy(&done.output);
    let mut lines: Vec<&str> = output.lines().collect();
    let failed = lines.iter().rposition(|l| l.starts_with(MARK));
    if let Some(at) = failed {
        let words: Vec<&str> = lines[at][MARK.len()..].split_whitespace().collect();
        lines.truncate(at);
        let from = lines.len().saturating_sub(limits::SCRIPT_OUTPUT_LINES);
        let word = |n: usize| words.get(n).copied().unwrap_or_default().to_string();
        return Err(PackagesError::Script {
            package: word(0),
            script: word(1),
            status: format!("exit code {}", word(2)),
            output: lines[from..].join("\n").trim_end().to_string(),
        });
    }
    lines.iter().filter(|l| !l.is_empty()).for_each(|l| line(l));
    if done.code != 0 {
        let from = lines.len().saturating_sub(limits::SCRIPT_OUTPUT_LINES);
        return Err(PackagesError::Script {
            package: Stanza(&debs[calls[0].number].control).get("Package").unwrap_or_default().into(),
            script: "driving".into(),
            status: format!("exit code {}", done.code),
            output: lines[from..].join("\n"),
        });
    }
    Ok(())
}

fn quote(word: impl AsRef<str>) -> String {
    format!("'{}'", word.as_ref().replace('\'', "'\\''"))
}
