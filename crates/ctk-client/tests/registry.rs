//! The client against `docker-registry`, directly: images there and back, lists, copies, logins.

mod common;

use std::process::Command;

use common::*;
use ctk_client::{Client, ClientError, CopyOptions, Credentials, LoginPlace, PushOptions, Pushed, Secret};
use ctk_oci::{Digest, Index, Manifest, Platform, Reference};
use ctk_plan::{Reporter, Silent};
use ctk_store::{Depth, Fetch, FetchError};

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.into(), password: Secret::new(password) }
}

fn push(client: &Client, to: &Reference, root: &ctk_oci::Descriptor, store: &ctk_store::Store) -> Pushed {
    client.push(to, root, store, &PushOptions::default(), None, &never()).unwrap()
}

#[test]
fn an_index_goes_there_and_back() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let (_a, store_a) = store();
    let (client, to) = (client(), registry.reference("team/app:1"));
    let root = index(&store_a, 1, 3, 200_000);
    assert_eq!(client.head(&to, &never()).unwrap(), None);
    let pushed = push(&client, &to, &root, &store_a);
    assert_eq!((pushed.uploaded, pushed.present), (8, 0));
    assert_eq!(push(&client, &to, &root, &store_a), Pushed { present: 8, ..Pushed::default() });
    let head = client.head(&to, &never()).unwrap().unwrap();
    assert_eq!(
        (head.digest.clone(), head.size, head.media_type.clone()),
        (root.digest.clone(), root.size, root.media_type.clone())
    );

    let (_b, all) = store();
    assert_eq!(client.pull(&to, None, Depth::Layers, &all, None, &never()).unwrap().digest, root.digest);
    let pulled: Index = all.document("index", &root).unwrap().into_value();
    for member in &pulled.manifests {
        let manifest: Manifest = all.document("manifest", member).unwrap().into_value();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            assert_eq!(all.read(blob, 10_000_000).unwrap(), store_a.read(blob, 10_000_000).unwrap());
        }
    }

    // One platform, by depths: only what was asked for comes.
    let (_c, one) = store();
    let arm: Platform = "linux/arm64".parse().unwrap();
    let (amd_member, arm_member) = (&pulled.manifests[0], &pulled.manifests[1]);
    client.pull(&to, Some(&arm), Depth::Config, &one, None, &never()).unwrap();
    let manifest: Manifest = one.document("manifest", arm_member).unwrap().into_value();
    assert!(one.contains(&manifest.config.digest).unwrap());
    assert!(!one.contains(&manifest.layers[0].digest).unwrap());
    assert!(!one.contains(&amd_member.digest).unwrap());
    client.pull(&to, Some(&arm), Depth::Layers, &one, None, &never()).unwrap();
    assert!(manifest.layers.iter().all(|layer| one.contains(&layer.digest).unwrap()));

    let riscv: Platform = "linux/riscv64".parse().unwrap();
    let error = client.pull(&to, Some(&riscv), Depth::Config, &one, None, &never()).unwrap_err();
    assert!(error.to_string().contains("it has linux/amd64, linux/arm64"), "{error}");

    // By digest and complete: no request, the registry may be gone.
    let by_digest = to.with_digest(root.digest.clone());
    drop(registry);
    client.pull(&by_digest, None, Depth::Layers, &all, None, &never()).unwrap();
}

#[test]
fn tags_deletion_and_mounts() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let (_a, store) = store();
    let client = client();
    let root = image(&store, "amd64", 2, 2, 100_000);
    let first = registry.reference("a/one:v1");
    push(&client, &first, &root, &store);
    client.push_tag(&registry.reference("a/one:v2"), &root, &store, &never()).unwrap();
    assert_eq!(client.tags(&first, &never()).unwrap(), ["v1", "v2"]);

    let second = registry.reference("b/two:v1");
    let options = PushOptions { mount_from: vec!["a/one".into()], ..PushOptions::default() };
    let pushed = client.push_blobs(&second, &root, &store, &options, None, &never()).unwrap();
    assert_eq!((pushed.mounted, pushed.uploaded), (3, 0));
    // Blobs alone make nothing visible.
    assert!(matches!(client.tags(&second, &never()), Err(error) if error.status() == Some(404)));
    client.push_manifests(&second, &root, &store, &never()).unwrap();
    assert_eq!(client.head(&second, &never()).unwrap(), None);
    client.push_tag(&second, &root, &store, &never()).unwrap();
    assert_eq!(client.head(&second, &never()).unwrap().unwrap().digest, root.digest);

    assert!(client.delete(&first.with_digest(root.digest.clone()), &never()).unwrap());
    assert_eq!(client.head(&first, &never()).unwrap(), None);
    assert!(!client.delete(&first.with_digest(root.digest), &never()).unwrap());
}

#[test]
fn what_a_registry_has_is_mounted_unasked() {
    if !has("docker-registry") {
        return;
    }
    let (registry, other) = (DockerRegistry::start(""), DockerRegistry::start(""));
    let (_a, first) = store();
    let root = image(&first, "amd64", 3, 2, 100_000);
    let base = registry.reference("bases/one:1");
    push(&client(), &base, &root, &first);
    // Another machine pulls it and pushes it elsewhere in the same registry.
    let (_b, second) = store();
    client().pull(&base, None, Depth::Layers, &second, None, &never()).unwrap();
    let pushed = push(&client(), &registry.reference("apps/two:1"), &root, &second);
    assert_eq!((pushed.mounted, pushed.uploaded, pushed.bytes), (3, 0, 0));
    // Another registry knows nothing of that.
    let pushed = push(&client(), &other.reference("apps/two:1"), &root, &second);
    assert_eq!((pushed.mounted, pushed.uploaded), (0, 3));
    // What was pushed is known too.
    let pushed = push(&client(), &other.reference("apps/three:1"), &root, &second);
    assert_eq!((pushed.mounted, pushed.uploaded), (3, 0));
}

#[test]
fn copies_between_and_within() {
    if !has("docker-registry") {
        return;
    }
    let (one, two) = (DockerRegistry::start(""), DockerRegistry::start(""));
    let (_a, store) = store();
    let client = client();
    let root = index(&store, 3, 2, 300_000);
    let from = one.reference("app:1");
    push(&client, &from, &root, &store);
    let to = two.reference("deep/er/app:x");
    assert_eq!(copy(&client, &from, &to, CopyOptions::default()).unwrap().root.digest, root.digest);
    assert_eq!(client.head(&to, &never()).unwrap().unwrap().digest, root.digest);
    let within = one.reference("other:1");
    let arm: Platform = "linux/arm64".parse().unwrap();
    let copied =
        copy(&client, &from, &within, CopyOptions { platform: Some(&arm), ..CopyOptions::default() }).unwrap().root;
    assert_ne!(copied.digest, root.digest);
    if has("skopeo") {
        let target = format!("docker://{to}");
        let raw = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target]));
        assert_eq!(Digest::of(raw.as_bytes()), root.digest);
    }
}

#[test]
fn basic_authentication_and_logins() {
    if !has("docker-registry") || !has("htpasswd") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let passwords = htpasswd(home.path(), "me", "pass:word");
    let registry = DockerRegistry::start(&format!("auth:\n  htpasswd: {{realm: here, path: {}}}", passwords.display()));
    let (_a, store) = store();
    let root = image(&store, "amd64", 4, 1, 10_000);
    let to = registry.reference("app:1");
    let auth_file = home.path().join("docker/config.json");
    let options = || ctk_client::ClientOptions { auth_files: vec![auth_file.clone()], ..options() };

    let client = Client::new(options());
    let error = client.push(&to, &root, &store, &PushOptions::default(), None, &never()).unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(error.to_string().contains("UNAUTHORIZED"), "{error}");
    assert!(error.hint().unwrap().contains(&format!("ctk login {}", registry.host)), "{:?}", error.hint());
    let fetch = ctk_client::RegistryFetch::new(client.clone());
    let denied = fetch.resolve(&to, &never()).unwrap_err();
    assert!(matches!(denied, FetchError::Denied { .. }), "{denied}");

    let error = client.login(&registry.host, &basic("me", "wrong"), &never()).unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(!format!("{error:?}").contains("wrong"));
    assert!(!auth_file.exists());
    let place = client.login(&format!("http://{}/", registry.host), &basic("me", "pass:word"), &never()).unwrap();
    assert_eq!(place, LoginPlace::File(auth_file.clone()));

    let client = Client::new(options());
    push(&client, &to, &root, &store);
    if has("skopeo") {
        // What we wrote is what skopeo reads.
        let (target, file) = (format!("docker://{to}"), auth_file.display().to_string());
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", "--authfile", &file, &target]));
    }
    assert_eq!(client.logout(&registry.host).unwrap(), [LoginPlace::File(auth_file.clone())]);
    let error = Client::new(options()).head(&to, &never()).unwrap_err();
    assert_eq!(error.status(), Some(401));
}

#[test]
fn credential_helpers() {
    if !has("docker-registry") || !has("htpasswd") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let passwords = htpasswd(home.path(), "me", "secret");
    let registry = DockerRegistry::start(&format!("auth:\n  htpasswd: {{realm: here, path: {}}}", passwords.display()));
    let kept = home.path().join("kept.json");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nget) read host; echo \"$host\" >> {0}.asked; cat {0} 2>/dev/null || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nstore) cat > {0} ;;\nerase) rm -f {0} ;;\nesac\n",
        kept.display()
    );
    write_executable(&home.path().join("docker-credential-script"), &script);
    let auth_file = home.path().join("config.json");
    let text = format!(r#"{{"credHelpers":{{"{}":"script"}},"keep":1}}"#, registry.host);
    std::fs::write(&auth_file, &text).unwrap();
    let options = || ctk_client::ClientOptions {
        auth_files: vec![auth_file.clone()],
        helper_path: vec![home.path().to_owned()],
        ..options()
    };
    let to = registry.reference("app:1");
    assert_eq!(Client::new(options()).head(&to, &never()).unwrap_err().status(), Some(401));
    let place = Client::new(options()).login(&registry.host, &basic("me", "secret"), &never()).unwrap();
    assert_eq!(place, LoginPlace::Helper("script".into()));
    assert!(std::fs::read_to_string(&kept).unwrap().contains("\"Username\":\"me\""));
    assert_eq!(Client::new(options()).head(&to, &never()).unwrap(), None);
    assert_eq!(std::fs::read_to_string(&auth_file).unwrap(), text, "the file is left alone");
    Client::new(options()).logout(&registry.host).unwrap();
    assert!(!kept.exists());

    write_executable(&home.path().join("docker-credential-script"), "#!/bin/sh\necho keyring locked\nexit 1\n");
    let error = Client::new(options()).head(&to, &never()).unwrap_err();
    assert!(matches!(&error, ClientError::Helper { reason, .. } if reason == "keyring locked"), "{error}");
}

/// A token server with a real key in front of `docker-registry`'s own verification.
#[test]
fn tokens() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    use base64::Engine as _;
    let url64 = |bytes: &[u8]| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let home = tempfile::tempdir().unwrap();
    let (key, cert) = (home.path().join("key.pem"), home.path().join("cert.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=issuer", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    let pem = std::fs::read_to_string(&cert).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let directory = home.path().to_owned();
    let server = little_server(move |request| {
        let line = request.lines().next().unwrap_or_default().to_owned();
        log.lock().unwrap().push(line.clone());
        // me:secret
        if !request.to_lowercase().contains("authorization: basic bwu6c2vjcmv0") {
            return http("401 Unauthorized", "", r#"{"errors":[{"code":"UNAUTHORIZED","message":"who?"}]}"#);
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let query = path.split('?').nth(1).unwrap_or_default();
        let mut access = Vec::new();
        for scope in query.split('&').filter_map(|pair| pair.strip_prefix("scope=")) {
            let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
            let parts: Vec<&str> = scope.splitn(3, ':').collect();
            let actions: Vec<String> = parts[2].split(',').map(|a| format!("\"{a}\"")).collect();
            access.push(format!(
                r#"{{"type":"{}","name":"{}","actions":[{}]}}"#,
                parts[0],
                parts[1],
                actions.join(",")
            ));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let head = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{der}"]}}"#);
        let body = format!(
            r#"{{"iss":"issuer","sub":"me","aud":"svc","exp":{},"nbf":{},"iat":{now},"jti":"1","access":[{}]}}"#,
            now + 600,
            now - 60,
            access.join(",")
        );
        let text = format!("{}.{}", url64(head.as_bytes()), url64(body.as_bytes()));
        let file = directory.join(format!("text-{:?}", std::thread::current().id()));
        std::fs::write(&file, &text).unwrap();
        let mut sign = Command::new("openssl");
        let signature = sign.args(["dgst", "-sha256", "-sign"]).arg(&key).arg(&file).output().unwrap().stdout;
        http("200 OK", "", &format!(r#"{{"token":"{text}.{}","expires_in":600}}"#, url64(&signature)))
    });
    let registry = DockerRegistry::start(&format!(
        "auth:\n  token: {{realm: 'http://{server}/token', service: svc, issuer: issuer, rootcertbundle: {}}}",
        cert.display()
    ));
    let (_a, store) = store();
    let root = image(&store, "amd64", 5, 6, 50_000);
    let to = registry.reference("team/app:1");

    let error = client().head(&to, &never()).unwrap_err();
    assert!(matches!(error, ClientError::Token { .. }), "{error}");
    assert!(error.hint().unwrap().contains("ctk login"));

    let mut options = options();
    options.credentials.insert(registry.host.clone(), basic("me", "secret"));
    let client = Client::new(options);
    asked.lock().unwrap().clear();
    push(&client, &to, &root, &store);
    let log = asked.lock().unwrap().clone();
    // One for asking, one for pushing; not one a blob.
    assert!(log.len() <= 3, "{log:#?}");
    let options = PushOptions { mount_from: vec!["team/app".into()], ..PushOptions::default() };
    let pushed = client.push_blobs(&registry.reference("team/b:1"), &root, &store, &options, None, &never()).unwrap();
    assert_eq!(pushed.mounted, 7);
    let (_b, fresh) = common::store();
    client.pull(&to, None, Depth::Layers, &fresh, None, &never()).unwrap();
    let place = client.login(&registry.host, &basic("me", "wrong"), &never()).unwrap_err();
    assert_eq!(place.status(), Some(401));
}

#[test]
fn fetch_speaks_for_the_store() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let (_a, store_a) = store();
    let root = image(&store_a, "amd64", 6, 1, 10_000);
    let to = registry.reference("app:1");
    push(&client(), &to, &root, &store_a);
    let fetch = ctk_client::RegistryFetch::new(client());
    let reporter = Reporter::new("image:x".parse().unwrap(), std::sync::Arc::new(Silent));
    let (_b, into) = store();
    assert_eq!(fetch.resolve(&to, &never()).unwrap().digest, root.digest);
    let fetched = fetch.fetch(&to, None, Depth::Layers, &into, &reporter, &never()).unwrap();
    assert_eq!(fetched.digest, root.digest);
    let nothing = fetch.resolve(&registry.reference("nothing:1"), &never()).unwrap_err();
    assert!(matches!(nothing, FetchError::NotFound { .. }), "{nothing}");
}
