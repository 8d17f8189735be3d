//! Builders that are not ours, in a root of their own: Docker with BuildKit, and buildah.
//!
//! This machine's packages may be years old, so the builders come from a newer suite of the same archive. The root is
//! made once and kept in `target/peers`, or where `CTK_PEERS` says; `CTK_PEERS_SUITE` and `CTK_PEERS_MIRROR` choose
//! another suite and archive. The daemon runs in a mount and process namespace that ends with it.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Output, World, eventually, run};

/// Where the builders are recent enough for every instruction of today.
const SUITE: &str = "forky";

/// What the root holds.
const PACKAGES: &str = "docker.io,docker-buildx,containerd,runc,buildah,crun,netavark,iptables,ca-certificates,git,dash,coreutils,mount,xz-utils,sed,grep";

/// What the daemon of this machine's own release needs.
const OWN_PACKAGES: &str = "docker.io,containerd,runc,iptables,ca-certificates,dash,coreutils,mount,procps,tini";

/// Raised with [`OWN_PACKAGES`].
const OWN_NAME: &str = "docker-2";

/// Raised when a root made earlier no longer fits.
const EDITION: &str = "3";

/// A running daemon, and buildah beside it.
pub struct Peers {
    /// `unshare`, the parent of the daemon's namespaces.
    process: Child,
    /// The daemon's own process, as seen from here.
    daemon: u32,
    folder: PathBuf,
}

impl Peers {
    /// Starts the daemon; its data, and everything it is to read and write, is below `folder`.
    pub fn start(folder: &Path) -> Peers {
        // The client of containers is a package of its own in newer suites, and not here.
        Peers::start_in(&root(), folder, "", |peers| peers.inside("docker-buildx", &["ls"]).status.success())
    }

    /// The daemon of this machine's own release on a machine of cgroup version 1, with `runtime` for its containers.
    pub fn start_with_runtime(folder: &Path, runtime: &Path) -> Peers {
        let root = unpacked(OWN_NAME, OWN_PACKAGES);
        furnish(&root);
        fs::create_dir_all(folder).expect("a folder");
        fs::copy(runtime, folder.join("ctk-runtime")).expect("a runtime");
        let more = "--exec-opt native.cgroupdriver=cgroupfs --add-runtime ctk=/run/work/ctk-runtime \
                    --default-runtime ctk --oom-score-adjust 0";
        Peers::start_in(&root, folder, more, |peers| peers.inside("docker", &["version"]).status.success())
    }

    fn start_in(root: &Path, folder: &Path, more: &str, asks: impl Fn(&Peers) -> bool) -> Peers {
        fs::create_dir_all(folder.join("docker")).expect("a folder");
        let log = fs::File::create(folder.join("dockerd.log")).expect("a log");
        // A daemon needs a root that is a mount point: runc makes `/` a slave.
        let script = r#"
            set -e
            case "$2" in *cgroupfs*) umount /sys/fs/cgroup/unified 2>/dev/null || true;; esac
            mount --bind "$0" "$0"
            mount --rbind /sys "$0/sys"; mount --rbind /dev "$0/dev"; mount -t proc proc "$0/proc"
            mount -t tmpfs run "$0/run"; mkdir "$0/run/old" "$0/run/work"; mount --bind "$1" "$0/run/work"
            cp /etc/resolv.conf /etc/hosts "$0/run/"
            mount --bind "$0/run/resolv.conf" "$0/etc/resolv.conf"; mount --bind "$0/run/hosts" "$0/etc/hosts"
            cd "$0"; pivot_root . run/old; umount -l /run/old
            ulimit -n 20000
            exec /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root dockerd --data-root /run/work/docker \
                --exec-root /run/docker --pidfile /run/docker.pid -H unix:///run/docker.sock \
                --iptables=false --ip6tables=false --bridge=none --insecure-registry 127.0.0.0/8 $2
        "#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", script]);
        command
            .arg(root)
            .arg(folder)
            .arg(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let process = command.process_group(0).spawn().expect("unshare");
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let mut daemon = None;
        eventually(Duration::from_secs(10), "the daemon starts", || {
            daemon = fs::read_to_string(&children).ok().and_then(|text| text.trim().parse().ok());
            daemon.is_some()
        });
        let peers = Peers { process, daemon: daemon.expect("was waited for"), folder: folder.to_owned() };
        eventually(Duration::from_secs(60), "the daemon answers", || {
            assert!(peers.is_alive(), "{}", peers.log());
            peers.socket().exists() && asks(&peers)
        });
        peers
    }

    fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.daemon)).exists()
    }

    fn socket(&self) -> PathBuf {
        format!("/proc/{}/root/run/docker.sock", self.daemon).into()
    }

    /// What the daemon said.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let _ = fs::File::open(self.folder.join("dockerd.log")).and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    /// Runs a program of the root, where `/run/work` is the folder given at the start.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Output {
        run(self.command(program, arguments))
    }

    /// What [`Peers::inside`] runs.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let daemon = self.daemon.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &daemon, "--mount", "--pid", "--root", "--"]);
        command.args(["env", "-i", "HOME=/root", "DOCKER_HOST=unix:///run/docker.sock"]);
        command.arg("PATH=/usr/sbin:/usr/bin:/usr/libexec/docker/cli-plugins");
        command.arg(program).args(arguments).stdin(Stdio::null()).current_dir("/");
        command
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // The death of its parent takes the whole process namespace along.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The root, made if need be.
fn root() -> PathBuf {
    let folder = std::env::var_os("CTK_PEERS").map_or_else(|| crate::target().join("peers"), PathBuf::from);
    fs::create_dir_all(&folder).expect("a folder for the peers");
    let root = folder.join(format!("root-{EDITION}"));
    if root.exists() {
        return root;
    }
    let suite = std::env::var("CTK_PEERS_SUITE").unwrap_or_else(|_| SUITE.into());
    let mirror = std::env::var("CTK_PEERS_MIRROR").unwrap_or_else(|_| mirror());
    let making = tempfile::Builder::new().prefix("making-").tempdir_in(&folder).expect("a folder");
    let new = making.path().join("root");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=extract", "--mode=root", "--aptopt=Acquire::Check-Valid-Until \"false\""]);
    command.arg(format!("--include={PACKAGES}")).arg(&suite).arg(&new).arg(&mirror).stdin(Stdio::null());
    run(command).ok();
    furnish(&new);
    // Another process may have made it meanwhile.
    let _ = fs::rename(&new, &root);
    root
}

/// Makes what packages' scripts would have made.
fn furnish(root: &Path) {
    for name in ["bin", "sbin", "lib", "lib64"] {
        if !root.join(name).exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).expect("a link");
        }
    }
    for (name, content) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/subuid", ""),
        ("etc/subgid", ""),
        ("etc/hosts", ""),
        ("etc/resolv.conf", ""),
        ("etc/docker/daemon.json", "{\"features\":{\"containerd-snapshotter\":true}}\n"),
        ("etc/containers/policy.json", "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}\n"),
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        let _ = fs::remove_file(&path);
        fs::write(path, content).expect("a file");
    }
    for name in ["proc", "sys", "dev", "run", "tmp", "root", "var/tmp"] {
        fs::create_dir_all(root.join(name)).expect("a folder");
    }
    if !root.join("bin/sh").exists() {
        std::os::unix::fs::symlink("dash", root.join("bin/sh")).expect("a link");
    }
}

/// A static busybox for another processor, by Debian's name of it; fetched once.
pub fn busybox(architecture: &str) -> PathBuf {
    let folder = std::env::var_os("CTK_PEERS").map_or_else(|| crate::target().join("peers"), PathBuf::from);
    fs::create_dir_all(&folder).expect("a folder for the peers");
    let file = folder.join(format!("busybox-{architecture}"));
    if !file.exists() {
        let making = tempfile::Builder::new().prefix("making-").tempdir_in(&folder).expect("a folder");
        let root = making.path().join("root");
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=extract", "--mode=root", "--include=busybox-static"]);
        command.arg(format!("--architectures={architecture}")).arg(codename()).arg(&root).arg(mirror());
        run(command).ok();
        fs::rename(root.join("bin/busybox"), &file).expect("a busybox");
    }
    file
}

/// Packages of this machine's own release and all they need, unpacked into a folder of their own, where they get in
/// nobody's way; fetched once. `name` says what for, and is to change with the packages.
pub fn unpacked(name: &str, packages: &str) -> PathBuf {
    let folder = std::env::var_os("CTK_PEERS").map_or_else(|| crate::target().join("peers"), PathBuf::from);
    fs::create_dir_all(&folder).expect("a folder for the peers");
    let root = folder.join(name);
    if !root.exists() {
        let making = tempfile::Builder::new().prefix("making-").tempdir_in(&folder).expect("a folder");
        let new = making.path().join("root");
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=extract", "--mode=root"]).arg(format!("--include={packages}"));
        command.arg(codename()).arg(&new).arg(mirror()).stdin(Stdio::null());
        run(command).ok();
        // Another process may have made it meanwhile.
        let _ = fs::rename(&new, &root);
    }
    root
}

/// The name of this machine's release.
pub(crate) fn codename() -> String {
    let release = fs::read_to_string("/etc/os-release").expect("/etc/os-release");
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default().to_owned()
}

/// The archive that this machine's own packages come from.
pub(crate) fn mirror() -> String {
    let codename = codename();
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]);
    let known = run(command).ok();
    let own = known.lines().find_map(|line| line.strip_prefix(&format!("{codename} main ")));
    own.unwrap_or_else(|| panic!("apt knows no archive of `{codename}`: set CTK_PEERS_MIRROR\n{known}")).to_owned()
}

/// A world whose folder the peers share.
pub fn world() -> (World, Peers) {
    let world = World::new();
    let work = world.path("work");
    fs::create_dir_all(&work).expect("a folder");
    let peers = Peers::start(&work);
    (world, peers)
}
