//! The comparisons. Each prepares its ground once, then names its contenders.

use super::{Comparison, Contender, Ground, quiet};

/// A named comparison, made when it is its turn.
pub struct Case {
    /// What `cargo xtask bench FILTER` matches.
    pub name: &'static str,
    /// Prepares the ground.
    pub make: fn(&Ground) -> Result<Comparison, String>,
}

/// Every comparison, cheap ones first.
pub const CASES: &[Case] = &[
    Case { name: "apply-again", make: apply_again },
    Case { name: "run-true", make: run_true },
    Case { name: "run-bridge", make: run_bridge },
    Case { name: "build-c", make: build_c },
    Case { name: "minbase", make: minbase },
];

fn apply_again(ground: &Ground) -> Result<Comparison, String> {
    quiet(ground.ctk(&["apply"]).current_dir(&ground.root))?;
    let mut command = ground.ctk(&["apply"]);
    command.current_dir(&ground.root);
    Ok(Comparison {
        name: "second `ctk apply` of this project",
        bar: "at most 50 ms",
        rounds: 20,
        contenders: vec![Contender::new("ctk", command)],
    })
}

/// A busybox image, the same for all: in our store, in podman's, and as a bundle for runc.
pub fn busybox(ground: &Ground) -> Result<(), String> {
    quiet(&mut ground.shell(
        r##"
        [ ! -e $S/podman-image ] || exit 0
        mkdir -p $S/busybox/bin $S/bundle
        cp /usr/bin/busybox $S/busybox/bin/busybox
        for name in true sh ls; do ln -sf busybox $S/busybox/bin/$name; done
        printf 'FROM scratch\nCOPY . /\nCMD ["/bin/true"]\n' > $S/busybox/Dockerfile
        printf 'image "true" dockerfile="Dockerfile"\n' > $S/busybox/containers.kdl
        (cd $S/busybox && $CTK build image:true)
        $CTK save localhost/busybox/true -o $S/true.tar
        podman --root $S/podman --runroot $S/podman-run load -i $S/true.tar
        podman --root $S/podman --runroot $S/podman-run images -q | head -n1 > $S/podman-image
        cp -a $S/busybox $S/bundle/rootfs
        cd $S/bundle
        runc spec
        sed -i 's/"terminal": true/"terminal": false/; s#"sh"#"/bin/true"#' config.json
        "##,
    ))
}

fn run_true(ground: &Ground) -> Result<Comparison, String> {
    busybox(ground)?;
    Ok(Comparison {
        name: "`run /bin/true` of a stored image",
        bar: "at most 1/8 of podman, not above runc",
        rounds: 20,
        contenders: vec![
            Contender::new("ctk", ground.shell("exec $CTK run --rm --network none localhost/busybox/true /bin/true")),
            Contender::new(
                "podman run --network=none",
                ground.shell("exec podman --root $S/podman --runroot $S/podman-run run --runtime runc $LIMITS --rm --network=none $(cat $S/podman-image) /bin/true"),
            ),
            Contender::new("runc run, bundle unpacked", ground.shell("cd $S/bundle && exec runc --root $S/runc run b$$")),
        ],
    })
}

/// The same on a bridge network, which the first container of a host sets up and the last takes down: each time, on a
/// host of its own.
fn run_bridge(ground: &Ground) -> Result<Comparison, String> {
    busybox(ground)?;
    let on_host = |words: &str| {
        ground.shell(&format!("exec unshare --net --mount sh -c 'ip link set lo up; exec \"$@\"' sh {words} /bin/true"))
    };
    Ok(Comparison {
        name: "`run /bin/true` of a stored image, bridge network",
        bar: "at most 1/9 of podman",
        rounds: 20,
        contenders: vec![
            Contender::new("ctk", on_host("$CTK run --rm --network bridge localhost/busybox/true")),
            Contender::new(
                "podman run --network=bridge",
                on_host(
                    "podman --root $S/podman --runroot $S/podman-run --network-config-dir $S/networks run --runtime runc $LIMITS --rm --network=bridge $(cat $S/podman-image)",
                ),
            ),
        ],
    })
}

/// The C example with its toolchain image present; only the build itself is timed.
fn build_c(ground: &Ground) -> Result<Comparison, String> {
    quiet(&mut ground.shell(
        r##"
        cp -a $ROOT/examples/hello-c $S/hello-c
        cd $S/hello-c
        $CTK build image:toolchain
        $CTK save image:toolchain -o $S/toolchain.tar
        buildah --root $S/buildah --runroot $S/buildah-run pull docker-archive:$S/toolchain.tar > $S/toolchain-id
        cat > Dockerfile <<EOF
FROM $(tail -n1 $S/toolchain-id) AS build
WORKDIR /src
COPY hello.c Makefile ./
RUN make VERSION=1.0.0
RUN make check
FROM scratch
COPY --from=build --chmod=755 /src/hello /hello
USER 65532:65532
LABEL org.opencontainers.image.version=1.0.0
ENTRYPOINT ["/hello"]
CMD ["container"]
EOF
        "##,
    ))?;
    Ok(Comparison {
        name: "cold build of the C example, bases present",
        bar: "not slower than buildah",
        rounds: 5,
        contenders: vec![
            Contender::new("ctk build --no-cache", ground.shell("cd $S/hello-c && exec $CTK build --no-cache image:hello")),
            Contender::new(
                "buildah bud --layers",
                ground.shell("cd $S/hello-c && exec buildah --root $S/buildah --runroot $S/buildah-run bud --layers --isolation chroot -t hello ."),
            )
            .after(ground.shell("buildah --root $S/buildah --runroot $S/buildah-run rmi hello || true; buildah --root $S/buildah --runroot $S/buildah-run rmi -p || true")),
        ],
    })
}

/// A Debian minbase from nothing: indexes and packages downloaded by both.
fn minbase(ground: &Ground) -> Result<Comparison, String> {
    quiet(&mut ground.shell(
        r##"
        mkdir -p $S/minbase
        printf 'image "minbase" {\n    packages distro="debian" suite="bookworm" variant="minbase"\n}\n' > $S/minbase/containers.kdl
        "##,
    ))?;
    // Each round has a store of its own, and none is removed in between: for minutes after thousands of files were
    // deleted, ext4 hesitates to give their inodes out again, and whoever comes next pays for it.
    let ours = |name: &str, prepare: &str| {
        let command =
            ground.shell("cd $S/minbase && CTK_ROOT=$(cat $S/round) exec $CTK build --no-cache image:minbase");
        Contender::new(name, command).after(ground.shell(prepare))
    };
    Ok(Comparison {
        name: "Debian bookworm minbase image",
        bar: "at most 1/4 of mmdebstrap",
        rounds: 3,
        contenders: vec![
            ours("ctk, downloads included", "mktemp -d $S/store-XXXXXX > $S/round; rm -f $S/minbase/containers.lock"),
            ours("ctk, packages in the cache", "true"),
            Contender::new(
                "mmdebstrap --variant=minbase",
                ground.shell("exec mmdebstrap --variant=minbase bookworm $S/minbase.tar"),
            ),
        ],
    })
}
