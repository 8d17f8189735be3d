//! Small pieces that the decoders of several nodes share.

use std::time::Duration;

use ctk_syntax::{Reader, Spanned};
use regex::Regex;

use crate::codes;
use crate::limits;
use crate::text::{TextMatch, pattern};

/// The values without their places.
pub(crate) fn values(list: Vec<Spanned<String>>) -> Vec<String> {
    list.into_iter().map(|s| s.value).collect()
}

/// `path`, when it is absolute.
pub(crate) fn absolute(reader: &mut Reader<'_, '_>, path: &Spanned<String>) -> Option<String> {
    if path.starts_with('/') {
        return Some(path.value.clone());
    }
    let message = format!("path `{}` is not absolute", path.value);
    reader.error(codes::BAD_VALUE, path.span, message, format!("expected `/{}`", path.value));
    None
}

/// A regular expression, or a complaint.
pub(crate) fn regex(reader: &mut Reader<'_, '_>, text: &Spanned<String>) -> Option<Regex> {
    match pattern(text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
            let message = format!("`{}` is no regular expression", text.value);
            reader.error(codes::BAD_VALUE, text.span, message, why);
            None
        }
    }
}

/// The properties `equals`, `contains` and `matches`.
pub(crate) fn text_match(reader: &mut Reader<'_, '_>) -> TextMatch {
    let equals = reader.opt_prop_str("equals").map(|t| t.value);
    let contains = reader.opt_prop_str("contains").map(|t| t.value);
    let matches = reader.opt_prop_str("matches").and_then(|text| regex(reader, &text));
    TextMatch { equals, contains, matches }
}

/// Complains unless something is asked.
pub(crate) fn asks_something(reader: &mut Reader<'_, '_>, asks: bool, expected: &str) {
    // A node with a mistake in it was meant to ask something.
    if !asks && reader.node().props.is_empty() && reader.node().children.is_empty() {
        let message = format!("`{}` asks nothing", reader.node().name.value);
        reader.error(codes::NOTHING_ASKED, reader.span(), message, format!("expected {expected}"));
    }
}

/// The one argument of the child `name`.
pub(crate) fn opt_child_text(reader: &mut Reader<'_, '_>, name: &str, what: &str) -> Option<String> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let text = child.arg_text(what);
    child.finish();
    text.map(|t| t.value)
}

/// The arguments of the child `name`.
pub(crate) fn opt_child_list(reader: &mut Reader<'_, '_>, name: &str, what: &str) -> Option<Vec<String>> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let list = values(child.args_text_some(what));
    child.finish();
    Some(list)
}

/// The duration in the child `name`, within [`limits::TIMEOUT_MAX`].
pub(crate) fn opt_child_timeout(reader: &mut Reader<'_, '_>, name: &str) -> Option<Duration> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let given = child.arg_duration("a duration");
    let bounded = given.and_then(|given| bounded(&mut child, given));
    child.finish();
    bounded
}

/// The property `within`, within [`limits::TIMEOUT_MAX`].
pub(crate) fn opt_prop_within(reader: &mut Reader<'_, '_>) -> Option<Duration> {
    let given = reader.opt_prop_duration("within")?;
    bounded(reader, given)
}

/// A duration, if it is one that a test may say.
pub(crate) fn bounded(reader: &mut Reader<'_, '_>, given: Spanned<Duration>) -> Option<Duration> {
    if (Duration::from_millis(1)..=limits::TIMEOUT_MAX).contains(&given.value) {
        return Some(given.value);
    }
    let message = format!("{} is out of range", crate::spell(given.value));
    reader.error(codes::BAD_VALUE, given.span, message, "expected between `1ms` and `1h`");
    None
}

/// The properties of every child `name`, in order.
pub(crate) fn pairs(reader: &mut Reader<'_, '_>, name: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for node in reader.every(name) {
        let mut child = reader.child(node);
        let found = child.all_props_text();
        asks_something(&mut child, !found.is_empty(), "`NAME=\"value\"`");
        child.finish();
        pairs.extend(found.into_iter().map(|(name, value)| (name.value, value.value)));
    }
    pairs
}

/// `env NAME="value"` children, as `NAME=value`.
pub(crate) fn env(reader: &mut Reader<'_, '_>) -> Vec<String> {
    pairs(reader, "env").into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `8080` or `53/udp` as the config writes it: with its protocol.
pub(crate) fn port(reader: &mut Reader<'_, '_>, text: &Spanned<String>) -> Option<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let good = number.parse::<u16>().is_ok_and(|n| n > 0) && matches!(protocol, "tcp" | "udp" | "sctp");
    if !good {
        let message = format!("`{}` is no port", text.value);
        reader.error(codes::BAD_VALUE, text.span, message, "expected e.g. `8080` or `\"53/udp\"`");
        return None;
    }
    Some(format!("{number}/{protocol}"))
}
