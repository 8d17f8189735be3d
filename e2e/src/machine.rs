//! A machine of its own: the archive's kernel for clouds in an emulated computer, where cgroup version 2 has every
//! controller, whatever this machine has.
//!
//! Its root is a folder that is packed as the initial file system; `/init` is a script that prints what it finds to the
//! serial line and switches the machine off. There are no modules: the disk is an NVMe device, which the kernel knows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Output, binary, peers, run};

const PACKAGES: &str = "qemu-system-x86,linux-image-cloud-amd64,apparmor";
/// Raised with [`PACKAGES`].
const NAME: &str = "machine-1";
/// When a machine is given up, in seconds. It needs some 30 to 130, more on a busy computer.
const LIMIT_SECONDS: &str = "600";
const DISK_BYTES: u64 = 16 << 20;

/// The root of a machine to be.
pub struct Machine {
    /// qemu, the kernel, and what compiles AppArmor profiles.
    tools: PathBuf,
    folder: tempfile::TempDir,
}

impl Machine {
    /// One whose root has busybox, `ctk-runtime`, the libraries of that, and `init`.
    pub fn new(init: &str) -> Machine {
        let tools = peers::unpacked(NAME, PACKAGES);
        let folder = tempfile::Builder::new().prefix("ctk-e2e-").tempdir_in("/var/tmp").expect("a temporary folder");
        let machine = Machine { tools, folder };
        for name in ["bin", "dev", "proc", "sys", "run", "new", "tmp"] {
            fs::create_dir_all(machine.root().join(name)).expect("a folder");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox"), machine.root().join("bin/busybox")).expect("busybox");
        symlink("busybox", machine.root().join("bin/sh")).expect("a link");
        fs::copy(binary(), machine.root().join("bin/ctk")).expect("ctk");
        symlink("ctk", machine.root().join("bin/ctk-runtime")).expect("a link");
        let mut command = Command::new("ldd");
        command.arg(binary());
        // A program without libraries is as good.
        for word in run(command).out.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = machine.root().join(word.trim_start_matches('/'));
            fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
            fs::copy(word, place).expect("a library");
        }
        let path = machine.root().join("init");
        fs::write(&path, init).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        machine
    }

    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// AppArmor profiles, compiled for its kernel, not for ours.
    pub fn apparmor(&self, profiles: &str) -> Vec<u8> {
        compiled(&self.tools, self.folder.path(), profiles)
    }

    /// Switches it on, and gives what its serial line said.
    pub fn run(&self) -> Output {
        let path = |name: &str| self.folder.path().join(name);
        let pack = "cd \"$0\" && find . | busybox cpio -o -H newc > \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", pack]).arg(self.root()).arg(path("initrd"));
        run(command).ok();
        fs::File::create(path("disk")).and_then(|file| file.set_len(DISK_BYTES)).expect("a disk");
        let mut command = computer(&self.tools, "768", "");
        command.arg("-initrd").arg(path("initrd"));
        drive(&mut command, "disk", "", &path("disk"));
        run(command)
    }
}

/// AppArmor profiles as the kernel of these tools takes them.
fn compiled(tools: &Path, folder: &Path, profiles: &str) -> Vec<u8> {
    let path = folder.join("profile");
    fs::write(&path, profiles).expect("a file");
    let mut command = Command::new(tools.join("sbin/apparmor_parser"));
    command.args(["--quiet", "--skip-kernel-load", "--skip-cache", "--stdout", "--base"]);
    command.arg(tools.join("etc/apparmor.d")).arg("--features-file");
    command.arg(tools.join("etc/apparmor.d/abi/3.0")).arg(path);
    let output = command.output().expect("apparmor_parser");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// qemu with Debian's kernel, which has these further parameters.
fn computer(tools: &Path, mebibytes: &str, parameters: &str) -> Command {
    let boot = fs::read_dir(tools.join("boot")).expect("a kernel").flatten().map(|entry| entry.path());
    let kernel = boot
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|name| tools.join(name));
    let mut command = Command::new("timeout");
    command.arg(LIMIT_SECONDS).arg(tools.join("usr/bin/qemu-system-x86_64"));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths"));
    for name in ["usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu"] {
        command.arg("-L").arg(tools.join(name));
    }
    let usual = "-accel tcg,thread=multi -cpu max -M q35 -smp 2 -nographic -nodefaults -no-reboot -serial stdio";
    command.args(usual.split(' ')).args(["-m", mebibytes]).arg("-kernel").arg(kernel.expect("a kernel"));
    command.args(["-append", &format!("console=ttyS0 quiet panic=-1 {parameters}")]).stdin(Stdio::null());
    command
}

fn drive(command: &mut Command, name: &str, options: &str, path: &Path) {
    let mut drive = std::ffi::OsString::from(format!("if=none,id={name},format=raw,{options}file="));
    drive.push(path);
    command.arg("-drive").arg(drive).args(["-device", &format!("nvme,drive={name},serial={name}")]);
}

/// What a machine printed, as `name: value` lines.
pub struct Findings {
    found: BTreeMap<String, String>,
    story: String,
}

impl Findings {
    /// Of what the serial line said.
    pub fn of(output: &Output) -> Findings {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.trim().to_owned());
        let lines = output.out.lines().filter_map(|line| line.trim_end_matches('\r').split_once(": "));
        Findings { found: lines.map(pair).collect(), story: output.story() }
    }

    /// What is said about `name`.
    #[track_caller]
    pub fn get(&self, name: &str) -> &str {
        self.found.get(name).unwrap_or_else(|| panic!("nothing about {name}\n{}", self.story))
    }

    /// Asserts that this is said about `name`.
    #[track_caller]
    pub fn is(&self, name: &str, expected: &str) {
        assert_eq!(self.get(name), expected, "{name}\n{}", self.story);
    }
}

/// A machine that systemd runs, with its bus, an ordinary user (1000) who has a systemd of his own, podman and CRIU.
///
/// Its disk is made once and kept with the peers; what a case writes there is forgotten. A second disk, `/e2e`, has what
/// a case brings: `/e2e/init` prints what it finds to the console and switches the machine off.
pub struct SystemMachine {
    machine: PathBuf,
    disk: PathBuf,
    folder: tempfile::TempDir,
}

const SYSTEM_PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod,passwd,procps,uidmap,iproute2,\
                               criu,iptables,podman,conmon,crun,netavark";
/// Raised with [`SYSTEM_PACKAGES`] and [`SYSTEM_SCRIPT`].
const SYSTEM_NAME: &str = "system-1";
const SYSTEM_DISK: &str = "1200M";

/// Makes the root of packages a machine that does nothing but its task.
const SYSTEM_SCRIPT: &str = r#"
    set -e
    for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
        systemd-random-seed.service systemd-update-utmp.service systemd-journal-flush.service systemd-sysctl.service \
        systemd-modules-load.service systemd-machine-id-commit.service systemd-binfmt.service systemd-remount-fs.service \
        dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount; do
        ln -sf /dev/null "$0/etc/systemd/system/$unit"
    done
    printf '[Unit]\nRequires=dbus.service systemd-logind.service\nAfter=dbus.service systemd-logind.service\n[Service]\n\
Type=oneshot\nExecStartPre=/bin/mount /dev/nvme1n1 /e2e\nExecStart=/bin/sh /e2e/init\n' > "$0/etc/systemd/system/e2e.service"
    printf '[Unit]\nRequires=e2e.service\n' > "$0/etc/systemd/system/e2e.target"
    mkdir "$0/e2e"
    : > "$0/etc/fstab"
    echo 0123456789abcdef0123456789abcdef > "$0/etc/machine-id"
    cp -a "$1/lib/modules" "$0/lib/"
    chroot "$0" depmod "$(ls "$0/lib/modules")"
    chroot "$0" useradd --create-home --uid 1000 --shell /bin/sh e2e
"#;

impl SystemMachine {
    /// One with `ctk-runtime` and `init`.
    pub fn new(init: &str) -> SystemMachine {
        let machine = peers::unpacked(NAME, PACKAGES);
        let disk = system_disk(&machine);
        let folder = tempfile::Builder::new().prefix("ctk-e2e-").tempdir_in("/var/tmp").expect("a temporary folder");
        let system = SystemMachine { machine, disk, folder };
        fs::create_dir_all(system.root().join("bin")).expect("a folder");
        fs::set_permissions(system.root(), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::copy(binary(), system.root().join("bin/ctk")).expect("ctk");
        symlink("ctk", system.root().join("bin/ctk-runtime")).expect("a link");
        fs::write(system.root().join("init"), init).expect("a file");
        system
    }

    /// AppArmor profiles, compiled for its kernel, not for ours.
    pub fn apparmor(&self, profiles: &str) -> Vec<u8> {
        compiled(&self.machine, self.folder.path(), profiles)
    }

    /// What will be `/e2e`.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Switches it on, and gives what its serial line said.
    ///
    /// `parameters` are further ones of the kernel.
    pub fn run(&self, parameters: &str) -> Output {
        let files = self.folder.path().join("files");
        file_system(&self.root(), &files, "500M");
        let usual = "root=/dev/nvme0n1 rw systemd.unit=e2e.target systemd.show_status=0";
        let mut command = computer(&self.machine, "1024", &format!("{usual} {parameters}"));
        drive(&mut command, "system", "snapshot=on,", &self.disk);
        drive(&mut command, "files", "", &files);
        run(command)
    }
}

/// A file with a file system that holds `root`.
fn file_system(root: &Path, file: &Path, size: &str) {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-d"]).arg(root).arg(file).arg(size);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    run(command).ok();
}

fn system_disk(machine: &Path) -> PathBuf {
    let folder = machine.parent().expect("the folder of the peers");
    let disk = folder.join(format!("{SYSTEM_NAME}.ext4"));
    // It takes a minute: nobody makes it twice.
    let lock = fs::File::create(folder.join(format!("{SYSTEM_NAME}.lock"))).expect("a lock");
    lock.lock().expect("a lock");
    if !disk.exists() {
        let making = tempfile::Builder::new().prefix("making-").tempdir_in(folder).expect("a folder");
        let (root, new) = (making.path().join("root"), making.path().join("disk"));
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=essential", "--mode=root"]).arg(format!("--include={SYSTEM_PACKAGES}"));
        command.arg(peers::codename()).arg(&root).arg(peers::mirror()).stdin(Stdio::null());
        run(command).ok();
        let mut command = Command::new("sh");
        command.args(["-c", SYSTEM_SCRIPT]).arg(&root).arg(machine);
        run(command).ok();
        file_system(&root, &new, SYSTEM_DISK);
        fs::rename(&new, &disk).expect("a disk");
    }
    disk
}
