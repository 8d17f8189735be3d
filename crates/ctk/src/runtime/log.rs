//! Messages as runc writes them: text or JSON lines into a file, which conmon and containerd read, and to standard
//! error.

use std::fs::File;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where messages go.
pub struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

impl Log {
    /// Standard error alone.
    pub fn to_stderr() -> Log {
        Log { file: None, json: false, debug: false }
    }

    /// What the options say.
    pub fn open(path: Option<&str>, format: Option<&str>, level: Option<&str>, debug: bool) -> Result<Log, String> {
        let json = match format.unwrap_or("text") {
            "text" => false,
            "json" => true,
            other => return Err(format!("--log-format `{other}` is neither text nor json")),
        };
        if let Some(level) = level
            && !matches!(level, "debug" | "info" | "warning" | "warn" | "error" | "fatal" | "panic" | "trace")
        {
            return Err(format!("--log-level `{level}` is none of debug, info, warning, error"));
        }
        let file = match path.filter(|path| !path.is_empty()) {
            None => None,
            // A prefix that crun has.
            Some(path) => {
                let path = path.strip_prefix("file:").unwrap_or(path);
                let file = File::options().append(true).create(true).open(path);
                Some(file.map_err(|e| format!("cannot open the log `{path}`: {e}"))?)
            }
        };
        Ok(Log { file, json, debug: debug || matches!(level, Some("debug" | "trace")) })
    }

    /// Whether anybody reads details.
    pub fn is_debug(&self) -> bool {
        self.debug
    }

    /// Something went wrong.
    pub fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() || !self.json {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// Something is not as it should be.
    pub fn warning(&self, message: &str) {
        self.write("warning", message);
        if self.file.is_none() && !self.json {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// A detail.
    pub fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
            if self.file.is_none() && !self.json {
                let _ = writeln!(std::io::stderr(), "{message}");
            }
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = now();
        let line = match self.json {
            true => serde_json::json!({ "level": level, "msg": message, "time": time }).to_string(),
            false => format!("time=\"{time}\" level={level} msg={}", serde_json::Value::from(message)),
        };
        match &self.file {
            Some(file) => drop((&*file).write_all(format!("{line}\n").as_bytes())),
            None if self.json => drop(writeln!(std::io::stderr(), "{line}")),
            None => {}
        }
    }
}

/// Now, as RFC 3339 with nanoseconds.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs(), since.subsec_nanos())
}

fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, by eras of 400 years: a year that begins in March has its leap day last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_868_799, "2000-02-29T23:59:59.000000007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000007Z"),
        ] {
            assert_eq!(rfc3339(seconds, 7), expected);
        }
    }
}
