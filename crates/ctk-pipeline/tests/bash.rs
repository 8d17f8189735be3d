//! Expansions are what `bash` makes of them: some thousand texts, put together from all operators, are given to both.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ctk_pipeline::bash::{Found, Rules, substitute};

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    fn text(&mut self, pieces: &[&str], longest: usize) -> String {
        (0..self.roll(longest + 1)).map(|_| self.one(pieces)).collect()
    }
}

const VALUE: &[&str] =
    &["a", "b", "aa", "ab", "A", "B", ".", "/", "-", "1", "v1.2.3", "feature/x", "é", "ß", "*", "?", "["];
const LITERAL: &[&str] = &["a", "b", ".", "-", "1", " ", "x", "é"];
const PATTERN: &[&str] = &["a", "b", "*", "?", "[ab]", "[!a]", "[a-z]", ".", "-", "\\*", "\\.", "[[:digit:]]", "1"];

fn key(dice: &mut Dice) -> &'static str {
    ["_A", "_B", "_E", "_N"][dice.roll(4)]
}

fn text(dice: &mut Dice, levels: usize) -> String {
    let mut out = String::new();
    for _ in 0..=dice.roll(3) {
        match dice.roll(3) {
            0 => out += &dice.text(LITERAL, 3),
            1 if levels > 0 => out += &expansion(dice, levels - 1),
            _ => out += &format!("${{{}}}", key(dice)),
        }
    }
    out
}

fn expansion(dice: &mut Dice, levels: usize) -> String {
    let key = key(dice);
    let colon = dice.one(&["", ":"]);
    match dice.roll(9) {
        0 => format!("${{{key}{colon}-{}}}", text(dice, levels)),
        1 => format!("${{{key}{colon}+{}}}", text(dice, levels)),
        2 => format!("${{{key}{colon}={}}}${{{key}}}", text(dice, levels)),
        3 => format!("${{{key}{colon}?{}}}", dice.text(LITERAL, 2)),
        4 => {
            let operator = dice.one(&["#", "##", "%", "%%"]);
            format!("${{{key}{operator}{}}}", pattern(dice, levels))
        }
        5 => {
            let how = dice.one(&["/", "//", "/#", "/%"]);
            format!("${{{key}{how}{}/{}}}", pattern(dice, levels), dice.text(LITERAL, 2))
        }
        6 => {
            let from = dice.one(&["0", "1", "2", " -1", " -3", "9", "(-2)"]);
            let length = dice.one(&["", ":0", ":1", ":3", ":-1", ": -2"]);
            format!("${{{key}:{from}{length}}}")
        }
        7 => {
            let operator = dice.one(&["^", "^^", ",", ",,"]);
            format!("${{{key}{operator}{}}}", dice.one(&["", "a", "[ab]", "?", "[A-Z]"]))
        }
        _ => format!("${{#{key}}}"),
    }
}

fn pattern(dice: &mut Dice, levels: usize) -> String {
    let mut out = dice.text(PATTERN, 3);
    if levels > 0 && dice.roll(4) == 0 {
        out += &format!("${{{}}}", key(dice));
    }
    out
}

/// What bash prints for each text, with `_A` and `_B` set, `_E` empty and `_N` unset; none where it fails.
fn bash(cases: &[(String, String, String)]) -> Option<Vec<Option<String>>> {
    let mut script = String::from("shopt -u patsub_replacement 2>/dev/null\n");
    for (a, b, text) in cases {
        let quoted = |value: &str| format!("'{}'", value.replace('\'', "'\\''"));
        script += &format!(
            "(_A={}; _B={}; _E=; unset _N; printf '%s' \"{text}\" && printf '\\036ok\\036') 2>/dev/null || printf '\\036no\\036'\n",
            quoted(a),
            quoted(b)
        );
    }
    let mut child =
        Command::new("bash").env("LC_ALL", "C.UTF-8").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut input = child.stdin.take()?;
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().ok()?;
    writer.join().ok()?.ok()?;
    let all = String::from_utf8(output.stdout).ok()?;
    let mut parts = all.split('\u{1e}');
    let mut found = Vec::new();
    while let (Some(text), Some(end)) = (parts.next(), parts.next()) {
        found.push((end == "ok").then(|| text.to_owned()));
    }
    Some(found)
}

#[test]
fn expansions_are_those_of_bash() {
    let mut dice = Dice(7);
    let cases: Vec<(String, String, String)> =
        (0..6000).map(|_| (dice.text(VALUE, 4), dice.text(VALUE, 3), text(&mut dice, 2))).collect();
    let Some(judged) = bash(&cases) else {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "this test needs bash");
        eprintln!("skipped: no bash");
        return;
    };
    assert_eq!(judged.len(), cases.len());
    assert!(judged.iter().filter(|one| one.is_some()).count() > 4000, "most of the texts should mean something");
    let mut wrong = Vec::new();
    for ((a, b, text), bash) in cases.iter().zip(judged) {
        let mut lookup = |key: &str| match key {
            "_A" => Found::Value(a.clone()),
            "_B" => Found::Value(b.clone()),
            "_E" => Found::Value(String::new()),
            _ => Found::Unset,
        };
        // As a shell without `set -u`.
        let rules = Rules { dynamic: true, loose: true, payload: None };
        let ours = substitute(text, rules, &mut lookup).ok();
        if ours != bash {
            wrong.push(format!("{text}  with _A={a:?} _B={b:?}: bash {bash:?}, here {ours:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(25)].join("\n")
    );
}
