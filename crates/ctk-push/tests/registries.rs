//! Pushing to our own registry and to docker's.

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ctk_oci::Digest;
use ctk_plan::{Address, Kind, Reporter, Silent};
use ctk_push::{LocalRegistry, PushRequest};
use ctk_registry::{Access, ServeOptions, Server, Storage, serve};
use support::{Bench, has, output, push_of};

fn own(folder: &std::path::Path) -> Server {
    serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), folder)).unwrap()
}

#[test]
fn our_registry_gets_the_image_and_then_its_tags() {
    let bench = Bench::new();
    let server = own(&bench.home.path().join("registry"));
    let decl = push_of(&format!("to \"{}/acme/app\" {{ tag \"1.0\" \"latest\" }}", server.host()));
    assert_eq!(bench.observe(&decl), ["absent", "absent"]);
    for image in [bench.image("one"), bench.index("both")] {
        let folder = bench.folder();
        let reach = bench.reach(&[], &folder);
        let reporter = Reporter::new(Address::new(Kind::Push, "app"), Arc::new(Silent));
        let request =
            PushRequest { decl: &decl, image: &image, store: &bench.store, reach: &reach, reporter: &reporter };
        let before = bench.observe(&decl);
        let staged = ctk_push::upload(&request).unwrap();
        assert_eq!(bench.observe(&decl), before);
        assert!(server.storage().manifest("acme/app", &image.digest).unwrap().is_some());
        let published = ctk_push::publish(staged, &bench.store, &reach, &reporter).unwrap();
        assert_eq!(published.len(), 2);
        assert_eq!(published[1].name, format!("{}/acme/app:latest", server.host()));
        assert_eq!(bench.observe(&decl), [image.digest.to_string(), image.digest.to_string()]);
        assert_eq!(Some(bench.observe(&decl)), bench.wanted(&decl, &image));
    }
    server.shutdown(Duration::from_secs(1));
}

struct Direct {
    host: String,
    storage: Storage,
}

impl LocalRegistry for Direct {
    fn host(&self) -> &str {
        &self.host
    }

    fn tag(&self, repository: &str, tag: &str) -> Result<Option<Digest>, String> {
        let found = self.storage.tag(repository, tag).map_err(|error| error.to_string())?;
        Ok(found.map(|descriptor| descriptor.digest))
    }
}

#[test]
fn a_registry_of_the_project_is_observed_without_serving() {
    let bench = Bench::new();
    let folder = bench.home.path().join("registry");
    let server = own(&folder);
    let host = server.host();
    let decl = push_of(&format!("to \"{host}/app\" {{ tag \"1.0\" \"2.0\" }}"));
    let image = bench.image("one");
    bench.push(&push_of(&format!("to \"{host}/app\" {{ tag \"1.0\" }}")), &image).unwrap();
    server.shutdown(Duration::from_secs(1));
    assert!(bench.observe(&decl)[0].starts_with("unreachable: no answer from"), "{:?}", bench.observe(&decl));
    let direct = Direct { host, storage: Storage::open(&folder).unwrap() };
    let (local, project): ([&dyn LocalRegistry; 1], _) = ([&direct], bench.folder());
    let observed = ctk_push::observe(&decl, &bench.reach(&local, &project));
    assert_eq!(observed[0].found, ctk_push::Found::Digest { digest: image.digest });
    assert_eq!(observed[1].found, ctk_push::Found::Absent);
}

#[test]
fn a_registry_that_wants_a_login_says_so() {
    if !has("htpasswd") {
        return;
    }
    let bench = Bench::new();
    let users = bench.home.path().join("users");
    std::fs::write(&users, output("htpasswd", &["-Bbn", "-C", "4", "ann", "secret"])).unwrap();
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), bench.home.path().join("registry"));
    options.access = Access::Htpasswd(users);
    let server = serve(options).unwrap();
    let decl = push_of(&format!("to \"{}/app\" {{ tag \"1.0\" }}", server.host()));
    let error = bench.push(&decl, &bench.image("one")).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to upload `push:app` to `{}/app`", server.host()));
    assert!(error.hint().is_some_and(|hint| hint.contains("ctk login")), "{error:?}");
    assert!(bench.observe(&decl)[0].starts_with("unreachable: "), "{:?}", bench.observe(&decl));
    server.shutdown(Duration::from_secs(1));
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let bench = Bench::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let decl = push_of(&format!("to \"127.0.0.1:{port}/app\" {{ tag \"1\" \"2\" }}"));
    let began = Instant::now();
    let observed = bench.observe(&decl);
    assert!(observed.iter().all(|o| o.starts_with("unreachable: ")), "{observed:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let error = bench.push(&decl, &bench.image("one")).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to upload `push:app` to `127.0.0.1:{port}/app`"));
}

/// Docker's registry, killed when dropped.
struct Docker {
    process: Child,
    host: String,
}

impl Docker {
    fn start(folder: &std::path::Path) -> Docker {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = folder.join("docker-registry.yml");
        let mut file = std::fs::File::create(&config).unwrap();
        let root = folder.join("docker-registry");
        write!(
            file,
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            root.display()
        )
        .unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let docker = Docker { process, host };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&docker.host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        docker
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn dockers_registry_and_a_layout_in_one_push() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let bench = Bench::new();
    let docker = Docker::start(bench.home.path());
    let decl = push_of(&format!(
        "to \"{}/acme/app\" {{ tag \"1.0\" \"latest\" }}\n to \"oci:dist\" {{ tag \"1.0\" }}",
        docker.host
    ));
    for image in [bench.image("one"), bench.index("both")] {
        bench.push(&decl, &image).unwrap();
        assert_eq!(Some(bench.observe(&decl)), bench.wanted(&decl, &image));
    }
    let place = format!("docker://{}/acme/app:latest", docker.host);
    let raw = output("skopeo", &["inspect", "--raw", "--tls-verify=false", &place]);
    assert_eq!(Digest::of(raw.as_bytes()).to_string(), bench.observe(&decl)[0]);
    let to = format!("dir:{}", bench.path("copied"));
    output("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &place, &to]);
}
