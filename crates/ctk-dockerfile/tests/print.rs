//! Reading what was printed gives what was read before; reading anything ends.

use ctk_buildgraph::{Instruction, Recipe};
use ctk_dockerfile::{KEYWORDS, parse, print};
use ctk_syntax::Sources;
use proptest::prelude::*;

/// What a recipe means, without places.
fn meaning(recipe: &Recipe) -> Vec<(String, Vec<Instruction>)> {
    let unplaced = |instruction: &Instruction| match instruction.clone() {
        Instruction::Arg(mut args) => {
            args.iter_mut().for_each(|arg| arg.origin = None);
            Instruction::Arg(args)
        }
        Instruction::Run(mut run) => {
            // A document's word may be written otherwise.
            run.heredocs.iter_mut().for_each(|document| document.word.clear());
            Instruction::Run(run)
        }
        other => other,
    };
    let mut globals = recipe.globals.clone();
    globals.iter_mut().for_each(|arg| arg.origin = None);
    let mut all = vec![(String::new(), vec![Instruction::Arg(globals)])];
    for stage in &recipe.stages {
        let head = format!("{:?} {:?} {:?} {:?}", stage.name, stage.description, stage.from, stage.platform);
        all.push((head, stage.statements.iter().map(|s| unplaced(&s.instruction)).collect()));
    }
    all
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let mut sources = Sources::new();
    let id = sources.add("Dockerfile", text);
    let (file, diagnostics) = parse(&sources, id);
    let _ = diagnostics.render(&sources, false);
    if diagnostics.has_errors() {
        return Ok(());
    }
    let Some(printed) = print(&file.recipe) else { return Ok(()) };
    let id = sources.add("printed", printed.clone());
    let (again, diagnostics) = parse(&sources, id);
    prop_assert!(!diagnostics.has_errors(), "{printed}\n{}", diagnostics.render(&sources, false));
    prop_assert_eq!(meaning(&again.recipe), meaning(&file.recipe), "{}", printed);
    prop_assert_eq!(print(&again.recipe), Some(printed));
    Ok(())
}

/// Words that mean something somewhere, between any others.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "a",
        "b/c",
        "$x",
        "${x:-y z}",
        "\"q r\"",
        "'s'",
        "a=b",
        "c=\"d e\"",
        "\\",
        "`",
        "--from=x",
        "--link",
        "--chown=\"1 2\"",
        "--mount=type=cache,target=/x",
        "--interval=3s",
        "--",
        "[\"a\", \"b\"]",
        "[",
        "]",
        "['a']",
        "<<E",
        "<<-\"E\"",
        "AS",
        "80/tcp",
        "CMD",
        "NONE",
        "#",
        "\\ ",
        "\t",
        "é",
        "\u{a0}",
        "{",
        "}",
        "\r",
        ",",
    ];
    prop_oneof![8 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{0,6}"]
}

fn line() -> impl Strategy<Value = String> {
    let words = proptest::collection::vec(word(), 0..6).prop_map(|words| words.join(" "));
    let keyword = proptest::sample::select(KEYWORDS.to_vec());
    let end = proptest::sample::select(vec!["\n", "\r\n", " \\\n  more\n", "\n# a x\n", "\n\n", "\nbody $x\nE\n"]);
    (keyword, words, end).prop_map(|(keyword, words, end)| format!("{keyword} {words}{end}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_printed_reads_the_same(
        head in proptest::sample::select(vec!["", "# escape=`\n", "\u{feff}", "ARG a=1 b\n"]),
        lines in proptest::collection::vec(line(), 0..3),
    ) {
        check(&format!("{head}# b the base\nFROM scratch AS b\n{}", lines.concat()))?;
    }

    #[test]
    fn any_text_is_read(text in "(FROM|RUN|COPY|ONBUILD|[ -~]|\\PC|\n|\t|\\\\|`|<<)*") {
        check(&text)?;
    }
}

#[test]
fn examples_read_the_same() {
    for text in [
        "FROM a\nRUN --mount=type=secret,id=x,env=Y --network=none <<E cat\n\tb\nE\n",
        "FROM --platform=$P a AS b\n# A one\n# B two\nARG A B=\"x y\"\nENV a b  c\nLABEL \"x y\"=z q=\n",
        "FROM a\nCOPY --from=b --exclude=\"x y\" [\"a b\", \"c\\\\\"]\nCOPY <<\"E\" <<-F /x/\n\t$a\nE\n\tb\nF\n",
        "FROM a\nHEALTHCHECK --interval=1m --retries=3 CMD [\"a\"]\nONBUILD RUN <<E  \na\nE\nSHELL [\"a\"]\nVOLUME /a [b]\n",
        "FROM a\nLABEL \\  a=b  c\n",
        "FROM a\nADD <<E '\nCOPY [\"<<E\", \"a b\", \"/x\"]\nCOPY <<A <<A /x/\n1\nA\n2\nA\n",
        "FROM a\nRUN\nCMD []\nENTRYPOINT\nRUN -- --x\n",
    ] {
        check(text).unwrap();
        let mut sources = Sources::new();
        let id = sources.add("Dockerfile", text);
        assert!(print(&parse(&sources, id).0.recipe).is_some(), "{text}");
    }
}
