//! Services of a project: started when missing, started again when changed, left alone otherwise.

use std::time::Duration;

use ctk_e2e::{World, contains, eventually, has_programs, is_root};

/// A database that takes its time, something that is done once, and something that is there for good.
const PROJECT: &str = r#"
project "shop"
image "box" {
    stage "final" from="scratch" {
        copy "busybox" to="/bin/busybox" chmod="755"
        run "/bin/busybox" "--install" "-s" "/bin"
    }
}
service "db" image="box" {
    network "none"
    command "sh" "-c" "sleep 0.5; touch /ready; exec sleep 1000"
    env MODE="x"
    health exec="test -e /ready" every="100ms" within="20s"
    stop-timeout 0
}
service "init" image="box" needs="service:db" when="healthy" {
    network "none"
    restart "no"
    command "sh" "-c" "echo migrated"
}
service "web" image="box" needs="service:init" when="completed" {
    network "none"
    stop-timeout 0
    command "sleep" "1000"
}
"#;

fn world(project: &str) -> Option<World> {
    if !is_root() || !has_programs(&["busybox"]) {
        return None;
    }
    let world = World::new();
    world.write("busybox", std::fs::read("/usr/bin/busybox").expect("a static busybox"));
    world.write("containers.kdl", project);
    Some(world)
}

fn field(world: &World, container: &str, template: &str) -> String {
    world.ctk(&["inspect", "--format", template, container]).ok().trim_end().to_owned()
}

#[test]
fn what_is_missing_is_started_and_what_changed_alone_again() {
    let Some(world) = world(PROJECT) else { return };
    contains(&world.ctk(&["plan"]).ok(), &["+ service:db    start   new", "container shop-db is not there"]);
    world.ctk(&["apply"]).ok();
    // In order, each when the one before was ready.
    let times = ["shop-db", "shop-init", "shop-web"].map(|name| field(&world, name, "{{.State.StartedAt}}"));
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(field(&world, "shop-db", "{{.State.Health.Status}}"), "healthy");
    assert_eq!(field(&world, "shop-init", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    assert_eq!(world.ctk(&["logs", "shop-init"]).ok(), "migrated\n");
    contains(&world.ctk(&["apply"]).ok(), &["nothing to do, 4 unchanged"]);
    let ids = || ["shop-db", "shop-init", "shop-web"].map(|name| field(&world, name, "{{.Id}}"));
    let before = ids();

    world.write("containers.kdl", PROJECT.replace("MODE=\"x\"", "MODE=\"y\""));
    contains(&world.ctk(&["plan"]).ok(), &["~ service:db ", "its declaration changed", "= service:web "]);
    contains(&world.ctk(&["apply"]).ok(), &["1 done, 3 unchanged"]);
    let after = ids();
    assert!(before[0] != after[0] && before[1..] == after[1..], "{before:?} {after:?}");

    world.ctk(&["rm", "--force", "--time", "0", "shop-web"]).ok();
    contains(&world.ctk(&["plan"]).ok(), &["! service:web ", "container shop-web does not run any more"]);
    contains(&world.ctk(&["apply"]).ok(), &["1 done, 3 unchanged"]);

    // A service that is declared no more goes with the others.
    world.write("containers.kdl", PROJECT.split("service \"web\"").next().unwrap());
    assert_eq!(world.ctk(&["destroy", "service:init"]).ok(), "shop-init\n");
    let gone = world.ctk(&["destroy"]).ok();
    assert_eq!(gone.lines().collect::<std::collections::BTreeSet<_>>(), ["shop-db", "shop-web"].into());
    assert_eq!(world.ctk(&["ps", "--all", "--quiet"]).ok(), "");
    assert_eq!(world.ctk(&["destroy"]).ok(), "nothing runs\n");
}

#[test]
fn what_falls_over_is_told_and_tried_again() {
    let Some(world) = world(&PROJECT.replace("\"sleep\" \"1000\"", "\"false\"")) else { return };
    contains(
        &world.ctk(&["apply"]).fails(1),
        &["error[service::failed]: failed to start `service:web`", "ended with exit code 1", "ctk logs shop-web"],
    );
    world.ctk(&["rm", "--force", "--time", "0", "shop-web"]).ok();
    world.write("containers.kdl", PROJECT.replace("touch /ready", "true").replace("within=\"20s\"", "within=\"1s\""));
    contains(&world.ctk(&["apply"]).fails(1), &["container `shop-db` was not healthy within 1 s"]);
    world.write("containers.kdl", PROJECT.replace("restart \"no\"", "option \"--memry\" \"1MiB\""));
    contains(&world.ctk(&["apply"]).fails(1), &["unexpected argument '--memry'"]);
    world.write("containers.kdl", PROJECT);
    world.ctk(&["apply"]).ok();
    // Whatever the machine did meanwhile, the next apply makes it so.
    for pid in field(&world, "shop-db", "{{.State.MonitorPid}} {{.State.Pid}}").split(' ') {
        world.peer("kill", &["-9", pid]).ok();
    }
    let plan = || world.ctk(&["plan"]).out.contains("service:db    start");
    eventually(Duration::from_secs(10), "its end to be seen", plan);
    contains(&world.ctk(&["apply"]).ok(), &["1 done, 3 unchanged"]);
    world.ctk(&["destroy"]).ok();
}
