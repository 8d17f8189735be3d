//! Reports as JUnit XML, for whatever shows test results.

use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::report::{AssertionOutcome, Mismatch, Report};

/// One JUnit document of several tests: a suite each, a case an assertion. Characters that XML cannot hold are left
/// out.
pub fn junit(name: &str, reports: &[Report]) -> String {
    let mut all = quick_junit::Report::new(name);
    for report in reports {
        let mut suite = TestSuite::new(report.address.to_string());
        suite.set_time(seconds(report.seconds));
        for assertion in &report.assertions {
            let status = match &assertion.outcome {
                AssertionOutcome::Passed => TestCaseStatus::success(),
                AssertionOutcome::Failed { mismatches } => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    let lines: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
                    status.set_type(assertion.kind.as_str());
                    status.set_message(lines.first().map_or("failed", String::as_str));
                    status.set_description(lines.join("\n"));
                    status
                }
                AssertionOutcome::Skipped { reason } => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(reason.as_str());
                    status
                }
            };
            let mut case = TestCase::new(assertion.name.as_str(), status);
            case.set_classname(report.address.to_string());
            case.set_time(seconds(assertion.seconds));
            suite.add_test_case(case);
        }
        if !report.output.is_empty() {
            let lines: Vec<String> = report
                .output
                .iter()
                .flat_map(|tail| tail.lines.iter().map(move |line| format!("{}: {line}", tail.container)))
                .collect();
            suite.set_system_out(lines.join("\n"));
        }
        all.add_test_suite(suite);
    }
    all.to_string().expect("XML is written to memory")
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ctk_plan::{Address, Kind};

    use super::*;
    use crate::report::{AssertionResult, Tail};

    #[test]
    fn junit_reads_back() {
        let failed = AssertionOutcome::Failed { mismatches: vec![Mismatch::new("body", "<ok>", "a & \u{1}b")] };
        let report = Report {
            address: Address::new(Kind::Test, "api"),
            assertions: vec![
                AssertionResult::new("http", "http /", failed, Duration::from_millis(1500)),
                AssertionResult::new("size", "size", AssertionOutcome::Passed, Duration::ZERO),
                AssertionResult::new(
                    "file",
                    "file x",
                    AssertionOutcome::Skipped { reason: "no".into() },
                    Duration::ZERO,
                ),
            ],
            output: vec![Tail { container: "image".into(), dropped_lines: 0, lines: vec!["up".into()] }],
            seconds: 2.0,
        };
        let xml = junit("shop", &[report]);
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((read.tests, read.failures), (3, 1));
        let suite = &read.test_suites[0];
        assert_eq!(suite.name.as_str(), "test:api");
        assert_eq!(suite.test_cases[0].name.as_str(), "http /");
        assert!(xml.contains("expected &lt;ok&gt;"), "{xml}");
    }
}
