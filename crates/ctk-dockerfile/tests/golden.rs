//! Every folder of `tests/golden` holds a `Dockerfile` and what it means: `expected.txt`, the mistakes or the graph.
//! Add a case by making a folder; `CTK_BLESS=1` writes what is expected.
//!
//! Lines `#@arg NAME=value` and `#@target name` in the Dockerfile are the request. Any base image `x` is known, with
//! the environment `BASE=x`; `onbuild` also has a trigger.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use ctk_buildgraph::{
    BaseImage, BaseName, ContextKind, LowerRequest, Lowered, Lowering, Need, RemoteFile, Selection, lower, reads,
};
use ctk_dockerfile::{parse, parse_trigger};
use ctk_oci::{Digest, ImageConfig, Platform};
use ctk_syntax::Sources;

#[test]
fn dockerfiles_mean_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let mut failed = Vec::new();
    for case in cases {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let seen = explain(&text);
        let expected = case.join("expected.txt");
        if std::env::var_os("CTK_BLESS").is_some() {
            std::fs::write(&expected, &seen).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != seen {
            failed.push(format!("{}:\n{seen}", case.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn explain(text: &str) -> String {
    let mut sources = Sources::new();
    let id = sources.add("Dockerfile", text);
    let (file, diagnostics) = parse(&sources, id);
    if !diagnostics.is_empty() {
        let shown = diagnostics.render(&sources, false);
        if diagnostics.has_errors() {
            return shown;
        }
        return format!("{shown}\n{}", mean(&sources, &file.recipe, text));
    }
    mean(&sources, &file.recipe, text)
}

/// Each once, in an order of their own.
fn sorted(mut selections: Vec<Selection>) -> Vec<Selection> {
    selections.sort();
    selections.dedup();
    selections
}

fn mean(sources: &Sources, recipe: &ctk_buildgraph::Recipe, text: &str) -> String {
    let option = |word: &str| text.lines().filter_map(|l| l.strip_prefix(word)).map(str::trim).collect::<Vec<_>>();
    let args =
        option("#@arg ").into_iter().filter_map(|a| a.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned()));
    let mut request = LowerRequest {
        platform: Platform::new("linux", "arm64"),
        platform_asked: true,
        build_platform: Platform::new("linux", "amd64"),
        args: args.collect(),
        target: option("#@target ").first().map(|t| (*t).to_owned()),
        contexts: BTreeMap::from([(String::new(), ContextKind::Local), ("shared".into(), ContextKind::Local)]),
        bases: BTreeMap::new(),
        packages: BTreeMap::new(),
        remote: Default::default(),
        context_epoch: None,
        parse_trigger: &parse_trigger,
    };
    let early = match reads(recipe, &request) {
        Ok((reads, _)) => sorted(reads.into_iter().map(|read| read.selection).collect()),
        Err(diagnostics) => return diagnostics.render(sources, false),
    };
    for _ in 0..10 {
        match lower(recipe, &request) {
            Err(diagnostics) => return diagnostics.render(sources, false),
            Ok(Lowering::Ready(lowered)) => {
                return format!("{}{}", lowered.warnings.render(sources, false), show(&lowered, &early));
            }
            Ok(Lowering::Needs(needs)) => {
                for need in needs {
                    let wanted = match need {
                        Need::Base { request, .. } => request,
                        Need::Git { source, .. } => {
                            let asked = (source.url.clone(), source.wanted().to_owned());
                            request.remote.commits.insert(asked, "0123456789".repeat(4));
                            continue;
                        }
                        Need::Http { url, .. } => {
                            let file = RemoteFile { digest: Digest::of(url.as_bytes()), archive: false };
                            request.remote.files.insert(url, file);
                            continue;
                        }
                        _ => panic!("no packages in a Dockerfile"),
                    };
                    let name = match &wanted.name {
                        BaseName::Reference(reference) => reference.repository().to_owned(),
                        other => other.to_string(),
                    };
                    let mut config = ImageConfig::default();
                    config.config.env.push(format!("BASE={name}"));
                    if name.ends_with("/onbuild") {
                        config.config.on_build = vec!["COPY $BASE.txt /triggered/".into()];
                    }
                    let manifest = Digest::of(wanted.platform.as_bytes());
                    request.bases.insert(wanted, BaseImage { manifest, config });
                }
            }
        }
    }
    panic!("lowering asks forever")
}

fn show(lowered: &Lowered, early: &[Selection]) -> String {
    let mut out = String::new();
    for id in lowered.graph.reachable(lowered.image.vertex) {
        let vertex = lowered.graph.get(id);
        let inputs: Vec<String> = vertex.inputs.iter().map(|i| i.index().to_string()).collect();
        writeln!(out, "{} <- [{}] {}", id.index(), inputs.join(" "), vertex.name).unwrap();
        writeln!(out, "    {}", String::from_utf8(vertex.op.canonical()).unwrap()).unwrap();
    }
    writeln!(out, "config {}", serde_json::to_string(&lowered.image.config).unwrap()).unwrap();
    for line in &lowered.image.history {
        writeln!(out, "history {line:?}").unwrap();
    }
    for selection in early {
        writeln!(out, "reads {:?} {:?} but {:?}", selection.context, selection.paths, selection.exclude).unwrap();
    }
    out
}
