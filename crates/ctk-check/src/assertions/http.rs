//! `http "http://image:8080/healthz" status=200 body="ok" within="10s"`: the started image, or a service, answers so.
//!
//! `status`, `body` (a part of it), `matches` (a pattern it has), `method`, `within` (asked again until then; without
//! it once). Inside: `header "content-type" contains="json"`, `send "accept" "text/html"`, `data "the request's body"`.

use std::time::{Duration, Instant};

use ctk_syntax::Reader;

use super::Assertion;
use crate::codes;
use crate::error::CheckError;
use crate::http::{Answer, HttpError, Request, Url, exchange};
use crate::limits;
use crate::report::{AssertionOutcome, Mismatch};
use crate::text::TextMatch;
use crate::words;
use crate::world::World;

#[derive(Debug)]
struct Http {
    text: String,
    request: Request,
    status: Option<u16>,
    body: TextMatch,
    headers: Vec<(String, TextMatch)>,
    within: Option<Duration>,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let text = reader.arg_str("a URL");
    let url = text.as_ref().and_then(|text| match Url::parse(text) {
        Ok(url) => Some(url),
        Err(why) => {
            reader.error(codes::BAD_VALUE, text.span, why, "expected e.g. `http://image:8080/`");
            None
        }
    });
    let status = reader.opt_prop_int("status", 100..=599).map(|s| s.value as u16);
    let mut body = TextMatch { contains: reader.opt_prop_str("body").map(|b| b.value), ..TextMatch::default() };
    if let Some(text) = reader.opt_prop_str("matches") {
        body.matches = words::regex(reader, &text);
    }
    let method = match reader.opt_prop_str("method") {
        None => http::Method::GET,
        Some(text) => http::Method::from_bytes(text.value.to_uppercase().as_bytes()).unwrap_or_else(|_| {
            reader.error(
                codes::BAD_VALUE,
                text.span,
                format!("`{}` is no HTTP method", text.value),
                "expected e.g. `POST`",
            );
            http::Method::GET
        }),
    };
    let within = words::opt_prop_within(reader);
    let mut headers = Vec::new();
    for node in reader.every("header") {
        let mut child = reader.child(node);
        let name = child.arg_str("a header's name");
        let wanted = words::text_match(&mut child);
        child.finish();
        headers.extend(name.map(|name| (name.value, wanted)));
    }
    let mut sent = Vec::new();
    for node in reader.every("send") {
        let mut child = reader.child(node);
        let (name, value) = (child.arg_str("a header's name"), child.arg_text("its value"));
        if let (Some(name), Some(value)) = (name, value) {
            let good =
                http::HeaderName::from_bytes(name.as_bytes()).is_ok() && http::HeaderValue::from_str(&value).is_ok();
            if !good {
                let message = format!("`{}: {}` is no HTTP header", name.value, value.value);
                child.error(codes::BAD_VALUE, name.span, message, "a character that a header cannot have");
            }
            sent.push((name.value, value.value));
        }
        child.finish();
    }
    let data = words::opt_child_text(reader, "data", "the request's body").unwrap_or_default();
    let request = Request { method, url: url?, headers: sent, body: data };
    // With nothing said, an answer without an error is what everybody means.
    let silent = status.is_none() && body.is_empty() && headers.is_empty();
    let status = if silent { Some(200) } else { status };
    Some(Box::new(Http { text: text?.value, request, status, body, headers, within }))
}

impl Assertion for Http {
    fn name(&self) -> String {
        let method = if self.request.method == http::Method::GET { "" } else { self.request.method.as_str() };
        format!("{method} {}", self.text).trim_start().to_string()
    }

    fn host(&self) -> Option<&str> {
        Some(&self.request.url.host)
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        let deadline = Instant::now() + self.within.unwrap_or(limits::HTTP_TIMEOUT);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut seen = match ask(world, &self.request, left.min(limits::HTTP_TIMEOUT)) {
                Ok(answer) => self.compare(&answer),
                Err(AskError::Check(error)) => return Err(error),
                Err(AskError::NoAnswer(why)) => vec![Mismatch::new("answer", "one", why)],
            };
            let late = Instant::now() + limits::RETRY_PAUSE >= deadline || self.within.is_none();
            // Who has ended will not answer any more.
            if let (Some(ended), false) = (world.ended(&self.request.url.host)?, seen.is_empty()) {
                seen.push(Mismatch::new(format!("`{}`", self.request.url.host), "running", ended));
                return Ok(AssertionOutcome::of(seen));
            }
            if seen.is_empty() || late {
                return Ok(AssertionOutcome::of(seen));
            }
            world.pause(limits::RETRY_PAUSE)?;
        }
    }
}

enum AskError {
    Check(CheckError),
    NoAnswer(String),
}

/// One try: a connection and an exchange.
fn ask(world: &World<'_>, request: &Request, timeout: Duration) -> Result<Answer, AskError> {
    let stream = world
        .connect(&request.url.host, request.url.port, timeout)
        .map_err(AskError::Check)?
        .map_err(AskError::NoAnswer)?;
    exchange(stream, request, timeout.max(limits::RETRY_PAUSE), world.cancel()).map_err(|error| match error {
        HttpError::Cancelled => AskError::Check(CheckError::Cancelled),
        other => AskError::NoAnswer(crate::chain(&other)),
    })
}

impl Http {
    fn compare(&self, answer: &Answer) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        if let Some(status) = self.status
            && status != answer.status
        {
            mismatches.push(Mismatch::new("status", status.to_string(), answer.status.to_string()));
        }
        for (name, wanted) in &self.headers {
            match answer.headers.get(name) {
                Some(value) => {
                    wanted.check(&format!("header {name}"), &String::from_utf8_lossy(value.as_bytes()), &mut mismatches)
                }
                None => mismatches.push(Mismatch::new(format!("header {name}"), "present", "absent")),
            }
        }
        self.body.check("body", &String::from_utf8_lossy(&answer.body), &mut mismatches);
        mismatches
    }
}
