//! `HEALTHCHECK [flags] CMD command` or `HEALTHCHECK NONE`

use std::ops::Range;

use ctk_buildgraph::{Health, Instruction};

use super::{Parsed, done};
use crate::codes;
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let (range, word) = line.some_words("CMD or NONE")?.into_iter().next()?;
    let times = ["interval", "timeout", "start-period", "start-interval"].map(|name| match line.flag(name) {
        Some((value, range)) => time(line, name, &value, range),
        None => 0,
    });
    let retries = match line.flag("retries") {
        None => 0,
        Some((value, range)) => value.parse().ok().filter(|n: &i64| *n >= 0).unwrap_or_else(|| {
            line.error(codes::BAD_FLAG, format!("`{value}` is no number of retries"), range, "expected 0 or more");
            0
        }),
    };
    match word.to_ascii_uppercase().as_str() {
        "NONE" => done(Instruction::Healthcheck(Health::None)),
        "CMD" => {
            line.advance(&range);
            let command = line.command("a command after CMD")?;
            let [interval, timeout, start_period, start_interval] = times;
            done(Instruction::Healthcheck(Health::Check {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            }))
        }
        _ => {
            line.error(codes::BAD_ARGUMENT, format!("unknown health check `{word}`"), range, "expected CMD or NONE");
            None
        }
    }
}

fn time(line: &mut Line<'_>, name: &str, value: &str, range: Range<usize>) -> i64 {
    /// Docker refuses shorter ones: a check would do nothing but check.
    const SHORTEST_NS: i64 = 1_000_000;
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

/// Go's durations: `1h2m3.5s`, `250ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|n| *n > 0)?;
        let count: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1f64,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += count * unit;
        rest = &rest[letters..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(super::nanoseconds(text), expected, "{text}");
        }
    }
}
