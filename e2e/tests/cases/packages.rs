//! OS packages from a mirror of the case's own: what is wrong with it is named, and what is locked stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctk_e2e::front::{Fault, Front};
use ctk_e2e::{Output, World, contains, has_programs, is_root};
use tempfile::TempDir;

/// A world with a project that installs `tool` from a mirror, and the mirror.
struct Case {
    world: World,
    mirror: Mirror,
}

/// A suite `test` with one component, its `.deb` files by `dpkg-deb`, its signature by `gpg`.
struct Mirror {
    folder: PathBuf,
    keys: TempDir,
    front: Front,
    index: BTreeMap<String, String>,
}

const IN_RELEASE: &str = "/dists/test/InRelease";
const INDEX: &str = "/dists/test/main/binary-amd64/Packages.xz";

impl Mirror {
    fn new(world: &World) -> Mirror {
        let folder = world.path("mirror");
        fs::create_dir_all(folder.join("pool")).unwrap();
        let keys = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
        let mirror = Mirror { front: Front::of_folder(&folder), folder, keys, index: BTreeMap::new() };
        mirror.key(world, "archive@example.test", "key.gpg");
        mirror
    }

    fn gpg(&self, world: &World, arguments: &[&str]) {
        let own = ["--homedir", self.keys.path().to_str().unwrap(), "--batch", "--yes", "--quiet", "--passphrase", ""];
        let own = own.into_iter().chain(["--pinentry-mode", "loopback"]);
        world.peer("gpg", &own.chain(arguments.iter().copied()).collect::<Vec<_>>()).ok();
    }

    /// A new key, its public half in a file of the project.
    fn key(&self, world: &World, user: &str, file: &str) {
        self.gpg(world, &["--quick-generate-key", user, "ed25519", "sign", "never"]);
        self.gpg(world, &["--output", file, "--export", user]);
    }

    /// Builds a package into the pool; in the index it takes the place of an older one.
    fn add(&mut self, world: &World, name: &str, version: &str, control: &str, files: &[(&str, &str)]) {
        let tree = world.path("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example.test>\nPriority: optional\nSection: misc\n{control}Description: a test\n"
        );
        fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        for (path, content) in files {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let file = format!("pool/{name}_{version}_amd64.deb");
        let deb = self.folder.join(&file);
        let words = ["--root-owner-group", "-b", tree.to_str().unwrap(), deb.to_str().unwrap()];
        world.peer("dpkg-deb", &words).ok();
        let size = fs::metadata(&deb).unwrap().len();
        let entry = format!("{control}Filename: {file}\nSize: {size}\nSHA256: {}\n", sha256(world, &deb));
        self.index.insert(name.to_owned(), entry);
        fs::remove_dir_all(tree).unwrap();
    }

    /// Writes and signs what the index holds now; `fields` are further lines of the release file.
    fn publish(&self, world: &World, fields: &str) {
        let suite = self.folder.join("dists/test");
        let binary = suite.join("main/binary-amd64");
        fs::create_dir_all(&binary).unwrap();
        let entries: Vec<&str> = self.index.values().map(String::as_str).collect();
        fs::write(binary.join("Packages"), entries.join("\n")).unwrap();
        world.peer("xz", &["-kf", binary.join("Packages").to_str().unwrap()]).ok();
        let mut lines = String::new();
        for name in ["Packages", "Packages.xz"] {
            let path = binary.join(name);
            let size = fs::metadata(&path).unwrap().len();
            lines += &format!(" {} {size} main/binary-amd64/{name}\n", sha256(world, &path));
        }
        let date = "Date: Sat, 11 Jul 2026 10:16:37 UTC\n";
        let release =
            format!("Origin: T\nSuite: test\n{date}{fields}Architectures: amd64\nComponents: main\nSHA256:\n");
        fs::write(suite.join("Release"), release + &lines).unwrap();
        self.sign(world, "archive@example.test");
    }

    fn sign(&self, world: &World, user: &str) {
        let suite = self.folder.join("dists/test");
        let (plain, signed) = (suite.join("Release"), suite.join("InRelease"));
        let (plain, signed) = (plain.to_str().unwrap(), signed.to_str().unwrap());
        self.gpg(world, &["--local-user", user, "--output", signed, "--clearsign", plain]);
    }

    fn rewrite(&self, path: &str, from: &str, to: &str) {
        let path = self.folder.join(path.trim_start_matches('/'));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

fn sha256(world: &World, path: &Path) -> String {
    let said = world.peer("sha256sum", &[path.to_str().unwrap()]).ok();
    said.split(' ').next().unwrap().to_owned()
}

impl Case {
    fn new() -> Option<Case> {
        if !is_root() || !has_programs(&["gpg", "dpkg-deb", "xz", "sha256sum"]) {
            return None;
        }
        let world = World::new();
        let mut mirror = Mirror::new(&world);
        mirror.add(&world, "lib", "1.0", "", &[("usr/lib/lib.so", "library 1.0"), ("etc/lib.conf", "a=1\n")]);
        mirror.add(&world, "tool", "2", "Depends: lib (>= 1.0)\n", &[("usr/bin/tool", &"tool".repeat(5000))]);
        mirror.publish(&world, "");
        let case = Case { world, mirror };
        case.project(&format!("http://{}", case.mirror.front.host));
        Some(case)
    }

    fn project(&self, mirror: &str) {
        let text = format!(
            r#"project "case"
image "os" {{
    packages distro="debian" suite="test" variant="custom" {{
        install "tool"
        mirror "{mirror}"
        keyring "key.gpg"
        scripts "none"
    }}
}}
push "os" image="os" {{ to "oci:dist" {{ tag "v1" }}; }}
"#
        );
        self.world.write("containers.kdl", text);
    }

    fn deb(name: &str) -> String {
        format!("/pool/{name}_amd64.deb")
    }

    /// Asserts that applying failed, said `parts`, and nothing of the image is to be seen anywhere.
    #[track_caller]
    fn fails(&self, parts: &[&str]) -> String {
        let said = self.apply().fails(1);
        contains(&said, &["image:os", "error["]);
        contains(&said, parts);
        assert!(!self.world.ctk(&["images"]).ok().contains("case/os"));
        assert!(!self.world.project().join("dist/index.json").exists(), "a tag moved");
        assert_eq!(files(&self.world.store().join("packages/partial")), 0, "half a file is left: {said}");
        said
    }

    /// `ctk apply` on a host without package sources, whose settings would count too.
    fn apply(&self) -> Output {
        let ctk = self.world.command(&[]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none /etc/apt && exec \"$0\" apply"]);
        command.arg(ctk.get_program()).current_dir(self.world.project());
        command.envs(ctk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        ctk_e2e::run(command)
    }

    /// The digest that the image has.
    fn digest(&self) -> String {
        self.world.ctk(&["images", "--quiet", "case/os"]).ok().trim().to_owned()
    }
}

/// Files in a folder; none if there is no folder.
fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

fn said(output: Output) -> String {
    let text = output.err.clone() + &output.out;
    output.ok();
    text
}

#[test]
fn an_unknown_key_an_unsigned_and_a_changed_release_file() {
    let Some(case) = Case::new() else { return };
    let (world, mirror) = (&case.world, &case.mirror);
    let good = fs::read(mirror.folder.join("dists/test/InRelease")).unwrap();

    mirror.key(world, "stranger@example.test", "stranger.gpg");
    mirror.sign(world, "stranger@example.test");
    case.fails(&[&mirror.front.host, "dists/test/InRelease", "unknown key", "key.gpg"]);

    let unsigned = fs::read(mirror.folder.join("dists/test/Release")).unwrap();
    fs::write(mirror.folder.join("dists/test/InRelease"), unsigned).unwrap();
    case.fails(&["dists/test/InRelease", "not a signed message"]);

    fs::write(mirror.folder.join("dists/test/InRelease"), &good).unwrap();
    mirror.rewrite(IN_RELEASE, "Origin: T", "Origin: U");
    case.fails(&["dists/test/InRelease", "bad signature"]);

    fs::write(mirror.folder.join("dists/test/InRelease"), &good).unwrap();
    fs::rename(world.project().join("key.gpg"), world.project().join("key.away")).unwrap();
    case.fails(&["key.gpg"]);
    fs::rename(world.project().join("key.away"), world.project().join("key.gpg")).unwrap();
    assert!(!world.project().join("containers.lock").exists(), "what was refused was locked");
    world.ctk(&["apply"]).ok();
}

#[test]
fn an_expired_release_file_and_another_suites() {
    let Some(case) = Case::new() else { return };
    case.mirror.publish(&case.world, "Valid-Until: Sun, 12 Jul 2020 10:16:37 UTC\n");
    case.fails(&["dists/test/InRelease", "expired on Sun, 12 Jul 2020"]);
    case.mirror.publish(&case.world, "");
    let release = case.mirror.folder.join("dists/test/Release");
    let text = fs::read_to_string(&release).unwrap().replace("Suite: test", "Suite: other");
    fs::write(release, text).unwrap();
    case.mirror.sign(&case.world, "archive@example.test");
    case.fails(&["dists/test/InRelease", "`test`", "`other`"]);
}

#[test]
fn tampered_indexes_and_packages() {
    let Some(case) = Case::new() else { return };
    let front = &case.mirror.front;
    front.fault(|asked| (asked.path == INDEX).then_some(Fault::Flipped));
    case.fails(&[&front.host, "binary-amd64/Packages.xz", "expected sha256"]);
    assert!(!case.world.project().join("containers.lock").exists());

    let tool = Case::deb("tool_2");
    let check = |fault: Fault, parts: &[&str]| {
        let tool = tool.clone();
        front.fault(move |asked| (asked.path == tool).then(|| fault.clone()));
        case.fails(&["tool_2_amd64.deb", &front.host]);
        case.fails(parts);
    };
    check(Fault::Flipped, &["expected sha256"]);
    check(Fault::Instead(vec![0; 1 << 20]), &["larger than"]);
    check(Fault::Status("404 Not Found"), &["404", "ctk update"]);
    check(Fault::Status("403 Forbidden"), &["403"]);
    front.heal();
    said(case.world.ctk(&["apply"]));
}

#[test]
fn a_truncated_package() {
    let Some(case) = Case::new() else { return };
    let front = &case.mirror.front;
    let tool = Case::deb("tool_2");
    front.fault({
        let tool = tool.clone();
        move |asked| (asked.path == tool).then_some(Fault::Short(100))
    });
    case.fails(&["tool_2_amd64.deb", "cannot download"]);
    // Once only: asked again, and whole.
    front.fault(move |asked| (asked.path == tool && asked.earlier == 0).then_some(Fault::Short(100)));
    said(case.world.ctk(&["apply"]));
}

#[test]
fn a_package_that_nobody_has_and_one_that_needs_too_much() {
    let Some(mut case) = Case::new() else { return };
    let text = case.world.read("containers.kdl");
    case.world.write("containers.kdl", text.replace("\"tool\"", "\"tol\""));
    case.fails(&["no package `tol`", "did you mean `tool`?"]);
    case.mirror.add(&case.world, "greedy", "1", "Depends: lib (>= 9)\n", &[]);
    case.mirror.publish(&case.world, "");
    case.world.write("containers.kdl", text.replace("\"tool\"", "\"greedy\""));
    case.fails(&["greedy needs lib (>= 9)", "lib 1.0"]);
}

#[test]
fn the_same_lock_gives_the_same_digest_in_another_store() {
    let Some(mut case) = Case::new() else { return };
    for command in ["apply", "plan", "why image:os"] {
        let words: Vec<&str> = command.split(' ').chain(["--locked"]).collect();
        contains(&case.world.ctk(&words).fails(1), &["image:os", "containers.lock", "--locked"]);
    }
    assert!(!case.world.project().join("containers.lock").exists());
    assert!(!case.world.ctk(&["images"]).ok().contains("case/os"));
    said(case.world.ctk(&["apply"]));
    let (first, lock) = (case.digest(), case.world.read("containers.lock"));
    assert!(first.starts_with("sha256:") && lock.contains("\"tool\"") && !lock.contains("127.0.0.1"), "{lock}");

    // Newer packages come; the lock file holds on to the old ones, also where nothing is cached.
    case.mirror.add(&case.world, "lib", "1.1", "", &[("usr/lib/lib.so", "library 1.1")]);
    case.mirror.publish(&case.world, "");
    fs::remove_dir_all(case.world.store()).unwrap();
    fs::remove_dir_all(case.world.project().join("dist")).unwrap();
    said(case.world.ctk(&["apply", "--locked"]));
    assert_eq!((case.digest(), case.world.read("containers.lock")), (first, lock));
    contains(&said(case.world.ctk(&["apply"])), &["nothing to do"]);
}

#[test]
fn update_moves_the_lock_file_and_shows_what_moved() {
    let Some(mut case) = Case::new() else { return };
    let world = &case.world;
    said(world.ctk(&["apply"]));
    let (before, first) = (case.digest(), world.read("containers.lock"));
    contains(&said(world.ctk(&["update"])), &["every entry is as it was"]);
    case.mirror.add(world, "lib", "1.1", "", &[("usr/lib/lib.so", "library 1.1")]);
    case.mirror.publish(world, "");
    fs::remove_file(case.mirror.folder.join("pool/lib_1.0_amd64.deb")).unwrap();

    // Still what the lock file says, as long as the store has it; then the mirror has not.
    contains(&said(world.ctk(&["apply"])), &["nothing to do"]);
    fs::remove_dir_all(world.store()).unwrap();
    fs::remove_dir_all(world.project().join("dist")).unwrap();
    case.fails(&["lib_1.0_amd64.deb", "404", "hint:", "ctk update"]);
    assert_eq!(world.read("containers.lock"), first);

    let moved = ["packages image:os", "- lib 1.0", "+ lib 1.1"];
    contains(&said(world.ctk(&["update", "--dry-run"])), &moved);
    assert_eq!(world.read("containers.lock"), first);
    let told = said(world.ctk(&["update", "image:os"]));
    contains(&told, &moved);
    assert!(!told.contains("tool"), "{told}");
    contains(&world.ctk(&["plan", "--explain"]).ok(), &["image:os", "packages of final: `"]);
    said(world.ctk(&["apply", "--locked"]));
    assert_ne!(case.digest(), before);
}

#[test]
fn a_mirror_that_is_busy_is_asked_again_and_one_that_is_gone_is_named() {
    let Some(case) = Case::new() else { return };
    let front = &case.mirror.front;
    front.fault(|asked| match (asked.path.as_str(), asked.earlier) {
        (IN_RELEASE, 0) => Some(Fault::Status("429 Too Many Requests\r\nRetry-After: 1")),
        (path, 0) if path.ends_with(".deb") => Some(Fault::Status("503 Service Unavailable")),
        _ => None,
    });
    let output = case.world.ctk(&["apply"]);
    assert!(output.took.as_millis() >= 1000, "it did not wait: {}", output.story());
    said(output);
    case.world.peer("rm", &["-rf", "containers.lock", "dist", case.world.store().to_str().unwrap()]).ok();
    case.project("http://127.0.0.1:1/debian");
    case.fails(&["http://127.0.0.1:1/debian/dists/test/InRelease"]);
}
