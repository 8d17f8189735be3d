//! Images between registries, and from a registry to this machine.

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;

use super::cases::Case;
use super::others::Others;
use super::{Comparison, Contender, Ground, quiet};

/// Those that move an image of 450 MB in five layers, which do not compress.
pub const CASES: &[Case] = &[Case { name: "copy-registry", make: copied }, Case { name: "pull-450", make: pulled }];

/// `$R/big:1`.
const IMAGE: &str = r##"
    mkdir -p $S/big
    for n in 250 100 60 30 10; do head -c ${n}M /dev/urandom > $S/big/$n; done
    printf 'FROM scratch\nCOPY 250 /\nCOPY 100 /\nCOPY 60 /\nCOPY 30 /\nCOPY 10 /\n' > $S/big.Dockerfile
    $CTK build -f $S/big.Dockerfile --provenance=false --push -t $R/big:1 $S/big
"##;

fn image(ground: &Ground) -> Result<Rc<Others>, String> {
    let others = Others::start(ground)?;
    let mut command = ground.shell(IMAGE);
    quiet(command.env("R", &others.registry))?;
    Ok(others)
}

fn copied(ground: &Ground) -> Result<Comparison, String> {
    let source = image(ground)?;
    // Each round goes to a registry that has nothing: skopeo remembers which one has a blob, and has it mounted.
    let target: Rc<RefCell<Option<Rc<Others>>>> = Rc::default();
    let fresh = || {
        let (ground, target) = (ground.clone(), Rc::clone(&target));
        move || -> Result<Command, String> {
            *target.borrow_mut() = None;
            *target.borrow_mut() = Some(Others::start(&ground)?);
            Ok(Command::new("true"))
        }
    };
    let script = |script: &'static str| {
        let (ground, source, target) = (ground.clone(), Rc::clone(&source), Rc::clone(&target));
        move || -> Result<Command, String> {
            let mut command = ground.shell(script);
            let to = target.borrow().as_ref().map(|others| others.registry.clone()).unwrap_or_default();
            command.env("R", &source.registry).env("T", to);
            Ok(command)
        }
    };
    Ok(Comparison {
        name: "an image of 450 MB copied from registry to registry",
        bar: "at most 1/2 of skopeo",
        rounds: 3,
        contenders: vec![
            Contender::making("ctk copy", script("exec $CTK copy $R/big:1 $T/big:1")).after_making(fresh()),
            Contender::making(
                "skopeo copy",
                script("exec skopeo copy --quiet --src-tls-verify=false --dest-tls-verify=false docker://$R/big:1 docker://$T/big:1"),
            )
            .after_making(fresh()),
        ],
    })
}

fn pulled(ground: &Ground) -> Result<Comparison, String> {
    let source = image(ground)?;
    let script = |script: &'static str| {
        let (ground, source) = (ground.clone(), Rc::clone(&source));
        move || -> Result<Command, String> {
            let mut command = ground.shell(script);
            command.env("R", &source.registry).env("N", source.next().to_string());
            Ok(command)
        }
    };
    Ok(Comparison {
        name: "an image of 450 MB pulled and unpacked",
        bar: "at most 1/3 of podman",
        rounds: 3,
        contenders: vec![
            Contender::making("ctk pull --unpack", script("CTK_ROOT=$S/pulled-$N exec $CTK pull --unpack $R/big:1")),
            Contender::making(
                "podman pull",
                script("exec podman --root $S/podman-$N --runroot $S/podman-run-$N pull --tls-verify=false $R/big:1"),
            ),
        ],
    })
}
