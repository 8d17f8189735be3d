//! RUN from the inside: environment, users, shells, here-documents, ends, confinement, settings. What BuildKit 0.25 does
//! with the same lines, except where a comment says otherwise.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bench, can_run};
use ctk_build::{HostAddress, SshSource, Ulimit};

const ENV: &str = "env | grep -v -E '^(SHLVL|PWD)=' | sort";

#[test]
fn a_step_sees_its_own_environment_only() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.args.insert("HTTP_PROXY".into(), "http://proxy".into());
    bench.args.insert("GIVEN".into(), "g".into());
    let base = "BASE=busybox\nHOME=/root\nHTTP_PROXY=http://proxy\nhttp_proxy=http://proxy";
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let add = |more: &str| {
        let mut lines: Vec<String> = format!("{base}\n{path}\n{more}").lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    bench.prints(&[
        (&format!("FROM busybox\nRUN {ENV}"), &add("")),
        (&format!("FROM busybox\nARG A=1\nARG B\nARG GIVEN\nENV E=2\nRUN {ENV}"), &add("A=1\nE=2\nGIVEN=g")),
        (&format!("FROM busybox\nARG A=b\nENV A=c\nARG A=d\nRUN {ENV}"), &add("A=d")),
        ("FROM busybox\nENV HOME=/over\nRUN echo $HOME $(hostname)", "/over buildkitsandbox"),
        (
            "FROM busybox\nRUN cat /etc/hosts",
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback",
        ),
        ("FROM busybox\nRUN echo own > /etc/hostname\nRUN cat /etc/hostname; hostname", "own\nbuildkitsandbox"),
        ("FROM busybox\nRUN (echo x >> /etc/hosts) 2>/dev/null || echo no; umask; pwd", "no\n0022\n/"),
        ("FROM busybox\nRUN read x; echo \"in:$x\"; tty; true", "in:\nnot a tty"),
    ]);
    bench.args.insert("BUILDKIT_SANDBOX_HOSTNAME".into(), "mine".into());
    bench.prints(&[("FROM busybox\nRUN hostname; grep -c mine /etc/hosts", "mine\n1")]);
}

#[test]
fn users_and_groups_are_the_images_own() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let who = "RUN echo $HOME $(id -u):$(id -g) $(grep Groups /proc/self/status | cut -f2)";
    let groups = "RUN echo audio:x:29:app >> /etc/group && sed -i s,::/:,::/home/app:, /etc/passwd";
    let as_user = |user: &str| format!("FROM busybox\n{groups}\nUSER {user}\n{who}");
    for (user, seen) in [
        ("app", "/home/app 1000:1001 29 1001"),
        ("1000", "/home/app 1000:1001 29 1001"),
        ("app:audio", "/home/app 1000:29 29"),
        ("app:", "/home/app 1000:1001 29 1001"),
        ("5000", "/ 5000:0 0"),
        ("5000:29", "/ 5000:29 29"),
        (":29", "/root 0:29 29"),
        ("root", "/root 0:0 0"),
    ] {
        bench.prints(&[(&as_user(user), seen)]);
    }
    let status = "RUN grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr '\\t\\n' '  '; echo";
    bench.prints(&[
        (
            &format!("FROM busybox\n{status}"),
            "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2",
        ),
        (
            &format!("FROM busybox\nUSER app\n{status}"),
            "CapEff: 0000000000000000 CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2",
        ),
        ("FROM busybox\nWORKDIR /new/dir\nUSER app\nRUN pwd; stat -c '%U %a' . /new", "/new/dir\nroot 755\nroot 755"),
    ]);
    bench.refuses(&[
        ("FROM busybox\nUSER nosuchbody\nRUN id", "no user `nosuchbody` in the image's /etc/passwd"),
        ("FROM busybox\nUSER ap\nRUN id", "no user `ap`|did you mean `app`?"),
        ("FROM busybox\nUSER app:nogroup\nRUN id", "no group `nogroup` in the image's /etc/group"),
    ]);
}

#[test]
fn device_nodes_can_be_made_but_not_opened() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.prints(&[
        ("FROM busybox\nRUN mknod /x b 8 0; [ -b /x ] && echo made; head -c1 /x 2>/dev/null || echo shut", "made\nshut"),
        (
            "FROM busybox\nRUN mknod /dev/y b 7 0; mknod /dev/z c 1 3; echo a 2>/dev/null > /dev/z || echo shut; \
             head -c1 /dev/y 2>/dev/null || echo shut",
            "shut\nshut",
        ),
        (
            "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t mknod /c/z c 1 3; mknod /t/z c 1 3; \
             for f in /c/z /t/z; do echo a 2>/dev/null > $f || echo shut; done",
            "shut\nshut",
        ),
        (
            "FROM busybox\nRUN echo a > /dev/null && head -c2 /dev/zero | wc -c && head -c3 /dev/urandom | wc -c; \
             ls /dev | tr '\\n' ' '; echo",
            "2\n3\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
        ),
    ]);
}

#[test]
fn heredocs_are_scripts_and_files() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.prints(&[
        ("FROM busybox\nARG W=w\nRUN <<EOF\necho \"a $W\"\nx=5; echo $x\nEOF", "a w\n5"),
        ("FROM busybox\nARG W=w\nRUN <<'EOF'\necho \"q $W\"\nEOF", "q w"),
        ("FROM busybox\nARG W=w\nRUN <<EOF cat > /o\nhello $W\nEOF\nRUN cat /o", "hello w"),
        ("FROM busybox\nARG W=w\nRUN <<EOF sed s/a/b/\naaa $W \\$W\nEOF", "baa w $W"),
        ("FROM busybox\nARG W=w\nRUN <<\"EOF\" cat\naaa $W\nEOF", "aaa $W"),
        ("FROM busybox\nRUN <<-EOF\n\techo tab\n\t\techo two\n\tEOF", "tab\ntwo"),
        ("FROM busybox\nRUN <<-EOF cat\n\ttabs\n\t  mixed\n\tEOF", "tabs\nmixed"),
        ("FROM busybox\nRUN cat <<A - <<B\naa\nA\nbb\nB", "bb"),
        ("FROM busybox\nRUN 3<<EOF cat <&3\nthree\nEOF", "three"),
        ("FROM busybox\nRUN <<EOF\n#!/bin/sh -e\necho she $0; stat -c '%a %u' $0\nEOF", "she /dev/pipes/EOF\n755 0"),
        ("FROM busybox\nRUN <<EOF\n#!/bin/awk -f\nBEGIN { print \"awk\" }\nEOF", "awk"),
        ("FROM busybox\nRUN cat <<EOF && echo after\nb1\nEOF", "b1\nafter"),
        ("FROM busybox\nRUN <<EOF echo one <<EOF2 && cat\nx\nEOF\ny\nEOF2", "one"),
        ("FROM busybox\nRUN <<EOF\nfalse\necho still\nEOF", "still"),
        ("FROM busybox\nSHELL [\"/bin/sh\", \"-xc\"]\nRUN <<EOF\ntrue\nEOF", "+ true"),
        ("FROM busybox\nRUN <<EOF\n\nEOF", ""),
        ("FROM busybox\nRUN --network=none <<EOF\necho hi\nEOF", "hi"),
        ("FROM busybox\nUSER app\nRUN <<EOF\n#!/bin/sh\nid -u\nEOF", "1000"),
    ]);
    bench.refuses(&[
        ("FROM busybox\nRUN <<EOF\nexit 3\nEOF", "failed with exit code 3"),
        ("FROM busybox\nRUN <<EOF\n#!/bin/nope\nEOF", "failed with exit code 127"),
    ]);
}

#[test]
fn ends_and_beginnings_are_told() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.prints(&[
        ("FROM busybox\nENTRYPOINT [\"/bin/echo\", \"ep\"]\nRUN echo hi", "hi"),
        ("FROM busybox\nRUN [\"echo\", \"a b\", \"$V\"]", "a b $V"),
        ("FROM busybox\nENV PATH=/foo\nRUN /bin/echo $PATH", "/foo"),
    ]);
    std::fs::copy("/usr/bin/busybox", bench.project().join("busybox")).unwrap();
    std::fs::copy("/usr/bin/env", bench.project().join("dynamic")).unwrap();
    bench.refuses(&[
        ("FROM busybox\nRUN exit 7", "failed with exit code 7|at Dockerfile:2:1"),
        ("FROM busybox\nRUN nosuchcommand", "failed with exit code 127"),
        ("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?", "failed with exit code 137"),
        ("FROM busybox\nRUN [\"/nope\"]", "failed to execute `/nope`"),
        ("FROM busybox\nRUN [\"nope\"]", "failed to execute `nope`|looked in"),
        ("FROM busybox\nSHELL [\"/bin/bash\", \"-c\"]\nRUN echo", "the image has no `/bin/bash`|JSON array"),
        ("FROM scratch\nCOPY busybox /busybox\nRUN echo hi", "the image has no `/bin/sh`|name another shell by SHELL"),
        (
            "FROM scratch\nCOPY dynamic /bin/sh\nRUN echo hi",
            "the image has no `/bin/sh`|it is there, but not the program loader",
        ),
    ]);
}

#[test]
fn confinement_is_given_up_by_entitlement_only() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let caps = "grep -E 'CapEff|Seccomp:' /proc/self/status | tr '\\t\\n' '  '; echo";
    let insecure = format!("FROM busybox\nRUN --security=insecure {caps}; grep -c ' /sys sysfs rw' /proc/mounts");
    bench.refuses(&[
        (&insecure, "needs the entitlement `security.insecure`"),
        ("FROM busybox\nRUN --network=host true", "needs the entitlement `network.host`"),
        ("FROM busybox\nRUN --device=/dev/null true", "needs the entitlement `device=/dev/null`"),
        ("FROM busybox\nRUN --security=lax true", "`--security` cannot be `lax`"),
        ("FROM busybox\nRUN --network=None true", "`--network` cannot be `None`"),
        ("FROM busybox\nRUN --device= true", "names no device"),
    ]);
    // What nobody needs is not asked about.
    bench.built("FROM busybox AS unused\nRUN --network=host true\nFROM busybox\nRUN true");
    let allowed = &mut bench.settings.entitlements;
    assert!(allowed.add("network.host") && allowed.add("security.insecure") && allowed.add("device=/dev/null"));
    assert!(!allowed.add("network.hosts"));
    let all = std::fs::read_to_string("/proc/self/status").unwrap();
    let ours = all.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim().to_owned();
    bench.prints(&[
        (&insecure, &format!("CapEff: {ours} Seccomp: 0\n1")),
        ("FROM busybox\nRUN --security=sandbox --network=none ls /sys/class/net", "lo"),
        ("FROM busybox\nRUN --network=host echo host", "host"),
        ("FROM busybox\nRUN --device=/dev/null --device=/dev/null,required echo device", "device"),
        // An insecure step opens what it makes.
        ("FROM busybox\nRUN --security=insecure mknod /x c 1 3 && echo a > /x && echo open", "open"),
    ]);
    bench.settings.entitlements.add("device");
    bench.refuses(&[
        ("FROM busybox\nRUN --device=/dev/none,required true", "this machine has no device `/dev/none`"),
        ("FROM busybox\nRUN --device=vendor.com/x=y true", "this machine has no device `vendor.com/x=y`"),
    ]);
    bench.prints(&[("FROM busybox\nRUN --device=/dev/none echo without", "without")]);
    let text = "image \"x\" { stage \"final\" from=\"busybox\" { run \"true\" { network \"host\"; }; }; }\n";
    bench.settings = ctk_build::RunSettings::default();
    let decl = bench.native(text, "x");
    let error = common::chain(&bench.run(&decl).unwrap_err());
    assert!(error.contains("`network.host`"), "{error}");
    let decl = bench.native(&text.replace("{ stage", "{ allow \"network.host\"; stage"), "x");
    bench.run(&decl).unwrap_or_else(|e| panic!("{}", common::chain(&e)));
}

#[test]
fn settings_of_the_build_reach_every_step() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let settings = &mut bench.settings;
    settings.network = ctk_buildgraph::NetworkMode::None;
    settings.add_hosts =
        vec![("db".into(), HostAddress::Address([10, 0, 0, 7].into())), ("gw".into(), HostAddress::Gateway)];
    settings.shm_size_bytes = Some(1 << 20);
    settings.ulimits = vec![
        Ulimit { name: "nofile".into(), soft: Some(50), hard: Some(60) },
        Ulimit { name: "core".into(), soft: None, hard: None },
    ];
    let text = "FROM busybox\nRUN ls /sys/class/net; tail -n2 /etc/hosts | tr '\\t' ' '; ulimit -n; ulimit -Hn; ulimit -c; \
        df /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2";
    bench.prints(&[(text, "lo\n10.0.0.7 db\n127.0.0.1 gw\n50\n60\nunlimited\n1024")]);
    // Where a name leads is no part of a key, what else a step sees of them is.
    let counted = |bench: &Bench| bench.built(text).executed;
    assert_eq!(counted(&bench), 0);
    bench.settings.add_hosts[0].1 = HostAddress::Address([10, 0, 0, 8].into());
    assert_eq!(counted(&bench), 0);
    bench.settings.add_hosts[0].0 = "other".into();
    assert_eq!(counted(&bench), 1);
    bench.settings.shm_size_bytes = None;
    assert_eq!(counted(&bench), 1);
    bench.settings.ulimits = vec![Ulimit { name: "nofil".into(), soft: None, hard: None }];
    bench.refuses(&[(text, "there is no ulimit `nofil`; did you mean `nofile`?")]);
}

#[test]
fn steps_are_limited_by_cgroups() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.settings.resources.memory_bytes = Some(32 << 20);
    bench.settings.resources.cpu_shares = Some(512);
    bench.settings.resources.cpu_quota = Some(50_000);
    bench.settings.resources.cpuset_cpus = Some("0".into());
    match bench.dockerfile("FROM busybox\nRUN grep Cpus_allowed_list /proc/self/status | cut -f2") {
        Ok(_) => assert_eq!(bench.log().trim(), "0"),
        Err(error) if common::chain(&error).contains("failed to limit") => {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "{}", common::chain(&error));
            return println!("skipped: needs cgroup controllers");
        }
        Err(error) => panic!("{}", common::chain(&error)),
    }
    bench.refuses(&[(
        "FROM busybox\nRUN head -c 200000000 /dev/zero | tail -c 190000000 | wc -c; exit 9",
        "out of memory",
    )]);
}

/// A real agent with one key; ended when dropped.
struct Agent {
    process: std::process::Child,
    socket: PathBuf,
    listed: String,
}

impl Agent {
    /// None, with a word about it, where OpenSSH is not installed.
    fn start(folder: &Path) -> Option<Agent> {
        let there = ["ssh-agent", "ssh-add", "ssh-keygen"].iter().all(|name| Path::new("/usr/bin").join(name).exists());
        if !there {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs ssh-agent, ssh-add and ssh-keygen");
            println!("skipped: needs ssh-agent, ssh-add and ssh-keygen");
            return None;
        }
        let (socket, key) = (folder.join("agent"), folder.join("key"));
        let mut process = Command::new("ssh-agent");
        process.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null());
        let process = process.spawn().unwrap();
        let run = |command: &mut Command| {
            let output = command.env("SSH_AUTH_SOCK", &socket).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&key));
        for _ in 0..100 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        run(Command::new("ssh-add").arg("-q").arg(&key));
        let listed = run(Command::new("ssh-add").arg("-l")).trim().to_owned();
        Some(Agent { process, socket, listed })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts the host's programs and the libraries they want into a folder of the project.
fn copy_programs(bench: &Bench, names: &[&str]) {
    for name in names {
        let program = format!("/usr/bin/{name}");
        let listed = Command::new("ldd").arg(&program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        for path in libraries.chain([program.as_str()]) {
            let place = bench.project().join("programs").join(&path[1..]);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(path, place).unwrap();
        }
    }
}

#[test]
fn ssh_agents_are_forwarded() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let Some(agent) = Agent::start(bench.folder.path()) else { return };
    copy_programs(&bench, &["ssh-add", "ssh-keygen"]);
    let with = |line: &str| format!("FROM busybox\nCOPY programs /\n{line}\n");
    bench.prints(&[
        (
            &with("RUN --mount=type=ssh echo $SSH_AUTH_SOCK; ls /run 2>/dev/null || echo none"),
            "/run/buildkit/ssh_agent.0\nnone",
        ),
        (&with("RUN echo [$SSH_AUTH_SOCK]"), "[]"),
    ]);
    bench.refuses(&[
        (&with("RUN --mount=type=ssh,required true"), "ssh agent `default` is not given|--ssh default"),
        (&with("RUN --mount=type=ssh,id=foo,required true"), "ssh agent `foo` is not given"),
    ]);
    bench.settings.ssh.insert("default".into(), SshSource::Agent(agent.socket.clone()));
    bench.settings.ssh.insert("other".into(), SshSource::Agent(agent.socket.clone()));
    bench.no_cache = true;
    let stat = "stat -c '%a %u:%g %F'";
    bench.prints(&[
        (&with("RUN --mount=type=ssh ssh-add -l"), &agent.listed),
        (&with("RUN --mount=type=ssh,id=other,required,target=/a/sock,mode=0666,uid=7 echo $SSH_AUTH_SOCK; ssh-add -l; stat -c '%a %u:%g %F' /a/sock"),
            &format!("/a/sock\n{}\n666 7:0 socket", agent.listed)),
        (&with(&format!("RUN --mount=type=ssh --mount=type=ssh,id=other echo $SSH_AUTH_SOCK; {stat} /run/buildkit/*")),
            "/run/buildkit/ssh_agent.0\n600 0:0 socket\n600 0:0 socket"),
        (&with("ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK"), "/mine"),
        // Signing works; changing what the agent holds does not.
        (&with("RUN --mount=type=ssh ssh-add -L > /key.pub && echo text > /t && ssh-keygen -q -Y sign -n file -f /key.pub /t 2>/dev/null && ls /t.sig"), "/t.sig"),
        (&with("RUN --mount=type=ssh ssh-add -D 2>/dev/null || echo refused; ssh-add -l"), &format!("refused\n{}", agent.listed)),
        (&with("USER app\nRUN --mount=type=ssh,uid=1000 ssh-add -l"), &agent.listed),
    ]);
    let built = bench.built(&with("RUN --mount=type=ssh ssh-add -l"));
    assert!(!bench.paths(&built).iter().any(|path| path.starts_with("run")));
    bench.settings.ssh.insert("keys".into(), SshSource::Keys(vec![bench.folder.path().join("key")]));
    bench.settings.ssh.insert("gone".into(), SshSource::Agent(bench.folder.path().join("nobody")));
    std::fs::write(bench.folder.path().join("no-key"), "nothing").unwrap();
    bench.settings.ssh.insert("bad".into(), SshSource::Keys(vec![bench.folder.path().join("no-key")]));
    // Key files are served by an agent of the build's own.
    bench.prints(&[(&with("RUN --mount=type=ssh,id=keys ssh-add -l"), &agent.listed)]);
    bench.refuses(&[
        (&with("RUN --mount=type=ssh,id=bad true"), "cannot serve the keys of ssh agent `bad`"),
        (&with("RUN --mount=type=ssh,id=gone true"), "cannot reach the ssh agent"),
    ]);
}

#[test]
fn foreign_platforms_run_where_the_kernel_can() {
    if !can_run() || !cfg!(target_arch = "x86_64") {
        return;
    }
    let bench = Bench::new();
    std::fs::copy("/usr/bin/busybox", bench.project().join("busybox")).unwrap();
    bench.write("Dockerfile", "FROM scratch\nCOPY busybox /bin/sh\nRUN echo ran\n");
    let run = |platform: &str| {
        let mut decl = bench.decl();
        decl.platforms = vec![platform.parse().unwrap()];
        bench.run(&decl).map_err(|error| common::chain(&error))
    };
    // An amd64 kernel runs programs of 386, and its own whatever the image says.
    run("linux/386").unwrap();
    assert_eq!(bench.log(), "ran");
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        let error = run("linux/arm64").unwrap_err();
        for words in ["cannot run commands of linux/arm64 on this linux/amd64", "qemu-user-static", "only copies files"]
        {
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(bench.log(), "ran", "nothing of the step ran");
    }
    bench.write("Dockerfile", "FROM scratch\nCOPY busybox /bin/sh\n");
    run("linux/arm64").unwrap();
}
