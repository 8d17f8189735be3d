//! What instructions do to the config and to history, as tables; BuildKit gives the same for the same text.

use std::collections::BTreeMap;

use ctk_buildgraph::{
    BaseImage, ContextKind, ImageHistory, LowerRequest, Lowered, Lowering, Need, Op, VertexId, lower, reads,
};
use ctk_dockerfile::{parse, parse_trigger};
use ctk_oci::{Digest, ImageConfig, Platform};
use ctk_syntax::{Diagnostics, Sources};

struct Asked<'a> {
    args: &'a [(&'a str, &'a str)],
    target: Option<&'a str>,
    platform: &'a str,
    platform_asked: bool,
    base: &'a str,
}

const PLAIN: Asked<'static> =
    Asked { args: &[], target: None, platform: "linux/amd64", platform_asked: false, base: "{}" };

/// Lowers `text` on a builder of linux/amd64; every base has the config `base`.
fn asked(text: &str, asked: &Asked<'_>) -> Result<Lowered, String> {
    let mut sources = Sources::new();
    let id = sources.add("Dockerfile", text);
    let shown = |d: Diagnostics| d.render(&sources, false);
    let (file, diagnostics) = parse(&sources, id);
    let (file, _) = diagnostics.clone().into_result(file).map(|f| (f, ())).map_err(shown)?;
    let mut request = LowerRequest {
        platform: asked.platform.parse().unwrap(),
        platform_asked: asked.platform_asked,
        build_platform: Platform::new("linux", "amd64"),
        args: asked.args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        target: asked.target.map(str::to_owned),
        contexts: BTreeMap::from([(String::new(), ContextKind::Local)]),
        bases: BTreeMap::new(),
        packages: BTreeMap::new(),
        remote: Default::default(),
        context_epoch: None,
        parse_trigger: &parse_trigger,
    };
    reads(&file.recipe, &request).map_err(shown)?;
    for _ in 0..10 {
        match lower(&file.recipe, &request).map_err(shown)? {
            Lowering::Ready(lowered) => return Ok(*lowered),
            Lowering::Needs(needs) => {
                for need in needs {
                    let Need::Base { request: wanted, .. } = need else { panic!("only bases are needed") };
                    let config: ImageConfig = serde_json::from_str(asked.base).unwrap();
                    let manifest = Digest::of(wanted.platform.as_bytes());
                    request.bases.insert(wanted, BaseImage { manifest, config });
                }
            }
        }
    }
    panic!("lowering asks forever")
}

#[track_caller]
fn meant(text: &str, args: &[(&str, &str)]) -> Lowered {
    asked(text, &Asked { args, ..PLAIN }).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn refused(text: &str) -> String {
    asked(text, &PLAIN).map(|_| String::new()).unwrap_or_else(|e| e)
}

fn labels(lowered: &Lowered) -> String {
    let labels = lowered.image.config.labels.iter().map(|(n, v)| format!("{n}={v}"));
    labels.collect::<Vec<_>>().join(" ")
}

fn history(lowered: &Lowered) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in &lowered.image.history {
        lines.push(match line {
            ImageHistory::Base(history) => history.created_by.as_deref().unwrap_or_default(),
            ImageHistory::Empty { created_by } | ImageHistory::Layer { created_by, .. } => created_by,
        });
    }
    lines
}

/// The environment of the process that ran last, with what no key holds.
fn environment(lowered: &Lowered) -> Vec<String> {
    let vertices: Vec<VertexId> = lowered.graph.reachable(lowered.image.vertex);
    let last = vertices.into_iter().rev().find_map(|id| match &lowered.graph.get(id).op {
        Op::Exec(exec) => Some(exec.env.iter().chain(&exec.unkeyed_env).cloned().collect()),
        _ => None,
    });
    last.expect("something runs")
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn arguments_have_a_scope() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let table: &[Row<'_>] = &[
        (
            "ARG A=1\nARG B=${A}x C=$B-\nARG D\nARG TARGETARCH\nFROM scratch\nARG A B C=y D\nARG A=${A}z E=$B$C\n\
             LABEL a=$A b=$B c=$C d=${D-unset} e=$E f=${TARGETARCH-unset}",
            &[],
            "a=1z b=1x c=y d=unset e=1xy f=unset",
        ),
        (
            "ARG A=1\nARG B=${A}x C=$B-\nARG D\nFROM scratch\nARG A B C=y D\nLABEL a=$A b=$B c=$C d=${D-unset}",
            &[("A", "9"), ("D", "")],
            "a=9 b=9x c=y d=",
        ),
        ("ARG A=1\nFROM scratch\nLABEL a=${A-unset}", &[("A", "2")], "a=unset"),
        ("FROM scratch AS x\nARG A=1\nFROM scratch\nLABEL a=${A-unset}", &[], "a=unset"),
        ("FROM scratch AS x\nARG A=1\nFROM x\nLABEL a=$A", &[], "a=1"),
        ("FROM scratch AS x\nENV A=env\nARG A=arg\nLABEL x=$A\nFROM x\nLABEL y=$A", &[], "x=arg y=env"),
        ("FROM scratch\nARG A=arg\nENV A=env\nLABEL a=$A", &[("A", "given")], "a=env"),
        ("FROM scratch\nENV A=env\nARG A\nLABEL a=$A", &[], "a=env"),
        ("FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\nLABEL d=$def g=$ghi", &[], "d=hello g=bye"),
        ("FROM scratch\nARG a=${x:=1}\nLABEL a=$a", &[("a", "3")], "a=3"),
        (
            "FROM scratch\nARG TARGETPLATFORM=x TARGETARCH\nLABEL a=$TARGETPLATFORM$TARGETARCH",
            &[("TARGETARCH", "foo")],
            "a=xfoo",
        ),
        ("FROM scratch\nLABEL a=${TARGETPLATFORM-unset}", &[], "a=unset"),
        ("FROM scratch AS aa\nFROM scratch AS Last\nARG TARGETSTAGE\nLABEL x=$TARGETSTAGE", &[], "x=last"),
        ("FROM scratch\nARG TARGETSTAGE\nLABEL x=$TARGETSTAGE", &[], "x=default"),
        ("FROM scratch\nENV k=v\nARG $k=1\nLABEL a=$v", &[], "a="),
        ("FROM scratch\nENV k=v\nENV $k=1 a$k=2\nLABEL $k=$v \"l$k m\"=$av $nope=3", &[], "=3 lv m=2 v=1"),
        (
            "FROM scratch AS a\nONBUILD LABEL a=$q\nENV q=1\nLABEL first=1\nFROM a AS b\nLABEL z=1\nONBUILD LABEL bb=1\nFROM b",
            &[],
            "a=1 bb=1 first=1 z=1",
        ),
        (
            "FROM scratch AS a\nONBUILD ARG foo=1\nONBUILD LABEL x=$foo\nFROM a\nARG foo\nLABEL y=$foo",
            &[("foo", "7")],
            "x=7 y=7",
        ),
    ];
    for (text, args, expected) in table {
        assert_eq!(labels(&meant(text, args)), *expected, "{text}");
    }
}

#[test]
fn platform_arguments_are_there() {
    let text = "FROM --platform=$BUILDPLATFORM scratch AS a\nFROM scratch\nARG TARGETPLATFORM BUILDPLATFORM TARGETVARIANT\n\
        LABEL a=$TARGETPLATFORM,$BUILDPLATFORM,$TARGETVARIANT,$TARGETOS";
    for (platform, expected) in [
        ("linux/arm64/v8", "a=linux/arm64,linux/amd64,,"),
        ("linux/arm", "a=linux/arm/v7,linux/amd64,v7,"),
        ("linux/x86_64", "a=linux/amd64,linux/amd64,,"),
        ("linux/amd64/v2", "a=linux/amd64/v2,linux/amd64,v2,"),
    ] {
        let lowered = asked(text, &Asked { platform, ..PLAIN }).unwrap();
        assert_eq!(labels(&lowered), expected, "{platform}");
        assert_eq!(lowered.image.platform, platform.parse().unwrap());
    }
}

#[test]
fn an_image_says_what_it_was_built_for() {
    let arm64 = r#"{"os":"linux","architecture":"arm64"}"#;
    for (text, platform, platform_asked, base, expected) in [
        ("FROM x", "linux/arm64", true, r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#, "linux/arm64"),
        ("FROM x", "linux/arm", true, r#"{"os":"linux","architecture":"arm","variant":"v6"}"#, "linux/arm/v7"),
        (
            "FROM --platform=$BUILDPLATFORM x",
            "linux/arm64",
            true,
            r#"{"os":"linux","architecture":"amd64"}"#,
            "linux/arm64",
        ),
        ("FROM --platform=linux/arm64 x", "linux/amd64", false, arm64, "linux/arm64"),
        ("FROM --platform=linux/arm64 x", "linux/amd64", true, arm64, "linux/amd64"),
        ("FROM x", "linux/amd64", false, arm64, "linux/arm64"),
        ("FROM x", "linux/amd64", true, arm64, "linux/amd64"),
        ("FROM --platform=linux/arm64 x AS a\nFROM a", "linux/amd64", false, arm64, "linux/arm64"),
        ("FROM --platform=linux/arm64 scratch", "linux/amd64", false, "{}", "linux/amd64"),
        ("FROM --platform=linux/s390x scratch AS a\nFROM a", "linux/amd64", false, "{}", "linux/amd64"),
    ] {
        let lowered = asked(text, &Asked { platform, platform_asked, base, ..PLAIN }).unwrap();
        assert_eq!(lowered.image.platform.to_string(), expected, "{text}");
    }
    let base = r#"{"os":"linux","architecture":"s390x"}"#;
    let lowered = asked("FROM x", &Asked { base, ..PLAIN }).unwrap();
    let warnings: Vec<&str> = lowered.warnings.iter().map(|w| w.message.as_str()).collect();
    let expected = "base image `docker.io/library/x:latest` is for linux/s390x, and linux/amd64 is wanted";
    assert_eq!(warnings, [expected]);
}

#[test]
fn processes_see_arguments_and_proxies() {
    let text = "FROM scratch AS base\nENV x=env\nARG x=arg nov noval=\nARG http_proxy\nENV y=$x\nARG z given fresh=$given\nRUN a\n";
    let args = [("given", "g"), ("http_proxy", "px"), ("ALL_PROXY", "ap"), ("all_proxy", "low"), ("Ftp_Proxy", "f")];
    let lowered = meant(text, &args);
    let expected = [
        PATH,
        "x=arg",
        "noval=",
        "http_proxy=px",
        "y=arg",
        "given=g",
        "fresh=g",
        "HTTP_PROXY=px",
        "http_proxy=px",
        "FTP_PROXY=f",
        "ftp_proxy=f",
        "ALL_PROXY=low",
        "all_proxy=low",
    ];
    assert_eq!(environment(&lowered), expected);
    let expected = [
        "ENV x=env",
        "ARG x=arg nov noval=",
        "ARG http_proxy=px",
        "ENV y=arg",
        "ARG z given=g fresh=g",
        "RUN |7 x=arg nov= noval= http_proxy=px z= given=g fresh=g /bin/sh -c a",
    ];
    assert_eq!(history(&lowered), expected);
    let lowered = meant(&format!("{text}FROM base\nARG x\nRUN b"), &args);
    assert_eq!(environment(&lowered)[1], "x=env");
    assert_eq!(history(&lowered)[7], "RUN |7 x=env nov= noval= http_proxy=px z= given=g fresh=g /bin/sh -c b");
}

#[test]
fn arguments_that_nothing_declares_are_told() {
    let text = "ARG A\nFROM scratch AS unused\nARG B\nFROM scratch\nONBUILD ARG C\n";
    let args = ["A", "B", "b", "TARGETARCH", "no_proxy", "SOURCE_DATE_EPOCH", "BUILDKIT_SYNTAX", "versoin"];
    let args: Vec<(&str, &str)> = args.iter().map(|name| (*name, "1")).collect();
    let lowered = meant(text, &args);
    let told: Vec<&str> = lowered.warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(told, ["build argument `b` is not used", "build argument `versoin` is not used"]);
}

#[test]
fn configs_are_what_docker_makes() {
    let base = r#"{"os":"linux","architecture":"amd64","author":"somebody","config":{"User":"u","Env":["A=1","B=2"],
        "Cmd":["old"],"WorkingDir":"app","Labels":{"l":"1"},"Shell":["/bin/bash","-c"],"StopSignal":"SIGINT",
        "Healthcheck":{"Test":["CMD","x"]},"ExposedPorts":{"1/tcp":{}},"Volumes":{"/v":{}}},
        "history":[{"created_by":"from the base"}]}"#;
    let inherited = r#""User":"u","ExposedPorts":{"1/tcp":{}}"#;
    let env = format!(r#""Env":["A=1","B=2","{PATH}"]"#);
    let rest = r#""Volumes":{"/v":{}},"WorkingDir":"/app","Labels":{"l":"1"},"StopSignal":"SIGINT","Healthcheck":{"Test":["CMD","x"]},"Shell":["/bin/bash","-c"]"#;
    let whole = |more: &str| format!("{{{inherited},{env},{more}{rest}}}");
    let table = [
        ("", whole(r#""Cmd":["old"],"#)),
        ("ENTRYPOINT [\"e\"]", whole(r#""Entrypoint":["e"],"#)),
        ("CMD new\nENTRYPOINT [\"e\"]", whole(r#""Entrypoint":["e"],"Cmd":["/bin/bash","-c","new"],"#)),
        ("ENTRYPOINT []", whole("")),
        ("CMD []", whole("")),
        ("SHELL [\"/bin/bash\",\"-c\"]\nCMD a  b \"c\"", whole(r#""Cmd":["/bin/bash","-c","a  b \"c\""],"#)),
    ];
    for (text, expected) in table {
        let lowered = asked(&format!("FROM x\n{text}"), &Asked { base, ..PLAIN }).unwrap();
        assert_eq!(serde_json::to_string(&lowered.image.config).unwrap(), expected, "{text}");
        assert_eq!(history(&lowered)[0], "from the base");
        assert_eq!(lowered.image.author.as_deref(), Some("somebody"));
    }
    let change = |text: &str| asked(&format!("FROM x\n{text}"), &Asked { base, ..PLAIN }).unwrap().image;
    assert_eq!(change("ENV C=3 A=9\nENV A=10 A=11").config.env, ["A=11", "B=2", PATH, "C=3"]);
    assert_eq!(change("ENV a b c  'd \"e\"' \\\" \"x   y\"").config.env[3], "a=b c  d \"e\" \" x   y");
    assert_eq!(change("WORKDIR b/../c").config.working_dir, "/app/c");
    assert_eq!(change("WORKDIR /x/./y//").config.working_dir, "/x/./y//");
    assert_eq!(change("WORKDIR $nope").config.working_dir, "/app");
    assert_eq!(change("MAINTAINER \"me\" $A").author.as_deref(), Some("\"me\" $A"));
    assert_eq!(change("HEALTHCHECK NONE").config.healthcheck.unwrap().test, ["NONE"]);
    assert_eq!(change("STOPSIGNAL rtmin+$B").config.stop_signal.as_deref(), Some("rtmin+2"));
    assert_eq!(change("USER $A:$B").config.user, "1:2");
    assert_eq!(change("LABEL l=2 m=$A").config.labels.len(), 2);
    let ports: Vec<String> = change("EXPOSE $A 70-71/UDP 127.0.0.1:8:9").config.exposed_ports.into_keys().collect();
    assert_eq!(ports, ["1/tcp", "70/udp", "71/udp", "9/tcp"]);
    let empty = meant("FROM scratch", &[]);
    assert_eq!(
        serde_json::to_string(&empty.image.config).unwrap(),
        format!(r#"{{"Env":["{PATH}"],"WorkingDir":"/"}}"#)
    );
}

#[test]
fn an_argument_dates_the_image() {
    let text = "ARG SOURCE_DATE_EPOCH=1000\nFROM scratch\n";
    assert_eq!(meant(text, &[]).epoch_seconds, Some(1000));
    assert_eq!(meant(text, &[("SOURCE_DATE_EPOCH", "7")]).epoch_seconds, Some(7));
    assert_eq!(meant("FROM scratch", &[]).epoch_seconds, None);
    assert_eq!(meant("FROM scratch", &[("SOURCE_DATE_EPOCH", "")]).epoch_seconds, None);
    // What nobody has looked at yet dates nothing.
    assert_eq!(meant("ARG SOURCE_DATE_EPOCH=context\nFROM scratch\n", &[]).epoch_seconds, None);
    assert!(refused("ARG SOURCE_DATE_EPOCH=soon\nFROM scratch\n").contains("expected seconds since 1970"));
}

#[test]
fn history_reads_as_docker_s() {
    let text = "FROM scratch\nHEALTHCHECK --interval=90s --timeout=1500ms --retries=66 CMD true\nCMD echo \"a'b\té\"\n\
        ENTRYPOINT [\"x\",\"y\"]\nEXPOSE 80 90/udp 7000-7002 127.0.0.1:8080:81\nVOLUME [\"/a\",\"b\"]\nVOLUME c d\n\
        ONBUILD RUN x\nSHELL [\"/a\",\"b\"]\nSTOPSIGNAL sigterm\nUSER a:b\nWORKDIR w\nWORKDIR /\n\
        LABEL a=1 \"b c\"='d e'\nMAINTAINER me\nCMD []\nRUN [\"a\",\"b c\"]\nENV q=1 r=\"s t\"";
    let expected = [
        "HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"1m30s\" \"1.5s\" \"0s\" \"0s\" 'B'}",
        "CMD [\"/bin/sh\" \"-c\" \"echo \\\"a'b\\té\\\"\"]",
        "ENTRYPOINT [\"x\" \"y\"]",
        "EXPOSE [81/tcp 7000/tcp 7001/tcp 7002/tcp 80/tcp 90/udp]",
        "VOLUME [/a b]",
        "VOLUME [c d]",
        "SHELL [/a b]",
        "STOPSIGNAL sigterm",
        "USER a:b",
        "WORKDIR /w",
        "WORKDIR /",
        "LABEL a=1 b c=d e",
        "MAINTAINER me",
        "CMD []",
        "RUN a b c",
        "ENV q=1 r=s t",
    ];
    assert_eq!(history(&meant(text, &[])), expected);
    let lines = &meant(text, &[]).image.history;
    let layers = lines.iter().filter(|line| matches!(line, ImageHistory::Layer { .. })).count();
    assert_eq!(layers, 2, "WORKDIR /w and RUN");
}

#[test]
fn stages_are_found_or_refused() {
    for text in [
        "FROM scratch AS build\nCOPY a /x\nFROM scratch\nCOPY --from=BUILD /x /\n",
        "FROM scratch AS a\nCOPY --from=1 /x /\nFROM scratch AS b\nCOPY a /x\n",
        "FROM scratch AS b\nCOPY a /x\nFROM scratch AS b\nCOPY a /y\nFROM scratch\nCOPY --from=b /y /\n",
        "FROM scratch AS s\nCOPY a /x\nFROM scratch AS a\nONBUILD COPY --from=s /x /y\nFROM a\n",
        "FROM scratch AS a\nONBUILD COPY --from=s /x /y\nFROM scratch AS s\nCOPY a /x\nFROM a\n",
        "FROM ${A:-scratch}\n",
    ] {
        meant(text, &[]);
    }
    for (text, expected) in [
        ("FROM scratch AS base\nFROM Base\n", "did you mean `base`?"),
        ("ARG A\nFROM $A\n", "base name `$A` is empty; a variable in it is not set before the first FROM"),
        ("FROM $A AS x\nFROM scratch\n", "base name `$A` is empty"),
        ("FROM --platform=$A scratch\n", "`--platform` is empty after expansion"),
        ("FROM --platform=linux/foo/bar/baz scratch\n", "`linux/foo/bar/baz` is no platform"),
        ("FROM --platform=foo scratch AS x\nFROM scratch\n", "`foo` is no platform"),
        (
            "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY a /x\nFROM a\n",
            "stage `b` comes after stage `a`",
        ),
        ("FROM scratch AS a\nCOPY --from=1 /x /\nFROM scratch AS b\nFROM a\n", "stage `1` comes after stage `a`"),
        ("FROM scratch AS a\nCOPY --from=7 /x /\n", "there is no stage 7; there are 1, numbered from 0"),
        ("FROM scratch AS a\nCOPY --from=7 /x /\nFROM scratch\n", "there is no stage 7"),
        ("FROM scratch AS a\nCOPY --from=a /x /\n", "stage `a` needs itself"),
        ("FROM scratch AS a\nCOPY --from=0 /x /\n", "stage `a` needs itself"),
        (
            "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nFROM a AS c\nCOPY --from=b /x /\n",
            "stage `b` comes after",
        ),
        ("FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\n", "stage `a` needs itself"),
        (
            "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\nFROM scratch\n",
            "needs itself",
        ),
        ("FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\nFROM scratch\n", "needs itself"),
        ("FROM scratch AS build\nARG a=build\nFROM scratch\nCOPY --from=$a /x /\n", "variables are not expanded there"),
        ("FROM scratch\nVOLUME $nope\n", "a volume's path is empty"),
        ("FROM scratch\nSTOPSIGNAL $nope\n", "`` is no signal"),
        ("FROM scratch\nENV a=\"${b:?is needed}\"\n", "`b` has no value: is needed"),
        ("FROM scratch\nARG a=\"x\n", "a quote is never closed"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n{error}");
        assert_eq!(error.matches("error[").count(), 1, "{text}\n{error}");
    }
    let error = asked("FROM scratch AS build\n", &Asked { target: Some("buidl"), ..PLAIN }).unwrap_err();
    assert!(error.contains("target stage `buidl` does not exist; did you mean `build`?"), "{error}");
    let text = "FROM scratch AS aa\nARG TARGETSTAGE\nLABEL x=$TARGETSTAGE\nFROM scratch AS Last\n";
    assert_eq!(labels(&asked(text, &Asked { target: Some("AA"), ..PLAIN }).unwrap()), "x=AA");
}

#[test]
fn a_base_keeps_its_path_and_gives_its_triggers_once() {
    let base = r#"{"config":{"Env":["PATH=/own"],"OnBuild":["ENV A=1","LABEL a=$A","ARG C=$A"]}}"#;
    let lowered = asked("FROM x AS one\nLABEL c=$C\nFROM one\nLABEL b=2", &Asked { base, ..PLAIN }).unwrap();
    assert_eq!(lowered.image.config.env, ["PATH=/own", "A=1"]);
    assert_eq!(labels(&lowered), "a=1 b=2 c=1");
    assert!(lowered.image.config.on_build.is_empty());
    assert_eq!(history(&lowered), ["ENV A=1", "LABEL a=1", "ARG C=1", "LABEL c=1", "LABEL b=2"]);
}
