//! Lock, starter, graph, selection, platforms.

use std::collections::BTreeMap;

use ctk_oci::{Digest, Platform, Reference};
use ctk_plan::{Address, Kind};
use ctk_project::{
    Facts, Format, From, Inputs, Lock, MemoryFiles, Project, format, graph, no_git, parse, stages, starter,
};
use ctk_syntax::{Sources, Spanned};
use serde_json::json;

fn project(text: &str) -> Project {
    let inputs = Inputs { vars: BTreeMap::new(), env: &|_| None, git: &no_git, default_name: "p".into() };
    let mut sources = Sources::new();
    let (project, diagnostics) = parse(&mut sources, "containers.kdl", text, &MemoryFiles::default(), &inputs);
    assert!(diagnostics.is_empty(), "{}\n{text}", diagnostics.render(&sources, false));
    project
}

fn formatted(text: &str) -> String {
    let mut sources = Sources::new();
    let id = sources.add("containers.kdl", text);
    format(&mut sources, id).unwrap()
}

#[test]
fn a_starter_passes_and_is_laid_out() {
    let base = Facts { name: "My Shop!".into(), ..Facts::default() };
    let all = [
        base.clone(),
        Facts { dockerfile: true, ..base.clone() },
        Facts { cargo: Some("shop".into()), ..base.clone() },
        Facts { package_json: true, ..base.clone() },
        Facts { go_mod: true, ..base.clone() },
        Facts { name: "".into(), ..base.clone() },
        Facts { name: "base".into(), ..base },
    ];
    for facts in all {
        let text = starter(&facts);
        let project = project(&text);
        assert_eq!(formatted(&text), text);
        for kind in [Kind::Image, Kind::Test, Kind::Push] {
            assert!(project.of_kind(kind).count() >= 1, "{text}");
        }
    }
}

fn sample_lock() -> (Lock, Reference, Platform) {
    let reference: Reference = "debian:12".parse().unwrap();
    let platform: Platform = "linux/arm64".parse().unwrap();
    let mut lock = Lock::new();
    lock.insert_image(&reference, &platform, &Digest::of(b"x"));
    lock.insert_http("https://example.com/a b", &Digest::of(b"y"));
    lock.insert_git("https://example.com/r.git", "main", "0123");
    let payload = json!({"snapshot": "bookworm", "packages": [{"name": "libc6", "version": "2.36"}, {"name": "bash"}]});
    lock.insert_packages(&Address::new(Kind::Image, "services/cart:base"), "final", &platform, payload);
    (lock, reference, platform)
}

#[test]
fn a_lock_is_lines() {
    let (lock, reference, platform) = sample_lock();
    let text = lock.to_text();
    let digest = |b: &[u8]| Digest::of(b).to_string();
    let expected = format!(
        r#"{{
"git https://example.com/r.git main": "0123",
"http https://example.com/a b": "{}",
"image docker.io/library/debian:12 linux/arm64": "{}",
"packages image:services/cart:base/final linux/arm64": {{
  "packages": [
    {{"name":"libc6","version":"2.36"}},
    {{"name":"bash"}}
  ],
  "snapshot": "bookworm"
}},
"version": 1
}}
"#,
        digest(b"y"),
        digest(b"x")
    );
    assert_eq!(text, expected);
    let mut again = Lock::parse(&text).unwrap();
    assert!(lock.changed() && !again.changed());
    assert_eq!(again.to_text(), text);
    assert_eq!(again.image(&reference, &platform), Some(Digest::of(b"x")));
    assert_eq!(again.http("https://example.com/a b"), Some(Digest::of(b"y")));
    assert_eq!(again.git("https://example.com/r.git", "main"), Some("0123"));
    let base = Address::new(Kind::Image, "services/cart:base");
    assert_eq!(again.packages(&base, "final", &platform).unwrap()["packages"][1]["name"], "bash");
    again.insert_image(&reference, &platform, &Digest::of(b"x"));
    assert!(!again.changed(), "the same value is no change");
    again.insert_image(&reference, &platform, &Digest::of(b"z"));
    assert!(again.changed());
    let changes = again.changes();
    assert_eq!((changes.len(), changes[0].key.to_string()), (1, format!("image {reference} {platform}")));
    assert_eq!(Lock::parse(&Lock::new().to_text()).unwrap(), Lock::new());
}

#[test]
fn a_lock_that_cannot_be_used_says_why() {
    let check = |text: &str, expected: &str| {
        let error = Lock::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("{\n\"version\": 2\n}", "version 2");
    check("{}", "version none");
    check("{\n\"x", "line 2");
    check("{\n<<<<<<< HEAD\n", "merge marks at line 2");
    check("{\"image a\": 1, \"version\": 1}", "`image a`");
    check("{\"image a linux/amd64\": \"sha256:zz\", \"version\": 1}", "does not hold a digest");
    check("{\"oci a b\": \"x\", \"version\": 1}", "`oci a b`");
}

#[test]
fn words_select() {
    let project = project(
        "image \"a\" from=\"x:1\"\nimage \"b\" from=\"a\"\ntest \"a\" image=\"a\"\npush \"p\" image=\"b\"\ngroup \"g\" \"push:*\" \"image:a\"\n\
         image \"m\" { matrix { os \"u\" \"v\" }; from \"x:1\" }\n",
    );
    let check = |words: &[&str], expected: &str| {
        let shown = match project.select(words) {
            Ok(found) => found.iter().map(|a| a.to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    };
    check(&["b"], "image:b");
    check(&["push:p", "image:a"], "image:a push:p");
    check(&["g"], "image:a push:p");
    check(&["*:a"], "image:a test:a");
    check(&["image:m[*"], "image:m[os=u] image:m[os=v]");
    check(&["image:m[os=u]"], "image:m[os=u]");
    check(&["a"], "`a` may be `image:a` or `test:a`");
    check(&["image:aa"], "`image:aa` names nothing of this project; did you mean `image:a`?");
    check(&["zzz"], "`zzz` names nothing of this project");
    let closure = project.dag().closure(&project.select(&["push:p"]).unwrap());
    assert_eq!(closure.iter().map(|a| a.to_string()).collect::<Vec<_>>(), ["image:a", "image:b", "push:p"]);
}

#[test]
fn platforms_come_later() {
    let project = project(
        "project \"p\" { platforms \"linux/amd64\" \"linux/arm64\" }\nvar \"v\" default=\"$$1\"\n\
         image \"a\" from=\"x:1\" { run \"get ${platform.arch} ${v} $${v} $$\"; env P=\"${platform}\" Q=\"$${platform}\" }\n\
         image \"b\" { platforms \"linux/arm64\"; from \"a\" }\n",
    );
    let a = project.get(&"image:a".parse().unwrap()).unwrap();
    let b = project.get(&"image:b".parse().unwrap()).unwrap();
    let platforms: Vec<Platform> = project.platforms_of(a);
    assert_eq!(platforms.len(), 2);
    assert_eq!(project.platforms_of(b), ["linux/arm64".parse().unwrap()]);
    assert_eq!(
        a.for_platform(&platforms[1]).canonical(),
        "image \"a\" from=\"x:1\"{run \"get arm64 $1 ${v} $\";env P=\"linux/arm64\" Q=\"${platform}\"}"
    );
    assert_eq!(stages(b)[0].from.as_ref().unwrap().value, "a");
    let from = |text: &str| project.resolve_from(b, &Spanned::new(text.to_string(), b.span), &["build"]);
    assert_eq!(from("build"), Ok(From::Stage("build".into())));
    assert_eq!(from("image:a"), Ok(From::Image(a.address.clone())));
    assert_eq!(from("image:a/final"), Ok(From::ImageStage(a.address.clone(), "final".into())));
    assert_eq!(from("scratch"), Ok(From::Scratch));
    assert_eq!(from("docker://a"), Ok(From::Reference("a".parse().unwrap())));
    assert!(from("buidl").is_err());
}

#[test]
fn pictures() {
    let project = project(
        "image \"base\" from=\"debian:12\"\nimage \"api\" { stage \"build\" from=\"rust:1\"; stage \"final\" from=\"base\" { copy \"/x\" to=\"/\" from=\"build\" } }\npush \"api\" image=\"api\"\n",
    );
    let dot = r#"digraph project {
    rankdir=LR;
    compound=true;
    node [shape=box];
    subgraph cluster_0 {
        label="image:base";
        "image:base/final" [label="final"];
    }
    subgraph cluster_1 {
        label="image:api";
        "image:api/build" [label="build"];
        "image:api/final" [label="final"];
    }
    "push:api";
    "debian:12" [style=dashed];
    "rust:1" [style=dashed];
    "debian:12" -> "image:base/final";
    "rust:1" -> "image:api/build";
    "image:base/final" -> "image:api/final";
    "image:api/build" -> "image:api/final" [style=dotted];
    "image:api/final" -> "push:api";
}
"#;
    assert_eq!(graph(&project, Format::Dot), dot);
    let mermaid = r#"flowchart LR
    subgraph g0["image:base"]
        n0["final"]
    end
    subgraph g1["image:api"]
        n1["build"]
        n2["final"]
    end
    n3["push:api"]
    n4(["debian:12"])
    n5(["rust:1"])
    n4 --> n0
    n5 --> n1
    n0 --> n2
    n1 -.-> n2
    n2 --> n3
"#;
    assert_eq!(graph(&project, Format::Mermaid), mermaid);
}

proptest::proptest! {
    #[test]
    fn no_project_brings_it_down(parts in proptest::collection::vec(proptest::sample::select(vec![
        "image \"a\"", "image \"b\" from=\"a\"", " from=\"b\"", " extends=\"a\"", " {\n", "}\n", "\n", "stage \"x\" from=\"a\"", "use \"t\"",
        "template \"t\" {\n", "param \"p\"\n", "matrix { os \"u\" \"v\" }\n", "test \"t\" image=\"a\"", " needs=\"*:*\"", "copy \"x\" from=\"b\"\n",
        "var \"v\" default=\"${git.sha}${v}\"\n", "group \"g\" \"*:*\"\n", "needs \"image:b\"\n", "push \"${v}\"", "include \"x\"\n", "env A=\"${matrix.os}\"\n",
    ]), 0..24)) {
        let inputs = Inputs { vars: BTreeMap::new(), env: &|_| None, git: &no_git, default_name: "p".into() };
        let mut sources = Sources::new();
        let (project, diagnostics) = parse(&mut sources, "containers.kdl", parts.concat(), &MemoryFiles::default(), &inputs);
        diagnostics.render(&sources, false);
        graph(&project, Format::Text);
        if !diagnostics.has_errors() {
            proptest::prop_assert!(project.dag().order().is_ok());
        }
    }
}
