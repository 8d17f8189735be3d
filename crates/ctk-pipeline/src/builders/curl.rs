//! `curl`: fetching a URL.

use serde::{Deserialize, Serialize};

use super::Action;
use super::options::{Known, line, switch, value};

/// What is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Where it is.
    pub url: String,
    /// `GET` if nothing else is said.
    pub method: String,
    /// Names and values, `NAME: VALUE`.
    pub headers: Vec<String>,
    /// What is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The file that it is written to; none is standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Whether an answer that is an error fails the step.
    pub fails: bool,
    /// Whether it goes where the answer says.
    pub follows: bool,
    /// How often it is tried again.
    pub retries: u32,
    /// As it was written.
    #[serde(skip)]
    args: Vec<String>,
}

const KNOWN: &[Known] = &[
    value('o', &["output"]),
    switch('O', &["remote-name"]),
    switch('L', &["location"]),
    switch('f', &["fail"]),
    switch('\0', &["fail-with-body"]),
    switch('s', &["silent"]),
    switch('S', &["show-error"]),
    switch('v', &["verbose"]),
    switch('#', &["progress-bar"]),
    switch('J', &["remote-header-name"]),
    value('X', &["request"]),
    value('H', &["header"]),
    value('d', &["data"]),
    value('\0', &["data-raw"]),
    value('A', &["user-agent"]),
    value('\0', &["url"]),
    value('\0', &["retry"]),
    value('\0', &["retry-delay"]),
    value('\0', &["retry-max-time"]),
    switch('\0', &["retry-connrefused"]),
    switch('\0', &["retry-all-errors"]),
    value('\0', &["connect-timeout"]),
    value('m', &["max-time"]),
    value('\0', &["proto"]),
    switch('\0', &["tlsv1.2"]),
    switch('\0', &["compressed"]),
    switch('\0', &["create-dirs"]),
];

/// What `curl` is asked for.
pub(super) fn read(args: &[String]) -> Result<Action, String> {
    let line = line("curl", args, KNOWN, false)?;
    let urls: Vec<String> = line.all("url").into_iter().chain(line.words.iter().cloned()).collect();
    let url = match urls.as_slice() {
        [url] => url.clone(),
        [] => return Err("`curl` without a URL".into()),
        _ => return Err("`curl` with several URLs".into()),
    };
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let name = bare.rsplit('/').next().filter(|name| !name.is_empty() && bare.matches('/').count() > 2);
    let output = match (line.last("output"), line.is("remote-name")) {
        (Some(file), _) if file != "-" => Some(file),
        (None, true) => Some(name.ok_or("`curl --remote-name` of a URL without a name")?.to_owned()),
        _ => None,
    };
    let bodies: Vec<String> =
        line.options.iter().filter(|(name, _)| name.starts_with("data")).map(|(_, text)| text.clone()).collect();
    let at = |(name, text): &(&str, String)| *name == "data" && text.starts_with('@');
    if line.options.iter().any(at) {
        return Err("`curl --data @FILE`".into());
    }
    let body = (!bodies.is_empty()).then(|| bodies.join("&"));
    let retries = match line.last("retry") {
        Some(text) => text.parse().map_err(|_| format!("`curl --retry {text}`"))?,
        None => 0,
    };
    let method = line.last("request").unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
    Ok(Action::Fetch(Box::new(Fetch {
        url,
        method,
        headers: line.all("header"),
        body,
        output,
        fails: line.is("fail") || line.is("fail-with-body"),
        follows: line.is("location"),
        retries,
        args: args.to_vec(),
    })))
}

impl Fetch {
    pub(super) fn words(&self) -> Vec<String> {
        ["curl".to_owned()].into_iter().chain(self.args.iter().cloned()).collect()
    }
}
