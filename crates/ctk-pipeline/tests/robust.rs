//! Whatever a file holds, it is read to its end; and steps wait for exactly those that they should.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ctk_pipeline::{Inputs, plan, read, text};
use ctk_syntax::Sources;
use proptest::prelude::*;

const ODD: &[u8] = b"\n\t :-[]{}'\"#&*!|>%@`$\\\xff\0aA_0";

fn look(bytes: &[u8], inputs: &Inputs) -> Option<ctk_pipeline::Plan> {
    let mut sources = Sources::new();
    let id = sources.add_bytes("cloudbuild.yaml", bytes);
    let (build, diagnostics) = read(&sources, id, inputs);
    // Every place is one of the text.
    diagnostics.render(&sources, false);
    build.map(|build| {
        let (plan, diagnostics) = plan(&build);
        diagnostics.render(&sources, false);
        text(&plan);
        plan
    })
}

#[test]
fn damaged_files_are_read_to_their_end() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let trigger = Inputs { trigger: true, ..Inputs::default() };
    let mut seed = 1u64;
    let mut roll = |sides: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) as usize) % sides.max(1)
    };
    let (mut count, mut read) = (0, 0);
    for area in fs::read_dir(&root).unwrap() {
        for file in fs::read_dir(area.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|end| end == "txt") {
                continue;
            }
            let whole = fs::read(&path).unwrap();
            // Long ones are long in one way only.
            for _ in 0..if whole.len() < 2000 { 40 } else { 2 } {
                let mut bytes = whole.clone();
                for _ in 0..=roll(3) {
                    let (at, from) = (roll(bytes.len()), roll(bytes.len()));
                    match roll(4) {
                        0 => bytes.truncate(at),
                        1 if !bytes.is_empty() => bytes[at] = ODD[roll(ODD.len())],
                        2 if !bytes.is_empty() => drop(bytes.remove(at)),
                        _ => {
                            let piece: Vec<u8> = bytes[from.min(at)..at.max(from)].iter().take(20).copied().collect();
                            bytes.splice(at..at, piece);
                        }
                    }
                }
                count += 1;
                read += usize::from(look(&bytes, &Inputs::default()).is_some());
                look(&bytes, &trigger);
            }
        }
    }
    assert!(count > 4000 && read > 100, "{read} of {count} files were builds");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each step: none (nothing said), `-`, or some of those before it.
    #[test]
    fn steps_wait_for_those_that_they_should(
        wishes in prop::collection::vec(prop::option::of(prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..40)
    ) {
        let mut file = String::from("steps:\n");
        let mut needs: Vec<BTreeSet<usize>> = Vec::new();
        for (number, wish) in wishes.iter().enumerate() {
            let chosen: Option<Vec<usize>> = wish.as_ref().map(|list| {
                list.iter().filter(|_| number > 0).map(|index| index.index(number)).collect()
            });
            let waits = match &chosen {
                None => String::new(),
                Some(list) if list.is_empty() => ", waitFor: ['-']".into(),
                Some(list) => {
                    let ids: Vec<String> = list.iter().map(|step| format!("s{step}")).collect();
                    format!(", waitFor: [{}]", ids.join(", "))
                }
            };
            file += &format!("- {{name: busybox, id: s{number}{waits}}}\n");
            let direct: Vec<usize> = chosen.unwrap_or_else(|| (0..number).collect());
            let mut all: BTreeSet<usize> = direct.iter().copied().collect();
            for step in direct {
                all.extend(&needs[step]);
            }
            needs.push(all);
        }
        let plan = look(file.as_bytes(), &Inputs::default()).expect("the file is right");
        let mut found: Vec<BTreeSet<usize>> = Vec::new();
        for step in &plan.steps {
            let mut all: BTreeSet<usize> = step.waits_for.iter().copied().collect();
            for before in &step.waits_for {
                prop_assert!(*before < step.number);
                all.extend(&found[*before]);
            }
            found.push(all);
        }
        prop_assert_eq!(found, needs);
    }

    /// Nothing but `$KEY` and `$$` is touched where there are no expansions.
    #[test]
    fn texts_without_keys_stay(text in "[a-z ${}():\\-/#%]{0,40}") {
        let text = text.replace("$$", "$a");
        let rules = ctk_pipeline::bash::Rules::default();
        let made = ctk_pipeline::bash::substitute(&text, rules, &mut |_| unreachable!("there are no keys"));
        prop_assert_eq!(made, Ok(text));
    }
}
