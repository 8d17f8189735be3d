//! One JSON object a line, shaped like buildx's `--progress=rawjson`: `vertexes`, `statuses`, `logs`, `warnings`.
//!
//! A step is a vertex; its `digest` is made of its number, for buildx's is that of a definition. Times are RFC 3339.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ctk_plan::{Event, Outcome, Sink, StepId, Stream};
use serde_json::{Value, json};

/// Writes each event as it comes; remembers open steps.
#[derive(Default)]
pub struct RawJson {
    steps: Mutex<HashMap<StepId, (String, String)>>,
}

impl Sink for RawJson {
    fn emit(&self, event: Event) {
        let now = rfc3339(SystemTime::now());
        let mut steps = self.steps.lock().expect("no holder panics");
        if let Some(line) = line(event, &now, &mut steps) {
            // Whoever closed the stream no longer listens.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }
}

fn digest(step: StepId) -> String {
    format!("sha256:{:064x}", step.0)
}

fn line(event: Event, now: &str, steps: &mut HashMap<StepId, (String, String)>) -> Option<Value> {
    Some(match event {
        Event::UnitStarted { .. } | Event::UnitFinished { .. } => return None,
        Event::StepStarted { step, name, .. } => {
            let value = json!({ "vertexes": [{ "digest": digest(step), "name": name, "started": now }] });
            steps.insert(step, (name, now.to_owned()));
            value
        }
        Event::StepProgress { step, done, total, .. } => {
            let (name, started) = steps.get(&step)?;
            let mut status = json!({
                "id": name, "vertex": digest(step), "current": done, "timestamp": now, "started": started,
            });
            if let Some(total) = total {
                status["total"] = json!(total);
            }
            json!({ "statuses": [status] })
        }
        Event::StepLog { step, stream, line } => {
            let stream = match stream {
                Stream::Out => 1,
                Stream::Err => 2,
            };
            let data = BASE64.encode(line + "\n");
            json!({ "logs": [{ "vertex": digest(step), "stream": stream, "data": data, "timestamp": now }] })
        }
        Event::StepFinished { step, outcome, .. } => {
            let (name, started) = steps.remove(&step)?;
            let mut vertex = json!({ "digest": digest(step), "name": name, "started": started, "completed": now });
            match outcome {
                Outcome::Done => {}
                Outcome::Cached => vertex["cached"] = json!(true),
                Outcome::Failed(message) => vertex["error"] = json!(message),
                Outcome::Skipped | Outcome::Cancelled => vertex["error"] = json!("context canceled"),
            }
            json!({ "vertexes": [vertex] })
        }
        Event::Warning { message, .. } => json!({ "warnings": [{ "short": BASE64.encode(message) }] }),
    })
}

/// `2026-01-02T03:04:05.678901Z`.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date, after Howard Hinnant's `civil_from_days`: eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |seconds: u64| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000Z");
        assert_eq!(at(1_798_761_600), "2027-01-01T00:00:00.000000Z");
    }
}
