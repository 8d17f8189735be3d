//! `linux.seccomp` as a program for the kernel (`seccomp(2)`).
//!
//! Numbers of each architecture are sorted and joined into ranges of equal rules; the program halves its way to a
//! range. Comparisons are of 64 bits, as the specification has them. A call newer than everything that the profile
//! names does not exist for the program (`ENOSYS`) where the default would be an error: C libraries fall back then, and
//! would give up otherwise.

use std::collections::BTreeMap;

use ctk_runtime::program::{GREATER_EQUAL, JUMP, LOAD, append, jump, search, statement};
use ctk_sys::Filter;

use crate::Error;
use crate::spec::{Seccomp, SyscallArgument};

/// Every action.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Every comparison.
pub const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Every flag, with its bit.
pub const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 32),
];

/// Every architecture whose calls are known by name.
pub const ARCHITECTURES: [&str; 4] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// Architectures that the specification names and whose calls are not known here: who asks for them, too, is given the
/// others, and a process of theirs cannot call anything.
#[rustfmt::skip]
const OTHER_ARCHITECTURES: [&str; 18] = [
    "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH",
];

const X32: u32 = 0x4000_0000;
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_X86: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const LIMIT_INSTRUCTIONS: usize = 4096;

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_THREAD: u32 = 0;

const AND: u16 = 0x54;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;

/// What the kernel gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The program.
    pub program: Vec<Filter>,
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: u32,
    /// Whether somebody is asked about some calls.
    pub notifies: bool,
}

/// Conditions that all have to hold, and what the call gets then.
type Case = (Vec<Condition>, u32);

/// What a call gets: the first case whose conditions all hold, else the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    cases: Vec<Case>,
    otherwise: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    argument: u32,
    operator: Operator,
    value: u64,
    mask: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

fn wrong(field: String, reason: impl Into<String>) -> Error {
    Error::Config { field, reason: reason.into() }
}

/// The program of a profile. Names of calls that this architecture does not have are passed over.
pub fn compile(seccomp: &Seccomp) -> Result<Compiled, Error> {
    let place = "linux.seccomp";
    let default = action(&seccomp.default_action, seccomp.default_errno_ret, &format!("{place}.defaultAction"))?;
    let mut flags = 0;
    for (index, flag) in seccomp.flags.iter().enumerate() {
        let known = FLAGS.iter().find(|(name, _)| name == flag);
        let (_, bit) =
            known.ok_or_else(|| wrong(format!("{place}.flags[{index}]"), format!("unknown flag `{flag}`")))?;
        flags |= bit;
    }
    let mut rules = Vec::new();
    let mut notifies = default & 0x7fff_0000 == NOTIFY && default & 0x8000_0000 == 0;
    for (index, entry) in seccomp.syscalls.iter().enumerate() {
        let here = format!("{place}.syscalls[{index}]");
        if entry.names.is_empty() {
            return Err(wrong(format!("{here}.names"), "at least one name is needed"));
        }
        let action = action(&entry.action, entry.errno_ret, &format!("{here}.action"))?;
        notifies |= action == NOTIFY;
        let conditions = entry.args.iter().enumerate().map(|(n, arg)| condition(arg, &format!("{here}.args[{n}]")));
        let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
        rules.push((entry.names.as_slice(), alternatives(conditions), action));
    }
    let says = |text: &Option<String>| !text.as_deref().unwrap_or_default().is_empty();
    if notifies && !says(&seccomp.listener_path) {
        return Err(wrong(format!("{place}.listenerPath"), "needed with SCMP_ACT_NOTIFY"));
    }
    if says(&seccomp.listener_metadata) && !says(&seccomp.listener_path) {
        return Err(wrong(format!("{place}.listenerMetadata"), "is for nobody without a listenerPath"));
    }
    let native: String = match std::env::consts::ARCH {
        "x86_64" => "SCMP_ARCH_X86_64".into(),
        "aarch64" => "SCMP_ARCH_AARCH64".into(),
        other => return Err(wrong(place.into(), format!("not implemented on {other}"))),
    };
    let mut wanted: Vec<String> = seccomp.architectures.to_vec();
    if !wanted.contains(&native) {
        wanted.push(native);
    }
    for (index, name) in seccomp.architectures.iter().enumerate() {
        if !ARCHITECTURES.contains(&name.as_str()) && !OTHER_ARCHITECTURES.contains(&name.as_str()) {
            return Err(wrong(format!("{place}.architectures[{index}]"), format!("unknown architecture `{name}`")));
        }
    }
    let has = |name: &str| wanted.iter().any(|one| one == name);
    let mut program = vec![statement(LOAD, 4)];
    let mut add = |audit: u32, ranges: Vec<(u32, Rule)>| {
        let body = calls(ranges);
        // Not this architecture: over the long jump's landing place to the next one.
        program.push(jump(EQUAL, audit, 1, 0));
        program.push(statement(JUMP, body.len() as u32));
        program.extend(body);
    };
    if has("SCMP_ARCH_X86_64") || has("SCMP_ARCH_X32") {
        let number = |name: &str| Some(name.parse::<syscalls::x86_64::Sysno>().ok()?.id() as u32);
        let refused = Rule { cases: Vec::new(), otherwise: KILL_THREAD };
        let mut all = Vec::new();
        match has("SCMP_ARCH_X86_64") {
            true => all.extend(ranges(&rules, default, 0, &number)),
            false => all.push((0, refused.clone())),
        }
        match has("SCMP_ARCH_X32") {
            true => all.extend(ranges(&rules, default, X32, &number)),
            false => all.push((X32, refused)),
        }
        add(AUDIT_X86_64, all);
    }
    if has("SCMP_ARCH_X86") {
        let number = |name: &str| Some(name.parse::<syscalls::x86::Sysno>().ok()?.id() as u32);
        add(AUDIT_X86, ranges(&rules, default, 0, &number));
    }
    if has("SCMP_ARCH_AARCH64") {
        let number = |name: &str| Some(name.parse::<syscalls::aarch64::Sysno>().ok()?.id() as u32);
        add(AUDIT_AARCH64, ranges(&rules, default, 0, &number));
    }
    // What libseccomp does with calls of other architectures.
    program.push(statement(RETURN, KILL_THREAD));
    if program.len() > LIMIT_INSTRUCTIONS {
        return Err(wrong(place.into(), format!("{} instructions; the kernel takes 4096", program.len())));
    }
    Ok(Compiled { program, flags, notifies })
}

fn action(name: &str, errno: Option<u32>, field: &str) -> Result<u32, Error> {
    let data = errno.unwrap_or(libc::EPERM as u32);
    if data > 0xffff {
        return Err(wrong(field.into(), format!("the value {data} does not fit into 16 bits")));
    }
    let takes_data = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    if errno.is_some() && !takes_data {
        return Err(wrong(field.into(), format!("`{name}` takes no errnoRet")));
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_NOTIFY" => NOTIFY,
        "SCMP_ACT_ALLOW" => ALLOW,
        "" => return Err(wrong(field.into(), "an action is needed")),
        other => return Err(wrong(field.into(), format!("unknown action `{other}`"))),
    })
}

fn condition(argument: &SyscallArgument, field: &str) -> Result<Condition, Error> {
    if argument.index > 5 {
        return Err(wrong(format!("{field}.index"), format!("{} is not among the arguments 0 to 5", argument.index)));
    }
    let (operator, value, mask) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Operator::Equal, argument.value, u64::MAX),
        "SCMP_CMP_NE" => (Operator::NotEqual, argument.value, u64::MAX),
        "SCMP_CMP_LT" => (Operator::Less, argument.value, u64::MAX),
        "SCMP_CMP_LE" => (Operator::LessEqual, argument.value, u64::MAX),
        "SCMP_CMP_GT" => (Operator::Greater, argument.value, u64::MAX),
        "SCMP_CMP_GE" => (Operator::GreaterEqual, argument.value, u64::MAX),
        "SCMP_CMP_MASKED_EQ" => (Operator::Equal, argument.value_two, argument.value),
        other => return Err(wrong(format!("{field}.op"), format!("unknown operator `{other}`"))),
    };
    Ok(Condition { argument: argument.index, operator, value, mask })
}

/// Conditions of different arguments all have to hold; of several for the same argument, one is enough, as other
/// runtimes have it.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let twice = conditions.iter().any(|one| conditions.iter().filter(|c| c.argument == one.argument).count() > 1);
    if twice { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] }
}

type Entry<'a> = (&'a [String], Vec<Vec<Condition>>, u32);

/// (first number, rule), each valid until the next one's first number.
fn ranges(rules: &[Entry<'_>], default: u32, base: u32, number: &dyn Fn(&str) -> Option<u32>) -> Vec<(u32, Rule)> {
    let mut by_number: BTreeMap<u32, (Vec<Case>, Option<u32>)> = BTreeMap::new();
    for (names, alternatives, action) in rules {
        for number in names.iter().filter_map(|name| number(name)) {
            let (cases, always) = by_number.entry(number + base).or_default();
            for conditions in alternatives {
                match conditions.is_empty() {
                    true => *always = always.or(Some(*action)),
                    false => cases.push((conditions.clone(), *action)),
                }
            }
        }
    }
    let usual = Rule { cases: Vec::new(), otherwise: default };
    let newest = by_number.keys().next_back().copied();
    let mut ranges: Vec<(u32, Rule)> = vec![(base, usual.clone())];
    let mut next = base;
    for (number, (cases, always)) in by_number {
        if number > next {
            append(&mut ranges, next, usual.clone());
        }
        append(&mut ranges, number, Rule { cases, otherwise: always.unwrap_or(default) });
        next = number + 1;
    }
    if let Some(newest) = newest {
        let an_error = default & 0xffff_0000 == ERRNO;
        let after = if an_error { ERRNO | libc::ENOSYS as u32 } else { default };
        append(&mut ranges, newest + 1, Rule { cases: Vec::new(), otherwise: after });
    }
    ranges
}

fn calls(ranges: Vec<(u32, Rule)>) -> Vec<Filter> {
    let mut body = vec![statement(LOAD, 0)];
    search(&ranges, &carry_out, &mut body);
    body
}

fn carry_out(rule: &Rule, out: &mut Vec<Filter>) {
    for (conditions, then) in &rule.cases {
        // From the last to the first: each has to know how far away the next case is.
        let mut case = vec![statement(RETURN, *then)];
        for condition in conditions.iter().rev() {
            let mut code = compare(*condition, case.len() as u8);
            code.append(&mut case);
            case = code;
        }
        out.extend(case);
    }
    out.push(statement(RETURN, rule.otherwise));
}

/// Code that goes on behind itself if the condition holds, and over `rest` more instructions if it does not.
fn compare(condition: Condition, rest: u8) -> Vec<Filter> {
    let Condition { argument, operator, value, mask } = condition;
    let big = cfg!(target_endian = "big");
    let offset = |high: bool| 16 + 8 * argument + if high == big { 0 } else { 4 };
    let (high, low) = ((value >> 32) as u32, value as u32);
    if mask != u64::MAX {
        // Only equality has a mask.
        return vec![
            statement(LOAD, offset(true)),
            statement(AND, (mask >> 32) as u32),
            jump(EQUAL, high, 0, rest + 3),
            statement(LOAD, offset(false)),
            statement(AND, mask as u32),
            jump(EQUAL, low, 0, rest),
        ];
    }
    let (load_high, load_low) = (statement(LOAD, offset(true)), statement(LOAD, offset(false)));
    match operator {
        Operator::Equal => vec![load_high, jump(EQUAL, high, 0, rest + 2), load_low, jump(EQUAL, low, 0, rest)],
        Operator::NotEqual => vec![load_high, jump(EQUAL, high, 0, 2), load_low, jump(EQUAL, low, rest, 0)],
        Operator::Greater | Operator::GreaterEqual => {
            let last = if operator == Operator::Greater { GREATER } else { GREATER_EQUAL };
            vec![
                load_high,
                jump(GREATER, high, 3, 0),
                jump(EQUAL, high, 0, rest + 2),
                load_low,
                jump(last, low, 0, rest),
            ]
        }
        Operator::Less | Operator::LessEqual => {
            let last = if operator == Operator::Less { GREATER_EQUAL } else { GREATER };
            vec![
                load_high,
                jump(GREATER, high, rest + 3, 0),
                jump(EQUAL, high, 0, 2),
                load_low,
                jump(last, low, rest, 0),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read;

    /// What the kernel would do with a call.
    fn run(program: &[Filter], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0_u32);
        loop {
            let i = program[at];
            at += 1;
            let yes = match i.code {
                LOAD => {
                    loaded = match i.k {
                        0 => number,
                        4 => audit,
                        offset => {
                            let value = arguments[((offset - 16) / 8) as usize];
                            if offset % 8 == 0 { value as u32 } else { (value >> 32) as u32 }
                        }
                    };
                    continue;
                }
                AND => {
                    loaded &= i.k;
                    continue;
                }
                RETURN => return i.k,
                JUMP => {
                    at += i.k as usize;
                    continue;
                }
                EQUAL => loaded == i.k,
                GREATER => loaded > i.k,
                GREATER_EQUAL => loaded >= i.k,
                other => panic!("code {other:#x}"),
            };
            at += usize::from(if yes { i.jump_true } else { i.jump_false });
        }
    }

    fn compiled(text: &str) -> Compiled {
        compile(&read::<Seccomp>(text).unwrap()).unwrap()
    }

    #[test]
    fn comparisons_are_of_64_bits() {
        let values = [0, 1, 5, 6, 7, 0xffff_ffff, 0x1_0000_0005, 0x1_0000_0006, 0x1_0000_0007, 0x2_0000_0006, u64::MAX];
        type Test = fn(u64, u64) -> bool;
        let operators: [(&str, Test); 6] = [
            ("EQ", |a, b| a == b),
            ("NE", |a, b| a != b),
            ("LT", |a, b| a < b),
            ("LE", |a, b| a <= b),
            ("GT", |a, b| a > b),
            ("GE", |a, b| a >= b),
        ];
        for wanted in values {
            for (name, holds) in operators {
                let found = compiled(&format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
                    {{"names":["close"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":2,"value":{wanted},"op":"SCMP_CMP_{name}"}},{{"index":0,"value":9,"op":"SCMP_CMP_EQ"}}]}}]}}"#
                ));
                for value in values {
                    for first in [9, 8] {
                        let expected = if holds(value, wanted) && first == 9 { ALLOW } else { ERRNO | 1 };
                        let got = run(&found.program, AUDIT_X86_64, 3, [first, 0, value, 0, 0, 0]);
                        assert_eq!(got, expected, "{value:#x} {name} {wanted:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn masks_alternatives_and_newer_calls() {
        let found = compiled(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
            "flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/l","syscalls":[
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["personality"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["mkdir","no_such_call"],"action":"SCMP_ACT_NOTIFY"},
            {"names":["read"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        );
        assert_eq!((found.flags, found.notifies), (2, true));
        let ask = |number, first| run(&found.program, AUDIT_X86_64, number, [first, 0, 0, 0, 0, 0]);
        assert_eq!(ask(56, 0x11), ALLOW);
        assert_eq!(ask(56, 0x1000_0011), ERRNO | 13);
        assert_eq!((ask(135, 8), ask(135, 9)), (0x7ffc_0000, ERRNO | 13));
        assert_eq!((ask(83, 0), ask(0, 0), ask(1, 0)), (NOTIFY, 0x8000_0000, ERRNO | 13));
        assert_eq!((ask(136, 0), ask(600, 0)), (ERRNO | 38, ERRNO | 38));
        assert_eq!(ask(X32 + 1, 0), KILL_THREAD);
        assert_eq!(run(&found.program, AUDIT_X86, 39, [0; 6]), NOTIFY);
        assert_eq!(run(&found.program, AUDIT_AARCH64, 39, [0; 6]), KILL_THREAD);
    }

    #[track_caller]
    fn check(text: &str, field: &str) {
        match compile(&read::<Seccomp>(text).unwrap()) {
            Err(Error::Config { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        check(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#, "linux.seccomp.defaultAction");
        check(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#, "linux.seccomp.flags[0]");
        let with = |entry: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{entry}]}}"#);
        check(&with(r#"{"names":[],"action":"SCMP_ACT_LOG"}"#), "linux.seccomp.syscalls[0].names");
        check(&with(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#), "linux.seccomp.listenerPath");
        check(
            &with(r#"{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}"#),
            "linux.seccomp.syscalls[0].args[0].index",
        );
    }
}
