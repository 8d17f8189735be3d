//! Large contexts and large projects in which little or nothing changed.

use std::process::Command;
use std::rc::Rc;

use super::cases::Case;
use super::others::Others;
use super::{Comparison, Contender, Ground, quiet};

/// Those that need no daemon come first.
pub const CASES: &[Case] = &[
    Case { name: "plan-hundred", make: hundred_images },
    Case { name: "scale-huge", make: huge_context },
    Case { name: "scale-nothing", make: nothing_changed },
    Case { name: "scale-one-file", make: one_file_changed },
];

fn hundred_images(ground: &Ground) -> Result<Comparison, String> {
    quiet(&mut ground.shell(
        r##"
        mkdir $S/hundred
        cd $S/hundred
        for i in $(seq 100); do
            mkdir -p $i/src
            for j in $(seq 20); do echo $i $j > $i/src/$j; done
            printf 'FROM scratch AS build\nWORKDIR /src\nCOPY src/ .\nFROM scratch\nCOPY --from=build /src /app\nLABEL service=%s\nENTRYPOINT ["/app/1"]\n' $i > $i/Dockerfile
            echo "image \"s$i\" dockerfile=\"$i/Dockerfile\" context=\"$i\"" >> containers.kdl
        done
        $CTK apply
        sleep 2
        "##,
    ))?;
    Ok(Comparison {
        name: "100 images in one project, nothing changed",
        bar: "at most 100 ms",
        rounds: 20,
        contenders: vec![Contender::new("ctk plan", ground.shell("cd $S/hundred && exec $CTK plan"))],
    })
}

/// As many files as the largest repositories have; git knows them all, without their contents being in it.
fn huge_context(ground: &Ground) -> Result<Comparison, String> {
    quiet(&mut ground.shell(
        r##"
        mkdir $S/huge
        cd $S/huge
        seq 0 29999 | awk '{ printf "packages/area%03d/module%02d/part%02d\n", $1 / 400, $1 / 20 % 20, $1 % 20 }' > $S/folders
        xargs mkdir -p < $S/folders
        awk '{ for (i = 0; i < 20; i++) { file = sprintf("%s/source_%03d.txt", $1, i); print "file", NR, i > file; close(file) } }' $S/folders
        git init -q .
        find packages -type f | LC_ALL=C sort > $S/paths
        git hash-object --no-filters --stdin-paths < $S/paths > $S/hashes
        paste -d' ' $S/hashes $S/paths | sed 's/^\([0-9a-f]*\) \(.*\)$/100644 blob \1\t\2/' | git update-index --index-info
        git update-ref HEAD $(git -c user.name=x -c user.email=x@localhost commit-tree -m all $(git write-tree --missing-ok))
        printf '.git\nDockerfile\ncontainers.*\n' | tee .dockerignore > .git/info/exclude
        echo .dockerignore >> .git/info/exclude
        printf 'FROM scratch\nCOPY . /src/\n' > Dockerfile
        echo 'image "huge" dockerfile="Dockerfile"' > containers.kdl
        git status > /dev/null
        $CTK plan
        $CTK plan
        "##,
    ))?;
    Ok(Comparison {
        name: "600,000 files, nothing changed",
        bar: "at most 1.5 of git",
        rounds: 5,
        contenders: vec![
            Contender::new("ctk plan", ground.shell("cd $S/huge && exec $CTK plan")),
            Contender::new("git status", ground.shell("cd $S/huge && exec git status")),
        ],
    })
}

const FILES: &str = r##"
    mkdir -p $W/context
    cd $W/context
    for i in $(seq 50); do
        mkdir -p data/$i
        for j in $(seq 100); do { echo $i $j; head -c $((i * j * 7 % 12000 + 100)) /usr/bin/git | tail -c 6000; } > data/$i/$j; done
    done
    printf 'FROM scratch\nCOPY data/ /data/\n' > Dockerfile
    printf 'image "files" dockerfile="Dockerfile"\npush "files" image="files" { to "%s/ctk:1"; }\n' $R > containers.kdl
    printf 'containers.*\n' > .dockerignore
"##;
const OURS: &str = "cd $W/context && exec $CTK apply";
const BUILDAH: &str = "
    cd $W/context
    B=\"buildah --root $S/files --runroot $S/files-run\"
    $B bud --layers --isolation chroot -t $R/buildah:1 . && $B push --tls-verify=false $R/buildah:1
";

fn nothing_changed(ground: &Ground) -> Result<Comparison, String> {
    files(ground, "5,000 files, nothing changed, tag pushed before", "at most 1/5 of the better, 50 ms", None)
}

fn one_file_changed(ground: &Ground) -> Result<Comparison, String> {
    let change = "echo changed $N >> $W/context/data/7/7";
    files(ground, "one file of 5,000 changed, layer rebuilt and pushed", "at most 1/4 of the better", Some(change))
}

fn files(
    ground: &Ground,
    name: &'static str,
    bar: &'static str,
    change: Option<&'static str>,
) -> Result<Comparison, String> {
    let others = Others::start(ground)?;
    let script = |script: &'static str| {
        let (ground, others) = (ground.clone(), Rc::clone(&others));
        move || -> Result<Command, String> {
            let mut command = ground.shell(script);
            command.env("CTK_ROOT", others.work.with_file_name("store")).env("R", &others.registry);
            command.env("W", &others.work).env("N", others.next().to_string());
            Ok(command)
        }
    };
    let buildx = |others: Rc<Others>| {
        move || {
            let tag = format!("--tag={}/buildkit:1", others.registry);
            Ok(others.buildx(&["build", "--push", "--provenance=false", &tag, "/run/work/context"]))
        }
    };
    quiet(&mut script(FILES)()?)?;
    let contenders = vec![
        Contender::making("ctk apply", script(OURS)),
        Contender::making("buildx build --push", buildx(Rc::clone(&others))),
        Contender::making("buildah bud --layers, push", script(BUILDAH)),
    ];
    // Nothing changes from the second time on: the first is each contender's own, and finds the files in memory that the
    // one before has not touched.
    let firsts: [Box<dyn FnMut() -> Result<Command, String>>; 3] =
        [Box::new(script(OURS)), Box::new(buildx(Rc::clone(&others))), Box::new(script(BUILDAH))];
    let contenders = contenders.into_iter().zip(firsts).map(|(contender, first)| match change {
        Some(change) => contender.after_making(script(change)),
        None => contender.after_making(first),
    });
    let mut contenders: Vec<Contender> = contenders.collect();
    // Once each, so that all have it.
    for contender in &mut contenders {
        contender.once()?;
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    Ok(Comparison { name, bar, rounds: 10, contenders })
}
