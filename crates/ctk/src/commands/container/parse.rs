//! Values of options, as people write them.

use std::time::Duration;

use ctk_monitor::config::{Restart, RestartPolicy};

/// Bytes: `512MiB`; and as docker's and podman's users write it, whose `mb` is `MiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units =
        [("kb", "k"), ("mb", "m"), ("gb", "g"), ("tb", "t"), ("kib", "k"), ("mib", "m"), ("gib", "g"), ("tib", "t")];
    let theirs =
        || units.iter().find_map(|(unit, ours)| ctk_syntax::parse_size(&format!("{}{ours}", text.strip_suffix(unit)?)));
    ctk_syntax::parse_size(text).or_else(theirs).ok_or_else(|| "expected a size such as `512MiB`".into())
}

/// A whole number.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a number".into())
}

/// A kernel setting: `net.core.somaxconn=1024`.
pub fn setting(text: &str) -> Result<String, String> {
    let good = text.split_once('=').is_some_and(|(name, _)| name.contains(['.', '/']));
    if good { Ok(text.into()) } else { Err("expected NAME=VALUE such as `net.core.somaxconn=1024`".into()) }
}

/// A host's name: parts of letters, digits, `-` and `_`, at most 64 bytes (`HOST_NAME_MAX`).
pub fn hostname(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        let inner = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        inner && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    match text.len() <= 64 && text.trim_end_matches('.').split('.').all(part) {
        true => Ok(text.into()),
        false => {
            Err("expected a host name: letters, digits and `-`, parts with dots between, at most 64 in all".into())
        }
    }
}

/// Bytes, or -1.
pub fn bytes_or_all(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        text => bytes(text).and_then(|bytes| i64::try_from(bytes).map_err(|_| "too large".into())),
    }
}

/// Thousandths of a processor: `1.5`.
pub fn cpu_millis(text: &str) -> Result<u64, String> {
    let cpus: Option<f64> = text.parse().ok().filter(|cpus| (0.0..=100_000.0).contains(cpus));
    cpus.map(|cpus| (cpus * 1000.0) as u64).ok_or_else(|| "expected a number such as `1.5`".into())
}

/// `30s`; a number alone is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    seconds.or_else(|| ctk_syntax::parse_duration(text)).ok_or_else(|| "expected a duration such as `30s`".into())
}

/// `SIGTERM`, `term`, `15`.
pub fn signal(text: &str) -> Result<i32, String> {
    ctk_runtime::signal_number(text).ok_or_else(|| "expected a signal such as `SIGTERM` or `15`".into())
}

/// `on-failure:5`.
pub fn restart(text: &str) -> Result<Restart, String> {
    let (word, times) = text.split_once(':').map_or((text, None), |(word, times)| (word, Some(times)));
    let policy = match word {
        "no" | "never" | "" => RestartPolicy::No,
        "on-failure" => RestartPolicy::OnFailure,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        _ => return Err("expected `no`, `on-failure[:TIMES]`, `always` or `unless-stopped`".into()),
    };
    let most = match times {
        None => 0,
        Some(times) if policy == RestartPolicy::OnFailure => {
            times.parse().map_err(|_| format!("`{times}` is no number of times"))?
        }
        Some(_) => return Err("a number of times goes with `on-failure` only".into()),
    };
    Ok(Restart { policy, most })
}

/// `0-3,5`.
pub fn cpu_list(text: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let good = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(part).is_some(),
    };
    match text.split(',').all(good) {
        true => Ok(text.into()),
        false => Err("expected a list such as `0-3,5`".into()),
    }
}

/// Names of limits, as the specification writes them, and as people do.
const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024:2048`; -1 is no limit.
pub fn rlimit(text: &str) -> Result<(String, u64, u64), String> {
    let (name, values) = text.split_once('=').ok_or("expected NAME=SOFT[:HARD]")?;
    let lower = name.to_ascii_lowercase();
    let known = lower.trim_start_matches("rlimit_");
    if !RLIMITS.contains(&known) {
        let near = ctk_syntax::nearest(known, RLIMITS).map(|near| format!("; did you mean `{near}`?"));
        return Err(format!("there is no limit `{name}`{}", near.unwrap_or_default()));
    }
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| format!("`{text}` is no number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err("the soft limit is more than the hard one".into());
    }
    Ok((format!("RLIMIT_{}", known.to_ascii_uppercase()), soft, hard))
}

/// Where a log is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LogDriver {
    /// In files.
    File,
    /// Nowhere.
    None,
}

/// `file`, `none`.
pub fn log_driver(text: &str) -> Result<LogDriver, String> {
    match text {
        "file" | "k8s-file" | "json-file" | "local" => Ok(LogDriver::File),
        "none" => Ok(LogDriver::None),
        "journald" | "syslog" | "passthrough" => Err(format!("`{text}` is not there; choose `file` or `none`")),
        _ => Err("expected `file` or `none`".into()),
    }
}

/// `NAME=VALUE` into its parts; a name alone has an empty value.
pub fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.into(), value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(restart("on-failure:5"), Ok(Restart { policy: RestartPolicy::OnFailure, most: 5 }));
        for bad in ["always:3", "sometimes", "on-failure:x"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
        assert_eq!(rlimit("nofile=1:2"), Ok(("RLIMIT_NOFILE".into(), 1, 2)));
        assert_eq!(rlimit("core=-1"), Ok(("RLIMIT_CORE".into(), u64::MAX, u64::MAX)));
        assert!(rlimit("nofiles=1").unwrap_err().contains("did you mean `nofile`"));
        assert!(rlimit("nofile=3:2").is_err());
        assert!(cpu_list("0-3,5").is_ok() && cpu_list("3-0").is_err() && cpu_list("").is_err());
        assert_eq!(bytes_or_all("-1"), Ok(-1));
        for (text, expected) in [("1mb", 1 << 20), ("1MB", 1_000_000), ("2gib", 2 << 30), ("1.5kb", 1536), ("7b", 7)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        assert!(bytes("mb").is_err() && bytes("1xb").is_err());
        assert!(hostname("a-1.b_c.").is_ok() && setting("net.x=1").is_ok());
        for bad in ["", "a b", "-a", "a..b", &"x".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
        assert!(setting("bad").is_err() && setting("bad=1").is_err());
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
    }
}
