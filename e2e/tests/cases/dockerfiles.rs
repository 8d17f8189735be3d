//! Dockerfiles built by ctk and by buildah from the same base: the same tree, the same config.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ctk_e2e::{World, contains, has_programs};
use serde_json::Value;

use super::failures::with_busybox;

/// What both start from; a shell with its usual tools, and a few users.
const BASE: &str = r#"
image "base" {
    stage "final" from="busybox" {
        run "/bin/busybox --install -s /bin"
        copy "etc" to="/etc/"
        run "mkdir -p /tmp /var/lib/app /usr/lib /usr/bin; chmod 1777 /tmp; ln -s usr/lib /lib; ln -s /usr/bin /opt"
        env PATH="/bin:/usr/bin" FROM_BASE="yes"
        cmd "sh"
    }
}
"#;

/// A world with the base, also as an archive, and a context to build from.
fn world() -> Option<World> {
    if !has_programs(&["buildah", "podman", "skopeo", "umoci"]) {
        return None;
    }
    let world = with_busybox(BASE)?;
    world.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002:app:/home/app:/bin/sh\n");
    world.write("etc/group", "root:x:0:\napp:x:1002:\nextra:x:1003:app\n");
    world.ctk(&["apply"]).ok();
    world.ctk(&["save", "image:base", "-o", "base.tar"]).ok();
    for (path, content) in [
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("c.log", "c"),
        ("dir/one.txt", "one"),
        ("dir/two.md", "two"),
        ("dir/sub/three.txt", "three"),
        ("dir/sub/keep.log", "keep"),
        ("script.sh", "#!/bin/sh\necho script\n"),
        ("with space.txt", "space"),
        (".hidden", "hidden"),
    ] {
        world.write(&format!("context/{path}"), content);
    }
    let context = world.project().join("context");
    world.peer("chmod", &["-R", "u=rwX,go=rX", "context"]).ok();
    world.peer("chmod", &["750", "context/script.sh"]).ok();
    world.peer("chmod", &["700", "context/dir/sub"]).ok();
    symlink("a.txt", context.join("link")).unwrap();
    symlink("dir", context.join("dirlink")).unwrap();
    symlink("/nowhere", context.join("dangling")).unwrap();
    world
        .peer("tar", &["-czf", "context/bundle.tar.gz", "-C", "context", "--owner=5", "--group=6", "dir", "link"])
        .ok();
    Some(world)
}

impl Case<'_> {
    fn buildah(&self, arguments: &[&str]) -> ctk_e2e::Output {
        let (root, run) = (self.world.path("podman"), self.world.path("podman-run"));
        let own = ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "overlay"];
        self.world.peer("buildah", &[&own, arguments].concat())
    }

    /// The tree in `root`, a line an entry, without what builders mount there and without links to the shell.
    fn tree(&self, root: &str) -> String {
        let script = r#"cd "$0" && find . -mindepth 1 \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./etc/hosts -o -path ./etc/resolv.conf -o -path ./etc/hostname -o -lname '*bin/busybox' \) -prune -o \( -type f -printf '%P %y %m %U:%G links %n ' -exec sh -c 'sha256sum < "$1"' x {} \; -o -type l -printf '%P l %U:%G -> %l\n' -o -printf '%P %y %m %U:%G\n' \) | LC_ALL=C sort"#;
        self.world.peer("sh", &["-c", script, root]).ok()
    }

    /// Our image's config and tree, as others read them.
    fn ours(&self) -> (Value, String) {
        let layout = format!("{}-layout", self.name);
        let image = format!("image:{}", self.name);
        self.world.ctk(&["save", &image, "--format", "oci-dir", "-o", &layout]).ok();
        let from = format!("oci:{layout}");
        let config = self.world.peer("skopeo", &["inspect", "--config", "--raw", &from]).ok();
        let index = fs::read_to_string(self.world.project().join(&layout).join("index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
        let bundle = format!("{}-bundle", self.name);
        self.world.peer("umoci", &["unpack", "--image", &format!("{layout}:{tag}"), &bundle]).ok();
        let config: Value = serde_json::from_str(&config).unwrap();
        (config["config"].clone(), self.tree(&format!("{bundle}/rootfs")))
    }

    /// buildah's image of the same, from the storage that it shares with podman.
    fn theirs(&self) -> (Value, String) {
        let image = self.buildah(&["inspect", "--type", "image", self.name]).ok();
        let image: Value = serde_json::from_str(&image).unwrap();
        let root = self.world.podman(&["image", "mount", self.name]).ok();
        let tree = self.tree(root.trim());
        self.world.podman(&["image", "umount", self.name]).ok();
        (image["Docker"]["config"].clone(), tree)
    }
}

/// The parts of a config that say how a container runs.
fn running(config: &Value) -> Value {
    let mut running = config.clone();
    let fields = running.as_object_mut().unwrap();
    for name in [
        "Hostname",
        "Domainname",
        "Image",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
    ] {
        fields.remove(name);
    }
    // A variable that is set again keeps its place with some, and goes last with others.
    if let Some(env) = fields.get_mut("Env").and_then(Value::as_array_mut) {
        env.sort_by_key(Value::to_string);
    }
    if let Some(labels) = fields.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("io.buildah.version");
    }
    fields.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
    running
}

struct Case<'a> {
    world: &'a World,
    name: &'static str,
    dockerfile: &'static str,
    /// Pairs of build arguments.
    args: &'a [(&'a str, &'a str)],
    target: Option<&'a str>,
}

impl Case<'_> {
    fn check(&self) {
        let Case { world, name, dockerfile, args, target } = self;
        world.write(&format!("context/{name}.Dockerfile"), dockerfile);
        let lines: String = args.iter().map(|(name, value)| format!("    arg \"{name}\" \"{value}\"\n")).collect();
        let aim = target.map(|target| format!(" target=\"{target}\"")).unwrap_or_default();
        let image = format!(
            "\nimage \"{name}\" dockerfile=\"context/{name}.Dockerfile\" context=\"context\"{aim} {{\n    context \"base\" \"image:base\"\n{lines}}}\n"
        );
        world.write("containers.kdl", world.read("containers.kdl") + &image);
        world.ctk(&["build", name]).ok();
        let file = format!("context/{name}.Dockerfile");
        let mut words =
            vec!["bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "-t", name, "-f", &file];
        let args: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        args.iter().for_each(|arg| words.extend(["--build-arg", arg]));
        target.iter().for_each(|target| words.extend(["--target", target]));
        words.push("context");
        self.buildah(&words).ok();
        let ((our_config, our_tree), (their_config, their_tree)) = (self.ours(), self.theirs());
        let (mine, other): (Vec<&str>, Vec<&str>) = (our_tree.lines().collect(), their_tree.lines().collect());
        let only = |these: &[&str], those: &[&str]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).map(|line| (*line).to_owned()).collect()
        };
        let differs = (only(&mine, &other), only(&other, &mine));
        assert!(
            differs.0.is_empty() && differs.1.is_empty(),
            "{name}\nctk: {:#?}\nbuildah: {:#?}",
            differs.0,
            differs.1
        );
        let (mine, other) = (running(&our_config), running(&their_config));
        assert_eq!(mine, other, "{name}\nctk: {mine:#}\nbuildah: {other:#}");
    }
}

/// Name, Dockerfile, build arguments, target.
type Row<'a> = (&'static str, &'static str, &'a [(&'a str, &'a str)], Option<&'a str>);

/// Loads the base into buildah's storage, and checks each case.
fn check(cases: &[Row<'_>]) {
    let Some(world) = world() else { return };
    let mut loaded = false;
    for (name, dockerfile, args, target) in cases.iter().copied() {
        let case = Case { world: &world, name, dockerfile, args, target };
        if !loaded {
            let id = case.buildah(&["pull", "-q", "docker-archive:base.tar"]).ok();
            case.buildah(&["tag", id.trim(), "localhost/base:latest"]).ok();
            loaded = true;
        }
        case.check();
    }
}

#[test]
fn instructions_that_only_change_the_config() {
    check(&[
        (
            "config",
            r#"# A comment
FROM base
ARG VERSION=1.2.3
ARG EMPTY
ENV ONE=1 TWO="two words" THREE='$ONE' FOUR=$ONE-${TWO}-${EMPTY:-none}-${VERSION:+set}
ENV OLD style with spaces
ENV PATH=$PATH:/extra
LABEL a=b "c d"="e f" version=$VERSION \
      multi="line \
continued"
EXPOSE 80 443/tcp 53/udp
EXPOSE 8080
VOLUME /data /more
VOLUME ["/json path"]
USER app:extra
WORKDIR /srv
WORKDIR relative/$ONE
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --retries=2 --start-period=1s CMD echo "ok" || exit 1
CMD echo shell form $ONE
"#,
            &[("EMPTY", "")],
            None,
        ),
        (
            "entry",
            "FROM base\nCMD [\"a\", \"b\"]\nENTRYPOINT [\"/bin/echo\", \"x\"]\nHEALTHCHECK NONE\nONBUILD RUN echo later\nONBUILD COPY . /src\n",
            &[],
            None,
        ),
        (
            "shell",
            "FROM base\nSHELL [\"/bin/busybox\", \"sh\", \"-ec\"]\nRUN echo $0 > /zero\nENTRYPOINT [\"echo\", \"hi\"]\nCMD [\"x\"]\n",
            &[],
            None,
        ),
    ]);
}

#[test]
fn copies_and_additions() {
    check(&[
        (
            "copy",
            r#"FROM base
COPY a.txt /
COPY a.txt /renamed
COPY a.txt b.txt /files/
COPY *.txt /glob/
COPY dir /dir
COPY dir/ /dir-slash/
COPY dir /files
COPY link /link
COPY dirlink /dirlink
COPY ["with space.txt", "/space dir/with space.txt"]
COPY script.sh /usr/bin/
COPY script.sh /opt/tool
COPY a.txt /lib/through-a-link.txt
COPY .hidden ?.txt /some/
WORKDIR /work
COPY a.txt .
COPY a.txt sub/
COPY dir ./
"#,
            &[],
            None,
        ),
        (
            "owners",
            r#"FROM base
COPY --chown=app:extra a.txt /one
COPY --chown=1001 dir /two
COPY --chown=55:66 dir /three/
COPY --chown=app script.sh /four/new/
COPY --chmod=640 a.txt /five
USER app
COPY a.txt /six
WORKDIR /home/app/made
COPY --chown=app b.txt .
"#,
            &[],
            None,
        ),
        (
            "add",
            "FROM base\nADD bundle.tar.gz /unpacked/\nADD a.txt /added\nADD --chown=7:8 dir /owned\nCOPY bundle.tar.gz /kept/\n",
            &[],
            None,
        ),
    ]);
}

#[test]
fn steps_and_stages() {
    check(&[
        (
            "run",
            r#"FROM base
RUN echo one > /one; umask 077; echo two > /two; mkdir /private
RUN ["/bin/sh", "-c", "echo exec > /exec"]
RUN rm /one /etc/group && mkdir -p /a/b/c && touch /a/b/c/d && ln /two /hard && ln -s two /soft
RUN rm -r /a/b && mkdir /a/b && touch /a/b/new && chown -R 1001:1002 /a && chmod 2755 /a
RUN mknod /fifo p && chmod 600 /fifo
ENV NAME=value
ARG FROM_ARG=default
RUN echo "$NAME $FROM_ARG $FROM_BASE $HOME $PWD" > /environment
WORKDIR /var/lib/app
USER app
RUN id -u > /tmp/user; id -g >> /tmp/user; echo $HOME >> /tmp/user; pwd >> /tmp/user
RUN echo a \
    # a comment between
    b \
    c > /tmp/joined
"#,
            &[("FROM_ARG", "given")],
            None,
        ),
        (
            "stages",
            r#"ARG START=base
ARG UNUSED
FROM ${START} AS first
RUN mkdir -p /out/deep && echo built > /out/file && ln /out/file /out/deep/hard && ln -s ../file /out/deep/soft && chown -R 9:9 /out
ENV LOST=1
FROM first AS second
RUN echo second > /out/new && mv /out/new /out/file
FROM base AS skipped
RUN exit 1
FROM base
COPY --from=first /out /first
COPY --from=second /out/file /out/deep /second/
COPY --from=0 --chown=3:4 /out/deep/. /zero/
COPY --from=second /etc/passwd /copied
CMD ["/bin/cat", "/first/file"]
"#,
            &[],
            None,
        ),
        (
            "aim",
            "FROM base AS one\nRUN echo 1 > /n\nLABEL stage=one\nFROM one AS two\nRUN echo 2 > /n\nLABEL stage=two\nFROM two\nRUN exit 1\n",
            &[],
            Some("two"),
        ),
    ]);
}

#[test]
fn what_is_ignored() {
    let Some(world) = world() else { return };
    world.write("context/.dockerignore", "# comment\n*.log\n**/*.md\n!dir/two.md\ndir/sub/**\n!dir/sub/keep.log\n/b.txt\n.hidden\n*Dockerfile\n*.tar.gz\n");
    let case = Case {
        world: &world,
        name: "ignore",
        dockerfile: "FROM base\nCOPY . /all/\nCOPY dir /dir\n",
        args: &[],
        target: None,
    };
    let id = case.buildah(&["pull", "-q", "docker-archive:base.tar"]).ok();
    case.buildah(&["tag", id.trim(), "localhost/base:latest"]).ok();
    case.check();
    let ours = world.ctk(&["run", "image:ignore", "/bin/find", "/all", "-type", "f"]).ok();
    contains(&ours, &["/all/a.txt", "/all/dir/two.md", "/all/dir/sub/keep.log"]);
    assert!(!ours.contains("c.log") && !ours.contains("b.txt") && !ours.contains("three"), "{ours}");
    assert!(Path::new(&world.project().join("context/b.txt")).exists());
}

#[test]
fn mistakes_of_a_dockerfile_are_shown_in_it() {
    let Some(world) = with_busybox(BASE) else { return };
    let image = "image \"x\" dockerfile=\"Dockerfile\" { context \"base\" \"image:busybox\"; }\n";
    world.write("containers.kdl", world.read("containers.kdl").replace(BASE, "") + image);
    for (text, parts) in [
        ("FORM base\n", &["Dockerfile:1", "FORM", "`FROM`"][..]),
        ("FROM base\nRNU x\nCOPY\n", &["Dockerfile:2", "RNU", "`RUN`", "Dockerfile:3", "COPY"]),
        ("FROM base\nCOPY --form=x a b\n", &["Dockerfile:2", "--form", "--from"]),
        ("FROM base\nCOPY --from=nix /a /b\n", &["Dockerfile:2", "nix"]),
        ("FROM base\nRUN [\"a\", \n", &["Dockerfile:2"]),
        ("FROM base\nCOPY absent.txt /\n", &["Dockerfile:2", "absent.txt"]),
        ("FROM base\nUSER nobody-here\nRUN /bin/busybox true\n", &["Dockerfile:3", "nobody-here"]),
        ("FROM base\nRUN echo told; exit 3\n", &["Dockerfile:2", "told", "3"]),
        ("", &["Dockerfile", "FROM"]),
    ] {
        world.write("Dockerfile", text);
        let said = world.ctk(&["apply"]).fails(1);
        contains(&said, &["image:x"]);
        contains(&said, parts);
        assert!(!world.ctk(&["images"]).ok().contains("case/x"), "{text}");
    }
}
