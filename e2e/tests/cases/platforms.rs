//! Images for other processors: emulated commands, cross-building, indexes and who reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ctk_e2e::differences::{Accepted, compare};
use ctk_e2e::emulator::Emulator;
use ctk_e2e::image::Image;
use ctk_e2e::{Output, World, contains, eventually, free_port, has_programs, is_root, peers};
use serde_json::Value;

const ARM: &str = "linux/arm64";

/// Every way of a command to be emulated: by exec, by a shell, by a script, as another user, with arguments kept.
const EMULATED: &str = "\
FROM scratch
COPY busybox /bin/busybox
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
RUN uname -m > /machine && echo \"$0\" > /zero && nproc > /dev/null
RUN printf '#!/bin/sh\\necho \"$0 $1\"\\n' > /script && chmod 755 /script && /script arg > /scripted
RUN --mount=type=cache,target=/cache --mount=type=bind,source=busybox,target=/mnt/busybox /mnt/busybox true && echo x > /cache/y
RUN mkdir -m 750 /made && ln -s ../machine /made/link && mkfifo /made/fifo && chown -R 7:8 /made
USER 7:8
RUN id -u > /made/user
CMD [\"/bin/uname\", \"-m\"]
";

fn world() -> Option<World> {
    if !is_root() || !has_programs(&["busybox", "skopeo", "podman", "mmdebstrap", "unshare", "nsenter"]) {
        return None;
    }
    let world = World::new();
    fs::create_dir_all(world.project()).unwrap();
    Some(world)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn commands_of_other_processors_run_where_the_kernel_has_a_handler() {
    let Some(world) = world() else { return };
    if !Emulator::possible() {
        return;
    }
    let context = world.path("work/app");
    fs::create_dir_all(&context).unwrap();
    fs::copy(peers::busybox("arm64"), context.join("busybox")).unwrap();
    fs::set_permissions(context.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(context.join("Dockerfile"), EMULATED).unwrap();
    let folder = context.to_str().unwrap();
    let refused = |output: Output, reason: &str| {
        contains(&output.fails(1), &["cannot run commands of linux/arm64", reason, "Dockerfile:3:1"]);
    };
    // What is missing is told, before anything of the step runs.
    refused(world.ctk(&["build", "--platform", ARM, folder]), "binfmt_misc is not mounted");
    let build = |emulator: &Emulator, more: &[&str]| {
        let arguments = [&["build", "--progress=plain", "--platform", ARM], more, &[folder]].concat();
        ctk_e2e::run(emulator.inside(&world.command(&arguments)))
    };
    refused(build(&Emulator::start(None), &[]), "no binfmt_misc handler");
    refused(build(&Emulator::start(Some("OP")), &[]), "lacks the flag F");
    let emulator = Emulator::start(Some("OPF"));
    emulator.switch_off();
    refused(build(&emulator, &[]), "switched off");
    drop(emulator);
    let emulator = Emulator::start(Some("OPF"));
    let layout = world.path("work/ours");
    let to = format!("type=oci,tar=false,dest={}", layout.display());
    build(&emulator, &["-t", "arm", "-o", &to, "-o", "type=image", "-o", "out"]).ok();
    for (file, expected) in
        [("machine", "aarch64\n"), ("zero", "/bin/sh\n"), ("scripted", "/script arg\n"), ("made/user", "7\n")]
    {
        assert_eq!(world.read(&format!("out/{file}")), expected, "{file}");
    }
    let ran = |arguments: &[&str]| ctk_e2e::run(emulator.inside(&world.command(arguments)));
    assert_eq!(ran(&["run", "--platform", ARM, "arm"]).ok(), "aarch64\n");
    // The second time nothing runs, with a handler or without.
    let ours = Image::of_layout(&layout, ARM).unwrap();
    assert_eq!(ours.config["architecture"], "arm64");
    world.ctk(&["build", "--platform", ARM, folder]).ok();
    // Handlers are the kernel's, so BuildKit finds the same one.
    let buildkit = peers::Peers::start(&world.path("work"));
    let words = ["build", "--provenance=false", "--network=none", "--platform", ARM];
    let to = ["--output=type=oci,tar=false,dest=/run/work/theirs,compression=uncompressed", "/run/work/app"];
    buildkit.inside("docker-buildx", &[&words[..], &to[..]].concat()).ok();
    let theirs = Image::of_layout(&world.path("work/theirs"), ARM).unwrap();
    let base = ours.clone();
    let outcome = |image| Ok(vec![(ARM.to_owned(), image)]);
    let mut found = compare(&outcome(ours), &outcome(theirs), &base, false);
    let accepted = Accepted::read();
    found.retain(|one| !accepted.accepts("platform/emulated", "buildkit", &one.what));
    assert_eq!(found, []);
}

#[test]
fn images_are_made_for_processors_that_are_not_here() {
    let Some(world) = world() else { return };
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut server = world.spawn(&["registry", "serve", "--listen", &listen, "--storage", "data"]);
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&listen).is_ok());
    world.write("app/busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    // BuildKit's scratch is always the target's, so a stage of the builder's begins with an image.
    world.write("app/base", "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\n");
    world.ctk(&["build", "-t", "base", "-f", "app/base", "app"]).ok();
    let text = "FROM --platform=$BUILDPLATFORM base AS tool\nARG TARGETARCH\n\
        RUN echo made for $TARGETARCH > /made\nFROM scratch\nARG TARGETPLATFORM\nENV FOR=$TARGETPLATFORM\n\
        COPY --from=tool /made /\n";
    world.write("app/Dockerfile", text);
    let both = "linux/amd64,linux/arm64";
    let name = format!("{listen}/team/app");
    world.ctk(&["build", "--platform", both, "-t", "app:1", "-t", &format!("{name}:1"), "app"]).ok();
    contains(&world.ctk(&["images"]).ok(), &["localhost/app:1", both.replace(',', ", ").as_str()]);
    // From the store by `push` and `copy`, and from the build itself.
    world.ctk(&["push", &format!("{name}:1")]).ok();
    world.ctk(&["build", "--platform", both, "--push", "-t", &format!("{name}:2"), "app"]).ok();
    let inspect = |more: &[&str], tag: &str| {
        let place = format!("docker://{name}:{tag}");
        world.peer("skopeo", &[&["inspect", "--tls-verify=false"], more, &[place.as_str()]].concat()).ok()
    };
    let (first, second) = (inspect(&["--raw"], "1"), inspect(&["--raw"], "2"));
    assert_eq!(first, second);
    let index = json(&first);
    let platforms: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for architecture in ["amd64", "arm64"] {
        let place = format!("docker://{name}:1");
        let chosen = ["--override-arch", architecture, "inspect", "--tls-verify=false", "--config", &place];
        let config = json(&world.peer("skopeo", &chosen).ok());
        assert_eq!(config["architecture"], architecture);
        assert!(config["config"]["Env"].to_string().contains(&format!("FOR=linux/{architecture}")), "{config}");
        let image = format!("{name}:1");
        let pull = ["pull", "--tls-verify=false", "--quiet", "--arch", architecture, &image];
        let id = world.podman(&pull).ok();
        let mounted = world.podman(&["image", "mount", id.trim()]).ok();
        let made = fs::read_to_string(format!("{}/made", mounted.trim())).unwrap();
        assert_eq!(made, format!("made for {architecture}\n"));
        world.podman(&["image", "umount", "--all"]).ok();
    }
    let _ = server.kill();
    let _ = server.wait();
}
