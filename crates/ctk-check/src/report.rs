//! What a test gave back: data for people, for `--json` and for JUnit readers.

use std::time::Duration;

use ctk_plan::Address;
use serde::{Deserialize, Serialize};

/// The result of one `test` resource: every assertion, whatever came before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The test.
    pub address: Address,
    /// In the order of the file, after the services and the start.
    pub assertions: Vec<AssertionResult>,
    /// The last lines that the started containers wrote; empty when everything passed.
    pub output: Vec<Tail>,
    /// Wall time of all, in seconds.
    pub seconds: f64,
}

/// The result of one assertion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssertionResult {
    /// Its node's name, e.g. `http`; `service` and `start` for what had to run first.
    pub kind: String,
    /// For people, e.g. `file /usr/bin/api`. Unique within the test.
    pub name: String,
    /// How it ended.
    pub outcome: AssertionOutcome,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// How an assertion ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum AssertionOutcome {
    /// As expected.
    Passed,
    /// Not as expected; at least one mismatch.
    Failed {
        /// Each thing that was not as expected.
        mismatches: Vec<Mismatch>,
    },
    /// It could not be asked, because something it needs failed.
    Skipped {
        /// What failed.
        reason: String,
    },
}

/// One thing that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// What was looked at, e.g. `exit code`, `mode`.
    pub subject: String,
    /// What the test wants.
    pub expected: String,
    /// What there was.
    pub seen: String,
}

impl Mismatch {
    /// `subject` should have been `expected` and was `seen`.
    pub fn new(subject: impl Into<String>, expected: impl Into<String>, seen: impl Into<String>) -> Mismatch {
        Mismatch { subject: subject.into(), expected: expected.into(), seen: seen.into() }
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, saw {}", self.subject, self.expected, self.seen)
    }
}

/// The end of what a container wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// `image`, or the service's name.
    pub container: String,
    /// Lines that were dropped before the first one kept.
    pub dropped_lines: u64,
    /// The last lines of standard output and error, as they came.
    pub lines: Vec<String>,
}

impl Report {
    /// Whether every assertion passed.
    pub fn passed(&self) -> bool {
        self.assertions.iter().all(|a| a.outcome == AssertionOutcome::Passed)
    }

    /// How many passed, failed and were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&AssertionOutcome) -> bool| self.assertions.iter().filter(|a| wanted(&a.outcome)).count();
        (
            count(|o| matches!(o, AssertionOutcome::Passed)),
            count(|o| matches!(o, AssertionOutcome::Failed { .. })),
            count(|o| matches!(o, AssertionOutcome::Skipped { .. })),
        )
    }

    /// One line, e.g. `2 of 5 assertions failed, 1 skipped`.
    pub fn summary(&self) -> String {
        let all = self.assertions.len();
        let plural = if all == 1 { "" } else { "s" };
        match self.counts() {
            (passed, 0, 0) => format!("{passed} assertion{plural} passed"),
            (_, failed, 0) => format!("{failed} of {all} assertion{plural} failed"),
            (_, failed, skipped) => format!("{failed} of {all} assertion{plural} failed, {skipped} skipped"),
        }
    }

    /// Everything that did not pass, with what was expected and seen, and the ends of the containers' output: several
    /// lines, each ended by a newline. Empty when everything passed.
    pub fn failures(&self) -> String {
        let mut text = String::new();
        for assertion in &self.assertions {
            match &assertion.outcome {
                AssertionOutcome::Passed => {}
                AssertionOutcome::Skipped { reason } => {
                    text.push_str(&format!("{}: skipped, because {reason}\n", assertion.name));
                }
                AssertionOutcome::Failed { mismatches } => {
                    text.push_str(&format!("{}: failed\n", assertion.name));
                    for mismatch in mismatches {
                        let subject = &mismatch.subject;
                        block(&mut text, &format!("{subject}, expected"), &mismatch.expected);
                        block(&mut text, &format!("{subject}, seen"), &mismatch.seen);
                    }
                }
            }
        }
        for tail in &self.output {
            text.push_str(&format!("the last output of `{}`:\n", tail.container));
            if tail.dropped_lines > 0 {
                text.push_str(&format!("    … {} lines before\n", tail.dropped_lines));
            }
            for line in &tail.lines {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }

    /// The report as one JSON document.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data serialises")
    }
}

/// `label: value` on one line, or the value's lines below the label.
fn block(text: &mut String, label: &str, value: &str) {
    if !value.contains('\n') {
        text.push_str(&format!("    {label}: {value}\n"));
        return;
    }
    text.push_str(&format!("    {label}:\n"));
    for line in value.lines() {
        text.push_str(&format!("      {line}\n"));
    }
}

impl AssertionResult {
    /// A result that took `elapsed`.
    pub(crate) fn new(
        kind: impl Into<String>,
        name: impl Into<String>,
        outcome: AssertionOutcome,
        elapsed: Duration,
    ) -> AssertionResult {
        AssertionResult { kind: kind.into(), name: name.into(), outcome, seconds: elapsed.as_secs_f64() }
    }
}

impl AssertionOutcome {
    /// Passed when nothing is in the list.
    pub(crate) fn of(mismatches: Vec<Mismatch>) -> AssertionOutcome {
        if mismatches.is_empty() { AssertionOutcome::Passed } else { AssertionOutcome::Failed { mismatches } }
    }
}

#[cfg(test)]
mod tests {
    use ctk_plan::Kind;

    use super::*;

    #[test]
    fn failures_tell_expected_and_seen() {
        let failed = AssertionOutcome::Failed {
            mismatches: vec![
                Mismatch::new("exit code", "0", "3"),
                Mismatch::new("stdout", "to equal \"a\"", "line one\nline two"),
            ],
        };
        let skipped = AssertionOutcome::Skipped { reason: "the image did not start".into() };
        let report = Report {
            address: Address::new(Kind::Test, "api"),
            assertions: vec![
                AssertionResult::new("command", "command version", failed, Duration::from_millis(5)),
                AssertionResult::new("http", "http /", skipped, Duration::ZERO),
                AssertionResult::new("size", "size", AssertionOutcome::Passed, Duration::ZERO),
            ],
            output: vec![Tail { container: "image".into(), dropped_lines: 2, lines: vec!["boom".into()] }],
            seconds: 1.0,
        };
        assert!(!report.passed());
        assert_eq!(report.summary(), "1 of 3 assertions failed, 1 skipped");
        assert_eq!(
            report.failures(),
            "command version: failed\n    exit code, expected: 0\n    exit code, seen: 3\n    stdout, expected: to equal \"a\"\n    \
             stdout, seen:\n      line one\n      line two\nhttp /: skipped, because the image did not start\n\
             the last output of `image`:\n    … 2 lines before\n    boom\n"
        );
        assert_eq!(serde_json::from_str::<Report>(&report.to_json()).unwrap(), report);
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["assertions"][0]["outcome"]["mismatches"][0]["seen"], "3");
        assert_eq!(json["assertions"][2]["outcome"]["result"], "passed");
    }
}
