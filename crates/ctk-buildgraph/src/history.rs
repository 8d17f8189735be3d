//! How values are written in history: as Go prints them, because that is what tools compare.

use ctk_oci::Healthcheck;

/// Words as `%q` prints a list of strings: `["a" "b"]`.
pub(crate) fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "))
}

/// `&{["CMD" "true"] "30s" "0s" "0s" "0s" '\x03'}`
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    let times: Vec<String> = times.iter().map(|time| quote(&duration(*time))).collect();
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let mut number = String::new();
    escape(retries, '\'', &mut number);
    format!("&{{{} {} '{number}'}}", quoted(&check.test), times.join(" "))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    text.chars().for_each(|c| escape(c, '"', &mut out));
    out + "\""
}

fn escape(c: char, quote: char, out: &mut String) {
    match c {
        c if c == quote || c == '\\' => out.extend(['\\', c]),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if c.is_control() || matches!(c, '\u{a0}' | '\u{ad}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
        c => out.push(c),
    }
}

/// Nanoseconds as Go's durations: `1m30s`, `1.5s`, `100ms`, `0s`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let part = |unit: u64| {
        let whole = format!("{}.{:0width$}", total / unit, total % unit, width = unit.ilog10() as usize);
        whole.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let text = match total {
        0 => "0s".into(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => format!("{}µs", part(1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", part(1_000_000)),
        _ => {
            let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
            let seconds = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_001_000_000, "1h1m1.001s"),
        ] {
            assert_eq!(duration(nanoseconds), expected, "{nanoseconds}");
        }
    }

    #[test]
    fn words_are_quoted_as_go_does() {
        let words = ["a'b", "q\"\\", "\u{7}\t\n\u{1}\u{7f}", "é", "$x"].map(str::to_owned);
        assert_eq!(quoted(&words), r#"["a'b" "q\"\\" "\a\t\n\x01\x7f" "é" "$x"]"#);
        let check = Healthcheck { test: vec!["NONE".into()], retries: 66, ..Healthcheck::default() };
        assert_eq!(healthcheck(&check), r#"&{["NONE"] "0s" "0s" "0s" "0s" 'B'}"#);
    }
}
