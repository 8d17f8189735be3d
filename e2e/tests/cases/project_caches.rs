//! Caches that travel, named in the project file.

use std::fs;

use ctk_e2e::{Output, World, contains, free_port, run};

use super::caches::{Proxy, nothing_ran, ran, registry};
use super::failures::with_busybox;

/// Two images that are built side by side; every instruction whose result depends on chance makes another image if it
/// runs again.
const IMAGES: &str = r#"
template "tool" {
    param "name"
    image "${name}" {
        context "." { ignore "*" "!source"; }
        from "busybox"
        run "/bin/busybox sh -c 'read x < /proc/sys/kernel/random/uuid; echo $x > /noise-${name}'"
        copy "source" to="/source"
        run "/bin/busybox sh -c 'read x < /source; echo $x >> /log/lines; /bin/busybox cp /log/lines /lines'" {
            cache "/log" id="log-${name}"
        }
    }
}
use "tool" name="one"
use "tool" name="two"
"#;

fn world(project: &str) -> Option<World> {
    let world = with_busybox("")?;
    let base = world.read("containers.kdl").replace("project \"case\"\n", "");
    world.write("images.kdl", base + IMAGES).write("source", "1\n");
    write(&world, project);
    Some(world)
}

fn write(world: &World, project: &str) {
    world.write("containers.kdl", format!("project \"case\" {{ {project} }}\n{}", world.read("images.kdl")));
}

/// `ctk` in a store of its own called `store`.
fn ctk(world: &World, store: &str, words: &[&str]) -> Output {
    let mut command = world.command(words);
    command.env("CTK_ROOT", world.path(store));
    run(command)
}

/// Applies the project, and tells the story.
fn applied(world: &World, store: &str) -> String {
    let output = ctk(world, store, &["apply", "--progress=plain"]);
    let story = output.story();
    output.ok();
    story
}

/// What the store has under the images' names.
fn digests(world: &World, store: &str) -> Vec<String> {
    let digest = |name: &str| {
        let text = ctk(world, store, &["inspect", &format!("localhost/case/{name}:latest")]).ok();
        text.split('"').find(|word| word.starts_with("sha256:")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    vec![digest("one"), digest("two")]
}

#[test]
fn a_second_store_runs_nothing() {
    let port = free_port();
    let Some(world) = world("") else { return };
    let _server = registry(&world, port);
    let counter = Proxy::start(port, usize::MAX, false);
    // The base is the project's own image, and has a cache like the others.
    let place = format!(r#""127.0.0.1:{}/caches:${{image.tag}}""#, counter.port);
    write(&world, &format!("cache-to {place} mode=\"max\" cache-mounts=#true\n"));
    contains(&applied(&world, "a"), &["export cache to 127.0.0.1"]);
    assert!(counter.seen("PUT", "/manifests/one") == 1 && counter.seen("PUT", "/manifests/two") == 1);
    write(&world, &format!("cache-from {place}\n"));
    nothing_ran(&applied(&world, "b"));
    assert_eq!(digests(&world, "b"), digests(&world, "a"));
    // What is done asks nobody.
    counter.forget();
    contains(&applied(&world, "b"), &["nothing to do"]);
    contains(&ctk(&world, "b", &["build", "image:one"]).story(), &["nothing to do"]);
    assert_eq!(counter.seen("", ""), 0);
    // Cache mounts come too, each with its own lines.
    world.write("source", "2\n");
    let story = applied(&world, "c");
    assert!(ran(&story, "/log/lines") && !ran(&story, "/noise-"), "{story}");
    let lines = ctk(&world, "c", &["run", "--rm", "localhost/case/one", "/bin/busybox", "cat", "/lines"]).ok();
    assert_eq!(lines, "1\n2\n");
}

#[test]
fn caches_change_no_plan_and_failures_may_be_warnings() {
    let Some(world) = world("") else { return };
    let plan = |world: &World, store: &str| ctk(world, store, &["plan", "--json"]).out;
    let before = plan(&world, "a");
    let port = free_port();
    let place = format!(r#"cache-to "127.0.0.1:{port}/caches:${{image.tag}}""#);
    let from = format!(r#"cache-from "127.0.0.1:{port}/caches:${{image.tag}}""#);
    write(&world, &format!("{place} ignore-error=#true\n{from}"));
    assert_eq!(plan(&world, "a"), before);
    contains(
        &applied(&world, "a"),
        &["warning", "the cache was not exported to `127.0.0.1:", "warning: image:one: cache `127.0.0.1:"],
    );
    write(&world, &place);
    contains(&applied(&world, "a"), &["nothing to do"]);
    contains(
        &ctk(&world, "b", &["apply"]).fails(1),
        &["failed to build `image:busybox`", "cannot export the cache to"],
    );
}

#[test]
fn a_folder_inside_the_context_and_a_cache_in_the_image() {
    let Some(world) = world("") else { return };
    let folder = r#"cache-to type="local" dest="caches/${image.tag}" mode="max""#;
    world.write(
        "images.kdl",
        world.read("images.kdl").replace("{ ignore \"*\" \"!source\"; }", "{ ignore \"?\" \"[a-z]\"; }"),
    );
    write(&world, folder);
    applied(&world, "a");
    assert!(world.path("project/caches/one/index.json").is_file());
    contains(&applied(&world, "a"), &["nothing to do"]);
    fs::rename(world.path("project/caches"), world.path("caches")).unwrap();
    contains(&applied(&world, "a"), &["nothing to do"]);
    // An image that holds its cache is another image.
    write(&world, r#"cache-to type="inline""#);
    let first = digests(&world, "a");
    applied(&world, "a");
    assert_ne!(digests(&world, "a"), first);
    let story = ctk(&world, "a", &["build", "--verify", "--force", "image:one"]).fails(1);
    contains(&story, &["first difference: layer", "/noise-one"]);
}

#[test]
fn a_registry_of_the_project_is_served_for_them() {
    let Some(world) = world("") else { return };
    let place = format!("127.0.0.1:{}", free_port());
    let registry = format!("registry \"local\" listen=\"{place}\" {{ storage \"filesystem:registry\"; }}\n");
    world.write("images.kdl", world.read("images.kdl") + &registry);
    write(&world, &format!("cache-to \"{place}/caches:${{image.tag}}\"; cache-from \"{place}/caches:${{image.tag}}\""));
    applied(&world, "a");
    nothing_ran(&applied(&world, "b"));
    assert_eq!(digests(&world, "b"), digests(&world, "a"));
}

#[test]
fn mistakes_point_at_the_file() {
    let Some(world) = world("") else { return };
    let check = |nodes: &str, parts: &[&str]| {
        write(&world, nodes);
        contains(&world.ctk(&["check"]).fails(1), parts);
    };
    check(r#"cache-to "r.example/x" mod="max""#, &["did you mean `mode`?", "containers.kdl:1:"]);
    check(r#"cache-to "r.example/x" mode="most""#, &["`mode` is `min` or `max`, not `most`", "image::bad-cache"]);
    check(r#"cache-to type="locl""#, &["did you mean `local`?"]);
    check(r#"cache-to type="local""#, &["`dest=` is missing"]);
    check(r#"cache-to"#, &["needs a reference or a `type`"]);
    check(r#"cache-from type="inline""#, &["`type` of `cache-from` cannot be `inline`"]);
    check(r#"cache-to "r.example/x" type="local""#, &["has no reference"]);
    check(
        r#"cache-to "type=registry,ref=r.example/x,mode=max""#,
        &["as on the command line", "cache-to type=\"registry\" ref=\"r.example/x\" mode=\"max\""],
    );
    check(
        r#"cache-to type="s3" bucket="b" secret_access_key="k""#,
        &["`secret_access_key` does not belong in a file", "AWS_SECRET_ACCESS_KEY"],
    );
    check(r#"cache-to "r.example/x:${platform.arch}""#, &["all platforms of an image share a cache"]);
    check(r#"cache-to "r.example/x:${nope}""#, &["`nope` is not defined"]);
    check(
        r#"cache-to "r.example/x:cache""#,
        &["apply::cache-place", "would both be written to `r.example/x:cache`", "${image.tag}"],
    );
    write(&world, r#"cache-to "r.example/x:${image.tag}""#);
    world.ctk(&["check"]).ok();
}
