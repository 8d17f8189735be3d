//! Proofs of identity beyond user and password: refresh tokens, stores of credentials, certificates; and what
//! registries.conf says.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::*;
use ctk_client::{Client, ClientError, ClientOptions, PushOptions};
use ctk_oci::{Reference, media_type};

/// A registry that wants a token of a server at the same address, and what it was asked.
fn token_registry(reply: &'static str) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let address = little_server(move |request| {
        log.lock().unwrap().push(request.to_owned());
        let line = request.lines().next().unwrap_or_default();
        if line.contains("/token") {
            return http("200 OK", "Content-Type: application/json\r\n", reply);
        }
        if !request.contains("Bearer fresh") && !request.contains("bearer fresh") {
            let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().trim();
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"svc\"\r\n");
            return http("401 Unauthorized", &challenge, "");
        }
        http("200 OK", &format!("Content-Type: {}\r\n", media_type::MANIFEST), r#"{"schemaVersion":2,"layers":[]}"#)
    });
    (address, seen)
}

fn head(options: ClientOptions, host: &str) -> Result<bool, ClientError> {
    let reference: Reference = format!("{host}/app:1").parse().unwrap();
    Ok(Client::new(options).head(&reference, &never())?.is_some())
}

#[test]
fn identity_tokens_are_exchanged_for_access_tokens() {
    let (address, seen) = token_registry(r#"{"access_token":"fresh","refresh_token":"next","expires_in":300}"#);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{address}":{{"auth":"MDAwMDow","identitytoken":"refresh-me"}}}}}}"#))
        .unwrap();
    assert!(head(ClientOptions { auth_files: vec![file], ..options() }, &address.to_string()).unwrap());
    let seen = seen.lock().unwrap();
    let asked: Vec<&String> = seen.iter().filter(|request| request.contains("/token")).collect();
    assert_eq!(asked.len(), 1, "{seen:#?}");
    assert!(asked[0].starts_with("POST /token"), "{asked:?}");
    for part in [
        "grant_type=refresh_token",
        "refresh_token=refresh-me",
        "service=svc",
        "client_id=ctk",
        "scope=repository%3Aapp%3Apull",
    ] {
        assert!(asked[0].contains(part), "no {part} in {asked:?}");
    }
    assert!(!asked[0].to_lowercase().contains("authorization"), "{asked:?}");
}

#[test]
fn stores_of_credentials_are_asked() {
    let (address, seen) = token_registry(r#"{"token":"fresh"}"#);
    let home = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nread host; echo \"$1 $host\" >> \"$(dirname $0)/asked\"\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    write_executable(&home.path().join("docker-credential-keeper"), script);
    let asked = || std::fs::read_to_string(home.path().join("asked")).unwrap_or_default();
    // Named by docker's file for all hosts, or by registries.conf.
    let file = home.path().join("config.json");
    std::fs::write(&file, r#"{"credsStore":"keeper"}"#).unwrap();
    let conf = home.path().join("registries.conf");
    std::fs::write(&conf, "credential-helpers = [\"containers-auth.json\", \"keeper\"]\n").unwrap();
    let helper_path = vec![home.path().to_owned()];
    for options in [
        ClientOptions { auth_files: vec![file], helper_path: helper_path.clone(), ..options() },
        ClientOptions { registries: vec![conf], helper_path, ..options() },
    ] {
        let before = asked().lines().count();
        assert!(head(options, &address.to_string()).unwrap());
        assert_eq!(asked().lines().skip(before).collect::<Vec<_>>(), [format!("get {address}")]);
    }
    // me:secret
    let basic = "authorization: basic bwu6c2vjcmv0";
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|r| r.contains("/token") && r.to_lowercase().contains(basic)).count(), 2);
}

/// A certificate authority, and what it signs.
struct Authority<'a>(&'a Path);

impl Authority<'_> {
    fn new(directory: &Path) -> Authority<'_> {
        let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority"];
        run(Command::new("openssl").args(new).args(["-keyout", "ca.key", "-out", "ca.crt"]).current_dir(directory));
        Authority(directory)
    }

    fn sign(&self, name: &str, extension: &str) {
        std::fs::write(self.0.join(format!("{name}.ext")), extension).unwrap();
        let ask = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", &format!("/CN={name}")];
        run(Command::new("openssl")
            .args(ask)
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.csr")])
            .current_dir(self.0));
        run(Command::new("openssl")
            .args(["x509", "-req", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"])
            .args(["-in", &format!("{name}.csr"), "-out", &format!("{name}.cert"), "-extfile", &format!("{name}.ext")])
            .current_dir(self.0));
    }
}

#[test]
fn certificates_prove_who_we_are() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new(home.path());
    authority.sign("server", "subjectAltName=IP:127.0.0.1\n");
    authority.sign("client", "extendedKeyUsage=clientAuth\n");
    let at = |name: &str| home.path().join(name).display().to_string();
    let tls = format!(
        ", tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
        at("server.cert"),
        at("server.key"),
        at("ca.crt")
    );
    let registry = DockerRegistry::start_on("127.0.0.1", &tls, "");
    let (_a, store) = store();
    let root = image(&store, "amd64", 81, 1, 1000);
    let push = |options: ClientOptions| {
        let client = Client::new(options);
        client.push(&registry.reference("app:1"), &root, &store, &PushOptions::default(), None, &never())
    };
    assert!(push(options()).is_err(), "nobody without a certificate");
    let certificates = home.path().join("certs.d");
    let own = certificates.join(&registry.host);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(home.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    std::fs::copy(home.path().join("client.cert"), own.join("client.cert")).unwrap();
    let known = || ClientOptions { certificates: vec![certificates.clone()], ..options() };
    let error = push(known()).unwrap_err();
    assert!(error.to_string().contains("client.cert") && error.to_string().contains(".key"), "{error}");
    std::fs::copy(home.path().join("client.key"), own.join("client.key")).unwrap();
    push(known()).unwrap();
}

#[test]
fn short_names_are_searched_in_order() {
    if !has("docker-registry") {
        return;
    }
    let (one, two) = (DockerRegistry::start(""), DockerRegistry::start(""));
    let (_a, store) = store();
    let root = image(&store, "amd64", 82, 1, 1000);
    client().push(&two.reference("app:1"), &root, &store, &PushOptions::default(), None, &never()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (conf, drop_ins) = (home.path().join("registries.conf"), home.path().join("registries.conf.d"));
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(&conf, format!("unqualified-search-registries = [\"{}\", \"{}\"]\n", one.host, two.host)).unwrap();
    std::fs::write(drop_ins.join("10-a.conf"), "[aliases]\nshort = \"a.example/long\"\n").unwrap();
    std::fs::write(drop_ins.join("20-b.conf"), format!("[aliases]\nshort = \"{}/app\"\n", two.host)).unwrap();
    let client = Client::new(ClientOptions { registries: vec![drop_ins, conf], ..options() });
    let full = |name: &str| client.full_name(name, &never()).unwrap().to_string();
    assert_eq!(full("app:1"), format!("{}/app:1", two.host));
    assert_eq!(full("absent:1"), format!("{}/absent:1", one.host), "the first, which says that it is not there");
    assert_eq!(full("short:1"), format!("{}/app:1", two.host), "later drop-ins go before");
    assert_eq!(full("quay.io/a/b"), "quay.io/a/b");
}

#[test]
fn containerds_files_name_mirrors() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let proxy = Proxy::before(&registry.host);
    let (_a, store) = store();
    let root = image(&store, "amd64", 83, 1, 1000);
    let kept = registry.reference("hub/library/app:1");
    client().push(&kept, &root, &store, &PushOptions::default(), None, &never()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("docker.io");
    std::fs::create_dir(&folder).unwrap();
    let text = format!(
        "server = \"http://127.0.0.1:9\"\n[host.\"http://127.0.0.1:9\"]\n[host.\"http://{}/v2/hub\"]\noverride_path = true\n",
        proxy.host
    );
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    let client = Client::new(ClientOptions { hosts: vec![home.path().to_owned()], ..options() });
    let (_b, into) = common::store();
    let pulled = client.pull(&"app:1".parse().unwrap(), None, ctk_store::Depth::Layers, &into, None, &never());
    assert_eq!(pulled.unwrap().digest, root.digest);
    // The mirror is told whose it is.
    let asked = proxy.seen("GET /v2/hub/library/app/");
    assert!(asked.len() >= 3 && asked.iter().all(|head| head.contains("?ns=docker.io ")), "{asked:#?}");
}
