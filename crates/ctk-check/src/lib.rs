//! Tests of images and containers: a `test` node decoded, run against a built image, and reported.
//!
//! Every kind of assertion is a file in `assertions/` and a line in [`assertions::TABLE`]. A test runs in real
//! containers: the image itself when it says `start`, its services, and a fresh one for every `command`. Everything is
//! asked, whatever failed before, and the report says what was expected and what was seen.

pub mod assertions;
pub mod codes;
mod decl;
mod error;
mod http;
mod image;
mod junit;
pub mod limits;
mod output;
mod report;
mod run;
mod text;
mod tree;
mod words;
mod world;

use std::time::Duration;

pub use codes::CODES;
pub use decl::{
    AssertionDecl, FingerprintInputs, Health, IMAGE_HOST, ImageName, Launch, Service, TestDecl, decode, decode_node,
};
pub use error::CheckError;
pub use junit::junit;
pub use report::{AssertionOutcome, AssertionResult, Mismatch, Report, Tail};
pub use run::{ServiceImage, TestRequest, run};
pub use text::TextMatch;

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own words.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// `250ms`, `10s`, `1.5s`.
pub(crate) fn spell(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms < 1000 => format!("{ms}ms"),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{:.1}s", ms as f64 / 1000.0),
    }
}
