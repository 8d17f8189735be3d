//! Builds for other platforms, and build arguments that mean something by themselves.

mod common;

use common::{Bench, can_run, chain};
use ctk_build::Built;
use ctk_oci::Platform;
use ctk_plan::Event;
use ctk_store::Ref;

fn platforms(names: &[&str]) -> Vec<Platform> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Builds `text` for `names` and keeps it as image `image`.
fn keep(bench: &Bench, image: &str, names: &[&str], text: &str) {
    bench.write("Dockerfile", text);
    let built = bench.run(&ctk_build::ImageDecl { platforms: platforms(names), ..bench.decl() });
    let built = built.unwrap_or_else(|e| panic!("{}", chain(&e)));
    bench.store.set_reference(&format!("docker.io/library/{image}:latest"), &Ref::new(built.descriptor)).unwrap();
}

fn each(built: &Built) -> Vec<Built> {
    let one = |(_, descriptor): &(Platform, _)| Built { descriptor: Clone::clone(descriptor), ..built.clone() };
    built.manifests.iter().map(one).collect()
}

fn warnings(bench: &Bench) -> Vec<String> {
    let story = bench.story.0.lock().unwrap();
    let told = |event: &Event| match event {
        Event::Warning { message, .. } => Some(message.clone()),
        _ => None,
    };
    story.iter().filter_map(told).collect()
}

#[test]
fn the_builder_s_platform_makes_files_for_others() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let base = "FROM scratch\nARG TARGETPLATFORM\nENV OF=$TARGETPLATFORM\n";
    keep(&bench, "multi", &["linux/amd64", "linux/arm64", "linux/arm/v6", "linux/386"], base);
    let text = "FROM --platform=$BUILDPLATFORM busybox AS tool\nARG TARGETARCH TARGETVARIANT\n\
        RUN echo $TARGETARCH$TARGETVARIANT > /made\nFROM multi\nCOPY --from=tool /made /\nLABEL base=$OF\n";
    bench.write("Dockerfile", text);
    let names = ["linux/amd64", "linux/arm64/v8", "linux/arm", "linux/amd64/v2"];
    let decl = ctk_build::ImageDecl { platforms: platforms(&names), ..bench.decl() };
    let built = bench.run(&decl).unwrap_or_else(|e| panic!("{}\n{}", chain(&e), bench.log()));
    let mut seen = Vec::new();
    for one in each(&built) {
        let config = bench.config(&one);
        seen.push(format!(
            "{} {} {}",
            config.platform(),
            config.config.labels["base"],
            bench.text(&one, "/made").trim()
        ));
    }
    assert_eq!(
        seen,
        [
            "linux/amd64 linux/amd64 amd64",
            "linux/arm64 linux/arm64 arm64",
            "linux/arm/v7 linux/arm/v6 armv7",
            "linux/amd64/v2 linux/amd64 amd64v2",
        ]
    );
    let index: ctk_oci::Index = bench.store.document("image index", &built.descriptor).unwrap().into_value();
    let members: Vec<String> = index.manifests.iter().map(|m| m.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(members, ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/amd64/v2"]);
    bench.write("Dockerfile", "FROM multi\n");
    let decl = ctk_build::ImageDecl { platforms: platforms(&["linux/s390x"]), ..bench.decl() };
    let error = chain(&bench.run(&decl).unwrap_err());
    assert!(error.contains("has no manifest for linux/s390x; it has linux/amd64, linux/arm64"), "{error}");
}

#[test]
fn a_base_for_another_platform_is_told() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    keep(&bench, "foreign", &["linux/s390x"], "FROM scratch\nCOPY Dockerfile /f\n");
    let built = bench.built("FROM foreign\nLABEL a=1\n");
    assert_eq!(bench.config(&built).architecture, "s390x");
    let told = warnings(&bench);
    let expected = "Dockerfile:1:1: base image `docker.io/library/foreign:latest` is for linux/s390x";
    assert!(told.iter().any(|message| message.starts_with(expected)), "{told:?}");
}

#[test]
fn arguments_may_say_how_to_build() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let text = "ARG SOURCE_DATE_EPOCH=1000\nFROM busybox\nARG SOURCE_DATE_EPOCH\nENV http_proxy=mine\n\
        RUN echo $http_proxy $HTTP_PROXY $SOURCE_DATE_EPOCH > /seen\n";
    let built = bench.built(text);
    assert_eq!(bench.config(&built).created.as_deref(), Some("1970-01-01T00:16:40Z"));
    assert_eq!(bench.text(&built, "/seen"), "mine 1000\n");
    let given =
        [("SOURCE_DATE_EPOCH", "2000"), ("HTTP_PROXY", "http://p"), ("BUILDKIT_MULTI_PLATFORM", "1"), ("nope", "")];
    bench.args = given.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let built = bench.built(text);
    let one = each(&built).remove(0);
    assert_ne!(built.descriptor, one.descriptor, "an index");
    assert_eq!(bench.config(&one).created.as_deref(), Some("1970-01-01T00:33:20Z"));
    assert_eq!(bench.text(&one, "/seen"), "http://p http://p 2000\n");
    assert!(bench.config(&one).config.env.contains(&"http_proxy=mine".to_owned()));
    assert_eq!(warnings(&bench), ["build argument `nope` is not used; no ARG declares it [build::unused-argument]"]);
    // Another proxy makes nothing anew.
    bench.args.insert("HTTP_PROXY".into(), "http://q".into());
    assert_eq!(bench.built(text).executed, 0);
    bench.args = [("SOURCE_DATE_EPOCH".to_owned(), "soon".to_owned())].into();
    assert!(bench.failure(text).contains("`SOURCE_DATE_EPOCH` cannot be `soon`"));
    let name = "x".repeat(65);
    for (argument, value, expected) in [
        ("BUILDKIT_MULTI_PLATFORM", "maybe", "`BUILDKIT_MULTI_PLATFORM` cannot be `maybe`; expected `true` or `false`"),
        ("BUILDKIT_SANDBOX_HOSTNAME", &name, "`BUILDKIT_SANDBOX_HOSTNAME` has 65 bytes; a host's name has at most 64"),
    ] {
        bench.args = [(argument.to_owned(), value.to_owned())].into();
        let error = bench.failure(text);
        assert!(error.contains(expected), "{error}");
    }
    bench.args = [("BUILDKIT_SANDBOX_HOSTNAME".to_owned(), "bad host!".to_owned())].into();
    bench.no_cache_stages = vec!["nope".into(), "0".into()];
    bench.story.0.lock().unwrap().clear();
    bench.built(text);
    let expected = [
        "`--no-cache-filter` names no stage: `nope` does not exist; no stage has a name",
        "`bad host!` in `BUILDKIT_SANDBOX_HOSTNAME` is no name of a host; expected letters, digits, `-` and `.` \
         [build::bad-argument]",
    ];
    assert_eq!(warnings(&bench), expected);
    bench.args = [("BUILDKIT_MULTI_PLATFORM".to_owned(), "false".to_owned())].into();
    bench.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let several = ctk_build::ImageDecl { platforms: platforms(&["linux/amd64", "linux/arm64"]), ..bench.decl() };
    let error = chain(&bench.run(&several).unwrap_err());
    assert!(error.contains("several platforms make an index"), "{error}");
    bench.args.clear();
    let error = bench.failure("FROM busybox AS build\nFROM scratch\nCOPY --from=biuld /a /\n");
    assert!(error.contains("did you mean stage `build`?"), "{error}");
}
