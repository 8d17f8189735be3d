//! What a process in a container must not be able to do.

mod common;

use std::path::Path;

use common::{Rig, chain, rig};
use ctk_container::{ExitStatus, Limits, run};
use ctk_oci::Mount;

fn check(rig: &Rig, script: &str, expected: &str) {
    let (_, output) = rig.run(script, |_| {});
    assert_eq!(output, expected, "{script}");
}

#[test]
fn capabilities_are_few() {
    let Some(rig) = rig() else { return };
    check(&rig, "grep Cap /proc/self/status | tr -d '\\t'", {
        "CapInh:0000000000000000\nCapPrm:00000000800405fb\nCapEff:00000000800405fb\n\
         CapBnd:00000000800405fb\nCapAmb:0000000000000000"
    });
    let (_, output) = rig.run("grep -E 'Cap(Eff|Bnd)' /proc/self/status | tr -d '\\t'", |o| {
        o.security.drop_capabilities = vec!["ALL".into()];
        o.security.add_capabilities = vec!["cap_chown".into()];
    });
    assert_eq!(output, "CapEff:0000000000000001\nCapBnd:0000000000000001");
    let (_, output) = rig.run("grep Cap /proc/self/status | tr -d '\\t'", |o| o.user = Some("web".into()));
    assert!(output.contains("CapPrm:0000000000000000\nCapEff:0000000000000000"), "{output}");
}

#[test]
fn dangerous_calls_are_refused() {
    let Some(rig) = rig() else { return };
    check(&rig, "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'", "NoNewPrivs:1\nSeccomp:2");
    for script in
        ["mount -t tmpfs x /tmp", "unshare -U true", "unshare -m true", "hostname other", "mknod /tmp/d b 8 0"]
    {
        let (status, output) = rig.run(script, |_| {});
        assert_eq!(status, ExitStatus::Code(1), "{script}");
        assert!(
            output.to_lowercase().contains("not permitted") || output.contains("permission denied"),
            "{script}: {output}"
        );
    }
    // With the capability, the same profile lets it through.
    let (status, output) = rig.run("mount -t tmpfs x /tmp && hostname other && unshare -m true", |o| {
        o.security.add_capabilities = vec!["SYS_ADMIN".into()];
    });
    assert_eq!((status, output.as_str()), (ExitStatus::Code(0), ""));
    let (_, output) = rig.run("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'", |o| {
        o.security.no_new_privileges = false;
    });
    assert_eq!(output, "NoNewPrivs:0\nSeccomp:2");
}

#[test]
fn kernel_settings_are_out_of_reach() {
    let Some(rig) = rig() else { return };
    check(&rig, "cat /proc/keys /proc/timer_list; ls /sys/firmware /proc/acpi | grep -v :", "");
    for path in ["/proc/sys/kernel/core_pattern", "/sys/kernel/mm/ksm/run", "/proc/irq/default_smp_affinity"] {
        let (status, output) = rig.run(&format!("echo 0 > {path}"), |_| {});
        assert!(!status.success() && output.contains("Read-only file system"), "{path}: {output}");
    }
}

#[test]
fn the_root_is_the_end_of_the_world() {
    let Some(rig) = rig() else { return };
    check(&rig, "ls -a / | grep -v -E '^(bin|dev|etc|proc|sys|tmp|\\.|\\.\\.)$'; ls /proc | grep -c '^[0-9]'", "3");
    check(&rig, "cd /../../..; pwd; ls -d /dev/vda 2>&1", "/\nls: /dev/vda: No such file or directory");
    let (_, output) = rig.run("exec 2>&1; touch /x; echo ok > /dev/shm/x; cat /dev/shm/x", |o| o.read_only = true);
    assert_eq!(output, "touch: /x: Read-only file system\nok");
}

#[test]
fn links_in_an_image_lead_nowhere_else() {
    let Some(rig) = rig() else { return };
    let outside = rig.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, rig.path("lower/escape")).unwrap();
    let source = rig.path("lower/etc").display().to_string();
    std::fs::write(rig.path("lower/etc/mark"), "inside").unwrap();
    // It leads where it would lead inside.
    let script = format!("cat /escape/in/mark {}/in/mark", outside.display());
    let (_, output) = rig.run(&script, |o| o.mounts.push(Mount::new("bind", &source, "/escape/in", &[])));
    assert_eq!(output, "insideinside");
    assert!(!outside.join("in").exists());
    // A /proc or /dev that is a link is refused: others look for the truth there.
    std::os::unix::fs::symlink("/tmp", rig.path("lower/proc")).unwrap();
    let error = run(rig.options("linked", "true")).err().unwrap();
    assert!(chain(&error).contains("mount proc on `/proc`"), "{}", chain(&error));
}

#[test]
fn devices_of_an_image_stay_closed() {
    let Some(rig) = rig() else { return };
    let made = std::process::Command::new("mknod").arg(rig.path("lower/zero")).args(["c", "1", "5"]).status();
    assert!(made.unwrap().success());
    let (_, output) = rig
        .run("exec 2>&1; head -c 1 /zero | wc -c; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c", |_| {});
    assert_eq!(output, "head: /zero: Permission denied\n0\n3\n3");
}

#[test]
fn devices_are_the_usual_ones() {
    let Some(rig) = rig() else { return };
    check(
        &rig,
        "ls /dev | tr '\\n' ' '",
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
    );
    check(
        &rig,
        "echo x > /dev/null; readlink /dev/stdout; readlink /dev/ptmx; echo y > /dev/stderr",
        "/proc/self/fd/1\npts/ptmx\ny",
    );
    let (_, output) = rig.run("echo x > /dev/null && stat -c %a /dev/null /dev/shm", |o| o.user = Some("web".into()));
    assert_eq!(output, "666\n1777");
}

#[test]
fn memory_is_limited() {
    let Some(rig) = rig() else { return };
    if !rig.can_limit(Limits {
        memory_bytes: Some(32 << 20),
        cpu_millis: Some(500),
        pids: Some(10),
        ..Limits::default()
    }) {
        return;
    }
    let (status, _) = rig.run("dd if=/dev/zero of=/dev/null bs=200M count=1", |o| {
        o.limits = Limits { memory_bytes: Some(32 << 20), ..Limits::default() };
    });
    assert_eq!(status, ExitStatus::Oom);
    let (status, _) = rig.run("true", |o| {
        o.limits = Limits { memory_bytes: Some(32 << 20), cpu_millis: Some(500), pids: Some(10), ..Limits::default() };
    });
    assert_eq!(status, ExitStatus::Code(0));
}

#[test]
fn processes_are_limited() {
    let Some(rig) = rig() else { return };
    if !rig.can_limit(Limits {
        memory_bytes: Some(32 << 20),
        cpu_millis: Some(500),
        pids: Some(10),
        ..Limits::default()
    }) {
        return;
    }
    let script = "i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done; wait; echo survived";
    let (status, output) = rig.run(script, |o| o.limits = Limits { pids: Some(8), ..Limits::default() });
    assert!(!status.success() && output.contains("can't fork"), "{status}: {output}");
}

#[test]
fn no_cgroup_is_left() {
    let Some(rig) = rig() else { return };
    if !rig.can_limit(Limits {
        memory_bytes: Some(32 << 20),
        cpu_millis: Some(500),
        pids: Some(10),
        ..Limits::default()
    }) {
        return;
    }
    let mut options = rig.options("cgroups", "sleep 100");
    options.limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let container = run(options).unwrap();
    let id = format!("ctk-{}", container.id());
    let list = || {
        let found = std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", &id]).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    assert!(list().contains("memory"), "{}", list());
    drop(container);
    assert_eq!(list(), "");
    assert!(!Path::new("/sys/fs/cgroup").join(&id).exists());
}
