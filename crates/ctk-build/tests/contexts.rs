//! Contexts that are no folder: from URLs, from standard input, from image layouts; and what named contexts hide.

mod common;
#[path = "common/server.rs"]
mod server;

use std::process::Command;

use common::{Bench, can_run, chain};
use ctk_build::{Built, ContextDecl, ImageDecl, RecipeSource};
use ctk_buildgraph::ContextSource;
use ctk_plan::Cancel;
use server::Server;

fn named(decl: &mut ImageDecl, text: &str) {
    let (name, source) = ContextSource::parse_named(text).unwrap();
    decl.contexts.insert(name.to_string(), ContextDecl::from_source(source, None).unwrap());
}

fn run(bench: &Bench, decl: &ImageDecl) -> Built {
    bench.run(decl).unwrap_or_else(|e| panic!("{}\n{}", chain(&e), bench.log()))
}

fn tar(bench: &Bench, args: &[&str]) -> Vec<u8> {
    bench.write("in/Dockerfile", "FROM scratch\nCOPY . /all\n").write("in/sub/file", "from a tar\n");
    let folder = bench.project().join("in");
    let output =
        Command::new("tar").args(args).args(["--owner=7", "--group=8", "-c", "."]).current_dir(folder).output();
    output.unwrap().stdout
}

#[test]
fn archives_from_a_url() {
    let bench = Bench::bare();
    let root = bench.folder.path().join("served");
    std::fs::create_dir(&root).unwrap();
    let server = Server::new(&root);
    for (name, args) in [("a", &[][..]), ("b", &["-z"]), ("c", &["-j"]), ("d", &["-J"]), ("e", &["--zstd"])] {
        std::fs::write(root.join(name), tar(&bench, args)).unwrap();
        let mut decl = bench.decl();
        decl.source = RecipeSource::InContext { path: "Dockerfile".into(), origin: None };
        decl.contexts
            .insert(String::new(), ContextDecl::Http { url: server.url(&format!("files/{name}")), origin: None });
        assert_eq!(bench.observe(&decl).unwrap().unresolved.len(), 1);
        let built = run(&bench, &decl);
        assert_eq!(bench.text(&built, "all/sub/file"), "from a tar\n", "{name}");
        let node = bench.tree(&built).stat("all/sub/file").unwrap().unwrap();
        assert_eq!((node.uid, node.gid), (7, 8));
        server.seen();
        assert!(bench.observe(&decl).unwrap().unresolved.is_empty());
        assert_eq!(run(&bench, &decl).executed, 0);
        assert_eq!(server.seen(), Vec::<String>::new());
    }
}

#[test]
fn a_dockerfile_from_a_url() {
    let bench = Bench::bare();
    let root = bench.folder.path().join("served");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("D"), "FROM scratch\nCOPY --from=page context /page\nLABEL a=b\n").unwrap();
    let server = Server::new(&root);
    let mut decl = bench.decl();
    decl.source = RecipeSource::InContext { path: "Dockerfile".into(), origin: None };
    decl.contexts.insert(String::new(), ContextDecl::Http { url: server.url("files/D"), origin: None });
    named(&mut decl, &format!("page={}", server.url("files/D")));
    let built = run(&bench, &decl);
    assert!(bench.text(&built, "page").starts_with("FROM scratch"));
    assert_eq!(bench.tree(&built).stat("page").unwrap().unwrap().mode, 0o600);
    assert_eq!(bench.config(&built).config.labels["a"], "b");
}

#[test]
fn a_dockerfile_that_was_read_already() {
    let bench = Bench::bare();
    let mut decl = bench.decl();
    decl.source = RecipeSource::Text { name: "-".into(), text: "FROM scratch\nCOPY <<E /e\nhi\nE\n".into() };
    decl.contexts.insert(String::new(), ContextDecl::Scratch);
    let built = run(&bench, &decl);
    assert_eq!(bench.text(&built, "e"), "hi\n");
    decl.source = RecipeSource::Text { name: "-".into(), text: "FROM scratch\nCOPY x /\n".into() };
    let failure = chain(&bench.run(&decl).unwrap_err());
    assert!(failure.contains("`x` does not exist"), "{failure}");
}

#[test]
fn small_letters_will_do() {
    let bench = Bench::bare();
    bench.write("dockerfile", "FROM scratch\nLABEL a=b\n");
    let built = run(&bench, &bench.decl());
    assert_eq!(bench.config(&built).config.labels["a"], "b");
}

#[test]
fn named_contexts_go_before_stages_and_images() {
    let bench = Bench::new();
    bench.write("other/file", "other\n").write("other/not", "").write("other/.dockerignore", "not\n");
    bench.write(
        "Dockerfile",
        "FROM alpine AS a\nFROM scratch AS libs\nRUN false\nFROM busybox\n\
        COPY --from=a /file /a\nCOPY --from=libs . /libs\nCOPY --from=docker.io/library/alpine:latest /file /b\n\
        RUN --mount=from=libs,target=/m cp /m/file /c\n",
    );
    let mut decl = bench.decl();
    named(&mut decl, "docker.io/library/alpine=other");
    named(&mut decl, "libs=other");
    let built = run(&bench, &decl);
    for path in ["a", "b", "c", "libs/file"] {
        assert_eq!(bench.text(&built, path), "other\n", "{path}");
    }
    assert!(bench.tree(&built).stat("libs/not").unwrap().is_none());
    assert!(bench.tree(&built).stat("libs/.dockerignore").unwrap().is_some());
}

#[test]
fn a_context_for_one_platform() {
    let bench = Bench::bare();
    bench.write("one/f", "one").write("two/f", "two").write("Dockerfile", "FROM scratch\nCOPY --from=x f /\n");
    let mut decl = bench.decl();
    named(&mut decl, "x=one");
    let platform = decl.platforms[0].to_string();
    named(&mut decl, &format!("x::{platform}=two"));
    assert_eq!(bench.text(&run(&bench, &decl), "f"), "two");
}

#[test]
fn images_of_a_layout() {
    let bench = Bench::bare();
    let built = bench.built("FROM scratch\nCOPY Dockerfile /d\nENV FROM=layout\n");
    let directory = bench.project().join("layout");
    let export =
        ctk_store::Export { name: Some(ctk_store::Name::Plain("v1".into())), descriptor: built.descriptor.clone() };
    ctk_store::export_layout(&bench.store, &directory, &[export], &Cancel::new()).unwrap();
    let other = Bench::bare();
    other.write("Dockerfile", "FROM base\nLABEL from=$FROM\n");
    let mut decl = other.decl();
    for text in [format!("{}:v1", directory.display()), format!("{}@{}", directory.display(), built.descriptor.digest)]
    {
        named(&mut decl, &format!("base=oci-layout://{text}"));
        let built = run(&other, &decl);
        assert_eq!(other.config(&built).config.labels["from"], "layout");
    }
    named(&mut decl, &format!("base=oci-layout://{}:v2", directory.display()));
    let failure = chain(&other.run(&decl).unwrap_err());
    assert!(failure.contains("it has no image `v2`"), "{failure}");
}

#[test]
fn every_kind_in_a_project() {
    let mut bench = Bench::bare();
    bench.write("Dockerfile", "FROM scratch\n");
    let text = r#"
        image "a" dockerfile="docs/Dockerfile" {
            context "https://host/r.git?tag=v1"
            context "one" "git@host:r"
            context "two" "https://host/a.tar.gz"
            context "docker.io/library/three" "docker-image://x"
            context "four" "oci-layout://out:v1"
        }
    "#;
    let decl = bench.native(text, "a");
    assert!(matches!(&decl.source, RecipeSource::InContext { path, .. } if path == "docs/Dockerfile"));
    let shown = |name: &str| format!("{:?}", decl.contexts[name]);
    assert!(shown("").contains("refs/tags/v1"));
    assert!(shown("one").starts_with("Git") && shown("two").starts_with("Http"));
    assert!(shown("three").contains("library/x") && shown("four").contains("out"));
}

#[test]
fn a_pipe_of_ignore_patterns_is_refused() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let pipe = bench.project().join(".dockerignore");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = bench.failure("FROM scratch\nCOPY . /x\n");
    assert!(error.contains(".dockerignore") && error.contains("it is no regular file"), "{error}");
}
