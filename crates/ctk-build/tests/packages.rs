//! Images from the OS packages of the machine's own mirror.

mod common;

use common::{Bench, can_run, chain};

fn can_install() -> bool {
    let able = can_run() && std::path::Path::new("/etc/apt").exists();
    if !able {
        println!("skipped: needs an apt mirror");
    }
    able
}

const IMAGE: &str = r#"image "base" {
    packages distro="debian" suite="bookworm" {
        install "ca-certificates"
        recommends #false
    }
    user "nonroot" uid=65532
}
image "more" {
    stage "tools" {
        packages distro="debian" suite="bookworm" { install "busybox-static" }
        run "apt-get update && apt-get install -y --no-install-recommends file && file --version"
        run "dpkg --verify && dpkg -l | grep -c ^ii > /count"
    }
    stage "final" from="tools" {
        run "ls /etc/apt/sources.list.d > /listed; ls -a /etc/apt/keyrings 2>/dev/null; true"
    }
}
"#;

#[test]
fn a_base_from_packages_is_the_same_in_another_store() {
    if !can_install() {
        return;
    }
    let build = |lock: Option<std::collections::BTreeMap<String, String>>| {
        let mut bench = Bench::bare();
        if let Some(lock) = lock {
            *bench.lock.0.lock().unwrap() = lock;
        }
        let decl = bench.native(IMAGE, "base");
        let built = bench.run(&decl).unwrap_or_else(|e| panic!("{}\n{}", chain(&e), bench.log()));
        let tree = bench.tree(&built);
        assert!(tree.stat("/etc/ssl/certs/ca-certificates.crt").unwrap().is_some());
        assert_eq!(bench.config(&built).config.user, "nonroot");
        assert_ne!(bench.config(&built).created.as_deref(), Some("1970-01-01T00:00:00Z"));
        let again = bench.run(&decl).unwrap();
        assert_eq!((again.executed, &again.descriptor), (0, &built.descriptor));
        let lock = bench.lock.0.lock().unwrap().clone();
        (built.descriptor, lock)
    };
    let (first, lock) = build(None);
    assert_eq!(lock.len(), 1);
    let (second, _) = build(Some(lock));
    assert_eq!(first.digest, second.digest);
}

#[test]
fn the_package_manager_works_inside() {
    if !can_install() {
        return;
    }
    let mut bench = Bench::bare();
    let decl = bench.native(IMAGE, "more");
    let built = bench.run(&decl).unwrap_or_else(|e| match &e {
        ctk_build::BuildError::Command { last_lines, .. } => panic!("{}\n{}", chain(&e), last_lines.join("\n")),
        _ => panic!("{}", chain(&e)),
    });
    let count: u32 = bench.text(&built, "/count").trim().parse().unwrap();
    assert!(count > 50, "{count}");
    // What the host lent is seen while it runs, and is not in the image.
    let tree = bench.tree(&built);
    let here = tree.list("/etc/apt/sources.list.d").unwrap();
    let host =
        std::fs::read_dir("/etc/apt/sources.list.d").map(|d| d.flatten().map(|e| e.file_name()).collect::<Vec<_>>());
    for name in host.unwrap_or_default() {
        assert!(!here.contains(&name.as_encoded_bytes().to_vec()), "{name:?}");
    }
}
