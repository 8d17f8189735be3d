//! Bad input: a clear error that names resource and place, the right exit code, nothing half-visible.

use std::fs;

use ctk_e2e::{World, contains, is_root};

/// An image that holds a static busybox, for cases that need something to run.
pub const BUSYBOX: &str = r#"
image "busybox" {
    stage "final" from="scratch" {
        copy "busybox" to="/bin/busybox" chmod="755"
        copy "busybox" to="/bin/sh" chmod="755"
        cmd "/bin/busybox"
    }
}
"#;

/// A world with busybox in the project's folder.
pub fn with_busybox(project: &str) -> Option<World> {
    if !is_root() || !ctk_e2e::has_programs(&["busybox"]) {
        return None;
    }
    let world = World::new();
    world.write("busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    world.write("containers.kdl", format!("project \"case\"\n{BUSYBOX}{project}"));
    Some(world)
}

#[test]
fn every_mistake_of_a_file_at_once() {
    let world = World::new();
    world.write(
        "containers.kdl",
        "project \"größe\"\r\nimage \"größe\" {\r\n    buidl \"x\"\r\n    stage \"final\" from=\"scratch\" {\r\n        copi \"a\" to=\"/b\"\r\n    }\r\n}\r\ntest \"x\" image=\"gröse\" {\r\n    size max=\"many\"\r\n}\r\n",
    );
    for command in ["check", "plan", "apply"] {
        let said = world.ctk(&[command]).fails(1);
        contains(&said, &["`buidl`", "containers.kdl:3:5", "`copi`", "did you mean `copy`?", "containers.kdl:5:9"]);
        contains(&said, &["gröse", "did you mean `größe`?", "many"]);
    }
}

#[test]
fn a_file_that_is_no_kdl() {
    let world = World::new();
    world.write("containers.kdl", "image \"x\" {\n    stage \"final\" from=\"scratch {\n}\n");
    contains(&world.ctk(&["check"]).fails(1), &["error[", "containers.kdl:2"]);
}

#[test]
fn no_project_file_says_what_to_do() {
    contains(&World::new().ctk(&["apply"]).fails(1), &["containers.kdl", "ctk init"]);
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    let world = World::new();
    world.write(
        "containers.kdl",
        "image \"a\" { stage \"final\" from=\"image:b\" { cmd \"x\" }; }\nimage \"b\" { stage \"final\" from=\"image:a\" { cmd \"x\" }; }\n",
    );
    contains(&world.ctk(&["plan"]).fails(1), &["cycle", "image:a", "image:b"]);
}

#[test]
fn an_unknown_base() {
    let Some(world) = with_busybox("image \"x\" { stage \"final\" from=\"127.0.0.1:1/no/such:1\" { cmd \"x\" }; }\n")
    else {
        return;
    };
    contains(&world.ctk(&["apply"]).fails(1), &["image:x", "127.0.0.1:1/no/such:1"]);
}

#[test]
fn a_failing_run_shows_its_last_lines_and_its_place() {
    let Some(world) = with_busybox(
        "image \"x\" {\n    stage \"final\" from=\"busybox\" {\n        run \"echo about to fail; exit 7\"\n    }\n}\n",
    ) else {
        return;
    };
    let said = world.ctk(&["apply"]).fails(1);
    contains(&said, &["image:x", "about to fail", "7", "containers.kdl:"]);
    assert!(!world.ctk(&["images"]).ok().contains("case/x"));
}

#[test]
fn a_failing_test_keeps_the_tag_where_it_was() {
    let Some(world) = with_busybox(
        r#"test "t" image="busybox" {
    command "good" "/bin/busybox" "echo" "fine" { stdout equals="fine\n" }
    command "bad" "/bin/busybox" "echo" "seen" { stdout equals="wanted\n" }
    absent "/bin/busybox"
}
push "p" image="busybox" needs="test:t" { to "oci:dist" { tag "v1" }; }
"#,
    ) else {
        return;
    };
    let said = world.ctk(&["apply"]).fails(1);
    contains(&said, &["test:t", "bad", "wanted", "seen", "/bin/busybox"]);
    assert!(!world.project().join("dist/index.json").exists(), "the tag moved although a test failed");
}

#[test]
fn a_registry_that_is_not_there() {
    let Some(world) = with_busybox("push \"p\" image=\"busybox\" { to \"127.0.0.1:1/x\" { tag \"v1\" }; }\n") else {
        return;
    };
    contains(&world.ctk(&["apply"]).fails(1), &["push:p", "127.0.0.1:1/x"]);
}

#[test]
fn a_full_disk_leaves_nothing_half_visible() {
    let Some(world) = with_busybox(
        "image \"big\" { stage \"final\" from=\"busybox\" { run \"/bin/busybox dd if=/dev/zero of=/big bs=1M count=64\" }; }\n",
    ) else {
        return;
    };
    fs::create_dir_all(world.store()).unwrap();
    let store = world.store().to_str().unwrap();
    world.peer("mount", &["-t", "tmpfs", "-o", "size=24m", "none", store]).ok();
    let output = world.ctk(&["apply"]);
    let images = world.ctk(&["images"]);
    world.peer("mount", &["-o", "remount,size=512m", store]).ok();
    let again = world.ctk(&["apply"]);
    world.peer("umount", &["-l", store]).ok();
    contains(&output.fails(1), &["image:big"]);
    assert!(!images.ok().contains("case/big"));
    again.ok();
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let project = "image \"x\" { stage \"final\" from=\"busybox\" { copy \"busybox\" to=\"/x\" chown=\"33:33\" }; }\n";
    let Some(world) = with_busybox(project) else { return };
    let folder = world.project().parent().unwrap().to_path_buf();
    world.peer("chmod", &["-R", "a+rwX", folder.to_str().unwrap()]).ok();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(ctk_e2e::binary()).arg("apply").current_dir(world.project());
    command.env("CTK_ROOT", folder.join("nobody-store")).env("HOME", &folder);
    let said = ctk_e2e::run(command).fails(1);
    contains(&said, &["note: `nobody` has no subordinate ids", "error", "Invalid argument", "usermod --add-subuids"]);
}

#[test]
fn mistakes_of_a_dockerfile_are_shown_in_it() {
    let Some(world) = with_busybox("") else { return };
    let image = "image \"x\" dockerfile=\"Dockerfile\" { context \"base\" \"image:busybox\"; }\n";
    world.write("containers.kdl", world.read("containers.kdl") + image);
    for (text, parts) in [
        ("FORM base\n", &["Dockerfile:1", "FORM", "`FROM`"][..]),
        ("FROM base\nRNU x\nCOPY\n", &["Dockerfile:2", "RNU", "`RUN`", "Dockerfile:3", "COPY"]),
        ("FROM base\nCOPY --form=x a b\n", &["Dockerfile:2", "--form", "--from"]),
        ("FROM base\nCOPY --from=nix /a /b\n", &["Dockerfile:2", "nix"]),
        ("FROM base\nRUN [\"a\", \n", &["Dockerfile:2"]),
        ("FROM base\nCOPY absent.txt /\n", &["Dockerfile:2", "absent.txt"]),
        ("FROM base\nUSER nobody-here\nRUN /bin/busybox true\n", &["Dockerfile:3", "nobody-here"]),
        ("FROM base\nRUN echo told; exit 3\n", &["Dockerfile:2", "told", "3"]),
        ("", &["Dockerfile", "FROM"]),
    ] {
        world.write("Dockerfile", text);
        let said = world.ctk(&["apply"]).fails(1);
        contains(&said, &["image:x"]);
        contains(&said, parts);
        assert!(!world.ctk(&["images"]).ok().contains("case/x"), "{text}");
    }
}

#[test]
fn what_failed_is_named_by_its_error_and_not_by_a_warning() {
    let world = World::new();
    world.write("app/Dockerfile", "FROM scratch\nMAINTAINER me\nENV A=b c\n");
    let said = world.ctk(&["build", "--progress=plain", "app"]).fails(1);
    contains(&said, &["warning[dockerfile::maintainer-deprecated]", ": error[dockerfile::bad-argument]: `c` is no"]);
}
