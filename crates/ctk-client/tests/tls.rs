//! Schemes and certificates: loopback, hosts with their own authority, hosts without TLS.

mod common;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use common::*;
use ctk_client::{Client, ClientOptions, PushOptions};

/// This machine's address on a network; the address asked for is documentation's and never spoken to.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    if ip.is_loopback() || ip.is_unspecified() {
        println!("skipped: needs an address besides loopback");
        return None;
    }
    Some(ip.to_string())
}

/// A certificate for `ip`, its own authority.
fn certificate(directory: &Path, ip: &str) -> String {
    let (key, cert) = (directory.join("key.pem"), directory.join("cert.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=registry", "-addext"])
        .arg(format!("subjectAltName=IP:{ip}"))
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    format!(", tls: {{certificate: {}, key: {}}}", cert.display(), key.display())
}

fn push(client: &Client, registry: &DockerRegistry) -> Result<(), ctk_client::ClientError> {
    let (_a, store) = store();
    let root = image(&store, "amd64", 80, 1, 1000);
    client.push(&registry.reference("app:1"), &root, &store, &PushOptions::default(), None, &never()).map(drop)
}

#[test]
fn loopback_speaks_either() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    push(&client(), &DockerRegistry::start("")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let tls = certificate(directory.path(), "127.0.0.1");
    push(&client(), &DockerRegistry::start_on("127.0.0.1", &tls, "")).unwrap();
}

#[test]
fn authorities_by_host() {
    let Some(ip) = own_address() else { return };
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tls = certificate(directory.path(), &ip);
    let registry = DockerRegistry::start_on(&ip, &tls, "");
    let error = push(&client(), &registry).unwrap_err();
    let mut source: &dyn std::error::Error = &error;
    while let Some(next) = source.source() {
        source = next;
    }
    assert!(source.to_string().contains("certificate"), "{source}");

    let certs = directory.path().join("certs.d");
    std::fs::create_dir_all(certs.join(&registry.host)).unwrap();
    std::fs::copy(directory.path().join("cert.pem"), certs.join(&registry.host).join("ca.crt")).unwrap();
    let known = Client::new(ClientOptions { certificates: vec![certs], ..options() });
    push(&known, &registry).unwrap();
    let insecure = Client::new(ClientOptions { insecure: vec![registry.host.clone()], ..options() });
    push(&insecure, &registry).unwrap();
}

#[test]
fn plain_http_only_where_it_is_allowed() {
    let Some(ip) = own_address() else { return };
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start_on(&ip, "", "");
    let error = push(&client(), &registry).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("insecure = true")), "{error:?}");
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    std::fs::write(&conf, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host)).unwrap();
    push(&Client::new(ClientOptions { registries: vec![conf], ..options() }), &registry).unwrap();
}
