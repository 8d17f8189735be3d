//! What a process finds in its container, and how its end is told.

mod common;

use std::fs;
use std::time::Duration;

use common::{Rig, chain, record, rig, wait};
use ctk_container::{ExecOptions, ExitStatus, Limits, Stdin, Stdio, run};
use ctk_oci::Mount;
use ctk_plan::Cancel;

fn check(rig: &Rig, script: &str, expected: &str) {
    let (status, output) = rig.run(script, |_| {});
    assert_eq!(output, expected, "{script}");
    assert_eq!(status, ExitStatus::Code(0), "{script}");
}

#[test]
fn exit_codes_and_signals_are_kept() {
    let Some(rig) = rig() else { return };
    for (script, expected) in [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 7", ExitStatus::Code(7)),
        ("exit 255", ExitStatus::Code(255)),
        ("sh -c 'kill -9 $$'; exit $?", ExitStatus::Code(137)),
    ] {
        assert_eq!(rig.run(script, |_| {}).0, expected, "{script}");
    }
    let container = run(rig.options("killed", "sleep 100")).unwrap();
    container.signal(9).unwrap();
    assert_eq!(wait(&container), ExitStatus::Signal(9));
    assert_eq!(wait(&container), ExitStatus::Signal(9), "asked again");
    container.signal(9).unwrap();
}

#[test]
fn signals_reach_the_process() {
    let Some(rig) = rig() else { return };
    let mut options = rig.options("signal", "trap 'echo heard; exit 3' USR1; echo ready; while :; do sleep 0.05; done");
    let output = record(&mut options.stdio);
    let container = run(options).unwrap();
    while output.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    container.signal(10).unwrap();
    assert_eq!(wait(&container), ExitStatus::Code(3));
    assert_eq!(*output.lock().unwrap(), ["ready", "heard"]);
}

#[test]
fn the_process_is_what_was_asked_for() {
    let Some(rig) = rig() else { return };
    check(&rig, "echo $$", "1");
    check(&rig, "echo $FROM_IMAGE $HOME $PATH; env | grep -c broken || true", {
        "yes /root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n0"
    });
    let (_, output) =
        rig.run("pwd; id -u; id -g; id -G; echo $HOME $X $FROM_IMAGE; hostname; cat /etc/hostname", |o| {
            o.workdir = Some("/var/made/here".into());
            o.user = Some("web".into());
            o.env = vec!["X=1=2".into(), "FROM_IMAGE=no".into()];
            o.hostname = Some("box".into());
        });
    assert_eq!(output, "/var/made/here\n33\n34\n34 29\n/var/www 1=2 no\nbox\nbox");
    let (_, output) = rig.run("id -u; id -g; umask", |o| o.user = Some("1000:1001".into()));
    assert_eq!(output, "1000\n1001\n0022");
}

#[test]
fn no_file_and_no_signal_setting_leaks() {
    let Some(rig) = rig() else { return };
    check(&rig, "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ");
    check(&rig, "grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'", {
        "SigBlk:0000000000000000\nSigIgn:0000000000000000"
    });
}

#[test]
fn input_comes_from_where_it_should() {
    let Some(rig) = rig() else { return };
    check(&rig, "cat | wc -c", "0");
    let (_, output) = rig.run("cat", |o| o.stdin = Stdin::Bytes(b"one\ntwo".to_vec()));
    assert_eq!(output, "one\ntwo");
    // Nobody reads it: that must not block.
    let (status, _) = rig.run("true", |o| o.stdin = Stdin::Bytes(vec![b'x'; 1 << 20]));
    assert_eq!(status, ExitStatus::Code(0));
}

#[test]
fn all_output_is_told_before_the_end() {
    let Some(rig) = rig() else { return };
    let (_, output) = rig.run("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf last", |_| {});
    let lines: Vec<_> = output.lines().collect();
    assert_eq!((lines.len(), lines[1999], lines[2000]), (2001, "line 1999", "last"));
}

#[test]
fn mounts_are_where_they_were_asked_for() {
    let Some(rig) = rig() else { return };
    let shared = rig.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "content").unwrap();
    let source = shared.display().to_string();
    let file = shared.join("file").display().to_string();
    let (_, output) =
        rig.run("exec 2>&1; cat /data/file; echo > /data/new || echo refused; cat /x/y; stat -fc %T /t", |o| {
            o.mounts.push(Mount::new("bind", &source, "/data", &["ro"]));
            o.mounts.push(Mount::new("bind", &file, "/x/y", &[]));
            o.mounts.push(Mount::new("tmpfs", "tmpfs", "/t", &["size=1m"]));
        });
    assert_eq!(output, "contentsh: can't create /data/new: Read-only file system\nrefused\ncontenttmpfs");
}

#[test]
fn a_layer_holds_no_mount_points_but_the_systems() {
    let Some(rig) = rig() else { return };
    rig.run("echo made > /made; mkdir /proc/x 2>/dev/null; true", |_| {});
    let names: Vec<_> =
        fs::read_dir(rig.path("upper-run")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<_> = names.into_iter().filter(|name| name != "etc").collect();
    names.sort();
    assert_eq!(names, ["dev", "made", "proc", "sys"]);
    let etc = rig.path("upper-run/etc");
    assert!(!etc.exists() || fs::read_dir(etc).unwrap().next().is_none());
}

#[test]
fn errors_name_the_step() {
    let Some(rig) = rig() else { return };
    let attempt = |change: &dyn Fn(&mut ctk_container::RunOptions<'_>)| {
        let mut options = rig.options("bad", "true");
        change(&mut options);
        let error = run(options).err().expect("it should fail");
        rig.assert_clean();
        chain(&error)
    };
    let text = attempt(&|o| o.args = Some(vec!["absent".into()]));
    assert!(text.contains("failed to execute `absent` in the container (looked in /usr/local/sbin, "), "{text}");
    assert!(text.contains("No such file"), "{text}");
    let text = attempt(&|o| o.args = Some(vec!["/etc/passwd".into()]));
    assert!(text.contains("failed to execute `/etc/passwd`") && text.contains("Permission denied"), "{text}");
    let text = attempt(&|o| o.args = Some(vec![]));
    assert!(text.contains("no command"), "{text}");
    let text = attempt(&|o| o.user = Some("stranger".into()));
    assert!(text.contains("no user `stranger` in the image's /etc/passwd"), "{text}");
    let text = attempt(&|o| o.root = Mount::new("bind", "/no/such/root", "/", &[]));
    assert!(text.contains("failed to mount the root file system (/no/such/root)"), "{text}");
    let text = attempt(&|o| o.mounts.push(Mount::new("bind", "/no/such/dir", "/data", &[])));
    assert!(text.contains("failed to prepare the mount `/data` (/no/such/dir)"), "{text}");
    let text = attempt(&|o| o.workdir = Some("/etc/passwd".into()));
    assert!(text.contains("/etc/passwd") && text.contains("Not a directory"), "{text}");
    let text = attempt(&|o| o.env = vec!["NOVALUE".into()]);
    assert!(text.contains("invalid environment entry `NOVALUE`"), "{text}");
}

#[test]
fn time_is_limited() {
    let Some(rig) = rig() else { return };
    let (status, _) = rig.run("sleep 100", |o| o.timeout = Some(Duration::from_millis(100)));
    assert_eq!(status, ExitStatus::TimedOut);
}

#[test]
fn a_word_cancels() {
    let Some(rig) = rig() else { return };
    let container = run(rig.options("cancel", "sleep 100")).unwrap();
    let cancel = Cancel::new();
    let word = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        word.cancel();
    });
    assert_eq!(container.wait(&cancel).unwrap(), ExitStatus::Cancelled);
    assert_eq!(container.wait(&Cancel::new()).unwrap(), ExitStatus::Cancelled, "asked again");
    rig.assert_clean();
}

#[test]
fn stopping_is_polite_first() {
    let Some(rig) = rig() else { return };
    for (script, expected) in [
        ("trap 'exit 5' TERM; echo; while :; do sleep 0.02; done", ExitStatus::Code(5)),
        ("echo; sleep 100", ExitStatus::Signal(9)),
    ] {
        let mut options = rig.options("stop", script);
        let output = record(&mut options.stdio);
        let container = run(options).unwrap();
        while output.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(container.stop(Duration::from_millis(700)).unwrap(), expected, "{script}");
    }
}

#[test]
fn commands_run_inside() {
    let Some(rig) = rig() else { return };
    let mut options = rig.options("exec", "echo here > /tmp/file; echo ready; sleep 100");
    let ready = record(&mut options.stdio);
    let limits = Limits { pids: Some(50), ..Limits::default() };
    if rig.can_limit(limits.clone()) {
        options.limits = limits;
    }
    let container = run(options).unwrap();
    while ready.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let exec = |script: &str, change: &dyn Fn(&mut ExecOptions)| {
        let mut options = ExecOptions::new(["sh", "-c", script].map(String::from).to_vec());
        let output = record(&mut options.stdio);
        change(&mut options);
        let status = container.exec(options, &Cancel::new()).unwrap();
        (status, output.lock().unwrap().join("\n"))
    };
    let (status, output) = exec("cat /tmp/file; ps | grep -c '[s]leep 100'; readlink /proc/self/exe; exit 4", &|_| {});
    assert_eq!((status, output.as_str()), (ExitStatus::Code(4), "here\n1\n/bin/busybox"));
    let (_, output) =
        exec("id -u; pwd; echo $HOME $A; grep -E 'Cap(Eff|Bnd)|NoNew|Seccomp:' /proc/self/status", &|o| {
            o.user = Some("web".into());
            o.workdir = Some("/tmp".into());
            o.env = vec!["A=b".into()];
        });
    let expected = "33\n/tmp\n/var/www b\nCapEff:\t0000000000000000\nCapBnd:\t00000000800405fb\n\
                    NoNewPrivs:\t1\nSeccomp:\t2";
    assert_eq!(output, expected);
    let (status, _) = exec("sleep 100", &|o| o.timeout = Some(Duration::from_millis(50)));
    assert_eq!(status, ExitStatus::TimedOut);
    // Somebody it left behind holds its output open: that must not hang.
    let (status, output) = exec("sleep 100 & echo gone", &|_| {});
    assert_eq!((status, output.as_str()), (ExitStatus::Code(0), "gone"));
    let error = container.exec(ExecOptions::new(vec!["absent".into()]), &Cancel::new()).err().unwrap();
    assert!(chain(&error).contains("failed to execute `absent`"), "{}", chain(&error));
    container.signal(9).unwrap();
    assert_eq!(wait(&container), ExitStatus::Signal(9));
    let late = container.exec(ExecOptions::new(vec!["true".into()]), &Cancel::new());
    assert!(late.is_err());
}

#[test]
fn a_terminal_is_a_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::os::fd::AsFd;

    let Some(rig) = rig() else { return };
    let script = "tty; echo $TERM; stat -c %t:%T /dev/console; read x; stty size; echo got $x; exit 6";
    let mut options = rig.options("tty", script);
    options.stdio = Stdio::Terminal;
    let container = run(options).unwrap();
    // Ours is a terminal too, of a certain size, at which somebody types.
    let typist = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&typist).unwrap();
    unlockpt(&typist).unwrap();
    let input = ioctl_tiocgptpeer(&typist, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&typist, size).unwrap();
    let before = rustix::termios::tcgetattr(&input).unwrap().local_modes;
    rustix::io::write(&typist, b"hello\n").unwrap();
    let (mut screen, output) = std::io::pipe().unwrap();
    let status = ctk_container::relay_terminal(&container, input.as_fd(), output.as_fd(), &Cancel::new());
    drop(output);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut screen, &mut text).unwrap();
    assert_eq!(status.unwrap(), ExitStatus::Code(6), "{text}");
    for expected in ["/dev/pts/0\r\n", "xterm\r\n", "88:0\r\n", "40 100\r\n", "got hello\r\n"] {
        assert!(text.contains(expected), "{expected:?} in {text:?}");
    }
    assert_eq!(rustix::termios::tcgetattr(&input).unwrap().local_modes, before, "raw mode is taken back");
}

#[test]
fn many_layers_with_long_paths_are_one_root() {
    let Some(rig) = rig() else { return };
    let long = rig.path(&"a-rather-long-name-of-a-directory/".repeat(10)).join("with:colon");
    let mut lowers = Vec::new();
    for layer in 0..70 {
        let path = long.join(format!("{layer}"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(format!("file{layer}")), "").unwrap();
        lowers.push(format!("lowerdir+={}", path.display()));
    }
    let (_, output) = rig.run("ls / | grep -c file", |o| {
        let own = std::mem::take(&mut o.root.options);
        o.root.options = lowers.iter().cloned().chain(own).collect();
    });
    assert_eq!(output, "70");
    let (_, output) = rig.run("ls / | grep -c file", |o| {
        let all: Vec<_> =
            lowers.iter().take(3).map(|l| l.trim_start_matches("lowerdir+=").replace(':', "\\:")).collect();
        let own = o.root.options[0].trim_start_matches("lowerdir=").to_string();
        o.root.options[0] = format!("lowerdir={}:{own}", all.join(":"));
    });
    assert_eq!(output, "3");
}

#[test]
fn a_full_disk_is_an_error() {
    let Some(rig) = rig() else { return };
    let mut options = rig.options("full", "true");
    // A state directory where nothing can be written.
    options.state_dir = "/proc/1/ctk".into();
    let text = chain(&run(options).err().unwrap());
    assert!(text.contains("failed to keep the container's state in `/proc/1/ctk/"), "{text}");
}
