//! A `service` node as a value: what runs, with which options, and what has to be ready before.

use std::time::Duration;

use ctk_oci::Reference;
use ctk_plan::{Address, Kind};
use ctk_project::{HealthProbe, HealthWords, Image, Project, Resource, service_words};
use ctk_syntax::{Diagnostics, Reader, Spanned};

use crate::codes;

/// A decoded `service` resource.
#[derive(Clone, Debug)]
pub struct ServiceDecl {
    /// Its address.
    pub address: Address,
    /// The container's name: `PROJECT-SERVICE`.
    pub container: String,
    /// What it runs.
    pub image: ImageName,
    /// Options of the container, as `ctk run` has them.
    pub options: Vec<String>,
    /// Replaces the image's CMD.
    pub command: Vec<String>,
    /// Services that have to be ready first, and how far.
    pub after: Vec<(Address, Option<When>)>,
    /// Whether it is to end by itself: then it is not started again once it has ended well.
    pub ends: bool,
    /// How long others wait until it is ready.
    pub within: Duration,
}

/// What an `image=` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// An image of this project, built before.
    Project(Address),
    /// Any image.
    Reference(Reference),
}

/// How far a service has to be before another is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It runs.
    Started,
    /// Its health check succeeds.
    Healthy,
    /// It has ended with code 0.
    Completed,
}

/// How long others wait for a service by default: databases that begin with nothing take their time.
const WITHIN: Duration = Duration::from_secs(120);

/// Options whose values stand in a node of their own: the node's name, and the option.
const WORDS: [(&str, &str); 7] = [
    ("hostname", "--hostname"),
    ("memory", "--memory"),
    ("cpus", "--cpus"),
    ("pids", "--pids-limit"),
    ("stop-signal", "--stop-signal"),
    ("stop-timeout", "--stop-timeout"),
    ("shm-size", "--shm-size"),
];

/// Nodes that may be repeated, each argument one value of the option.
const LISTS: [(&str, &str); 8] = [
    ("port", "--publish"),
    ("volume", "--volume"),
    ("tmpfs", "--tmpfs"),
    ("network", "--network"),
    ("dns", "--dns"),
    ("host", "--add-host"),
    ("cap-add", "--cap-add"),
    ("cap-drop", "--cap-drop"),
];

/// Reads a `service` resource of `project`. All mistakes at once.
pub fn decode(project: &Project, resource: &Resource) -> Result<ServiceDecl, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let decl = read(project, resource, &mut diagnostics);
    diagnostics.sort();
    match decl {
        Some(decl) => diagnostics.into_result(decl),
        None => Err(diagnostics),
    }
}

fn read(project: &Project, resource: &Resource, diagnostics: &mut Diagnostics) -> Option<ServiceDecl> {
    let mut reader = Reader::new(&resource.node, diagnostics);
    reader.arg_str("a name");
    // Read by the project: it orders this resource after others.
    reader.opt_prop("needs");
    let image = reader.prop_str("image").and_then(|name| match project.resolve_image(resource, &name) {
        Ok(Image::Project(address)) => Some(ImageName::Project(address)),
        Ok(Image::Reference(reference)) => Some(ImageName::Reference(reference)),
        Err(diagnostic) => {
            reader.diagnostics().push(diagnostic);
            None
        }
    });
    let conditions = [("started", When::Started), ("healthy", When::Healthy), ("completed", When::Completed)];
    let when = reader.opt_prop_one_of("when", &conditions);
    let name = plain(&resource.address.name);
    let mut options = Vec::new();
    let mut give = |option: &str, value: &str| options.extend([option.to_owned(), value.to_owned()]);
    let mut networks = 0;
    for (word, option) in LISTS {
        for node in reader.every(word) {
            let mut child = reader.child(node);
            for value in child.args_text_some("a value") {
                networks += usize::from(word == "network");
                give(option, &value.value);
            }
            child.finish();
        }
    }
    if networks == 0 {
        // Services of a project find each other by their names.
        give("--network", &plain(&project.name));
        give("--network-alias", &name);
    }
    for (word, option) in WORDS {
        if let Some(value) = text(&mut reader, word) {
            give(option, &value.value);
        }
    }
    let words = service_words(&mut reader);
    for (name, value) in &words.env {
        give("--env", &format!("{name}={value}"));
    }
    for (option, value) in [("--user", &words.user), ("--workdir", &words.workdir)] {
        if let Some(value) = value {
            give(option, value);
        }
    }
    if let Some(entrypoint) = &words.entrypoint {
        give("--entrypoint", &json_list(entrypoint));
    }
    for (name, value) in pairs(&mut reader, "label") {
        give("--label", &format!("{name}={value}"));
    }
    let restart = text(&mut reader, "restart");
    let ends = restart.as_ref().is_some_and(|policy| policy.value == "no" || policy.value.starts_with("on-failure"));
    give("--restart", restart.as_ref().map_or("unless-stopped", |policy| &policy.value));
    if let Some(node) = reader.opt_child("read-only") {
        let mut child = reader.child(node);
        if child.arg_flag("whether it is") {
            options.push("--read-only".into());
        }
        child.finish();
    }
    let mut within = WITHIN;
    if let Some(words) = words.health {
        health(words, &mut reader, &mut options, &mut within);
    }
    for node in reader.every("option") {
        let mut child = reader.child(node);
        for word in child.args_text_some("an option of `ctk run`") {
            match word.value.as_str() {
                "--name" | "--rm" | "--replace" | "--detach" | "-d" | "--attach" | "-a" | "--cidfile" => {
                    let message = format!("`{}` is not for services", word.value);
                    child.error(codes::BAD_VALUE, word.span, message, "this is decided by the service itself");
                }
                _ => options.push(word.value),
            }
        }
        child.finish();
    }
    let after = after(resource, when.as_ref(), &mut reader);
    reader.finish();
    let container = format!("{}-{name}", plain(&project.name));
    Some(ServiceDecl {
        address: resource.address.clone(),
        container,
        image: image?,
        options,
        command: words.command.unwrap_or_default(),
        after,
        ends,
        within,
    })
}

/// The services among what it needs. `when=` is about all of them.
fn after(
    resource: &Resource,
    when: Option<&Spanned<When>>,
    reader: &mut Reader<'_, '_>,
) -> Vec<(Address, Option<When>)> {
    let needed = resource.needs.iter().filter(|need| need.kind == Kind::Service);
    let after: Vec<_> = needed.map(|need| (need.clone(), when.map(|when| when.value))).collect();
    let Some(when) = when else { return after };
    if after.is_empty() {
        let message = "`when` is about services that this one needs, and it needs none";
        reader.error(codes::NOTHING_TO_WAIT_FOR, when.span, message, "add `needs=\"service:…\"`");
    }
    after
}

/// `health exec="pg_isready" every="5s" timeout="3s" retries=3 start="10s" within="60s" on-failure="restart"`: asked by
/// the container's monitor, inside the container.
fn health(health: HealthWords, reader: &mut Reader<'_, '_>, options: &mut Vec<String>, within: &mut Duration) {
    let mut give = |option: &str, value: String| options.extend([option.to_owned(), value]);
    match health.probe.value {
        HealthProbe::Exec(command) => give("--health-cmd", command),
        HealthProbe::Http(_) | HealthProbe::Tcp(_) => {
            let message = "a service of the project tells its health by a command inside it";
            let label = "expected `exec=`; services of tests are also asked by `http=` and `tcp=`";
            reader.error(codes::BAD_VALUE, health.probe.span, message, label);
        }
    }
    let times = [
        (health.every, "--health-interval"),
        (health.timeout, "--health-timeout"),
        (health.start, "--health-start-period"),
        (health.start_every, "--health-start-interval"),
    ];
    for (time, option) in times {
        if let Some(time) = time {
            give(option, format!("{}ms", time.value.as_millis()));
        }
    }
    if let Some(retries) = health.retries {
        give("--health-retries", retries.to_string());
    }
    if let Some(action) = health.on_failure {
        give("--health-on-failure", action.to_owned());
    }
    if let Some(given) = health.within {
        *within = given.value;
    }
}

fn text(reader: &mut Reader<'_, '_>, name: &str) -> Option<Spanned<String>> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let value = child.arg_text("a value");
    child.finish();
    value
}

fn pairs(reader: &mut Reader<'_, '_>, name: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for node in reader.every(name) {
        let mut child = reader.child(node);
        all.extend(child.all_props_text().into_iter().map(|(name, value)| (name.value, value.value)));
        child.finish();
    }
    all
}

/// What names of containers and networks can hold.
fn plain(text: &str) -> String {
    let kept: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' }).collect();
    let kept = kept.trim_matches(['-', '.', '_']);
    if kept.is_empty() { "project".into() } else { kept.to_lowercase() }
}

fn json_list(words: &[String]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let mut text = String::from("\"");
            for c in word.chars() {
                match c {
                    '"' | '\\' => text.extend(['\\', c]),
                    '\n' => text.push_str("\\n"),
                    '\t' => text.push_str("\\t"),
                    c if (c as u32) < 0x20 => text.push_str(&format!("\\u{:04x}", c as u32)),
                    c => text.push(c),
                }
            }
            text + "\""
        })
        .collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_are_as_others_read_them() {
        assert_eq!(
            (plain("My Shop"), plain("größe"), plain("--")),
            ("my-shop".into(), "gr--e".into(), "project".into())
        );
        assert_eq!(json_list(&["a\"b".into(), "c\n".into()]), "[\"a\\\"b\",\"c\\n\"]");
    }
}
