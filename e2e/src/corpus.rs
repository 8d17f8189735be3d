//! The cases of `test_data/dockerfiles/<area>/<case>`, and how a case is built by us and by others.
//!
//! A case has a `Dockerfile`; if need be `context/`, `setup.sh` (what git cannot hold; runs in a copy of the case), and
//! `options`: a switch of `ctk build` a line, or `NAME=value` for the environment. `built` or `refused` says what comes
//! out. See docs/testing.md.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::front::Front;
use crate::git::Daemon;
use crate::image::Image;
use crate::peers::Peers;
use crate::{World, bases, run, workspace};

/// Where the cases are.
pub fn folder() -> PathBuf {
    workspace().join("e2e/test_data/dockerfiles")
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `area/case`.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

/// Every case, in order; with `CTK_CASES`, those whose name contains one of its words.
pub fn cases() -> Vec<Case> {
    let words = std::env::var("CTK_CASES").unwrap_or_default();
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut cases = Vec::new();
    for area in folders(&folder()) {
        for case in folders(&area) {
            let name = case.strip_prefix(folder()).expect("below it").to_string_lossy().into_owned();
            if words.is_empty() || words.iter().any(|word| name.contains(word)) {
                cases.push(Case { name, folder: case });
            }
        }
    }
    cases
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

/// buildah, with storage of our own.
const BUILDAH: [&str; 3] = ["buildah", "--root=/run/work/buildah", "--runroot=/run/buildah"];

/// A line of `options`.
#[derive(Clone, Debug)]
enum Choice {
    Switch(String, String),
    Environment(String),
}

/// What came of a build: the images for each platform asked for, or why there is none.
pub type Outcome = Result<Vec<(String, Image)>, String>;

/// A place where cases are built: prepared copies, base images, a server of files, a store, perhaps peers.
pub struct Site {
    world: World,
    work: PathBuf,
    /// Serves `test_data/dockerfiles/www`.
    front: Front,
    /// The others, if they were asked for.
    pub peers: Option<Peers>,
    /// What most cases start from.
    pub base: Image,
    /// Serves the repositories that `test_data/git.sh` makes.
    git: Daemon,
}

impl Site {
    /// A site with every case prepared.
    pub fn new(cases: &[Case], with_peers: bool) -> Site {
        let world = World::new();
        let work = world.path("work");
        bases::write(&work.join("bases"));
        let base = Image::of_layout(&work.join("bases/base"), "linux/amd64").expect("a base");
        let peers = with_peers.then(|| Peers::start(&work));
        let git = crate::git::repositories(&work.join("git"));
        let site = Site { git, world, front: Front::of_folder(folder().join("../www")), peers, base, work };
        for case in cases {
            site.prepare(case);
        }
        for name in bases::NAMES.iter().filter(|_| site.peers.is_some()) {
            let peers = site.peers.as_ref().expect("just asked");
            let pulled = peers.inside(
                "buildah",
                &[&BUILDAH[1..], &["pull", "--quiet", &format!("oci:/run/work/bases/{name}")]].concat(),
            );
            let id = pulled.ok();
            peers.inside("buildah", &[&BUILDAH[1..], &["tag", id.trim(), &format!("localhost/{name}")]].concat()).ok();
        }
        site
    }

    /// The versions of the others' builders.
    pub fn builders(&self) -> String {
        let peers = self.peers.as_ref().expect("peers were asked for");
        let version = |words: &[&str]| peers.inside(words[0], &words[1..]).ok();
        let words: [&[&str]; 3] = [&["docker-buildx", "version"], &["dockerd", "--version"], &["buildah", "--version"]];
        words.map(version).concat()
    }

    /// Where the copy of a case is.
    fn copy(&self, case: &Case) -> PathBuf {
        self.work.join("cases").join(&case.name)
    }

    /// Copies a case, with modes that depend on no umask.
    fn prepare(&self, case: &Case) {
        let copy = self.copy(case);
        copy_tree(&case.folder, &copy);
        fs::create_dir_all(copy.join("context")).expect("a context");
        if copy.join("setup.sh").exists() {
            let mut command = Command::new("sh");
            command.args(["-eu", "setup.sh"]).current_dir(&copy).env("HOME", "/nonexistent").stdin(Stdio::null());
            command.env("GIT_CONFIG_GLOBAL", "/dev/null");
            run(command).ok();
        }
    }

    /// `text` without what differs from run to run: addresses, times, folders; of errors, only the errors.
    pub fn plain(&self, text: &str) -> String {
        let text = text.replace(&self.front.host, "@HTTP@").replace(&self.git.host, "@GIT@");
        text.replace(self.world.project().parent().expect("a folder").to_str().expect("plain"), "@FOLDER@")
    }

    fn choices(&self, case: &Case) -> Vec<Choice> {
        let text = fs::read_to_string(self.copy(case).join("options")).unwrap_or_default();
        let text = text.replace("@HTTP@", &self.front.host).replace("@GIT@", &self.git.host);
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let choice = |line: &str| match line.split_once(' ') {
            _ if !line.starts_with('-') => Choice::Environment(line.to_owned()),
            Some((switch, value)) => Choice::Switch(switch.to_owned(), value.to_owned()),
            None => Choice::Switch(line.to_owned(), String::new()),
        };
        lines.map(choice).collect()
    }

    /// The platforms that a case asks for.
    fn platforms(&self, case: &Case) -> Vec<String> {
        let last = self.choices(case).into_iter().rev().find_map(|choice| match choice {
            Choice::Switch(switch, value) if switch == "--platform" => Some(value),
            _ => None,
        });
        last.as_deref().unwrap_or("linux/amd64").split(',').map(str::to_owned).collect()
    }

    fn images(&self, case: &Case, layout: &Path) -> Outcome {
        let image = |platform: String| Image::of_layout(layout, &platform).map(|image| (platform, image));
        self.platforms(case).into_iter().map(image).collect()
    }

    /// `--name=value` and `NAME=value` for a command line; base images as `scheme` says.
    fn arguments(&self, case: &Case) -> (Vec<String>, Vec<String>) {
        let mut switches = vec!["--file=Dockerfile".to_owned()];
        let mut environment = Vec::new();
        for choice in self.choices(case) {
            match choice {
                Choice::Environment(pair) => environment.push(pair),
                Choice::Switch(switch, value) if value.is_empty() => switches.push(switch),
                Choice::Switch(switch, value) if switch == "--file" => switches[0] = format!("--file={value}"),
                Choice::Switch(switch, value) => switches.push(format!("{switch}={value}")),
            }
        }
        (switches, environment)
    }

    /// Builds by `ctk build`.
    pub fn ctk(&self, case: &Case) -> Outcome {
        let out = self.work.join("out/ctk").join(case.name.replace('/', "-"));
        fs::create_dir_all(self.work.join("out/ctk")).expect("a folder");
        let (switches, environment) = self.arguments(case);
        let mut words = vec!["build".to_owned(), "--progress=quiet".into()];
        words.push(format!("--output=type=oci,dest={},tar=false", out.display()));
        let layouts = self.work.join("bases");
        words.extend(
            bases::NAMES.map(|name| format!("--build-context={name}=oci-layout://{}/{name}", layouts.display())),
        );
        words.extend(switches);
        words.push("context".into());
        let mut command = self.world.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        command.current_dir(self.copy(case));
        command.envs(environment.iter().filter_map(|pair| pair.split_once('=')));
        let output = run(command);
        if !output.status.success() {
            return Err(output.err);
        }
        self.images(case, &out)
    }

    /// Builds by `docker build`.
    pub fn buildkit(&self, case: &Case) -> Outcome {
        let peers = self.peers.as_ref().expect("peers were asked for");
        let out = format!("out/buildkit/{}", case.name.replace('/', "-"));
        let (switches, environment) = self.arguments(case);
        let mut words = vec!["docker-buildx".to_owned(), "build".into(), "--provenance=false".into()];
        words.extend(["--progress=plain".into(), "--network=none".into()]);
        words.push(format!("--output=type=oci,dest=/run/work/{out},tar=false,compression=uncompressed"));
        words.extend(bases::NAMES.map(|name| format!("--build-context={name}=oci-layout:///run/work/bases/{name}")));
        words.extend(switches);
        words.push("context".into());
        fs::create_dir_all(self.work.join("out/buildkit")).expect("a folder");
        let _ = fs::remove_dir_all(self.work.join(&out));
        let output = inside(peers, case, &environment, &words);
        if !output.status.success() {
            return Err(output.err);
        }
        self.images(case, &self.work.join(out))
    }

    /// Builds by `buildah bud`.
    pub fn buildah(&self, case: &Case) -> Outcome {
        let peers = self.peers.as_ref().expect("peers were asked for");
        let name = case.name.replace('/', "-");
        let (switches, environment) = self.arguments(case);
        let mut words = BUILDAH.map(str::to_owned).to_vec();
        words.extend(
            [
                "bud",
                "--layers=false",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=4096:4096",
                "--isolation=chroot",
                "--pull=never",
                "--format=docker",
            ]
            .map(str::to_owned),
        );
        words.push(format!("--tag={name}"));
        words.extend(switches);
        words.push("context".into());
        let output = inside(peers, case, &environment, &words);
        if !output.status.success() {
            return Err(output.err);
        }
        let mut words = BUILDAH.map(str::to_owned).to_vec();
        fs::create_dir_all(self.work.join("out/buildah")).expect("a folder");
        words.extend(["push".into(), "--quiet".into(), name.clone(), format!("dir:/run/work/out/buildah/{name}")]);
        let output = inside(peers, case, &[], &words);
        if !output.status.success() {
            return Err(output.err);
        }
        let image = Image::of_directory(&self.work.join("out/buildah").join(&name))?;
        Ok(vec![(self.platforms(case)[0].clone(), image)])
    }
}

fn inside(peers: &Peers, case: &Case, environment: &[String], words: &[String]) -> crate::Output {
    let folder = format!("/run/work/cases/{}", case.name);
    let mut arguments: Vec<&str> = vec!["-c", "cd \"$0\" && exec env \"$@\"", &folder];
    arguments.extend(environment.iter().chain(words).map(String::as_str));
    peers.inside("sh", &arguments)
}

/// Copies what git holds of `from`: files, their executable bit, links.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("a mode");
    for entry in fs::read_dir(from).expect("a folder") {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("an entry");
        let kind = fs::symlink_metadata(&from).expect("an entry");
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from).expect("a link"), &to).expect("a link");
        } else if kind.is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a file");
            let mode = if kind.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).expect("a mode");
        }
    }
}

/// Does `work` for each of `items` on several threads; the results in order.
pub fn each<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let take = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                match items.get(at) {
                    Some(item) => mine.push((at, work(item))),
                    None => return mine,
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
