//! `HEALTHCHECK [flags] CMD command` or `HEALTHCHECK NONE`

use std::ops::Range;

use ctk_buildgraph::{Command, Health, Instruction};

use super::{Parsed, done};
use crate::codes;
use crate::line::Line;

/// Whether it is `HEALTHCHECK NONE`.
pub(super) fn is_none(line: &Line<'_>) -> bool {
    line.rest().split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("NONE"))
}

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let rest = line.some_rest("CMD or NONE")?;
    let word = rest.split_whitespace().next().unwrap_or_default();
    let start = line.rest_range().start;
    let range = start..start + word.len();
    let times = ["interval", "timeout", "start-period", "start-interval"].map(|name| match line.flag(name) {
        Some((value, range)) => time(line, name, &value, range),
        None => 0,
    });
    let retries = match line.flag("retries").filter(|(value, _)| !value.is_empty()) {
        None => 0,
        Some((value, range)) => value.parse::<i32>().ok().filter(|n| *n >= 0).unwrap_or_else(|| {
            line.error(codes::BAD_FLAG, format!("`{value}` is no number of retries"), range, "expected 0 or more");
            0
        }),
    };
    match word.to_ascii_uppercase().as_str() {
        "NONE" => {
            line.advance(&range);
            if !line.rest().is_empty() {
                line.error(codes::UNEXPECTED_ARGUMENT, "HEALTHCHECK NONE takes no arguments", line.rest_range(), "");
            }
            done(Instruction::Healthcheck(Health::None))
        }
        "CMD" => {
            line.advance(&range);
            let command = line.command()?;
            if matches!(&command, Command::Exec(words) if words.is_empty()) || line.rest().is_empty() {
                line.missing("a command after CMD");
                return None;
            }
            let [interval, timeout, start_period, start_interval] = times;
            done(Instruction::Healthcheck(Health::Check {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries: i64::from(retries),
            }))
        }
        _ => {
            let near = ctk_syntax::nearest(&word.to_ascii_uppercase(), ["CMD", "NONE"]);
            let label = near.map_or("expected CMD or NONE".into(), |n| format!("did you mean `{n}`?"));
            line.error(codes::BAD_ARGUMENT, format!("unknown health check `{word}`"), range, label);
            None
        }
    }
}

fn time(line: &mut Line<'_>, name: &str, value: &str, range: Range<usize>) -> i64 {
    /// Docker refuses shorter ones: a check would do nothing but check.
    const SHORTEST_NS: i64 = 1_000_000;
    if value.is_empty() {
        return 0;
    }
    match nanoseconds(value) {
        Some(0) => 0,
        Some(time) if time >= SHORTEST_NS => time,
        _ => {
            let message = format!("`--{name}` cannot be `{value}`");
            line.error(codes::BAD_FLAG, message, range, "expected a time such as `30s` or `1m30s`, at least 1ms");
            0
        }
    }
}

/// Go's durations: `1h2m3.5s`, `250ms`, `.5s`, `+1m`.
fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0i128);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (whole, fraction) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit: i128 = match &rest[..letters] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        // Digits beyond a billionth of an hour are too small to matter.
        let fraction = fraction.get(..fraction.len().min(18))?;
        let whole = if whole.is_empty() { 0 } else { i128::from(whole.parse::<i64>().ok()?) };
        let part = if fraction.is_empty() { 0 } else { i128::from(fraction.parse::<i64>().ok()?) };
        total += whole * unit + part * unit / 10i128.pow(fraction.len() as u32);
        rest = &rest[letters..];
    }
    let total = if negative { -total } else { total };
    (!text.is_empty()).then(|| i64::try_from(total).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("+1m", Some(60_000_000_000)),
            ("-5s", Some(-5_000_000_000)),
            ("0", Some(0)),
            (".s", None),
            ("s", None),
            ("300000h", Some(1_080_000_000_000_000_000)),
            ("3000000h", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(super::nanoseconds(text), expected, "{text}");
        }
    }
}
