//! Layers mounted as EROFS images beside the same as trees: `CTK_LAYERS`.

use std::process::Command;

use super::cases::Case;
use super::{Comparison, Contender, Ground, quiet};

/// The comparisons.
pub const CASES: &[Case] = &[
    Case { name: "erofs-start-1", make: |ground| start(ground, 1, "`run --rm /bin/true` over 1 layer") },
    Case { name: "erofs-start-10", make: |ground| start(ground, 10, "`run --rm /bin/true` over 10 layers") },
    Case { name: "erofs-start-50", make: |ground| start(ground, 50, "`run --rm /bin/true` over 50 layers") },
    Case { name: "erofs-read-cold", make: |ground| read(ground, true, "500 MB of files read in a container, cold") },
    Case { name: "erofs-read-warm", make: |ground| read(ground, false, "500 MB of files read in a container, warm") },
    Case { name: "erofs-find-cold", make: |ground| find(ground, true, "`find` over them in a container, cold") },
    Case { name: "erofs-find-warm", make: |ground| find(ground, false, "`find` over them in a container, warm") },
    Case { name: "erofs-unpack", make: unpack },
];

const BAR: &str = "the default only if it wins clearly";

/// Forgets what is in memory: the machine's, not only ours.
const COLD: &str = "sync; echo 3 > /proc/sys/vm/drop_caches";

/// `ctk run` with both forms of layers, after the same preparation.
fn both(ground: &Ground, name: &'static str, rounds: usize, run: &str, before: &str) -> Comparison {
    let contender = |name, form| {
        let command = ground.shell(&format!("CTK_LAYERS={form} exec $CTK run --rm --network none {run}"));
        Contender::new(name, command).after(ground.shell(before))
    };
    let contenders = vec![contender("ctk, images", "erofs"), contender("ctk, trees", "tree")];
    Comparison { name, bar: BAR, rounds, contenders }
}

/// Runs once in both forms, so that images are made and caches are warm.
fn once(comparison: &mut Comparison) -> Result<(), String> {
    comparison.contenders.iter_mut().try_for_each(Contender::once)
}

/// An image of busybox and so many layers with a few files each.
fn start(ground: &Ground, layers: usize, name: &'static str) -> Result<Comparison, String> {
    quiet(
        ground
            .shell(
                r##"
        mkdir -p $S/forms-$N/bin
        cd $S/forms-$N
        cp /usr/bin/busybox bin/busybox
        ln -sf busybox bin/true
        printf 'FROM scratch\nCOPY bin/ /bin/\n' > Dockerfile
        for i in $(seq 2 $N); do
            mkdir -p $i/etc/$i
            for j in 1 2 3 4 5; do echo $i $j > $i/etc/$i/$j; done
            echo "COPY $i/ /" >> Dockerfile
        done
        $CTK build -t forms-$N .
        "##,
            )
            .env("N", layers.to_string()),
    )?;
    let mut comparison = both(ground, name, 20, &format!("forms-{layers} /bin/true"), ":");
    once(&mut comparison)?;
    Ok(comparison)
}

/// An image of one layer: busybox, and programs, libraries, headers and texts of this machine, 500 MB.
fn large(ground: &Ground) -> Result<(), String> {
    quiet(&mut ground.shell(
        r##"
        [ ! -e $S/forms.tar ] || exit 0
        mkdir -p $S/forms/bin $S/forms/data
        cp /usr/bin/busybox $S/forms/bin/busybox
        for name in true sh find cat; do ln -sf busybox $S/forms/bin/$name; done
        cd /usr
        find bin lib share include -type f -size -64M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k2 |
            awk '{ sum += $1; if (NR % 4 == 0 && kept + $1 <= 500000000) { kept += $1; print substr($0, index($0, " ") + 1) } }' > $S/forms.list
        tar -cf - -T $S/forms.list | tar -xf - -C $S/forms/data
        printf 'FROM scratch\nCOPY . /\n' > $S/forms.Dockerfile
        $CTK build -f $S/forms.Dockerfile -t forms $S/forms
        $CTK save localhost/forms -o $S/forms.tar
        "##,
    ))
}

fn read(ground: &Ground, cold: bool, name: &'static str) -> Result<Comparison, String> {
    large(ground)?;
    let run = "forms /bin/sh -c 'find /data -type f -exec cat {} + > /dev/null'";
    let mut comparison = both(ground, name, 5, run, if cold { COLD } else { ":" });
    once(&mut comparison)?;
    weigh(ground)?;
    Ok(comparison)
}

fn find(ground: &Ground, cold: bool, name: &'static str) -> Result<Comparison, String> {
    large(ground)?;
    let mut comparison =
        both(ground, name, 5, "forms /bin/sh -c 'find /data -size +1 > /dev/null'", if cold { COLD } else { ":" });
    once(&mut comparison)?;
    Ok(comparison)
}

/// The first container of an image that was only fetched: its layer is unpacked, and made an image.
fn unpack(ground: &Ground) -> Result<Comparison, String> {
    large(ground)?;
    // Each round has a store of its own: whoever comes after thousands of deletions pays for them.
    let before = "[ ! -e $S/forms-store ] || mv $S/forms-store $S/forms-gone-$$; CTK_ROOT=$S/forms-store $CTK load -i $S/forms.tar";
    let run = "--root $S/forms-store forms /bin/true";
    Ok(both(ground, "the first container of a loaded image of 500 MB", 3, run, before))
}

/// Tells what the large layer takes on the disk in both forms.
fn weigh(ground: &Ground) -> Result<(), String> {
    let script = r#"
        cd $S/store/layers
        image=$(ls -S */image.erofs | head -n1)
        echo "image: $(du -k $image | cut -f1) KiB, 1 inode; tree: $(du -sk ${image%/*}/fs | cut -f1) KiB, $(find ${image%/*}/fs | wc -l) inodes"
    "#;
    let mut command: Command = ground.shell(script);
    let output = command.output().map_err(|e| format!("cannot weigh the layers: {e}"))?;
    eprint!("bench: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
