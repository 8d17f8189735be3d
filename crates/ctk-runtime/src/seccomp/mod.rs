//! System call filters: rules by name, compiled to classic BPF (`seccomp(2)`).
//!
//! Per architecture the numbers are sorted and joined into ranges of equal action, and the program finds the range by
//! halving: about nine comparisons for four hundred calls, so the filter costs nanoseconds per call.

mod document;
mod profile;
pub mod program;

use std::collections::BTreeMap;
use std::sync::Arc;

use ctk_sys::Filter;

use self::program::{JUMP, LOAD, append, jump, search, statement};
use crate::Capabilities;

pub use document::default_profile_document;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Errno(i32),
}

/// A test of the low 32 bits of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Equal { argument: u32, value: u32 },
    AnyBit { argument: u32, bits: u32 },
}

/// What a call gets: the action of the first case whose conditions all hold, else the last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Always(Action),
    When(Vec<(Vec<Condition>, Action)>, Action),
}

/// How an architecture names and numbers its calls.
struct Architecture {
    audit: u32,
    number: fn(&str) -> Option<u32>,
    /// Numbers from here on belong to another calling convention that is refused.
    end: Option<u32>,
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        audit: 0xc000_003e,
        number: |name| Some(name.parse::<syscalls::x86_64::Sysno>().ok()?.id() as u32),
        end: Some(0x4000_0000),
    },
    Architecture {
        audit: 0x4000_0003,
        number: |name| Some(name.parse::<syscalls::x86::Sysno>().ok()?.id() as u32),
        end: None,
    },
];

#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Architecture; 1] = [Architecture {
    audit: 0xc000_00b7,
    number: |name| Some(name.parse::<syscalls::aarch64::Sysno>().ok()?.id() as u32),
    end: None,
}];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: [Architecture; 0] = [];

const JUMP_EQUAL: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const UNKNOWN: Action = Action::Errno(libc::ENOSYS);

/// The default profile for a process with these capabilities, as a program for the kernel. Gives the same program for
/// the same set.
pub fn default_profile(capabilities: Capabilities) -> Arc<[Filter]> {
    let rules = profile::rules(capabilities);
    compile(&rules, &ARCHITECTURES).into()
}

fn compile(rules: &[(&'static str, Rule)], architectures: &[Architecture]) -> Vec<Filter> {
    let mut program = vec![statement(LOAD, OFFSET_ARCHITECTURE)];
    for architecture in architectures {
        let body = calls(rules, architecture);
        // Not this architecture: over the long jump's landing place to the next one.
        program.push(jump(JUMP_EQUAL, architecture.audit, 1, 0));
        program.push(statement(JUMP, body.len() as u32));
        program.extend(body);
    }
    program.push(action(UNKNOWN));
    program
}

fn calls(rules: &[(&'static str, Rule)], architecture: &Architecture) -> Vec<Filter> {
    let unknown = Rule::Always(UNKNOWN);
    let mut numbers = BTreeMap::new();
    for (name, rule) in rules {
        if let Some(number) = (architecture.number)(name) {
            numbers.insert(number, rule);
        }
    }
    // (first number, rule), each valid until the next one's first number.
    let mut ranges: Vec<(u32, &Rule)> = vec![(0, &unknown)];
    let mut next = 0;
    for (number, rule) in numbers {
        if number > next {
            append(&mut ranges, next, &unknown);
        }
        append(&mut ranges, number, rule);
        next = number + 1;
    }
    append(&mut ranges, next, &unknown);
    if let Some(end) = architecture.end {
        append(&mut ranges, end, &unknown);
    }
    let mut body = vec![statement(LOAD, OFFSET_NUMBER)];
    search(&ranges, &|rule: &&Rule, out| carry_out(rule, out), &mut body);
    body
}

fn carry_out(rule: &Rule, out: &mut Vec<Filter>) {
    let (cases, otherwise) = match rule {
        Rule::Always(always) => return out.push(action(*always)),
        Rule::When(cases, otherwise) => (cases, otherwise),
    };
    for (conditions, then) in cases {
        // Each condition is two instructions; a false one leaves behind the return.
        for (index, condition) in conditions.iter().enumerate() {
            let rest = ((conditions.len() - index - 1) * 2 + 1) as u8;
            let (argument, code, operand) = match condition {
                Condition::Equal { argument, value } => (argument, JUMP_EQUAL, value),
                Condition::AnyBit { argument, bits } => (argument, JUMP_SET, bits),
            };
            let low_word = if cfg!(target_endian = "big") { 4 } else { 0 };
            out.push(statement(LOAD, OFFSET_ARGUMENTS + 8 * argument + low_word));
            out.push(jump(code, *operand, 0, rest));
        }
        out.push(action(*then));
    }
    out.push(action(*otherwise));
}

fn action(action: Action) -> Filter {
    match action {
        Action::Allow => statement(RETURN, RETURN_ALLOW),
        Action::Errno(errno) => statement(RETURN, RETURN_ERRNO | errno as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::program::GREATER_EQUAL;
    use super::*;

    /// What the kernel would do with a call.
    fn run(program: &[Filter], audit: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let yes = match i.code {
                LOAD => {
                    loaded = match i.k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => audit,
                        offset => arguments[((offset - OFFSET_ARGUMENTS) / 8) as usize],
                    };
                    continue;
                }
                RETURN => return i.k,
                JUMP => {
                    at += i.k as usize;
                    continue;
                }
                JUMP_EQUAL => loaded == i.k,
                GREATER_EQUAL => loaded >= i.k,
                JUMP_SET => loaded & i.k != 0,
                other => panic!("code {other:#x}"),
            };
            at += usize::from(if yes { i.jump_true } else { i.jump_false });
        }
    }

    fn first(cases: &Rule, arguments: [u32; 6]) -> Action {
        let Rule::When(cases, otherwise) = cases else {
            let Rule::Always(action) = cases else { unreachable!() };
            return *action;
        };
        let holds = |c: &Condition| match c {
            Condition::Equal { argument, value } => arguments[*argument as usize] == *value,
            Condition::AnyBit { argument, bits } => arguments[*argument as usize] & bits != 0,
        };
        cases.iter().find(|(all, _)| all.iter().all(holds)).map_or(*otherwise, |(_, action)| *action)
    }

    #[test]
    fn the_program_does_what_the_rules_say() {
        for capabilities in [Capabilities::usual(), Capabilities::ALL, Capabilities::NONE] {
            let rules = profile::rules(capabilities);
            let program = default_profile(capabilities);
            assert!(program.len() < 1500, "{} instructions", program.len());
            for architecture in &ARCHITECTURES {
                for arguments in [[0; 6], [16, 3, 9, 0, 0, 0], [0x1000_0000, 0, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0]] {
                    for number in (0..600).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX]) {
                        let rule = rules.iter().rfind(|(name, _)| (architecture.number)(name) == Some(number));
                        let expected = rule.map_or(UNKNOWN, |(_, rule)| first(rule, arguments));
                        let got = run(&program, architecture.audit, number, arguments);
                        assert_eq!(got, action(expected).k, "call {number} on {:#x}", architecture.audit);
                    }
                }
            }
            assert_eq!(run(&program, 1, 0, [0; 6]), action(UNKNOWN).k);
        }
    }

    #[test]
    fn no_call_has_two_rules() {
        let rules = profile::rules(Capabilities::usual());
        let mut names: Vec<_> = rules.iter().map(|(name, _)| name).collect();
        names.sort();
        names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
    }
}
