//! Registries that stumble, refuse and lie; credentials; mirrors.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ctk_e2e::front::{Asked, Fault, Front};
use ctk_e2e::{Output, World, contains, free_port, has, has_programs};

use super::failures::with_busybox;

/// `docker-registry` with a folder of its own; ends with the case.
pub struct Docker {
    child: Child,
    pub host: String,
}

impl Docker {
    /// Starts one on `address`, with further lines of its configuration.
    pub fn start(world: &World, address: &str, extra: &str) -> Docker {
        for _ in 0..20 {
            let host = format!("{address}:{}", free_port());
            let folder = world.path(&format!("registry-{}", host.replace([':', '.'], "-")));
            fs::create_dir_all(&folder).unwrap();
            let storage = folder.join("data");
            let config = folder.join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  delete: {{enabled: true}}\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{host}'}}\n{extra}",
                storage.display()
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
            let mut registry = Docker { child: command.spawn().unwrap(), host };
            let started = Instant::now();
            // Somebody else may have been faster to take the port: then it ends.
            while started.elapsed() < Duration::from_secs(10) && registry.child.try_wait().unwrap().is_none() {
                let up = TcpStream::connect(&registry.host).is_ok();
                std::thread::sleep(Duration::from_millis(30));
                if up && registry.child.try_wait().unwrap().is_none() {
                    return registry;
                }
            }
        }
        panic!("docker-registry does not start");
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A world with a registry, a front before it, and a project that pushes busybox through the front.
fn world_and_registry() -> Option<(World, Docker, Front)> {
    if !has_programs(&["docker-registry", "skopeo"]) {
        return None;
    }
    let world = with_busybox("")?;
    let registry = Docker::start(&world, "127.0.0.1", "");
    let front = Front::before(&registry.host);
    push_to(&world, &front.host);
    Some((world, registry, front))
}

/// Lets the project push busybox to `host`.
fn push_to(world: &World, host: &str) {
    let project = world.read("containers.kdl");
    let project = project.split("\npush").next().unwrap();
    let push = format!("\npush \"p\" image=\"busybox\" {{ to \"{host}/team/app\" {{ tag \"v1\"; }}; }}\n");
    world.write("containers.kdl", project.to_owned() + &push);
}

/// Whether the registry itself shows the tag.
fn is_tagged(world: &World, registry: &Docker) -> bool {
    let name = format!("docker://{}/team/app:v1", registry.host);
    world.peer("skopeo", &["inspect", "--tls-verify=false", &name]).status.success()
}

/// Every blob of the store is what its name says; gives how many there are.
fn whole_blobs(world: &World) -> usize {
    let found = world.peer("find", &[world.store().to_str().unwrap(), "-path", "*sha256/*", "-type", "f"]).ok();
    let blobs: Vec<&str> = found.lines().filter(|path| path.contains("/blobs/")).collect();
    for path in &blobs {
        let digest = world.peer("sha256sum", &[path]).ok();
        assert!(path.ends_with(digest.split(' ').next().unwrap()), "{path} is {digest}");
    }
    blobs.len()
}

fn is_blob(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/blobs/sha256:")
}

fn all(output: Output) -> String {
    let text = output.err.clone() + &output.out;
    output.ok();
    text
}

#[test]
fn not_logged_in() {
    let Some((world, registry, front)) = world_and_registry() else { return };
    front.fault(|_| Some(Fault::Status("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"")));
    let name = format!("{}/team/app:v1", front.host);
    let hint = format!("ctk login {}", front.host);
    contains(&world.ctk(&["pull", &name]).fails(1), &["401", &name, "hint:", &hint]);
    contains(&world.ctk(&["tags", &format!("{}/team/app", front.host)]).fails(1), &["401", &hint]);
    contains(&world.ctk(&["apply"]).fails(1), &["push:p", "401", "team/app", "hint:", &hint]);
    assert!(!world.ctk(&["images"]).ok().contains("team/app"));

    // As a base: the image, the place in the file and the way out.
    let base = format!("image \"y\" {{\n    stage \"final\" from=\"{name}\" {{ cmd \"x\" }}\n}}\n");
    world.write("other.kdl", format!("project \"other\"\n{base}"));
    contains(&world.ctk(&["apply", "-f", "other.kdl"]).fails(1), &["image:y", &name, "hint:", &hint]);
    assert!(!world.project().join("containers.lock").exists());
    drop(registry);
}

#[test]
fn a_busy_registry_is_waited_for() {
    let Some((world, registry, front)) = world_and_registry() else { return };
    let busy = |asked: &Asked| (asked.earlier == 0).then_some(Fault::Status("429 Too Many Requests\r\nRetry-After: 1"));
    front.fault(busy);
    let output = world.ctk(&["apply"]);
    assert!(output.took >= Duration::from_secs(1), "it did not wait: {}", output.story());
    output.ok();
    assert!(is_tagged(&world, &registry));
    front.fault(busy);
    let output = world.ctk(&["pull", &format!("{}/team/app:v1", front.host)]);
    assert!(output.took >= Duration::from_secs(1), "it did not wait: {}", output.story());
    output.ok();
    // Longer than anybody wants to wait is an error that says so.
    front.fault(|_| Some(Fault::Status("429 Too Many Requests\r\nRetry-After: 100000")));
    let output = world.ctk(&["pull", &format!("{}/team/other:v1", front.host)]);
    assert!(output.took < Duration::from_secs(5));
    contains(&output.fails(1), &["429", "team/other", "hint:"]);
}

#[test]
fn a_broken_registry_is_tried_again_and_then_named() {
    let Some((world, registry, front)) = world_and_registry() else { return };
    // Once each: nobody notices.
    front.fault(|asked| (asked.earlier == 0).then_some(Fault::Status("500 Internal Server Error")));
    world.ctk(&["apply"]).ok();
    assert!(is_tagged(&world, &registry));
    world.write("busybox", "another file");
    front.fault(|asked| {
        (asked.method != "GET" && asked.method != "HEAD").then_some(Fault::Status("500 Internal Server Error"))
    });
    contains(&world.ctk(&["apply"]).fails(1), &["push:p", &front.host, "team/app", "500"]);
    assert!(front.requests().iter().filter(|line| line.starts_with("POST")).count() > 1, "tried only once");
    // All again, and only what is missing is done.
    front.heal();
    let said = all(world.ctk(&["apply"]));
    contains(&said, &["1 done, 1 unchanged"]);
}

#[test]
fn a_tag_never_moves_before_its_blobs() {
    let Some((world, registry, front)) = world_and_registry() else { return };
    front.fault(|asked| {
        (asked.method == "PATCH" || asked.path.contains("digest=")).then_some(Fault::Status("403 Forbidden"))
    });
    contains(&world.ctk(&["apply"]).fails(1), &["push:p", "403", &front.host]);
    let asked = front.requests();
    assert!(!asked.iter().any(|line| line.starts_with("PUT") && line.contains("/manifests/")), "{asked:?}");
    assert!(!is_tagged(&world, &registry));
    // The manifest is refused: still no tag, the error names it.
    front.fault(|asked| {
        (asked.method == "PUT" && asked.path.contains("/manifests/")).then_some(Fault::Status("413 Content Too Large"))
    });
    contains(&world.ctk(&["apply"]).fails(1), &["push:p", "413", "team/app", "hint:"]);
    assert!(!is_tagged(&world, &registry));
    assert!(!world.ctk(&["images"]).ok().contains("team/app"));
    front.heal();
    world.ctk(&["apply"]).ok();
    contains(&all(world.ctk(&["apply"])), &["nothing to do"]);
}

#[test]
fn short_bodies_are_resumed() {
    let Some((world, _registry, front)) = world_and_registry() else { return };
    world.ctk(&["apply"]).ok();
    fs::remove_dir_all(world.store()).unwrap();
    let name = format!("{}/team/app:v1", front.host);
    front.fault(|asked| (is_blob(asked) && asked.earlier < 2).then_some(Fault::Short(100_000)));
    world.ctk(&["pull", &name]).ok();
    assert!(front.requests().iter().filter(|line| line.contains("/blobs/")).count() >= 4);
    assert!(whole_blobs(&world) >= 3);
    assert_eq!(world.ctk(&["run", &name, "/bin/busybox", "echo", "whole"]).ok(), "whole\n");
}

#[test]
fn content_that_is_not_its_digest_is_refused() {
    let Some((world, _registry, front)) = world_and_registry() else { return };
    world.ctk(&["apply"]).ok();
    let name = format!("{}/team/app:v1", front.host);
    let check = |fault: fn(&Asked) -> Option<Fault>, parts: &[&str]| {
        fs::remove_dir_all(world.store()).unwrap();
        front.fault(fault);
        let said = world.ctk(&["pull", &name]).fails(1);
        contains(&said, &[&front.host]);
        contains(&said, parts);
        assert!(!world.ctk(&["images"]).ok().contains("team/app"), "{said}");
        whole_blobs(&world);
    };
    check(|asked| is_blob(asked).then_some(Fault::Flipped), &["sha256:", "not"]);
    check(|asked| is_blob(asked).then(|| Fault::Instead(b"<html>log in</html>".to_vec())), &["sha256:"]);
    check(|asked| asked.path.contains("/manifests/").then(|| Fault::Instead(b"<html>".to_vec())), &["team/app"]);
    check(|asked| asked.path.contains("/manifests/").then_some(Fault::Status("404 Not Found")), &["404", "hint:"]);
    // What came whole stays and is not fetched again.
    front.heal();
    world.ctk(&["pull", &name]).ok();
    assert!(whole_blobs(&world) >= 3);
}

fn login(world: &World, host: &str, password: &str) -> Output {
    let mut command = world.command(&["login", "--username", "alice", "--password-stdin", host]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status,
        line: "ctk login".into(),
        took: Duration::ZERO,
    }
}

/// A registry that knows alice.
fn private_registry() -> Option<(World, Docker)> {
    if !has_programs(&["docker-registry", "htpasswd", "skopeo", "podman"]) {
        return None;
    }
    let world = with_busybox("")?;
    let users = world.peer("htpasswd", &["-Bbn", "-C", "5", "alice", "opensesame"]).ok();
    let file = world.path("users");
    fs::write(&file, users).unwrap();
    let extra = format!("auth: {{htpasswd: {{realm: private, path: {}}}}}\n", file.display());
    let registry = Docker::start(&world, "127.0.0.1", &extra);
    push_to(&world, &registry.host);
    Some((world, registry))
}

#[test]
fn login_push_pull_logout() {
    let Some((world, registry)) = private_registry() else { return };
    let host = registry.host.as_str();
    let name = format!("{host}/team/app:v1");
    let refused = login(&world, host, "wrong").fails(1);
    contains(&refused, &[host, "401"]);
    assert!(!refused.contains("wrong") && !world.path("home/.docker/config.json").exists());
    contains(&world.ctk(&["apply"]).fails(1), &["push:p", "401", "hint:", &format!("ctk login {host}")]);

    contains(&login(&world, host, "opensesame\n").ok(), &["logged in", host]);
    world.ctk(&["apply"]).ok();
    contains(&all(world.ctk(&["apply"])), &["nothing to do"]);
    world.ctk(&["pull", &name]).ok();
    contains(&world.ctk(&["tags", &format!("{host}/team/app")]).ok(), &["v1"]);
    // podman and skopeo find the same credentials, and ours are kept from others.
    let kept = world.peer("find", &[world.path("home").to_str().unwrap(), "-type", "f", "-printf", "%m %p\n"]).ok();
    let auth = kept.lines().find(|line| line.contains("config.json") || line.contains("auth.json")).unwrap();
    assert!(auth.starts_with("600 "), "{kept}");
    let file = auth.split_once(' ').unwrap().1;
    let words = ["inspect", "--tls-verify=false", "--authfile", file, &format!("docker://{name}")];
    world.peer("skopeo", &words).ok();

    contains(&world.ctk(&["logout", host]).ok(), &["removed from", file]);
    assert!(!fs::read_to_string(file).unwrap_or_default().contains(host));
    contains(&world.ctk(&["pull", &name]).fails(1), &["401", "hint:"]);
    // What podman wrote is found by us.
    let words = ["login", "--tls-verify=false", "--authfile", "auth.json", "-u", "alice", "-p", "opensesame", host];
    world.peer("podman", &words).ok();
    let mut command = world.command(&["pull", &name]);
    command.env("REGISTRY_AUTH_FILE", world.project().join("auth.json"));
    ctk_e2e::run(command).ok();
}

#[test]
fn a_credential_helper_is_asked() {
    let Some((world, registry)) = private_registry() else { return };
    let host = registry.host.as_str();
    let folder = world.path("helpers");
    fs::create_dir_all(&folder).unwrap();
    let helper = folder.join("docker-credential-case");
    let state = world.path("kept");
    let script = format!(
        "#!/bin/sh\nread -r line\ncase $1 in\nget) if test -e {0}; then cat {0}; else echo 'credentials not found in native keychain'; exit 1; fi;;\nstore) echo \"$line\" > {0};;\nerase) rm {0};;\nesac\n",
        state.display()
    );
    fs::write(&helper, script).unwrap();
    world.peer("chmod", &["755", helper.to_str().unwrap()]).ok();
    fs::create_dir_all(world.path("home/.docker")).unwrap();
    let config = format!("{{\"credHelpers\": {{\"{host}\": \"case\"}}}}");
    fs::write(world.path("home/.docker/config.json"), &config).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let apply = || {
        let mut command = world.command(&["apply"]);
        command.env("PATH", &path);
        ctk_e2e::run(command)
    };
    contains(&apply().fails(1), &["push:p", "401"]);
    let kept = format!("{{\"ServerURL\": \"{host}\", \"Username\": \"alice\", \"Secret\": \"opensesame\"}}");
    fs::write(&state, kept).unwrap();
    apply().ok();
    assert_eq!(fs::read_to_string(world.path("home/.docker/config.json")).unwrap(), config);

    // A helper that breaks is named; its words are not lost.
    fs::write(&helper, "#!/bin/sh\necho 'the vault is sealed' >&2\nexit 3\n").unwrap();
    world.write("busybox", "changed");
    contains(&apply().fails(1), &["docker-credential-case", host, "the vault is sealed"]);
}

#[test]
fn mirrors_other_places_and_plain_http() {
    let Some((world, registry, front)) = world_and_registry() else { return };
    world.ctk(&["apply"]).ok();
    let file = world.project().join("registries.conf");
    let dead = format!("127.0.0.1:{}", free_port());
    let text = format!(
        "[[registry]]\nprefix = \"images.example.test\"\nlocation = \"{dead}\"\n[[registry.mirror]]\nlocation = \"{dead}/mirror\"\n[[registry.mirror]]\nlocation = \"{}\"\n\n[[registry]]\nprefix = \"evil.example.test\"\nblocked = true\n",
        front.host
    );
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let name = "images.example.test/team/app:v1";
    world.ctk(&["--registries", file, "pull", name]).ok();
    contains(&world.ctk(&["images"]).ok(), &[name]);
    assert!(front.requests().iter().any(|line| line.contains("/team/app/")), "the mirror was not asked");
    // As a base: the lock file has the name that the project uses.
    let base = format!("project \"other\"\nimage \"y\" {{ stage \"final\" from=\"{name}\" {{ cmd \"x\" }}; }}\n");
    world.write("other.kdl", base);
    world.ctk(&["--registries", file, "apply", "-f", "other.kdl"]).ok();
    contains(&world.read("containers.lock"), &[name]);
    let said = world.ctk(&["--registries", file, "pull", "evil.example.test/x"]).fails(1);
    contains(&said, &["evil.example.test", "blocked", "registries.conf"]);

    // Beyond loopback, plain HTTP is for those that are declared insecure.
    let addresses = world.peer("hostname", &["-I"]).ok();
    let Some(address) = addresses.split_whitespace().find(|address| address.contains('.')) else {
        has("an address beyond loopback", false);
        return;
    };
    let outer = Docker::start(&world, address, "");
    let name = format!("{}/team/app:v1", outer.host);
    let copy = ["copy".to_owned(), format!("{}/team/app:v1", registry.host), name.clone()];
    let copy: Vec<&str> = copy.iter().map(String::as_str).collect();
    contains(&world.ctk(&copy).fails(1), &[&outer.host, "hint:", "insecure"]);
    fs::write(file, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", outer.host)).unwrap();
    let with_file: Vec<&str> = ["--registries", file].into_iter().chain(copy).collect();
    world.ctk(&with_file).ok();
    world.ctk(&["--registries", file, "pull", &name]).ok();
}
