//! The token server and client certificates, as clients meet them.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{ask, client, has, image, never, options as client_options, run, store};
use ctk_client::{Client, ClientOptions, Credentials, PushOptions, Secret};
use ctk_distribution::parse_challenges;
use ctk_registry::{
    Access, Rights, ServeOptions, Server, TlsFiles, TokenOptions, add_password, new_key, retire_key, serve,
    signing_keys,
};

fn options(directory: &Path, grants: &[&str]) -> ServeOptions {
    let users = directory.join("users");
    for user in ["ci", "root"] {
        add_password(&users, user, &format!("secret of {user}")).unwrap();
    }
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.join("data"));
    options.access = Access::Htpasswd(users);
    options.rights = Some(Rights { grants: grants.iter().map(|text| text.parse().unwrap()).collect() });
    options.tokens = Some(TokenOptions { keys: directory.join("keys"), realm: None, service: "here".into() });
    options
}

const GRANTS: [&str; 4] =
    ["anyone=reader@public/**", "user:ci=writer@team/**", "user:root=admin@**", "user:ci=reader@base"];

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}\r\n")
}

fn form(host: &str, body: &str) -> (u16, serde_json::Value) {
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (status, _, body) = ask(host, "POST", "/token", kind, body.as_bytes());
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The reply to a GET for scopes.
fn token(host: &str, scopes: &str, who: &str) -> serde_json::Value {
    let (status, head, body) = ask(host, "GET", &format!("/token?service=here&scope={scopes}"), who, b"");
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    serde_json::from_slice(&body).unwrap()
}

fn bearer(reply: &serde_json::Value) -> String {
    format!("Authorization: Bearer {}\r\n", reply["token"].as_str().unwrap())
}

/// Status and challenge of a request.
fn challenge(host: &str, method: &str, path: &str, who: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    use std::io::Write;
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n{who}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (head, _) = common::read_head(&mut stream).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let line = head.lines().find_map(|line| line.to_lowercase().strip_prefix("www-authenticate: ").map(Into::into));
    (status, line.unwrap_or_default())
}

#[test]
fn who_has_no_token_is_told_which_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(options(directory.path(), &GRANTS)).unwrap();
    let host = server.host();
    let check = |method: &str, path: &str, scope: &str| {
        let (status, text) = challenge(&host, method, path, "");
        let scope = if scope.is_empty() { String::new() } else { format!(",scope=\"{scope}\"") };
        assert_eq!((status, text), (401, format!("bearer realm=\"http://{host}/token\",service=\"here\"{scope}")));
    };
    check("GET", "/v2/", "");
    check("GET", "/v2/_catalog", "registry:catalog:*");
    check("GET", "/v2/team/app/manifests/1", "repository:team/app:pull");
    check("PUT", "/v2/team/app/manifests/1", "repository:team/app:pull,push");
    check("DELETE", "/v2/team/app/manifests/1", "repository:team/app:delete,pull");
    let digest = ctk_oci::Digest::of(b"x");
    let mount = format!("/v2/team/app/blobs/uploads/?mount={digest}&from=base");
    check("POST", &mount, "repository:team/app:pull,push repository:base:pull");
    let mount = format!("/v2/team/app/blobs/uploads/?mount={digest}&from=a%22,x=%22");
    check("POST", &mount, "repository:team/app:pull,push");
    let (_, text) = challenge(&host, "GET", "/v2/team/app/manifests/1", "Authorization: Bearer x.y.z\r\n");
    assert!(text.ends_with(",error=\"invalid_token\""), "{text}");
    let parsed = parse_challenges(&text);
    assert_eq!(parsed.len(), 1, "{parsed:?}");
}

#[test]
fn tokens_allow_what_was_asked_and_may_be_had() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(options(directory.path(), &GRANTS)).unwrap();
    let host = server.host();
    let (ci, root) = (basic("ci", "secret of ci"), basic("root", "secret of root"));
    let scopes = |asked: &str, who: &str| token(&host, asked, who)["scope"].as_str().unwrap().to_owned();
    assert_eq!(scopes("repository:team/app:pull,push,delete", &ci), "repository:team/app:pull,push");
    assert_eq!(scopes("repository:team/app:pull,push,delete", &root), "repository:team/app:pull,push,delete");
    assert_eq!(scopes("repository:team/app:*", &ci), "repository:team/app:pull,push");
    assert_eq!(scopes("repository:team/app:pull", ""), "");
    assert_eq!(scopes("repository:public/x:pull,push", ""), "repository:public/x:pull");
    assert_eq!(scopes("repository:a:pull&scope=repository:team/b:pull", &ci), "repository:team/b:pull");
    assert_eq!(scopes("registry:catalog:*", ""), "");
    assert_eq!(scopes("registry:catalog:*", &ci), "registry:catalog:*");
    assert_eq!(scopes("repository(plugin):team/app:pull+other:x:y", &ci), "");
    for (path, status) in [
        ("/token?service=elsewhere&scope=repository:a:pull".to_owned(), 400),
        ("/token?scope=repository".into(), 400),
        (format!("/token?scope={}", "repository:a:pull+".repeat(65)), 400),
    ] {
        assert_eq!(ask(&host, "GET", &path, &ci, b"").0, status, "{path}");
    }
    assert_eq!(ask(&host, "GET", "/token", &basic("ci", "wrong"), b"").0, 401);
    assert_eq!(ask(&host, "DELETE", "/token", &ci, b"").0, 405);

    let pull = bearer(&token(&host, "repository:team/app:pull", &ci));
    let uploads = "/v2/team/app/blobs/uploads/";
    let (status, text) = challenge(&host, "POST", uploads, &pull);
    assert_eq!(status, 401, "the user may, the token does not");
    assert!(text.ends_with("scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\""), "{text}");
    let push = bearer(&token(&host, "repository:team/app:pull,push", &ci));
    assert_eq!(ask(&host, "POST", uploads, &push, b"").0, 202);
    assert_eq!(ask(&host, "POST", uploads, &ci, b"").0, 202, "a password does, too");
    assert_eq!(ask(&host, "POST", "/v2/other/blobs/uploads/", &push, b"").0, 403);
    assert_eq!(ask(&host, "GET", "/v2/", &push, b"").0, 200);
    // A token buys no other token.
    assert_eq!(ask(&host, "GET", "/token", &push, b"").0, 401);
    assert_eq!(ask(&host, "GET", "/v2/_catalog", &push, b"").0, 401);
    let catalog = bearer(&token(&host, "registry:catalog:*", &ci));
    assert_eq!(ask(&host, "GET", "/v2/_catalog", &catalog, b"").0, 200);
    // Of nobody in particular.
    let nobody = bearer(&token(&host, "repository:public/x:pull", ""));
    assert_eq!(ask(&host, "GET", "/v2/public/x/tags/list", &nobody, b"").0, 404);
    assert_eq!(ask(&host, "GET", "/v2/team/app/tags/list", &nobody, b"").0, 401);
}

/// CVE-2024-39897: the source of a mount is authorised, also by the token.
#[test]
fn cve_2024_39897_a_mount_reads_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let mut options =
        options(directory.path(), &["user:ci=writer@team/**", "user:ci=reader@base", "user:root=admin@**"]);
    let audit = directory.path().join("audit");
    options.audit = Some(audit.clone());
    let server = serve(options).unwrap();
    let host = server.host();
    let (ci, root) = (basic("ci", "secret of ci"), basic("root", "secret of root"));
    let digest = ctk_oci::Digest::of(b"content");
    for repository in ["base", "secret"] {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(ask(&host, "POST", &path, &root, b"content").0, 201);
    }
    let mount = |to: &str, from: &str, who: &str| {
        let path = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        ask(&host, "POST", &path, who, b"").0
    };
    let push = "repository:team/app:pull,push";
    let both = |from: &str| bearer(&token(&host, &format!("{push}&scope=repository:{from}:pull"), &ci));
    assert_eq!(mount("team/app", "secret", &both("secret")), 202, "no right to read it");
    assert_eq!(mount("team/app", "base", &bearer(&token(&host, push, &ci))), 202, "the token is not for it");
    assert_eq!(mount("team/app", "base", &both("base")), 201);
    let text = std::fs::read_to_string(audit).unwrap();
    assert!(!text.contains("ey"), "no token is written down: {text}");
}

#[test]
fn refresh_tokens_stand_for_a_password_until_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(options(directory.path(), &GRANTS)).unwrap();
    let host = server.host();
    let by_password = "grant_type=password&username=ci&password=secret+of+ci&service=here&client_id=x\
                       &scope=repository:team/app:pull,push";
    let (status, reply) = form(&host, by_password);
    assert_eq!((status, reply.get("refresh_token")), (200, None));
    let (_, reply) = form(&host, &format!("{by_password}&access_type=offline"));
    let refresh = reply["refresh_token"].as_str().unwrap().to_owned();
    let access = bearer(&reply);
    let by_refresh =
        format!("grant_type=refresh_token&refresh_token={refresh}&service=here&scope=repository:team/app:pull");
    let (status, reply) = form(&host, &by_refresh);
    assert_eq!((status, reply["scope"].as_str()), (200, Some("repository:team/app:pull")));
    // One kind is not taken for the other.
    let swapped = format!("grant_type=refresh_token&refresh_token={}", reply["token"].as_str().unwrap());
    assert_eq!(form(&host, &swapped).0, 400);
    let as_access = format!("Authorization: Bearer {refresh}\r\n");
    assert_eq!(ask(&host, "GET", "/v2/", &as_access, b"").0, 401);
    for wrong in ["grant_type=password&username=ci&password=x", "grant_type=refresh_token", "grant_type=other", "", "%"]
    {
        assert_eq!(form(&host, wrong).0, 400, "{wrong}");
    }
    assert_eq!(form(&host, &"x".repeat(70_000)).0, 400);
    assert_eq!(ask(&host, "GET", "/v2/", &access, b"").0, 200);
    let users = directory.path().join("users");
    add_password(&users, "ci", "another").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while form(&host, &by_refresh).0 == 200 {
        assert!(Instant::now() < deadline, "the refresh token outlives its password");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask(&host, "GET", "/v2/", &access, b"").0, 401, "and so does no token");
}

#[test]
fn keys_are_rotated_while_two_servers_run() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = serve(options(one.path(), &GRANTS)).unwrap();
    let mut options = options(two.path(), &GRANTS);
    let keys = one.path().join("keys");
    options.tokens = Some(TokenOptions { keys: keys.clone(), realm: None, service: "here".into() });
    // Its users are the same.
    std::fs::copy(one.path().join("users"), two.path().join("users")).unwrap();
    let second = serve(options).unwrap();
    let ci = basic("ci", "secret of ci");
    let made = bearer(&token(&first.host(), "repository:team/app:pull", &ci));
    let status = |server: &Server, who: &str| ask(&server.host(), "GET", "/v2/", who, b"").0;
    assert_eq!((status(&first, &made), status(&second, &made)), (200, 200));
    let old = signing_keys(&keys, u64::MAX / 2).unwrap()[0].kid.clone();
    // A key that was made long ago signs at once.
    new_key(&keys, 2).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    new_key(&keys, now).unwrap();
    assert_eq!(status(&second, &made), 200, "several keys are valid");
    retire_key(&keys, &old).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&second, &made) == 200 || status(&first, &made) == 200 {
        assert!(Instant::now() < deadline, "a retired key is honoured");
        std::thread::sleep(Duration::from_millis(100));
    }
    let again = bearer(&token(&second.host(), "repository:team/app:pull", &ci));
    assert_eq!((status(&first, &again), status(&second, &again)), (200, 200));
}

#[test]
fn clients_log_in_push_and_pull_by_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(options(directory.path(), &GRANTS)).unwrap();
    let host = server.host();
    let (_a, from) = store();
    let root = image(&from, "amd64", 80, 2, 100_000);
    let to: ctk_oci::Reference = format!("{host}/team/app:1").parse().unwrap();
    let error = client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap_err();
    assert_eq!(error.status(), Some(401));
    let auth_file = directory.path().join("auth.json");
    let with = Client::new(ClientOptions { auth_files: vec![auth_file.clone()], ..client_options() });
    let ci = |password: &str| Credentials::Basic { user: "ci".into(), password: Secret::new(password) };
    assert!(with.login(&host, &ci("wrong"), &never()).is_err());
    with.login(&host, &ci("secret of ci"), &never()).unwrap();
    with.push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    let other: ctk_oci::Reference = format!("{host}/team/other:1").parse().unwrap();
    let mount = PushOptions { mount_from: vec!["team/app".into()], ..PushOptions::default() };
    let pushed = with.push(&other, &root, &from, &mount, None, &never()).unwrap();
    assert_eq!((pushed.mounted, pushed.uploaded), (3, 0), "{pushed:?}");
    let policy = directory.path().join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let folder = |name: &str| format!("dir:{}", directory.path().join(name).display());
    if has("skopeo") {
        let file = directory.path().join("skopeo.json").display().to_string();
        let skopeo = |arguments: &[&str]| {
            let mut command = Command::new("skopeo");
            run(command.args(arguments).args(["--authfile", &file]))
        };
        skopeo(&["login", "--tls-verify=false", "-u", "ci", "-p", "secret of ci", &host]);
        let (source, target) = (format!("docker://{to}"), format!("docker://{host}/team/skopeo:1"));
        skopeo(&["copy", "-q", "--src-tls-verify=false", &source, &folder("pulled")]);
        skopeo(&["copy", "-q", "--dest-tls-verify=false", &folder("pulled"), &target]);
        skopeo(&["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", &source, &target]);
        let refused = Command::new("skopeo")
            .args(["copy", "-q", "--dest-tls-verify=false", "--authfile", &file, &folder("pulled")])
            .arg(format!("docker://{host}/elsewhere:1"))
            .output()
            .unwrap();
        assert!(!refused.status.success());
        let root = directory.path().join("root.json").display().to_string();
        run(Command::new("skopeo").args(["login", "--tls-verify=false", "-u", "root", "-p", "secret of root"]).args([
            "--authfile",
            &root,
            &host,
        ]));
        run(Command::new("skopeo").args(["delete", "--tls-verify=false", "--authfile", &root, &target]));
        run(Command::new("skopeo").args([
            "list-tags",
            "--tls-verify=false",
            "--authfile",
            &root,
            &source[..source.len() - 2],
        ]));
    }
    if has("podman") {
        let file = directory.path().join("podman.json").display().to_string();
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command
                .arg("--root")
                .arg(directory.path().join("graph"))
                .arg("--runroot")
                .arg(directory.path().join("run"));
            run(command.args(["--storage-driver", "vfs"]).args(arguments))
        };
        let signatures = format!("--signature-policy={}", policy.display());
        let auth = ["--tls-verify=false", "--authfile", &file];
        podman(&[&["login", "-u", "ci", "-p", "secret of ci"], &auth[..], &[&host]].concat());
        podman(&[&["pull", "-q", &signatures], &auth[..], &[&to.to_string()]].concat());
        let target = format!("{host}/team/podman:1");
        podman(&[&["push", "-q", &signatures], &auth[..], &[&to.to_string(), &target]].concat());
        podman(&["rmi", "-f", "-a"]);
        assert!(server.storage().tag("team/podman", "1").unwrap().is_some());
    }
}

fn openssl(arguments: &[&str]) {
    run(Command::new("openssl").args(arguments));
}

#[test]
fn certificates_say_who_somebody_is() {
    if !has("openssl") || !has("curl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    for name in ["ca", "other-ca"] {
        let (key, file) = (path(&format!("{name}.key")), path(&format!("{name}.crt")));
        openssl(&[&["req", "-x509", "-subj", "/CN=authority", "-keyout", &key, "-out", &file], &ec[..]].concat());
    }
    let sign = |name: &str, subject: &str, names: &str, ca: &str| {
        let (key, request, file) =
            (path(&format!("{name}.key")), path(&format!("{name}.csr")), path(&format!("{name}.crt")));
        openssl(&[&["req", "-subj", subject, "-keyout", &key, "-out", &request][..], &ec[..4], &["-nodes"]].concat());
        let extensions = path(&format!("{name}.ext"));
        std::fs::write(&extensions, format!("subjectAltName={names}\n")).unwrap();
        let (authority, its_key) = (path(&format!("{ca}.crt")), path(&format!("{ca}.key")));
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &authority,
            "-CAkey",
            &its_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &extensions,
            "-out",
            &file,
        ]);
    };
    sign("server", "/CN=localhost", "DNS:localhost,IP:127.0.0.1", "ca");
    sign("builder", "/O=team/CN=builder 1", "DNS:ci.example,URI:spiffe://example/ci,email:ci@example", "ca");
    sign("stranger", "/CN=ci", "DNS:ci.example", "other-ca");
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path().join("data"));
    options.tls = Some(TlsFiles { certificate: path("server.crt").into(), key: path("server.key").into() });
    options.client_authorities = Some(path("ca.crt").into());
    options.audit = Some(path("audit").into());
    let grants =
        ["cert:spiffe://example/ci=creator@spiffe", "cert:ci.example=creator@dns", "cert:ci@example=creator@email"];
    let grants = grants.iter().chain(&["cert:builder 1=creator@common", "cert:ci=admin@**", "users=reader@all"]);
    options.rights = Some(Rights { grants: grants.map(|text| text.parse().unwrap()).collect() });
    let server = serve(options).unwrap();
    let status = |certificate: &str, method: &str, at: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--cacert", &path("ca.crt")]);
        if !certificate.is_empty() {
            command.args([
                "--cert",
                &path(&format!("{certificate}.crt")),
                "--key",
                &path(&format!("{certificate}.key")),
            ]);
        }
        let output = command.arg(format!("https://localhost:{}{at}", server.local_addr().port())).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for repository in ["spiffe", "dns", "email", "common"] {
        assert_eq!(status("builder", "POST", &format!("/v2/{repository}/blobs/uploads/")), "202", "{repository}");
    }
    assert_eq!(status("builder", "POST", "/v2/x/blobs/uploads/"), "403");
    assert_eq!(status("builder", "GET", "/v2/"), "200");
    assert_eq!(status("builder", "GET", "/v2/all/tags/list"), "404", "it may read what is not there");
    assert_eq!(status("", "GET", "/v2/"), "401");
    assert_eq!(status("", "GET", "/v2/all/tags/list"), "401");
    assert_eq!(status("stranger", "GET", "/v2/"), "000", "a certificate of others is no certificate");
    let audit = std::fs::read_to_string(path("audit")).unwrap();
    assert!(audit.contains(r#""who":"cert:builder 1""#), "{audit}");
}
