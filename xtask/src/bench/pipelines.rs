//! What running a pipeline costs: many small steps, and the plan of very many.

use super::cases::{Case, busybox};
use super::{Comparison, Contender, Ground, quiet};

/// The comparisons.
pub const CASES: &[Case] = &[
    Case { name: "pipeline-true", make: run_true },
    Case { name: "pipeline-step", make: one_after_the_other },
    Case { name: "pipeline-plan", make: plan },
];

/// Writes a file of many steps; `wait` is what each waits for.
fn file(ground: &Ground, name: &str, steps: usize, wait: impl Fn(usize) -> String) -> Result<(), String> {
    let mut text = String::from("steps:\n");
    for number in 0..steps {
        text += &format!(
            "- {{id: s{number}, name: localhost/busybox/true, args: [/bin/true], waitFor: ['{}']}}\n",
            wait(number)
        );
    }
    let path = ground.scratch.join(name);
    std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn run_true(ground: &Ground) -> Result<Comparison, String> {
    busybox(ground)?;
    file(ground, "parallel.yaml", 100, |_| "-".into())?;
    Ok(Comparison {
        name: "a hundred steps of /bin/true, stored image",
        bar: "at most 1/10 of `podman run` under `xargs -P2`",
        rounds: 5,
        contenders: vec![
            Contender::new("ctk pipeline run", ground.shell("exec $CTK pipeline run --no-source $S/parallel.yaml")),
            Contender::new(
                "podman run, xargs -P2",
                ground.shell("seq 100 | xargs -P2 -I{} podman --root $S/podman --runroot $S/podman-run run --runtime runc $LIMITS --rm --network=host $(cat $S/podman-image) /bin/true"),
            ),
        ],
    })
}

/// One step at a time, beside as many starts by the runtime alone.
fn one_after_the_other(ground: &Ground) -> Result<Comparison, String> {
    busybox(ground)?;
    file(ground, "row.yaml", 100, |number| number.checked_sub(1).map_or("-".into(), |before| format!("s{before}")))?;
    quiet(&mut ground.shell("ln -sf $CTK $S/ctk-runtime"))?;
    Ok(Comparison {
        name: "a hundred steps of /bin/true, one after the other",
        bar: "at most 3 ms a step more than the runtime alone",
        rounds: 5,
        contenders: vec![
            Contender::new("ctk pipeline run", ground.shell("exec $CTK pipeline run --no-source $S/row.yaml")),
            Contender::new(
                "ctk-runtime run, a hundred times",
                ground.shell("cd $S/bundle; for n in $(seq 100); do $S/ctk-runtime --root $S/row run row-$n; done"),
            ),
        ],
    })
}

fn plan(ground: &Ground) -> Result<Comparison, String> {
    file(ground, "many.yaml", 10_000, |number| {
        number.checked_sub(7).map_or("-".into(), |before| format!("s{before}"))
    })?;
    Ok(Comparison {
        name: "the plan of 10,000 steps",
        bar: "at most 200 ms, 100 MiB",
        rounds: 10,
        contenders: vec![Contender::new("ctk pipeline plan", ground.shell("exec $CTK pipeline plan $S/many.yaml"))],
    })
}
