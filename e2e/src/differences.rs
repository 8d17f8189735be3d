//! In what two images differ, and which of that is accepted: `test_data/dockerfiles/differences.kdl`.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

use kdl::KdlDocument;
use serde_json::Value;

use crate::corpus::{Outcome, folder};
use crate::image::Image;

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `outcome`, `tree /path` or `config /pointer`.
    pub what: String,
    /// Ours.
    pub ours: String,
    /// Theirs.
    pub theirs: String,
}

/// In what `ours` and `theirs` differ; `loosely` looks only at what a container runs with.
pub fn compare(ours: &Outcome, theirs: &Outcome, base: &Image, loosely: bool) -> Vec<Difference> {
    let different = |what: &str, ours: &str, theirs: &str| Difference {
        what: what.to_owned(),
        ours: ours.to_owned(),
        theirs: theirs.to_owned(),
    };
    let (ours, theirs) = match (ours, theirs) {
        (Err(_), Err(_)) => return Vec::new(),
        (Ok(_), Err(theirs)) => return vec![different("outcome", "builds", &short(theirs))],
        (Err(ours), Ok(theirs)) => {
            let built: String = theirs.iter().map(|(_, image)| image.golden(base)).collect();
            return vec![different("outcome", &short(ours), &format!("builds\n{built}"))];
        }
        (Ok(ours), Ok(theirs)) => (ours, theirs),
    };
    let mut found = Vec::new();
    for ((platform, ours), (_, theirs)) in ours.iter().zip(theirs) {
        let before = found.len();
        images(ours, theirs, loosely, &mut found);
        if platform != "linux/amd64" {
            found[before..].iter_mut().for_each(|one| one.what = format!("{} of {platform}", one.what));
        }
    }
    found
}

/// The lines of an error without those of the progress.
fn short(said: &str) -> String {
    said.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| format!("\n{line}"))
        .collect()
}

fn images(ours: &Image, theirs: &Image, loosely: bool, found: &mut Vec<Difference>) {
    let (our_tree, their_tree) = (ours.tree.lines(), theirs.tree.lines());
    let paths: BTreeSet<&String> = our_tree.keys().chain(their_tree.keys()).collect();
    for path in paths {
        let (ours, theirs) = (our_tree.get(path), their_tree.get(path));
        if ours != theirs {
            let text = |line: Option<&String>| line.map_or("absent", String::as_str).to_owned();
            found.push(Difference { what: format!("tree {path}"), ours: text(ours), theirs: text(theirs) });
        }
    }
    match loosely {
        true => values("/config", &running(&ours.config["config"]), &running(&theirs.config["config"]), found),
        false => values("", &ours.config, &theirs.config, found),
    }
}

/// The differing leaves of two documents; arrays are leaves, except histories of one length.
fn values(at: &str, ours: &Value, theirs: &Value, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        _ if ours == theirs => {}
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let none = Value::Null;
                values(&format!("{at}/{key}"), a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if at == "/history" && a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(index, (a, b))| values(&format!("{at}/{index}"), a, b, found));
        }
        _ => {
            found.push(Difference { what: format!("config {at}"), ours: ours.to_string(), theirs: theirs.to_string() })
        }
    }
}

/// The parts of a config that say how a container runs, in an order of our own.
fn running(config: &Value) -> Value {
    let mut running = config.clone();
    let Some(fields) = running.as_object_mut() else { return Value::Object(Default::default()) };
    for name in ["Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr", "Tty"] {
        fields.remove(name);
    }
    for name in ["OpenStdin", "StdinOnce", "ArgsEscaped"] {
        fields.remove(name);
    }
    // A variable that is set again keeps its place with some, and goes last with others.
    if let Some(env) = fields.get_mut("Env").and_then(Value::as_array_mut) {
        env.sort_by_key(Value::to_string);
    }
    if let Some(labels) = fields.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("io.buildah.version");
    }
    fields.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
    running
}

/// What may differ, and whether it still does.
pub struct Accepted {
    rules: Vec<Rule>,
    used: Mutex<BTreeSet<usize>>,
}

struct Rule {
    case: String,
    builder: String,
    what: String,
    /// It is seen in some rounds only, so its absence says nothing.
    sometimes: bool,
    line: String,
}

impl Accepted {
    /// The file's rules: `difference "case" builder="…" what="…" reason="…"`, with `sometimes=#true` for what a builder
    /// does in some rounds only; `*` stands for anything.
    pub fn read() -> Accepted {
        let text = fs::read_to_string(folder().join("differences.kdl")).expect("differences.kdl");
        let document: KdlDocument = text.parse().unwrap_or_else(|error| panic!("differences.kdl: {error}"));
        let rule = |node: &kdl::KdlNode| {
            let text = |key: kdl::NodeKey| {
                let value = node.entry(key).and_then(|entry| entry.value().as_string());
                value.unwrap_or_else(|| panic!("differences.kdl: incomplete: {node}")).to_owned()
            };
            let line = node.to_string().trim().to_owned();
            assert!(!text("reason".into()).is_empty(), "differences.kdl: no reason: {line}");
            let sometimes = node.entry("sometimes").is_some_and(|entry| entry.value().as_bool() == Some(true));
            Rule { case: text(0.into()), builder: text("builder".into()), what: text("what".into()), sometimes, line }
        };
        Accepted { rules: document.nodes().iter().map(rule).collect(), used: Mutex::default() }
    }

    /// The rules for a case, as written.
    pub fn of_case(&self, case: &str) -> String {
        let fitting = self.rules.iter().filter(|rule| fits(&rule.case, case));
        fitting.map(|rule| format!("{}\n", rule.line)).collect()
    }

    /// Whether a rule accepts this.
    pub fn accepts(&self, case: &str, builder: &str, what: &str) -> bool {
        let fits = |rule: &Rule| fits(&rule.case, case) && (fits(&rule.builder, builder)) && fits(&rule.what, what);
        let fitting: Vec<usize> =
            self.rules.iter().enumerate().filter(|(_, rule)| fits(rule)).map(|(index, _)| index).collect();
        self.used.lock().expect("no holder panics").extend(&fitting);
        !fitting.is_empty()
    }

    /// The rules that accepted nothing.
    pub fn stale(&self) -> Vec<&str> {
        let used = self.used.lock().expect("no holder panics");
        let unused = self.rules.iter().enumerate().filter(|(at, rule)| !rule.sometimes && !used.contains(at));
        unused.map(|(_, rule)| rule.line.as_str()).collect()
    }
}

/// Whether `text` is as `pattern` says, where `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| fits(rest, &text[at..]))
        }),
    }
}
