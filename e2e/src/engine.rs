//! `ctk` and podman with the same image, for scenarios that both have to pass: what podman does not do proves nothing
//! about us.

use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, Runtime};
use crate::{Output, World, has_programs, is_root, run};

/// An image with busybox, in the store of either.
pub const IMAGE: &str = "localhost/busybox:1";

/// Whose command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Ctk,
    /// podman's.
    Podman,
}

/// One of them, with storage of its own.
pub struct Engine {
    /// Whose.
    pub kind: Kind,
    /// Where it works.
    pub world: World,
}

/// Plays a scenario with podman, and with `ctk`.
pub fn both(scenario: impl Fn(&Engine)) {
    for kind in [Kind::Podman, Kind::Ctk] {
        if let Some(engine) = Engine::new(kind) {
            scenario(&engine);
        }
    }
}

impl Engine {
    /// With the image.
    pub fn new(kind: Kind) -> Option<Engine> {
        let needed: &[&str] = match kind {
            Kind::Ctk => &["busybox"],
            Kind::Podman => &["busybox", "podman", "conmon", "runc", "tar"],
        };
        if !is_root() || !has_programs(needed) {
            return None;
        }
        let engine = Engine { kind, world: World::new() };
        let bundle = Bundle::new(Runtime::Ours);
        let root = bundle.path("rootfs").display().to_string();
        match kind {
            Kind::Ctk => {
                engine.world.peer("cp", &["-a", &root, "root"]).ok();
                engine.world.write("Dockerfile", "FROM scratch\nCOPY root /\nCMD [\"sh\"]\n");
                engine.ask(&["build", "--quiet", "-t", IMAGE, "."]).ok();
            }
            Kind::Podman => {
                let archive = engine.world.path("root.tar").display().to_string();
                engine.world.peer("tar", &["-C", &root, "-cf", &archive, "."]).ok();
                engine.ask(&["import", "--change", "CMD [\"sh\"]", &archive, IMAGE]).ok();
            }
        }
        Some(engine)
    }

    /// Whether it is ours.
    pub fn is_ctk(&self) -> bool {
        self.kind == Kind::Ctk
    }

    /// A command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.kind {
            Kind::Ctk => self.world.command(&[]),
            Kind::Podman => {
                let mut command = Command::new("timeout");
                command.args(["120", "podman", "--root"]).arg(self.world.path("podman"));
                command.arg("--runroot").arg(self.world.path("podman-run"));
                command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"]).stdin(Stdio::null());
                command.current_dir(self.world.project());
                command
            }
        };
        let (verb, rest) = arguments.split_first().expect("a verb");
        command.arg(verb);
        if matches!(*verb, "run" | "create") {
            command.arg("--network=none");
            if self.kind == Kind::Podman {
                // More than this machine may give is podman's default.
                command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
            }
        }
        command.args(rest);
        command
    }

    /// Runs a command to its end.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments))
    }

    /// Starts a command and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process")
    }

    /// A field of `inspect`.
    pub fn field(&self, container: &str, template: &str) -> String {
        self.ask(&["inspect", "--format", template, container]).ok().trim_end().to_owned()
    }

    /// What a container does.
    pub fn status(&self, container: &str) -> String {
        self.field(container, "{{.State.Status}}")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.kind == Kind::Podman {
            let _ = self.ask(&["rm", "--all", "--force", "--time", "0"]);
        }
    }
}
