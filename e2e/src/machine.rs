//! A machine of its own: the archive's kernel for clouds in an emulated computer, where cgroup version 2 has every
//! controller, whatever this machine has.
//!
//! Its root is a folder that is packed as the initial file system; `/init` is a script that prints what it finds to the
//! serial line and switches the machine off. There are no modules: the disk is an NVMe device, which the kernel knows.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Output, binary, peers, run};

const PACKAGES: &str = "qemu-system-x86,linux-image-cloud-amd64,apparmor";
/// Raised with [`PACKAGES`].
const NAME: &str = "machine-1";
/// When a machine is given up, in seconds. It needs some 30.
const LIMIT_SECONDS: &str = "110";
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

    /// What compiles this AppArmor profile for its kernel, not for ours.
    pub fn apparmor(&self, profile: &str) -> Vec<u8> {
        let path = self.folder.path().join("profile");
        fs::write(&path, profile).expect("a file");
        let mut command = Command::new(self.tools.join("sbin/apparmor_parser"));
        command.args(["--quiet", "--skip-kernel-load", "--skip-cache", "--stdout", "--base"]);
        command.arg(self.tools.join("etc/apparmor.d")).arg("--features-file");
        command.arg(self.tools.join("etc/apparmor.d/abi/3.0")).arg(path);
        let output = command.output().expect("apparmor_parser");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Switches it on, and gives what its serial line said.
    pub fn run(&self) -> Output {
        let path = |name: &str| self.folder.path().join(name);
        let pack = "cd \"$0\" && find . | busybox cpio -o -H newc > \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", pack]).arg(self.root()).arg(path("initrd"));
        run(command).ok();
        fs::File::create(path("disk")).and_then(|file| file.set_len(DISK_BYTES)).expect("a disk");
        let boot = fs::read_dir(self.tools.join("boot")).expect("a kernel").flatten().map(|entry| entry.path());
        let kernel = boot
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|name| self.tools.join(name));
        let mut command = Command::new("timeout");
        command.arg(LIMIT_SECONDS).arg(self.tools.join("usr/bin/qemu-system-x86_64"));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths"));
        for name in ["usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(self.tools.join(name));
        }
        let usual =
            "-accel tcg,thread=multi -cpu max -M q35 -m 768 -smp 2 -nographic -nodefaults -no-reboot -serial stdio";
        command.args(usual.split(' ')).arg("-kernel").arg(kernel.expect("a kernel"));
        command.arg("-initrd").arg(path("initrd")).args(["-append", "console=ttyS0 quiet panic=-1"]);
        let mut drive = std::ffi::OsString::from("if=none,id=disk,format=raw,file=");
        drive.push(path("disk"));
        command.arg("-drive").arg(drive).args(["-device", "nvme,drive=disk,serial=1"]).stdin(Stdio::null());
        run(command)
    }
}
