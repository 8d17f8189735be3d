//! Our registry server beside `docker-registry`: pushes and pulls of four clients at once, pages of 10,000 tags. The
//! client is curl, so that servers are compared and no clients.

use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use super::cases::Case;
use super::others::Others;
use super::{Comparison, Contender, Ground, quiet};

/// Every comparison.
pub const CASES: &[Case] = &[
    Case { name: "registry-push-1", make: |ground| moved(ground, "push of 1 MB, 4 clients", PUSH, 1) },
    Case { name: "registry-push-10", make: |ground| moved(ground, "push of 10 MB, 4 clients", PUSH, 10) },
    Case { name: "registry-push-100", make: |ground| moved(ground, "push of 100 MB, 4 clients", PUSH, 100) },
    Case { name: "registry-pull-1", make: |ground| moved(ground, "pull of 1 MB, 4 clients", PULL, 1) },
    Case { name: "registry-pull-10", make: |ground| moved(ground, "pull of 10 MB, 4 clients", PULL, 10) },
    Case { name: "registry-pull-100", make: |ground| moved(ground, "pull of 100 MB, 4 clients", PULL, 100) },
    Case { name: "registry-tags", make: tags },
];

/// `push REPOSITORY FILE`: an upload in two requests, as most clients do it.
const FUNCTIONS: &str = r#"
    digest() { echo sha256:$(sha256sum "$1" | cut -c1-64); }
    push() {
        at=$(curl -s -D - -o /dev/null -X POST "http://$H/v2/$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
        case $at in /*) at=http://$H$at;; esac
        case $at in *\?*) at="$at&digest=$3";; *) at="$at?digest=$3";; esac
        curl -sf -o /dev/null -T "$2" "$at"
    }
"#;
const PUSH: &str = r#"
    d=$(cat $S/blob-$MB.digest)
    for client in 1 2 3 4; do (for turn in 1 2; do push "bench$client" $S/blob-$MB $d; done) & done
    wait
"#;
const PULL: &str = r#"
    d=$(cat $S/blob-$MB.digest)
    for client in 1 2 3 4; do
        curl -sf "http://$H/v2/bench0/blobs/$d" -o /dev/null --next -sf "http://$H/v2/bench0/blobs/$d" -o /dev/null &
    done
    wait
"#;

/// Our server; it ends with this.
struct Ours {
    host: String,
    process: Child,
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ours(ground: &Ground) -> Result<Rc<Ours>, String> {
    let host = format!("127.0.0.1:{}", ctk_e2e::free_port());
    let folder = tempfile::tempdir_in(&ground.scratch).map_err(|error| error.to_string())?.keep();
    let mut command = ground.ctk(&["registry", "serve", "--listen", &host, "--storage"]);
    command.arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().map_err(|error| format!("cannot run ctk: {error}"))?;
    let ours = Ours { host, process };
    ctk_e2e::eventually(Duration::from_secs(20), "ctk answers", || std::net::TcpStream::connect(&ours.host).is_ok());
    Ok(Rc::new(ours))
}

fn at(ground: &Ground, host: &str, megabytes: u32, script: &str) -> Command {
    let mut command = ground.shell(&format!("{FUNCTIONS}{script}"));
    command.env("H", host).env("MB", megabytes.to_string());
    command
}

fn moved(ground: &Ground, name: &'static str, script: &'static str, megabytes: u32) -> Result<Comparison, String> {
    let (ours, others) = (ours(ground)?, Others::start(ground)?);
    let prepare = r#"
        test -f $S/blob-$MB || head -c ${MB}000000 /dev/urandom > $S/blob-$MB
        digest $S/blob-$MB > $S/blob-$MB.digest
        push bench0 $S/blob-$MB $(cat $S/blob-$MB.digest)
    "#;
    for host in [&ours.host, &others.registry] {
        quiet(&mut at(ground, host, megabytes, prepare))?;
    }
    both(ground, name, "at most 1/3 of docker-registry", ours, others, megabytes, script)
}

fn tags(ground: &Ground) -> Result<Comparison, String> {
    let (ours, others) = (ours(ground)?, Others::start(ground)?);
    let prepare = r#"
        printf '{}' > $S/empty
        d=$(digest $S/empty)
        push tags $S/empty $d
        printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[]}' $d > $S/manifest
        # One process of curl for all: a request a tag.
        curl -sf -o /dev/null -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' -T $S/manifest "http://$H/v2/tags/manifests/t[00001-10000]"
    "#;
    for host in [&ours.host, &others.registry] {
        quiet(&mut at(ground, host, 0, prepare))?;
    }
    let pages = r#"curl -sf -o /dev/null "http://$H/v2/tags/tags/list?n=100&last=t0[0-9]000""#;
    both(ground, "10 pages of 100 of 10,000 tags", "at most 5 ms a page", ours, others, 0, pages)
}

fn both(
    ground: &Ground,
    name: &'static str,
    bar: &'static str,
    ours: Rc<Ours>,
    others: Rc<Others>,
    megabytes: u32,
    script: &'static str,
) -> Result<Comparison, String> {
    let (one, two) = (ground.clone(), ground.clone());
    Ok(Comparison {
        name,
        bar,
        rounds: 5,
        contenders: vec![
            Contender::making("ctk registry", move || Ok(at(&one, &ours.host, megabytes, script))),
            Contender::making("docker-registry", move || Ok(at(&two, &others.registry, megabytes, script))),
        ],
    })
}
