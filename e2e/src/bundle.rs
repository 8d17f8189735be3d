//! Bundles, and the OCI runtimes that run them: ours and those of the package archive, all in the same way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::ordinary::User;
use crate::{Output, binary, has, has_programs, run};

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// `ctk-runtime`.
    Ours,
    /// crun of the package archive.
    Crun,
    /// runc of the package archive.
    Runc,
}

impl Runtime {
    /// Those that are here; ours always is.
    pub fn all() -> Vec<Runtime> {
        let mut all = vec![Runtime::Ours];
        all.extend([Runtime::Crun, Runtime::Runc].into_iter().filter(|runtime| has_programs(&[runtime.name()])));
        all
    }

    /// What it is called in `except` of checks.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Ours => "ctk-runtime",
            Runtime::Crun => "crun",
            Runtime::Runc => "runc",
        }
    }
}

/// Which cgroup hierarchies a runtime sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Those that the machine has.
    Machine,
    /// Those of version 1 only.
    Legacy,
}

impl View {
    /// Those that this machine can show, given that it has `controllers` of version 1.
    pub fn all(controllers: &[&str]) -> Vec<View> {
        let there = |controller: &&str| Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists();
        match has(&format!("cgroup version 1 with {}", controllers.join(", ")), controllers.iter().all(there)) {
            true => vec![View::Machine, View::Legacy],
            false => Vec::new(),
        }
    }
}

/// Programs of busybox that checks use.
const APPLETS: &[&str] = &[
    "cat", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ls", "mkdir", "ps",
    "readlink", "rm", "sh", "sleep", "sort", "stat", "stty", "test", "touch", "tr", "true", "tty", "uname", "wc",
];

/// A folder with a bundle, a folder of the host, and the state of a runtime.
pub struct Bundle {
    folder: TempDir,
    runtime: Runtime,
    view: View,
    user: Option<u32>,
    accounts: Option<User>,
    /// The container's name.
    pub id: String,
}

/// An ordinary user: nobody's processes but those of a test.
const USER: u32 = 54_321;

impl Bundle {
    /// A bundle whose root has busybox and little else.
    pub fn new(runtime: Runtime) -> Bundle {
        let folder = tempfile::Builder::new().prefix("ctk-e2e-").tempdir_in("/var/tmp").expect("a temporary folder");
        let id = format!("e2e-{}-{}", runtime.name(), folder.path().file_name().expect("a name").to_string_lossy());
        let bundle = Bundle { folder, runtime, view: View::Machine, user: None, accounts: None, id };
        // Whoever is root in a container of mapped ids must find the way.
        fs::set_permissions(bundle.folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let root = bundle.path("rootfs");
        for name in ["bin", "dev", "etc", "mnt", "proc", "root", "sys", "target", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("a folder");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox"), root.join("bin/busybox")).expect("busybox");
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
        fs::write(root.join("etc/inside"), "yes\n").expect("a file");
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("a file");
        symlink("/etc", root.join("link")).expect("a link");
        symlink("../../../../../../target", root.join("outside")).expect("a link");
        for name in ["host/below", "upper", "work"] {
            fs::create_dir_all(bundle.path(name)).expect("a folder");
        }
        fs::write(bundle.path("empty"), "").expect("a file");
        fs::write(bundle.path("host/file"), "of the host\n").expect("a file");
        fs::write(bundle.path("host/script"), "#!/bin/sh\necho ran\n").expect("a file");
        fs::set_permissions(bundle.path("host/script"), fs::Permissions::from_mode(0o755)).expect("a mode");
        bundle
    }

    /// The same, with a runtime that sees these hierarchies.
    pub fn in_view(mut self, view: View) -> Bundle {
        self.view = view;
        self
    }

    /// Which hierarchies its runtime sees.
    pub fn view(&self) -> View {
        self.view
    }

    /// A bundle that belongs to an ordinary user, who runs the runtime too. Its container has a user namespace in which
    /// he is root.
    pub fn ordinary(runtime: Runtime) -> Bundle {
        let mut bundle = Bundle::new(runtime);
        bundle.user = Some(USER);
        bundle.give(&bundle.path(""));
        bundle
    }

    /// The same of a user with accounts and subordinate ids, all of which the container has.
    pub fn of(runtime: Runtime, user: User) -> Bundle {
        let mut bundle = Bundle::new(runtime);
        bundle.user = Some(user.uid);
        bundle.accounts = Some(user);
        bundle.give(&bundle.path(""));
        bundle
    }

    /// Gives a path and all below to the user of the bundle.
    pub fn give(&self, path: &Path) {
        let Some(user) = self.user else { return };
        let mut command = Command::new("chown");
        command.args(["-hR", &format!("{user}:{user}")]).arg(path);
        run(command).ok();
    }

    /// Words that run a program as the user of the bundle.
    pub fn as_user(&self) -> Vec<String> {
        if let Some(user) = &self.accounts {
            return user.words();
        }
        let Some(user) = self.user else { return Vec::new() };
        ["setpriv", "--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups", "--"]
            .map(String::from)
            .to_vec()
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `config.json`: what `spec` says, without a terminal, changed by `changes` as a merge patch in which a
    /// name with a `+` appends to a list. `@HOST@` and the like become paths.
    pub fn configure(&self, changes: &Value) {
        let example = self.path("example");
        fs::create_dir_all(&example).expect("a folder");
        if !example.join("config.json").exists() {
            let mut command = ours();
            command.args(["spec", "--bundle"]).arg(&example);
            run(command).ok();
        }
        let text = fs::read_to_string(example.join("config.json")).expect("an example");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        // What every runtime of the last years takes.
        config["ociVersion"] = "1.0.2".into();
        config["process"]["terminal"] = false.into();
        config["process"]["noNewPrivileges"] = false.into();
        config["process"]["rlimits"] = json!([]);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["linux"]["namespaces"] =
            json!(["pid", "network", "ipc", "uts", "mount"].map(|name| json!({ "type": name })));
        if let Some(user) = self.user {
            let mut own = json!([{ "containerID": 0, "hostID": user, "size": 1 }]);
            let ids = self.accounts.as_ref().and_then(|user| user.subordinate);
            if let (Some((first, count)), Some(list)) = (ids, own.as_array_mut()) {
                list.push(json!({ "containerID": 1, "hostID": first, "size": count }));
            }
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.push(json!({ "type": "user" }));
            config["linux"]["uidMappings"] = own.clone();
            config["linux"]["gidMappings"] = own;
            config["linux"]["resources"] = json!({});
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["type"] != json!("cgroup"));
            for mount in mounts.iter_mut().filter(|mount| mount["type"] == json!("devpts")) {
                mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
            }
        }
        merge(&mut config, changes);
        fs::write(self.path("config.json"), self.replace(&config.to_string())).expect("a file");
    }

    /// Placeholders as what they stand for.
    pub fn replace(&self, text: &str) -> String {
        let link =
            |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace").display().to_string();
        let path = |name: &str| self.path(name).display().to_string();
        [
            ("@HOST@", path("host")),
            ("@UPPER@", path("upper")),
            ("@WORK@", path("work")),
            ("@ROOT@", path("rootfs")),
            ("@OUT@", path("out")),
            ("@ID@", self.id.clone()),
            ("@NET@", link("net")),
            ("@UTS@", link("uts")),
        ]
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// A command line of the runtime, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let runtime = match self.runtime {
            Runtime::Ours => {
                let link = self.path("ctk-runtime");
                if !link.exists() {
                    symlink(binary(), &link).expect("a link");
                }
                link
            }
            other => other.name().into(),
        };
        // Mounts of a check are nobody else's; and crun 1.8 knows no host with both versions of cgroups.
        let mut script = "mount -t tmpfs below \"$0\" && echo below > \"$0/file\"; ".to_owned();
        if self.runtime == Runtime::Crun || self.view == View::Legacy {
            script.push_str("umount /sys/fs/cgroup/unified 2>/dev/null; ");
        }
        script.push_str("exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "timeout", "60", "sh", "-c", &script]);
        command
            .arg(self.path("host/below"))
            .args(self.as_user())
            .arg(runtime)
            .arg("--root")
            .arg(self.path("state"))
            .args(arguments);
        // Not the machine's /dev/null: crun 1.8 gives standard streams to the root of a user namespace.
        let empty = fs::File::open(self.path("empty")).expect("an empty file");
        command.current_dir(self.folder.path()).env("CALLER", "1").stdin(empty);
        command
    }

    /// Runs the runtime.
    pub fn runtime(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments))
    }

    /// Runs the runtime with standard streams of its own: what it leaves behind keeps them open.
    pub fn quietly(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let file = |name: &str| fs::File::create(self.path(name)).expect("a file");
        command.stdout(file("stdout")).stderr(file("stderr"));
        let mut output = run(command);
        output.out = fs::read_to_string(self.path("stdout")).unwrap_or_default();
        output.err = fs::read_to_string(self.path("stderr")).unwrap_or_default();
        output
    }

    /// The status that `state` tells; none if there is no container.
    pub fn status(&self) -> Option<String> {
        let output = self.runtime(&["state", &self.id]);
        let state: Value = serde_json::from_str(&output.out).ok()?;
        Some(state["status"].as_str()?.to_owned())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.quietly(&["delete", "--force", &self.id]);
    }
}

/// Our runtime as a subcommand.
fn ours() -> Command {
    let mut command = Command::new(binary());
    command.arg("runtime");
    command
}

/// A merge patch (RFC 7396); `name+` appends.
fn merge(into: &mut Value, changes: &Value) {
    let Value::Object(changes) = changes else {
        *into = changes.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(object) = into.as_object_mut() else { return };
    for (name, change) in changes {
        match (name.strip_suffix('+'), change) {
            (Some(name), Value::Array(more)) => {
                let list = object.entry(name).or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    list.extend(more.iter().cloned());
                }
            }
            (_, Value::Null) => drop(object.remove(name)),
            _ => merge(object.entry(name).or_insert(Value::Null), change),
        }
    }
}
