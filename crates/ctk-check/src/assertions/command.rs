//! `command "version" "api" "--version" { exit 0; stdout matches="…" }`: a program of the image, in a fresh container
//! over the unchanged image, behaves. The arguments are the whole command line; the image's entrypoint is not used.
//!
//! Inside: `exit` (0 unless said), `stdout` and `stderr` with `equals=`, `contains=`, `matches=`, `stdin "text"`,
//! `env A="b"`, `user`, `workdir`, `timeout`.

use ctk_container::ExitStatus;
use ctk_syntax::Reader;

use super::Assertion;
use crate::error::CheckError;
use crate::limits;
use crate::report::{AssertionOutcome, Mismatch};
use crate::spell;
use crate::text::{TextMatch, shown};
use crate::words;
use crate::world::{Command, World};

#[derive(Debug)]
struct CommandAssertion {
    name: String,
    command: Command,
    exit: i32,
    stdout: TextMatch,
    stderr: TextMatch,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let name = reader.arg_str("a name");
    let args = match name {
        Some(_) => words::values(reader.args_text_some("the program to run")),
        None => Vec::new(),
    };
    let mut exit = 0;
    if let Some(node) = reader.opt_child("exit") {
        let mut child = reader.child(node);
        exit = child.arg_int("an exit code", 0..=255).map_or(0, |code| code.value as i32);
        child.finish();
    }
    let mut texts = [TextMatch::default(), TextMatch::default()];
    for (word, slot) in ["stdout", "stderr"].into_iter().zip(&mut texts) {
        if let Some(node) = reader.opt_child(word) {
            let mut child = reader.child(node);
            *slot = words::text_match(&mut child);
            words::asks_something(&mut child, !slot.is_empty(), "`equals=`, `contains=` or `matches=`");
            child.finish();
        }
    }
    let stdin = words::opt_child_text(reader, "stdin", "the text to write");
    let env = words::env(reader);
    let user = words::opt_child_text(reader, "user", "a user");
    let workdir = words::opt_child_text(reader, "workdir", "a path");
    let timeout = words::opt_child_timeout(reader, "timeout").unwrap_or(limits::COMMAND_TIMEOUT);
    let [stdout, stderr] = texts;
    let command = Command { args, env, user, workdir, stdin, timeout };
    let name = name?.value;
    (!command.args.is_empty())
        .then(|| Box::new(CommandAssertion { name, command, exit, stdout, stderr }) as Box<dyn Assertion>)
}

impl Assertion for CommandAssertion {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        let ended = match world.run(&self.command)? {
            Ok(ended) => ended,
            Err(reason) => {
                let expected = format!("`{}` to run", self.command.args.join(" "));
                return Ok(AssertionOutcome::of(vec![Mismatch::new("start", expected, reason)]));
            }
        };
        let mut mismatches = Vec::new();
        if ended.status != ExitStatus::Code(self.exit) {
            let seen = match ended.status {
                ExitStatus::TimedOut => format!("killed after {}", spell(self.command.timeout)),
                other => other.to_string(),
            };
            mismatches.push(Mismatch::new("end", format!("exit code {}", self.exit), seen));
        }
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        self.stdout.check("stdout", &out, &mut mismatches);
        self.stderr.check("stderr", &err, &mut mismatches);
        // The other stream mostly says why.
        if !mismatches.is_empty() && !err.is_empty() && mismatches.iter().all(|m| m.subject != "stderr") {
            let first = &mut mismatches[0];
            first.seen = format!("{}; stderr: {}", first.seen, shown(&err));
        }
        Ok(AssertionOutcome::of(mismatches))
    }
}
