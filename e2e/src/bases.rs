//! Base images that are the same for every builder: OCI layouts with a shell, a few users and odd corners.

use std::fs;
use std::path::Path;

use ctk_oci::Digest;
use serde_json::{Value, json};

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002:app:/home/app:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1002:\nweb:x:33:\nextra:x:1003:app\n";

/// What there is.
pub const NAMES: [&str; 4] = ["base", "configured", "triggers", "several"];

/// Writes the layouts `base`, `configured`, `triggers` and `several` below `folder`.
pub fn write(folder: &Path) {
    let layer = layer("amd64");
    let plain = json!({ "Env": ["PATH=/bin:/usr/bin", "FROM_BASE=yes"], "Cmd": ["sh"] });
    layout(&folder.join("base"), &[("amd64", "", &layer, plain.clone())]);
    let configured = json!({
        "Env": ["PATH=/bin:/usr/bin", "FROM_BASE=yes", "TWO=two words"],
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["from", "base"],
        "User": "app",
        "WorkingDir": "/srv",
        "ExposedPorts": { "80/tcp": {} },
        "Volumes": { "/var/lib/app": {} },
        "Labels": { "base": "yes", "kept": "1" },
        "StopSignal": "SIGQUIT",
        "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64 },
        "Shell": ["/bin/sh", "-ec"],
    });
    layout(&folder.join("configured"), &[("amd64", "", &layer, configured)]);
    let mut triggers = plain.clone();
    triggers["OnBuild"] = json!(["ENV TRIGGERED=1", "COPY *.txt /triggered/", "RUN echo \"$TRIGGERED\" > /ran"]);
    layout(&folder.join("triggers"), &[("amd64", "", &layer, triggers)]);
    let others = ["arm64", "arm"].map(self::layer);
    let several = [
        ("amd64", "", &layer, plain.clone()),
        ("arm64", "", &others[0], plain.clone()),
        ("arm", "v7", &others[1], plain),
    ];
    layout(&folder.join("several"), &several);
}

/// The one layer: a shell, users, links, modes.
fn layer(arch: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let dirs: [(&str, u32, u64, u64); 20] = [
        ("bin", 0o755, 0, 0),
        ("dev", 0o755, 0, 0),
        ("etc", 0o755, 0, 0),
        ("home", 0o755, 0, 0),
        ("home/app", 0o750, 1001, 1002),
        ("proc", 0o755, 0, 0),
        ("root", 0o700, 0, 0),
        ("run", 0o755, 0, 0),
        ("srv", 0o755, 0, 0),
        ("srv/tree", 0o755, 0, 0),
        ("srv/tree/deep", 0o2755, 33, 33),
        ("srv/tree/private", 0o700, 1001, 1002),
        ("sys", 0o755, 0, 0),
        ("tmp", 0o1777, 0, 0),
        ("usr", 0o755, 0, 0),
        ("usr/bin", 0o755, 0, 0),
        ("usr/lib", 0o755, 0, 0),
        ("var", 0o755, 0, 0),
        ("var/lib", 0o755, 0, 0),
        ("var/lib/app", 0o755, 1001, 1002),
    ];
    for (name, mode, uid, gid) in dirs {
        add(&mut tar, tar::EntryType::Directory, name, "", mode, (uid, gid), b"");
    }
    let busybox = fs::read("/bin/busybox").expect("a static busybox");
    add(&mut tar, tar::EntryType::Regular, "bin/busybox", "", 0o755, (0, 0), &busybox);
    let list = crate::run({
        let mut command = std::process::Command::new("/bin/busybox");
        command.arg("--list");
        command
    });
    for applet in list.ok().lines().filter(|applet| *applet != "busybox") {
        add(&mut tar, tar::EntryType::Symlink, &format!("bin/{applet}"), "busybox", 0o777, (0, 0), b"");
    }
    for (name, target) in [("lib", "usr/lib"), ("opt", "/srv"), ("var/run", "../run"), ("srv/tree/soft", "file")] {
        add(&mut tar, tar::EntryType::Symlink, name, target, 0o777, (0, 0), b"");
    }
    let files: [(&str, u32, u64, u64, &str); 10] = [
        ("etc/passwd", 0o644, 0, 0, PASSWD),
        ("etc/group", 0o644, 0, 0, GROUP),
        ("etc/arch", 0o644, 0, 0, arch),
        ("etc/hosts", 0o644, 0, 0, ""),
        ("etc/resolv.conf", 0o644, 0, 0, ""),
        ("etc/hostname", 0o644, 0, 0, ""),
        ("srv/tree/file", 0o640, 33, 33, "file"),
        ("srv/tree/setuid", 0o4755, 0, 0, "setuid"),
        ("srv/tree/deep/leaf.txt", 0o644, 1001, 1002, "leaf"),
        ("srv/tree/private/key", 0o600, 1001, 1002, "key"),
    ];
    for (name, mode, uid, gid, content) in files {
        add(&mut tar, tar::EntryType::Regular, name, "", mode, (uid, gid), content.as_bytes());
    }
    add(&mut tar, tar::EntryType::Link, "srv/tree/hard", "srv/tree/file", 0o640, (33, 33), b"");
    tar.into_inner().expect("memory")
}

fn add(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    name: &str,
    target: &str,
    mode: u32,
    owner: (u64, u64),
    content: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    if target.is_empty() {
        tar.append_data(&mut header, name, content).expect("memory");
    } else {
        tar.append_link(&mut header, name, target).expect("memory");
    }
}

/// Writes a layout with an image for each architecture, or with the one.
fn layout(folder: &Path, images: &[(&str, &str, &Vec<u8>, Value)]) {
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        let path = folder.join("blobs").join(digest.to_string().replace(':', "/"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a blob");
        json!({ "mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": bytes.len() })
    };
    let mut manifests = Vec::new();
    for (architecture, variant, layer, config) in images {
        let mut document = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2001-09-09T01:46:40Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer.as_slice())] },
            "history": [{ "created": "2001-09-09T01:46:40Z", "created_by": "base" }],
        });
        let mut platform = json!({ "os": "linux", "architecture": architecture });
        if !variant.is_empty() {
            document["variant"] = json!(variant);
            platform["variant"] = json!(variant);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put(document.to_string().as_bytes(), "config.v1+json"),
            "layers": [put(layer, "layer.v1.tar")],
        });
        let mut descriptor = put(manifest.to_string().as_bytes(), "manifest.v1+json");
        descriptor["platform"] = platform;
        manifests.push(descriptor);
    }
    let index = |manifests: &[Value]| json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
    if manifests.len() > 1 {
        manifests = vec![put(index(&manifests).to_string().as_bytes(), "index.v1+json")];
    }
    manifests[0]["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    fs::write(folder.join("index.json"), index(&manifests).to_string()).expect("an index");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
}
