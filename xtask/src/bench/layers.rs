//! Layers packed and unpacked: a gibibyte of mixed files.

use std::process::Command;
use std::rc::Rc;

use super::cases::Case;
use super::others::Others;
use super::{Comparison, Contender, Ground, quiet};

/// Those that need a gibibyte of files.
pub const CASES: &[Case] = &[Case { name: "layer-pack", make: packed }, Case { name: "layer-unpack", make: unpacked }];

/// `$S/tree`: programs, libraries, headers and texts of this machine, until they are a gibibyte.
const TREE: &str = r##"
    cd /usr
    find bin lib share include -type f -size -64M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k2 |
        awk '{ sum += $1; if (NR % 3 != 0 && kept + $1 <= 1073741824) { kept += $1; print substr($0, index($0, " ") + 1) } }' > $S/files
    mkdir $S/tree
    tar -cf - -T $S/files | tar -xf - -C $S/tree
    sync
"##;

fn packed(ground: &Ground) -> Result<Comparison, String> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let words = ["build", "--release", "--locked", "--quiet", "--package", "ctk-snapshot", "--example", "pack"];
    quiet(build.current_dir(&ground.root).args(words))?;
    quiet(&mut ground.shell(TREE))?;
    let example = ground.ctk.with_file_name("examples").join("pack");
    let ours = {
        let mut command = Command::new(example);
        command.arg(ground.scratch.join("packs")).arg(ground.scratch.join("tree"));
        command
    };
    let forget = "rm -rf $S/packs $S/tree.tar.gz";
    Ok(Comparison {
        name: "a tree of 1 GiB packed to a gzip layer",
        bar: "at most 1/2 of pigz",
        rounds: 3,
        contenders: vec![
            Contender::new("`pack` of ctk-snapshot", ours).after(ground.shell(forget)),
            Contender::new("tar \\| pigz -6", ground.shell("tar -C $S/tree -cf - . | pigz -6 > $S/tree.tar.gz"))
                .after(ground.shell(forget)),
        ],
    })
}

/// The same tree as an image of one layer, in a registry and in a layout.
const IMAGE: &str = r##"
    printf 'FROM scratch\nCOPY . /\n' > $S/tree.Dockerfile
    [ -d $S/tree ] || { TREE
    }
    $CTK build -f $S/tree.Dockerfile --push -t $R/tree:1 $S/tree
    skopeo copy --quiet --src-tls-verify=false docker://$R/tree:1 oci:$S/layout:1
"##;

fn unpacked(ground: &Ground) -> Result<Comparison, String> {
    let others = Others::start(ground)?;
    let script = |script: &str| {
        let (ground, others, script) = (ground.clone(), Rc::clone(&others), script.to_owned());
        move || -> Result<Command, String> {
            let mut command = ground.shell(&script);
            command.env("R", &others.registry).env("N", others.next().to_string());
            Ok(command)
        }
    };
    quiet(&mut script(&IMAGE.replace("TREE", TREE))()?)?;
    // Each round has a place of its own: whoever comes after thousands of deletions pays for them.
    Ok(Comparison {
        name: "an image with a gzip layer of 1 GiB of files, fetched and unpacked",
        bar: "at most 1/2 of the better",
        rounds: 3,
        contenders: vec![
            Contender::making("ctk pull --unpack", script("CTK_ROOT=$S/pulled-$N exec $CTK pull --unpack $R/tree:1")),
            Contender::making(
                "podman pull",
                script("exec podman --root $S/podman-$N --runroot $S/podman-run-$N pull --tls-verify=false $R/tree:1"),
            ),
            Contender::making(
                "umoci unpack, from a layout",
                script("exec umoci unpack --image $S/layout:1 $S/umoci-$N"),
            ),
        ],
    })
}
