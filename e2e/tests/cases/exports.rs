//! Exporters that are interrupted: nothing half-made is seen, nothing is left beside it, the next run finishes.

use std::fs;
use std::time::{Duration, Instant};

use ctk_e2e::{World, contains, has_programs, is_root};

use super::interrupt::{end, nothing_is_left, signal};
use super::network::Docker;

/// Moments of an export that is interrupted.
const MOMENTS: u32 = 6;
/// How often they are tried, until one interrupts it.
const ROUNDS: u32 = 5;
/// From the signal to the end.
const LIMIT: Duration = Duration::from_secs(20);

/// A folder `app` whose image takes a while to export: a large file that does not compress, and many small ones.
fn world() -> Option<World> {
    if !is_root() || !has_programs(&["skopeo", "tar", "docker-registry"]) {
        return None;
    }
    let world = World::new();
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let large: Vec<u8> = (0..3 << 20).flat_map(|_| random()).collect();
    world.write("app/large", large).write("app/Dockerfile", "FROM scratch\nCOPY large /\nCOPY small /small/\n");
    for number in 0..500 {
        world.write(&format!("app/small/{number}"), number.to_string());
    }
    Some(world)
}

fn listed(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.project()).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Interrupts a build with `output` at several moments, with nothing at `dest` and with an earlier export there;
/// `whole` is a command that reads what the export makes. `#` in it is a number that is another each time.
fn check(world: &World, output: &str, dest: Option<&str>, whole: &str) {
    let is_whole = || world.peer("sh", &["-c", whole]).status.success();
    let there = |name: &str| world.project().join(name).exists();
    world.ctk(&["build", "-q", "app"]).ok();
    let mut took = Duration::from_millis(300);
    for earlier in [false, true] {
        let mut interrupted = 0;
        let numbered = |number: u32| output.replace('#', &(number + 4 + 7 * u32::from(earlier)).to_string());
        let mut moment = 0;
        // On a machine that is faster or busier than guessed, all of a round may come too late: the next is earlier.
        while moment < MOMENTS || (interrupted == 0 && !earlier && moment < ROUNDS * MOMENTS) {
            if moment > 0 && moment.is_multiple_of(MOMENTS) {
                took = took * 2 / 3;
            }
            let child = world.spawn(&["build", "-t", "app:1", "-o", &numbered(moment % MOMENTS), "app"]);
            std::thread::sleep(Duration::from_millis(15) + took * (moment % MOMENTS) / MOMENTS);
            moment += 1;
            let at = Instant::now();
            signal(&child, "-INT");
            let (said, code) = end(child);
            assert!(at.elapsed() < LIMIT, "{output}: {:?} after the signal", at.elapsed());
            // Before anything began it simply ends (`None`), and too late is fine, too.
            assert!(matches!(code, None | Some(0 | 130)), "{output}: {code:?}: {said}");
            if code == Some(130) {
                interrupted += 1;
                contains(&said, &["interrupted"]);
            }
            let expected: Vec<&str> = ["app"].into_iter().chain(dest.filter(|dest| there(dest))).collect();
            assert_eq!(listed(world), expected, "{output} after {code:?}: {said}");
            // An upload's reader may outlive the interrupt for a moment; the next start cleans what it held.
            world.ctk(&["images"]).ok();
            nothing_is_left(world, &[]);
            match dest {
                Some(dest) if there(dest) => {
                    assert!(earlier || code == Some(0), "{output} is there after {code:?}");
                    assert!(is_whole(), "{output} after {code:?}");
                    if !earlier {
                        world.peer("rm", &["-r", dest]).ok();
                    }
                }
                Some(_) => assert!(!earlier && code != Some(0), "{output} is gone"),
                None if code == Some(0) => assert!(is_whole()),
                None => {}
            }
        }
        // Into a layout that has it all already there is nothing to interrupt.
        assert!(interrupted > 0 || earlier, "{output}: no signal came in time");
        let finished = world.ctk(&["build", "-t", "app:1", "-o", &numbered(MOMENTS), "app"]);
        took = finished.took;
        finished.ok();
        assert!(is_whole(), "{output}");
    }
    if let Some(dest) = dest {
        world.peer("rm", &["-r", dest]).ok();
    }
}

#[test]
fn files_that_are_interrupted() {
    let Some(world) = world() else { return };
    check(&world, "type=tar,dest=out.tar", Some("out.tar"), "test $(tar -tf out.tar | grep -c small/) -ge 500");
    check(&world, "type=local,dest=out", Some("out"), "cmp out/large app/large && diff -r out/small app/small");
}

#[test]
fn archives_that_are_interrupted() {
    let Some(world) = world() else { return };
    let copies = |place: &str| format!("skopeo copy -q {place} dir:../seen && rm -r ../seen");
    check(&world, "type=oci,dest=out.tar", Some("out.tar"), &copies("oci-archive:out.tar"));
    check(&world, "type=oci,dest=out,tar=false", Some("out"), &copies("oci:out"));
    check(&world, "type=docker,dest=out.tar", Some("out.tar"), &copies("docker-archive:out.tar"));
}

#[test]
fn names_that_are_interrupted() {
    let Some(world) = world() else { return };
    let registry = Docker::start(&world, "127.0.0.1", "");
    let binary = ctk_e2e::binary();
    let has = format!("CTK_ROOT={} {} save localhost/app:1 -o ../saved", world.store().display(), binary.display());
    let slow = "type=image,compression=zstd,compression-level=#,force-compression=true";
    check(&world, slow, None, &has);
    let place = format!("docker://{}/team/app:1", registry.host);
    let copied = format!("skopeo copy -q --src-tls-verify=false {place} dir:../seen && rm -r ../seen");
    check(&world, &format!("type=registry,name={}/team/app:1", registry.host), None, &copied);
}
