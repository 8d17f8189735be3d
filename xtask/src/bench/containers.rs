//! What a container costs that another tool has a runtime start: `ctk-runtime` beside crun and runc.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::cases::Case;
use super::{Comparison, Contender, Ground};

/// The comparisons.
pub const CASES: &[Case] =
    &[Case { name: "runtime-run", make: run_true }, Case { name: "runtime-exec", make: exec_true }];

/// A bundle of busybox that every runtime of the last years takes, with a script that runs one of them in a view of the
/// machine with cgroups of version 1 only: crun 1.8 refuses hosts with both.
fn bundle(ground: &Ground) -> Result<(), String> {
    let folder = ground.scratch.join("bundle");
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", folder.display());
    let root = folder.join("rootfs");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).map_err(failed)?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.ok_or("busybox-static is not installed")?, root.join("bin/busybox")).map_err(failed)?;
    for name in ["sh", "sleep", "true"] {
        let _ = symlink("busybox", root.join("bin").join(name));
    }
    let link = ground.scratch.join("ctk-runtime");
    // The program of its own, which is built beside the other.
    let own = ground.ctk.with_file_name("ctk-runtime");
    let _ = symlink(if own.exists() { &own } else { &ground.ctk }, &link);
    // Another case's.
    let _ = fs::remove_file(folder.join("config.json"));
    let status = std::process::Command::new(&link).args(["spec", "--bundle"]).arg(&folder).status();
    if !status.map_err(failed)?.success() {
        return Err("ctk-runtime spec failed".into());
    }
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(failed)?;
    let text = text.replace("\"terminal\": true", "\"terminal\": false").replace("\"1.3.0\"", "\"1.0.2\"");
    fs::write(&path, text.replace("\"sh\"\n", "\"/bin/true\"\n")).map_err(failed)
}

/// A view of the machine, in which a command runs many times: making and unmaking it would be part of everybody's time.
const VIEW: &str = "cd $S/bundle && exec unshare -m --propagation private -- sh -ec \
    'umount /sys/fs/cgroup/unified 2>/dev/null || true; \"$@\"' sh";

/// The same, for a command that runs twenty times.
const TWENTY: &str = "cd $S/bundle && exec unshare -m --propagation private -- sh -ec \
    'umount /sys/fs/cgroup/unified 2>/dev/null || true; for _ in $(seq 20); do \"$@\"; done' sh";

fn runtimes(ground: &Ground) -> [(&'static str, String, String); 3] {
    let state = |name: &str| ground.scratch.join(format!("state-{name}")).display().to_string();
    [
        ("ctk-runtime", "$S/ctk-runtime".into(), state("ctk")),
        ("crun", "crun".into(), state("crun")),
        ("runc", "runc".into(), state("runc")),
    ]
}

fn run_true(ground: &Ground) -> Result<Comparison, String> {
    bundle(ground)?;
    let contender = |(name, program, state): (&str, String, String)| {
        Contender::new(name, ground.shell(&format!("{TWENTY} {program} --root {state} run bench-{name}")))
    };
    Ok(Comparison {
        name: "twenty containers of /bin/true, one after the other",
        bar: "at most 0.6 of crun, 1/5 of runc; 5 MB",
        rounds: 10,
        contenders: runtimes(ground).into_iter().map(contender).collect(),
    })
}

/// A container that goes with its contender.
struct Left {
    ground: Ground,
    end: String,
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.ground.shell(&self.end).status();
    }
}

fn exec_true(ground: &Ground) -> Result<Comparison, String> {
    bundle(ground)?;
    let path = ground.scratch.join("bundle/config.json");
    let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
    let text = text.replace("\"/bin/true\"\n", "\"sleep\", \"100\"\n");
    fs::write(&path, text).map_err(|e| e.to_string())?;
    let contender = |(name, program, state): (&str, String, String)| {
        let id = format!("bench-exec-{name}");
        let (there, made) = (format!("state {id}"), format!("run --detach {id}"));
        let own = |words: &str| format!("{program} --root {state} {words} >/dev/null 2>&1 </dev/null");
        // It lives for a hundred seconds, which is longer than the rounds take.
        let start = format!("{VIEW} sh -c \"{} || {}\"", own(&there), own(&made));
        let end = format!("{VIEW} {program} --root {state} delete --force {id} >/dev/null 2>&1");
        let left = Left { ground: ground.clone(), end };
        let exec = format!("{TWENTY} {program} --root {state} exec {id} /bin/true");
        Contender::making(name, move || Ok(left.ground.shell(&exec))).after(ground.shell(&start))
    };
    Ok(Comparison {
        name: "twenty times exec of /bin/true",
        bar: "at most 0.7 of crun",
        rounds: 10,
        contenders: runtimes(ground).into_iter().map(contender).collect(),
    })
}
