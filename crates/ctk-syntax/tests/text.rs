//! Texts in, trees or complaints out.

use ctk_syntax::{Diagnostics, Reader, Sources, Span, format_kdl, parse_kdl};

#[track_caller]
fn fails(text: &str, expected: &str) {
    let mut sources = Sources::new();
    let id = sources.add("containers.kdl", text);
    let shown = parse_kdl(&sources, id).expect_err("must fail").render(&sources, false);
    assert_eq!(shown.trim_end(), expected.trim_matches('\n').trim_end(), "\n{shown}");
}

#[track_caller]
fn slices(text: &str, expected: &[&str]) {
    let mut sources = Sources::new();
    let id = sources.add("containers.kdl", text);
    let nodes = parse_kdl(&sources, id).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
    let mut seen = Vec::new();
    fn walk(sources: &Sources, nodes: &[ctk_syntax::Node], seen: &mut Vec<String>) {
        for node in nodes {
            let mut add = |span: Span| seen.push(sources.slice(span).to_string());
            add(node.name.span);
            node.args.iter().for_each(|v| add(v.span));
            node.props.iter().for_each(|p| {
                add(p.name.span);
                add(p.value.span);
            });
            node.block.into_iter().for_each(&mut add);
            add(node.span);
            walk(sources, &node.children, seen);
        }
    }
    walk(&sources, &nodes, &mut seen);
    assert_eq!(seen, expected);
}

#[test]
fn spans_cover_what_was_written() {
    slices("a \"b\" c=1\n", &["a", "\"b\"", "c", "1", "a \"b\" c=1"]);
    slices("ü \"ß\"   ö = \"ä\"   // x\n", &["ü", "\"ß\"", "ö", "\"ä\"", "ü \"ß\"   ö = \"ä\""]);
    slices("a { b 1; c }\r\n", &["a", "{ b 1; c }", "a { b 1; c }", "b", "1", "b 1", "c", "c"]);
    slices(
        "a {\r\n\tb #\"r\"#\r\n}",
        &["a", "{\r\n\tb #\"r\"#\r\n}", "a {\r\n\tb #\"r\"#\r\n}", "b", "#\"r\"#", "b #\"r\"#"],
    );
    slices("a \"x{y\" {}", &["a", "\"x{y\"", "{}", "a \"x{y\" {}"]);
    slices(
        "/* x */ a 日本 \\\n  b=\"語\" /-c d /-{ e }\n",
        &["a", "日本", "d", "b", "\"語\"", "a 日本 \\\n  b=\"語\" /-c d"],
    );
}

#[test]
fn brackets_and_strings_left_open() {
    fails(
        "image \"api\" {\n    stage \"x\" {\n}\n",
        r#"
error[syntax::kdl]: this `{` is never closed
  ┌─ containers.kdl:1:13
1 │ image "api" {
  │             ━ opened here
"#,
    );
    fails(
        "image \"äpi\" }\n",
        r#"
error[syntax::kdl]: this `}` closes nothing
  ┌─ containers.kdl:1:13
1 │ image "äpi" }
  │             ━ no `{` before it
"#,
    );
    fails(
        "image \"日本\" \"api\n",
        r#"
error[syntax::kdl]: this string is never closed
  ┌─ containers.kdl:1:12
1 │ image "日本" "api
  │              ━━━━ opened here
  hint: a text over several lines stands between `"""` and `"""`
"#,
    );
}

#[test]
fn kdl_1_is_named() {
    fails(
        "recommends false\nrun r\"a\"\n",
        r##"
error[syntax::kdl1]: `false` is KDL 1; this file is KDL 2
  ┌─ containers.kdl:1:12
1 │ recommends false
  │            ━━━━━ write `#false`
  hint: `ctk fmt` rewrites a whole file to KDL 2

error[syntax::kdl1]: `r"a"` is KDL 1; this file is KDL 2
  ┌─ containers.kdl:2:5
2 │ run r"a"
  │     ━━━━ write `#"a"#`
  hint: `ctk fmt` rewrites a whole file to KDL 2
"##,
    );
}

#[test]
fn depth_and_size_end() {
    let deep = format!("{}{}", "a {\n".repeat(40), "}\n".repeat(40));
    let mut sources = Sources::new();
    let id = sources.add("x", deep);
    assert!(parse_kdl(&sources, id).unwrap_err().to_string().contains("more than 32 levels"));
    let id = sources.add("x", "a {\n".repeat(32) + &"}\n".repeat(32));
    assert!(parse_kdl(&sources, id).is_ok());
    let id = sources.add("x", "/*".repeat(100_000));
    assert!(parse_kdl(&sources, id).is_err());
    let id = sources.add("x", format!("a \"\n{}", "{".repeat(100_000)));
    assert!(parse_kdl(&sources, id).is_err());
    let id = sources.add("x", "// x\n".repeat(300_000));
    assert!(parse_kdl(&sources, id).unwrap_err().to_string().contains("1048576"));
}

#[test]
fn every_mistake_of_a_file() {
    let mut sources = Sources::new();
    let id = sources.add("containers.kdl", "a 1.x\nb =\nc \"ok\"\nd 0xZZ\n");
    let found = parse_kdl(&sources, id).unwrap_err();
    let shown = found.render(&sources, false);
    for line in ["containers.kdl:1:", "containers.kdl:2:", "containers.kdl:4:"] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[track_caller]
fn reads(text: &str, expected: &str) {
    let mut sources = Sources::new();
    let id = sources.add("containers.kdl", text);
    let nodes = parse_kdl(&sources, id).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
    let mut diagnostics = Diagnostics::new();
    for node in &nodes {
        let mut r = Reader::new(node, &mut diagnostics);
        r.arg_str("a name");
        r.opt_prop_int("port", 1..=65535);
        r.opt_prop_duration("every");
        r.opt_prop_size("max");
        r.opt_prop_bool("scripts");
        r.opt_prop_one_of("sharing", &[("shared", 1), ("locked", 2), ("private", 3)]);
        if let Some(child) = r.opt_child("timeout") {
            let mut c = r.child(child);
            c.arg_duration("a duration");
            c.finish();
        }
        r.every("cache");
        r.finish();
    }
    diagnostics.sort();
    let shown = diagnostics.render(&sources, false);
    assert_eq!(shown.trim_end(), expected.trim_matches('\n').trim_end(), "\n{shown}");
}

#[test]
fn the_cursor_complains_well() {
    reads("x \"a\" port=80 every=\"5m\" max=\"80MiB\" sharing=\"locked\" { timeout \"5m\"; cache; cache }", "");
    reads(
        "é \"日本語\" prot=80 every=\"5x\" sharing=\"lock\"\tmax=#true port=0",
        r#"
error[project::unknown-property]: no property `prot` on `é`
  ┌─ containers.kdl:1:9
1 │ é "日本語" prot=80 every="5x" sharing="lock"    max=#true port=0
  │            ━━━━ did you mean `port`?

error[project::bad-value]: `5x` is no duration
  ┌─ containers.kdl:1:23
1 │ é "日本語" prot=80 every="5x" sharing="lock"    max=#true port=0
  │                          ━━━━ expected e.g. `250ms`, `10s`, `5m`, `1h30m`

error[project::bad-value]: `sharing` of `é` cannot be `lock`
  ┌─ containers.kdl:1:36
1 │ é "日本語" prot=80 every="5x" sharing="lock"    max=#true port=0
  │                                       ━━━━━━ did you mean `locked`?

error[project::wrong-type]: `max` of `é` must be text
  ┌─ containers.kdl:1:47
1 │ é "日本語" prot=80 every="5x" sharing="lock"    max=#true port=0
  │                                                     ━━━━━ this is a truth value
  hint: put it between quotes

error[project::out-of-range]: `port` of `é` is out of range
  ┌─ containers.kdl:1:58
1 │ é "日本語" prot=80 every="5x" sharing="lock"    max=#true port=0
  │                                                                ━ must be from 1 to 65535
"#,
    );
    reads(
        "x {\r\n    timeot \"5m\"\r\n    timeout \"1s\" 2 { y }\r\n    timeout \"2s\"\r\n}",
        r#"
error[project::missing-argument]: `x` needs a name
  ┌─ containers.kdl:1:1
1 │ x {
  │ ━ a name is missing after this

error[project::unknown-node]: no node `timeot` inside `x`
  ┌─ containers.kdl:2:5
2 │     timeot "5m"
  │     ━━━━━━ did you mean `timeout`?

error[project::unexpected-argument]: `timeout` takes one argument
  ┌─ containers.kdl:3:18
3 │     timeout "1s" 2 { y }
  │                  ━ one too many

error[project::unexpected-block]: `timeout` takes no block
  ┌─ containers.kdl:3:20
3 │     timeout "1s" 2 { y }
  │                    ━━━━━ take this away

error[project::duplicate-node]: `timeout` is given twice inside `x`
  ┌─ containers.kdl:4:5
3 │     timeout "1s" 2 { y }
  │     ─────── first here
4 │     timeout "2s"
  │     ━━━━━━━ again here
"#,
    );
    reads(
        "x \"a\" port=1 port=2",
        r#"
error[project::duplicate-property]: property `port` is given twice on `x`
  ┌─ containers.kdl:1:14
1 │ x "a" port=1 port=2
  │       ──── first here
  │              ━━━━ again here
"#,
    );
}

#[test]
fn places_at_the_end_and_in_several_files() {
    use ctk_syntax::Diagnostic;
    let mut sources = Sources::new();
    let one = sources.add("one.kdl", "a\n");
    let two = sources.add("two.kdl", "b\u{202e}\u{1b}[31m\n\nc");
    let shown = Diagnostic::error("x::y", "message\nwith \u{1b}[0m control")
        .at(Span::new(one, 2, 2), "end")
        .at(Span::new(two, 11, 12), "there")
        .at(Span::new(two, 0, 1), "")
        .at(Span::new(two, 99, 100), "past the end")
        .render(&sources, false);
    let expected = "error[x::y]: message with  [0m control\n  ┌─ one.kdl:2:1\n2 │\n  │ ━ end\n  ├─ two.kdl:3:1\n1 │ b\u{fffd}\u{fffd}[31m\n  │ ─\n  ·\n3 │ c\n  │ ─ there\n  │  ─ past the end\n";
    assert_eq!(shown, expected, "\n{shown}");
    let long = sources.add("long.kdl", format!("{}HERE{}", "x".repeat(500), "y".repeat(500)));
    let shown = Diagnostic::error("x::y", "m").at(Span::new(long, 500, 504), "").render(&sources, true);
    assert!(shown.contains("HEREyyy") && shown.contains("\x1b[1;31m━━━━\x1b[0m") && shown.len() < 500, "{shown}");
}

#[test]
fn canonical_ignores_layout() {
    let canonical = |text: &str| {
        let mut sources = Sources::new();
        let id = sources.add("x", text);
        parse_kdl(&sources, id).unwrap().iter().map(|n| n.canonical()).collect::<Vec<_>>()
    };
    assert_eq!(canonical("a \"b\" z=1 y=#\"q\"q\"# {\n  c // x\n  d\n}"), ["a \"b\" y=\"q\\\"q\" z=1{c;d}"]);
    assert_eq!(
        canonical("a b y=\"q\\\"q\"  z=1 { c; /- e\n d; }"),
        canonical("a \"b\" z=1 y=#\"q\"q\"# {\n  c\n  d\n}")
    );
    assert_ne!(canonical("a 1"), canonical("a \"1\""));
    assert_ne!(canonical("a { b }"), canonical("a; b"));
}

fn formatted(text: &str) -> String {
    let mut sources = Sources::new();
    let id = sources.add("x", text);
    format_kdl(&mut sources, id).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)))
}

#[track_caller]
fn formats(text: &str, expected: &str) {
    assert_eq!(formatted(text), expected);
    assert_eq!(formatted(expected), expected, "twice");
}

#[test]
fn layout() {
    formats(
        "\u{feff}\r\n\r\n// top\r\nimage   \"a\"{\r\n\r\n  stage \"x\"   from = \"y\"{   // why\r\n\trun \"z\";\r\n\r\n\r\n\tenv A=1   // kept apart\r\n}\r\n\r\n}\r\nwait \"5m\";prune #true;\r\n",
        "// top\nimage \"a\" {\n    stage \"x\" from=\"y\" {   // why\n        run \"z\"\n\n        env A=1   // kept apart\n    }\n}\nwait \"5m\"; prune #true\n",
    );
    formats(
        "a {\nrun \"\"\"\n  x\n    y\n  \"\"\" b\n/* long\n comment */\nc \\\n  d \\\n // note\n e\n/- f {\n g\n}\n}",
        "a {\n    run \"\"\"\n  x\n    y\n  \"\"\" b\n    /* long\n comment */\n    c \\\n        d \\\n        // note\n    e\n    /- f {\n        g\n    }\n}\n",
    );
    formats("a { }\nb {c;d;}\n", "a {}\nb { c; d }\n");
    formats("recommends false\nrun r\"\\d\" r#\"a\"b\"#\n", "recommends #false\nrun #\"\\d\"# #\"a\"b\"#\n");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn format_twice_is_format_once(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "b ", " \"s{\"", " x=1", " y = \"ß\"", " {", "}", "\n", "\n\n", "\r\n", ";", " // c\n", " /* d */ ", "\t",
            " \\\n", " #true", " true", " #\"r\"#", "\"\"\"\n  t\n  \"\"\"", " /-", " 日本",
        ]), 0..24))
    {
        let text = parts.concat();
        let mut sources = Sources::new();
        let id = sources.add("x", text.clone());
        if let Ok(once) = format_kdl(&mut sources, id) {
            proptest::prop_assert_eq!(formatted(&once), once);
        }
        let id = sources.add("x", text);
        if let Err(found) = parse_kdl(&sources, id) {
            found.render(&sources, false);
        }
    }
}
