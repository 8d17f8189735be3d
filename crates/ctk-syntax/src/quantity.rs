//! Durations and sizes as people write them.

use std::time::Duration;

/// `10s`, `1m30s`, `250ms`, `2h`, `1d`; parts from great to small, whole numbers. None when it is something else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let (mut total_ms, mut smallest) = (0u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        if unit_ms >= smallest {
            return None;
        }
        smallest = unit_ms;
        total_ms = total_ms.checked_add(count.checked_mul(unit_ms)?)?;
        rest = &rest[letters..];
    }
    (smallest != u64::MAX).then(|| Duration::from_millis(total_ms))
}

/// Bytes of `512`, `80MiB`, `1.5GB`, `64k`: SI units are powers of 1000, `Ki`-units and the bare letters `k m g t`
/// (as in Docker) powers of 1024. None when it is something else.
pub fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let factor: u64 = match unit {
        "" | "B" | "b" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000u64.pow(2),
        "GB" => 1000u64.pow(3),
        "TB" => 1000u64.pow(4),
        "k" | "K" | "KiB" | "Ki" => 1 << 10,
        "m" | "M" | "MiB" | "Mi" => 1 << 20,
        "g" | "G" | "GiB" | "Gi" => 1 << 30,
        "t" | "T" | "TiB" | "Ti" => 1 << 40,
        _ => return None,
    };
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, part)) => {
            if whole.is_empty() || part.is_empty() || part.len() > 9 || part.contains('.') {
                return None;
            }
            let scale = 10u128.pow(part.len() as u32);
            let all: u128 = format!("{whole}{part}").parse().ok()?;
            u64::try_from(all.checked_mul(u128::from(factor))? / scale).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check =
            |text: &str, ms: Option<u64>| assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
        check("10s", Some(10_000));
        check("5m", Some(300_000));
        check("2h", Some(7_200_000));
        check("1m30s", Some(90_000));
        check("250ms", Some(250));
        check("1s1m", None);
        check("10", None);
        check("", None);
        check("s", None);
        check("1.5s", None);
        check("99999999999999999999s", None);
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(parse_size(text), bytes, "{text}");
        check("512", Some(512));
        check("80MiB", Some(80 << 20));
        check("1GB", Some(1_000_000_000));
        check("1.5GiB", Some(3 << 29));
        check("64k", Some(65_536));
        check("80 MiB", Some(80 << 20));
        check("MiB", None);
        check("1XB", None);
        check("1..5GB", None);
        check("-1", None);
        check("99999999999TiB", None);
    }
}
