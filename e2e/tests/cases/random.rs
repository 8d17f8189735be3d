//! What holds of every project: a plan after an apply is empty, and a digest depends on what is written and nothing else.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use ctk_e2e::{World, contains, run};

use super::failures::with_busybox;

/// Numbers that are the same in every run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const FILES: [&str; 6] = ["a", "b", "tree/c", "tree/d", "tree/deep/e", "other/f"];

/// Stages that copy from each other, run, and set what later ones see. Every RUN makes the same of the same.
fn dockerfile(random: &mut Random) -> String {
    let mut text = String::from(
        "FROM scratch AS base\nCOPY --chmod=755 busybox /bin/busybox\nCOPY --chmod=755 busybox /bin/sh\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN echo 0 > /log\n",
    );
    let stages = 1 + random.below(3);
    for stage in 0..stages {
        let from = if stage > 0 && random.below(2) == 0 { format!("s{}", random.below(stage)) } else { "base".into() };
        writeln!(text, "FROM {from} AS s{stage}\nARG SHOWN={}", random.below(3)).unwrap();
        for number in 0..1 + random.below(5) {
            let link = random.of(&["", "", "--link ", "--chmod=640 "]);
            let file = random.of(&FILES);
            let line = match random.below(8) {
                0 => format!("COPY {link}{file} /{stage}/{number}"),
                1 => format!("COPY {link}tree /tree{stage}"),
                2 => format!("COPY {link}{} /all/", random.of(&["tree/*", "[ab]", "other a"])),
                3 => format!("RUN echo {number} >> /log"),
                4 => format!("RUN echo $SHOWN > /shown{number}"),
                5 => "RUN FOUND=$(find / -xdev -type f | sort | wc -l); echo $FOUND > /count".into(),
                6 => format!("WORKDIR /w{number}\nENV KEY={number}"),
                _ if stage > 0 => format!("COPY {link}--from=s{} /log /from{number}/", random.below(stage)),
                _ => format!("LABEL number={number}"),
            };
            text += &(line + "\n");
        }
    }
    text
}

/// A project with an image of a Dockerfile, one on top of it, a test and a push.
fn project(random: &mut Random) -> String {
    format!(
        "image \"app\" dockerfile=\"Dockerfile\" {{ context \".\" {{ ignore \"dist\"; }}; arg \"SHOWN\" \"{}\"; }}\nimage \"top\" {{ stage \"final\" from=\"app\" {{ copy \"tree\" to=\"/top/\"; run \"/bin/cat /log > /top/log\"; }}; }}\ntest \"top\" image=\"top\" {{ file \"/top/log\" type=\"file\"; }}\npush \"top\" image=\"top\" needs=\"test:top\" {{ to \"oci:dist\" {{ tag \"v1\"; }}; }}\n",
        random.below(3)
    )
}

/// Something changes, perhaps to what it was.
fn change(world: &World, random: &mut Random) {
    let file = random.of(&FILES);
    let path = world.project().join(file);
    match random.below(5) {
        0 | 1 => {
            world.write(file, format!("{}\n", random.below(4)));
        }
        2 => fs::set_permissions(&path, fs::Permissions::from_mode([0o644, 0o755][random.below(2)])).unwrap(),
        3 => fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap(),
        _ => {
            let text = world.read("Dockerfile");
            let lines: Vec<&str> = text.lines().collect();
            // One RUN more at the end.
            world.write("Dockerfile", format!("{}\nRUN echo {} > /more\n", lines.join("\n"), random.below(3)));
        }
    }
}

fn digests(world: &World) -> Vec<String> {
    ["case/app", "case/top"].map(|name| world.ctk(&["images", "--quiet", name]).ok()).into()
}

#[test]
fn a_plan_after_an_apply_is_empty_and_a_digest_is_of_what_is_written() {
    for seed in 1..=6 {
        let mut random = Random(seed);
        let Some(world) = with_busybox("") else { return };
        let text = world.read("containers.kdl") + &project(&mut random);
        world.write("containers.kdl", &text).write("Dockerfile", dockerfile(&mut random));
        for file in FILES {
            world.write(file, format!("{file}\n"));
        }
        world.ctk(&["apply"]).ok();
        for round in 0..3 {
            let nothing = world.ctk(&["plan", "--detailed-exitcode"]);
            let story = format!("seed {seed}, round {round}:\n{}\n{}", world.read("Dockerfile"), nothing.story());
            assert_eq!(nothing.code(), 0, "{story}");
            contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
            change(&world, &mut random);
            let jobs = format!("--jobs={}", 1 + random.below(4));
            // What the plan foresaw is what is done.
            let foreseen = world.ctk(&["plan", "--detailed-exitcode"]).code();
            let applied = world.ctk(&["apply", &jobs]).ok();
            assert_eq!(foreseen == 0, applied.contains("nothing to do"), "{story}{applied}");
        }
        // Another store, other jobs, no cache.
        let expected = digests(&world);
        let elsewhere = |words: &[&str]| {
            let mut command = world.command(words);
            command.env("CTK_ROOT", world.path("elsewhere"));
            run(command).ok()
        };
        elsewhere(&["apply", "--jobs=1", "--force"]);
        let found: Vec<String> = ["case/app", "case/top"].map(|name| elsewhere(&["images", "--quiet", name])).into();
        assert_eq!(found, expected, "seed {seed}:\n{}", world.read("Dockerfile"));
        world.ctk(&["apply", "--no-cache", "--force", "--jobs=3"]).ok();
        assert_eq!(digests(&world), expected, "seed {seed}:\n{}", world.read("Dockerfile"));
        assert_eq!(world.ctk(&["plan", "--detailed-exitcode"]).code(), 0, "seed {seed}");
    }
}
