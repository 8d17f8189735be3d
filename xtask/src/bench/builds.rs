//! Dockerfile builds with bases from a registry on loopback, pushed there, against BuildKit and buildah.

use std::process::Command;
use std::rc::Rc;

use super::cases::Case;
use super::others::Others;
use super::{Comparison, Contender, Ground, quiet};

/// Dear ones, and those that need a daemon of others.
pub const CASES: &[Case] =
    &[Case { name: "build-cold", make: cold }, Case { name: "build-compiler", make: compiler_source }];

/// Two Debian bases in the registry, and a context of 5,000 files with a C program of 20 sources in it.
const BASES: &str = r##"
    mkdir -p $S/bases $W/context/src $W/context/data
    cat > $S/bases/containers.kdl <<'EOF'
image "compiler" { packages distro="debian" suite="bookworm" variant="minbase" { install "gcc" "g++" "libc6-dev" "make" "git" "python3"; }; }
image "runtime" { packages distro="debian" suite="bookworm" variant="minbase" { install "python3" "curl" "ca-certificates"; }; }
EOF
    cd $S/bases
    $CTK build image:compiler image:runtime
    for name in compiler runtime; do $CTK push localhost/bases/$name $R/$name:1; done
    cd $W/context
    for i in $(seq 50); do
        mkdir data/$i
        for j in $(seq 99); do
            head -c $((i * j * 7 % 12000 + 100)) /usr/bin/python3.11 | tail -c 6000 > data/$i/$j
            echo $i $j >> data/$i/$j
        done
    done
    for i in $(seq 20); do
        printf '#include <stdio.h>\nint part_%d(int x) { for (int i = 0; i < x; i++) x ^= x << (i & 7); printf("%%d", x); return x; }\n' $i > src/part_$i.c
    done
    { for i in $(seq 20); do echo "int part_$i(int);"; done
      echo "int main(void) { return 0"; for i in $(seq 20); do echo " + part_$i($i)"; done; echo "; }"; } > src/main.c
    cat > Dockerfile <<EOF
FROM $R/compiler:1 AS build
WORKDIR /src
COPY src/ .
RUN for f in *.c; do gcc -O2 -c \$f; done && gcc -o /app *.o
FROM $R/runtime:1
COPY --from=build /app /usr/bin/app
COPY data/ /data/
CMD ["/usr/bin/app"]
EOF
"##;

fn shell(ground: &Ground, others: &Others, script: &str) -> Command {
    let mut command = ground.shell(script);
    command.env("R", &others.registry).env("W", &others.work).env("N", others.next().to_string());
    command
}

/// buildah with a storage of `$S/NAME`, building the context and pushing it to `$T`.
const BUILDAH: &str = "
    cd $W/context
    B=\"buildah --root $S/$STORE --runroot $S/$STORE-run\"
    $B bud --layers --isolation chroot --tls-verify=false -t $T . && $B push --tls-verify=false $T
";

fn buildx(others: &Others, tag: &str, more: &[&str]) -> Command {
    let tag = format!("--tag={}/{tag}", others.registry);
    let words = ["build", "--push", "--provenance=false", "--network=none", &tag];
    others.buildx(&[&words[..], more, &["/run/work/context"]].concat())
}

/// Nothing is there but the bases in the registry.
fn cold(ground: &Ground) -> Result<Comparison, String> {
    let others = Others::start(ground)?;
    quiet(&mut shell(ground, &others, BASES))?;
    let ours = {
        let command = |script: &str| {
            let (ground, others, script) = (ground.clone(), Rc::clone(&others), script.to_owned());
            move || Ok(shell(&ground, &others, &script))
        };
        Contender::making(
            "ctk build --push",
            command("cd $W/context && CTK_ROOT=$S/store-$N exec $CTK build --network=none --push -t $R/ctk-$N ."),
        )
    };
    let theirs = {
        let (before, others) = (Rc::clone(&others), Rc::clone(&others));
        let command = move || Ok(buildx(&others, &format!("buildkit-{}", others.next()), &[]));
        Contender::making("buildx build --push", command).after_making(move || {
            before.fresh_daemon();
            Ok(Command::new("true"))
        })
    };
    let third = {
        let (ground, others) = (ground.clone(), Rc::clone(&others));
        let script = format!("STORE=buildah-$N T=$R/buildah-$N; {BUILDAH}");
        Contender::making("buildah bud --layers, push", move || Ok(shell(&ground, &others, &script)))
    };
    Ok(Comparison {
        name: "cold build: two bases pulled, 5,000 files, gcc stage, pushed",
        bar: "at most 1/3 of the better",
        rounds: 3,
        contenders: vec![ours, theirs, third],
    })
}

/// All is there, and pushed; one source of the compiler's stage changes.
fn compiler_source(ground: &Ground) -> Result<Comparison, String> {
    let others = Others::start(ground)?;
    quiet(&mut shell(ground, &others, BASES))?;
    const OURS: &str = "cd $W/context && CTK_ROOT=$S/warm exec $CTK build --network=none --push -t $R/ctk .";
    const CHANGE: &str = "echo \"int changed_$N;\" >> $W/context/src/part_7.c";
    let theirs = format!("STORE=buildah-warm T=$R/buildah; {BUILDAH}");
    quiet(&mut shell(ground, &others, OURS))?;
    quiet(&mut buildx(&others, "buildkit", &[]))?;
    quiet(&mut shell(ground, &others, &theirs))?;
    let script = |script: &str| {
        let (ground, others, script) = (ground.clone(), Rc::clone(&others), script.to_owned());
        move || Ok(shell(&ground, &others, &script))
    };
    let second = {
        let others = Rc::clone(&others);
        move || Ok(buildx(&others, "buildkit", &[]))
    };
    Ok(Comparison {
        name: "one source of the compiler's stage changed, pushed",
        bar: "at most 1/2 of the better",
        rounds: 5,
        contenders: vec![
            Contender::making("ctk build --push", script(OURS)).after_making(script(CHANGE)),
            Contender::making("buildx build --push", second).after_making(script(CHANGE)),
            Contender::making("buildah bud --layers, push", script(&theirs)).after_making(script(CHANGE)),
        ],
    })
}
