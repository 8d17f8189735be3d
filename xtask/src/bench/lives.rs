//! What containers cost that outlive their maker: `ctk run` and `ctk logs` beside podman.

use super::cases::Case;
use super::{Comparison, Contender, Ground, quiet};

/// The comparisons.
pub const CASES: &[Case] = &[
    Case { name: "life-none", make: alone },
    Case { name: "life-bridge", make: bridged },
    Case { name: "life-hundred", make: hundred },
    Case { name: "life-logs", make: logs },
];

/// podman with storage of its own; its runtime is the faster one that this machine's cgroups allow.
const PODMAN: &str = "podman --root $S/podman --runroot $S/podman-run --cgroup-manager cgroupfs --runtime runc";

/// The same busybox for both.
fn image(ground: &Ground) -> Result<(), String> {
    quiet(&mut ground.shell(&format!(
        r##"
        [ ! -e $S/life-image ] || exit 0
        mkdir -p $S/life/bin
        cp /usr/bin/busybox $S/life/bin/busybox
        for name in true sh ls sleep yes head cat; do ln -sf busybox $S/life/bin/$name; done
        printf 'FROM scratch\nCOPY . /\nCMD ["/bin/true"]\n' > $S/life/Dockerfile
        $CTK build -t life $S/life
        $CTK save localhost/life -o $S/life.tar
        {PODMAN} load -i $S/life.tar
        {PODMAN} images -q | head -n1 > $S/life-image
        "##
    )))
}

fn alone(ground: &Ground) -> Result<Comparison, String> {
    image(ground)?;
    Ok(Comparison {
        name: "`run --rm /bin/true` of a stored image, no network",
        bar: "at most 1/15 of podman",
        rounds: 20,
        contenders: vec![
            Contender::new("ctk", ground.shell("exec $CTK run --rm --network none life /bin/true")),
            Contender::new(
                "podman",
                ground.shell(&format!("exec {PODMAN} run $LIMITS --rm --network=none $(cat $S/life-image) /bin/true")),
            ),
        ],
    })
}

/// Both in a network of their own, so that nothing of the machine's is touched; it is made once for all rounds.
fn bridged(ground: &Ground) -> Result<Comparison, String> {
    image(ground)?;
    let inside = |command: &str| {
        let script = format!(
            "exec unshare --net --mount --propagation private sh -ec 'ip link set lo up; mount -t tmpfs tmpfs /run/netns 2>/dev/null || true; for _ in $(seq 5); do {command}; done'"
        );
        ground.shell(&script)
    };
    Ok(Comparison {
        name: "five times `run --rm /bin/true`, on a bridge",
        bar: "at most 1/9 of podman",
        rounds: 5,
        contenders: vec![
            Contender::new("ctk", inside("$CTK run --rm --network bridge life /bin/true")),
            Contender::new("podman", inside(&format!("{PODMAN} run $LIMITS --rm $(cat $S/life-image) /bin/true"))),
        ],
    })
}

fn hundred(ground: &Ground) -> Result<Comparison, String> {
    image(ground)?;
    let all = |run: &str, end: &str| {
        ground.shell(&format!("for _ in $(seq 100); do {run} sleep 100 >/dev/null & done; wait; {end}"))
    };
    Ok(Comparison {
        name: "100 containers started at once, and removed",
        bar: "at most 1/10 of podman, no error",
        rounds: 3,
        contenders: vec![
            Contender::new("ctk", all("$CTK run -d --network none life", "$CTK rm -f -t 0 --all >/dev/null")),
            Contender::new(
                "podman",
                all(
                    &format!("{PODMAN} run $LIMITS -d --network=none $(cat $S/life-image)"),
                    &format!("{PODMAN} rm -f -t 0 --all >/dev/null"),
                ),
            ),
        ],
    })
}

/// A gigabyte that was written once is read by each.
fn logs(ground: &Ground) -> Result<Comparison, String> {
    image(ground)?;
    let script = "yes this is a line of a log as programs write them, about so long | head -c 1000000000";
    quiet(&mut ground.shell(&format!(
        r##"
        $CTK run -d --network none --name talks --log-opt max-size=0 life sh -c '{script}' >/dev/null
        $CTK wait talks >/dev/null
        {PODMAN} run $LIMITS -d --network=none --name talks --log-driver k8s-file $(cat $S/life-image) sh -c '{script}' >/dev/null
        {PODMAN} wait talks >/dev/null
        "##
    )))?;
    Ok(Comparison {
        name: "1 GB of a log through `logs --follow`",
        bar: "at most 1/3 of podman",
        rounds: 3,
        contenders: vec![
            Contender::new("ctk", ground.shell("exec $CTK logs --follow talks > $S/ours.log")),
            Contender::new("podman", ground.shell(&format!("exec {PODMAN} logs --follow talks > $S/theirs.log"))),
        ],
    })
}
