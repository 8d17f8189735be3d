//! The words of a container that serves, wherever it is declared: a `service` of the project, a `service` beside a test's
//! image, or that image itself (`start`).
//!
//! ```kdl
//! env NAME="value"
//! command "…"; entrypoint "…"; user "…"; workdir "…"
//! health exec="pg_isready" every="1s" within="60s"
//! ```

use std::time::Duration;

use ctk_syntax::{Reader, Spanned, codes};

/// What a block says.
#[derive(Clone, Debug, Default)]
pub struct ServiceWords {
    /// Names and values on top of the image's environment.
    pub env: Vec<(String, String)>,
    /// Replaces the image's CMD.
    pub command: Option<Vec<String>>,
    /// Replaces the image's ENTRYPOINT; an empty one takes it away.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's USER.
    pub user: Option<String>,
    /// Replaces the image's WORKDIR.
    pub workdir: Option<String>,
    /// How its health is found out.
    pub health: Option<HealthWords>,
}

/// A `health` node. What is not said is `None`.
#[derive(Clone, Debug)]
pub struct HealthWords {
    /// What tells that it is well.
    pub probe: Spanned<HealthProbe>,
    /// Between the end of a check and the next.
    pub every: Option<Spanned<Duration>>,
    /// For one check.
    pub timeout: Option<Spanned<Duration>>,
    /// How many failures in a row make it unhealthy.
    pub retries: Option<u32>,
    /// Failures in this time after the start do not count.
    pub start: Option<Spanned<Duration>>,
    /// [`HealthWords::every`] until then.
    pub start_every: Option<Spanned<Duration>>,
    /// `none`, `kill`, `restart` or `stop`: what happens when it becomes unhealthy.
    pub on_failure: Option<&'static str>,
    /// How long others wait until it is well.
    pub within: Option<Spanned<Duration>>,
}

/// What tells that a container is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProbe {
    /// A command line inside it exits with 0.
    Exec(String),
    /// A URL, or `:PORT/PATH` of its own, answers.
    Http(String),
    /// A port of it accepts connections.
    Tcp(u16),
}

/// Reads the words of the block, and leaves all others to the caller.
pub fn service_words(reader: &mut Reader<'_, '_>) -> ServiceWords {
    let mut env = Vec::new();
    for node in reader.every("env") {
        let mut child = reader.child(node);
        env.extend(child.all_props_text().into_iter().map(|(name, value)| (name.value, value.value)));
        child.finish();
    }
    let command = list(reader, "command", true);
    let entrypoint = list(reader, "entrypoint", false);
    let user = text(reader, "user", "a user");
    let workdir = text(reader, "workdir", "a path");
    if reader.node().children.iter().any(|node| node.name.value == "ready")
        && let Some(node) = reader.opt_child("ready")
    {
        let message = "`ready` is `health`, with the same properties";
        reader.error(codes::UNKNOWN_NODE, node.name.span, message, "write `health` instead");
    }
    let health = reader.opt_child("health").and_then(|node| {
        let mut child = reader.child(node);
        let health = health(&mut child);
        child.finish();
        health
    });
    ServiceWords { env, command, entrypoint, user, workdir, health }
}

fn list(reader: &mut Reader<'_, '_>, name: &str, some: bool) -> Option<Vec<String>> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let words = if some { child.args_text_some("an argument") } else { child.args_text("an argument") };
    child.finish();
    Some(words.into_iter().map(|word| word.value).collect())
}

fn text(reader: &mut Reader<'_, '_>, name: &str, what: &str) -> Option<String> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let text = child.arg_text(what);
    child.finish();
    text.map(|text| text.value)
}

fn health(reader: &mut Reader<'_, '_>) -> Option<HealthWords> {
    let span = reader.span();
    let exec =
        reader.opt_prop_str("exec").map(|text| Spanned { value: HealthProbe::Exec(text.value), span: text.span });
    let http =
        reader.opt_prop_str("http").map(|text| Spanned { value: HealthProbe::Http(text.value), span: text.span });
    let tcp = reader
        .opt_prop_int("tcp", 1..=65535)
        .map(|port| Spanned { value: HealthProbe::Tcp(port.value as u16), span: port.span });
    let actions = [("none", "none"), ("kill", "kill"), ("restart", "restart"), ("stop", "stop")];
    let (every, timeout) = (reader.opt_prop_duration("every"), reader.opt_prop_duration("timeout"));
    let retries = reader.opt_prop_int("retries", 1..=1000).map(|retries| retries.value as u32);
    let (start, start_every) = (reader.opt_prop_duration("start"), reader.opt_prop_duration("start-every"));
    let on_failure = reader.opt_prop_one_of("on-failure", &actions).map(|action| action.value);
    let within = reader.opt_prop_duration("within");
    let given = ["exec", "http", "tcp"].iter().filter(|name| reader.node().prop(name).is_some()).count();
    match given {
        1 => {}
        0 => reader.error(codes::MISSING_PROPERTY, span, "`health` asks nothing", EXPECTED),
        _ => reader.error(codes::BAD_VALUE, span, "`health` asks more than one thing", EXPECTED),
    }
    let probe = exec.or(http).or(tcp)?;
    Some(HealthWords { probe, every, timeout, retries, start, start_every, on_failure, within })
}

const EXPECTED: &str = "expected one of `exec=`, `http=`, `tcp=`";
