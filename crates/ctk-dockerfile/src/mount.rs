//! `RUN --mount=type=…,key=value,…`

use std::ops::Range;

use ctk_buildgraph::{Access, From, RunMount, RunMountKind, Sharing};
use ctk_syntax::parse_size;

use crate::codes;
use crate::line::Line;

/// Keys of every type; an unknown one is named with its nearest.
const KEYS: [(&str, &[&str]); 5] = [
    ("bind", &["target", "dst", "destination", "source", "src", "from", "rw", "readwrite", "ro", "readonly"]),
    (
        "cache",
        &[
            "id",
            "target",
            "dst",
            "destination",
            "ro",
            "readonly",
            "rw",
            "readwrite",
            "sharing",
            "from",
            "source",
            "src",
            "mode",
            "uid",
            "gid",
        ],
    ),
    ("tmpfs", &["target", "dst", "destination", "size"]),
    ("secret", &["id", "source", "src", "target", "dst", "destination", "env", "required", "mode", "uid", "gid"]),
    ("ssh", &["id", "target", "dst", "destination", "required", "mode", "uid", "gid"]),
];

struct Options<'l, 'a> {
    line: &'l mut Line<'a>,
    range: Range<usize>,
    pairs: Vec<(String, Option<String>)>,
}

impl Options<'_, '_> {
    fn error(&mut self, message: String, label: &str) {
        self.line.error(codes::BAD_MOUNT, message, self.range.clone(), label);
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        self.pairs.iter().rev().find(|(key, _)| names.contains(&key.as_str())).and_then(|(_, value)| value.clone())
    }

    fn truth(&mut self, names: &[&str]) -> Option<bool> {
        let (key, value) = self.pairs.iter().rev().find(|(key, _)| names.contains(&key.as_str())).cloned()?;
        match value.as_deref() {
            None | Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(other) => {
                self.error(format!("mount option `{key}` cannot be `{other}`"), "expected `true` or `false`");
                None
            }
        }
    }

    fn number(&mut self, name: &str, radix: u32, default: u32) -> u32 {
        match self.text(&[name]) {
            None => default,
            Some(text) => u32::from_str_radix(&text, radix).unwrap_or_else(|_| {
                let what = if radix == 8 { "expected an octal mode such as 0755" } else { "expected a number" };
                self.error(format!("mount option `{name}` cannot be `{text}`"), what);
                default
            }),
        }
    }

    fn target(&mut self, required: bool) -> Option<String> {
        let target = self.text(&["target", "dst", "destination"]);
        if required && target.is_none() {
            self.error("this mount needs a target".into(), "expected `target=/path`");
        }
        target
    }
}

pub(crate) fn parse(line: &mut Line<'_>, text: &str, range: Range<usize>) -> Option<RunMount> {
    let pairs: Vec<(String, Option<String>)> = fields(text)
        .into_iter()
        .filter(|field| !field.is_empty())
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_ascii_lowercase(), None),
        })
        .collect();
    let mut options = Options { line, range, pairs };
    let kind = options.text(&["type"]).unwrap_or_else(|| "bind".into()).to_ascii_lowercase();
    let Some((_, keys)) = KEYS.iter().find(|(name, _)| *name == kind) else {
        let near = ctk_syntax::nearest(&kind, KEYS.iter().map(|(name, _)| *name));
        let label = near.map_or("expected bind, cache, tmpfs or secret".into(), |n| format!("did you mean `{n}`?"));
        options.error(format!("unknown mount type `{kind}`"), &label);
        return None;
    };
    if kind == "ssh" {
        let (line, range) = (options.line, options.range);
        line.error(codes::NOT_SUPPORTED, "`--mount=type=ssh` is not supported yet", range, "use a secret for the key");
        return None;
    }
    let unknown: Vec<String> = options
        .pairs
        .iter()
        .map(|(key, _)| key.clone())
        .filter(|k| k != "type" && !keys.contains(&k.as_str()))
        .collect();
    for key in unknown {
        let near = ctk_syntax::nearest(&key, keys.iter().copied());
        let label = near.map_or_else(|| format!("it has {}", keys.join(", ")), |n| format!("did you mean `{n}`?"));
        options.error(format!("a {kind} mount has no option `{key}`"), &label);
    }
    let readonly = options.truth(&["ro", "readonly"]);
    let writable = options.truth(&["rw", "readwrite"]);
    let mount = |target, writes: bool, kind| {
        let access = if writes { Access::ReadWrite } else { Access::ReadOnly };
        Some(RunMount { target, access, kind })
    };
    match kind.as_str() {
        "bind" => {
            let target = options.target(true)?;
            let from = options.text(&["from"]).map_or(From::Context, From::Text);
            let source = options.text(&["source", "src"]).unwrap_or_default();
            let writes = writable.unwrap_or(false) && readonly != Some(true);
            mount(Some(target), writes, RunMountKind::Bind { from, source })
        }
        "cache" => {
            let target = options.target(true)?;
            if options.text(&["from"]).is_some() || options.text(&["source", "src"]).is_some() {
                let (line, range) = (options.line, options.range);
                line.error(
                    codes::NOT_SUPPORTED,
                    "`from` and `source` of a cache mount are not supported yet",
                    range,
                    "",
                );
                return None;
            }
            let sharing = match options.text(&["sharing"]).as_deref() {
                None | Some("shared") => Sharing::Shared,
                Some("private") => Sharing::Private,
                Some("locked") => Sharing::Locked,
                Some(other) => {
                    let message = format!("mount option `sharing` cannot be `{other}`");
                    options.error(message, "expected `shared`, `private` or `locked`");
                    Sharing::Shared
                }
            };
            let (mode, uid, gid) =
                (options.number("mode", 8, 0o755), options.number("uid", 10, 0), options.number("gid", 10, 0));
            let writes = readonly != Some(true) && writable != Some(false);
            mount(Some(target), writes, RunMountKind::Cache { id: options.text(&["id"]), sharing, mode, uid, gid })
        }
        "tmpfs" => {
            let target = options.target(true)?;
            let size_bytes = match options.text(&["size"]) {
                None => None,
                Some(text) => {
                    let size = parse_size(&text);
                    if size.is_none() {
                        options
                            .error(format!("mount option `size` cannot be `{text}`"), "expected a size such as `64m`");
                    }
                    size
                }
            };
            mount(Some(target), true, RunMountKind::Tmpfs { size_bytes })
        }
        _ => {
            let target = options.target(false);
            let last = |t: &String| t.rsplit('/').next().unwrap_or_default().to_owned();
            let env = options.text(&["env"]);
            let Some(id) = options.text(&["id", "source", "src"]).or_else(|| target.as_ref().map(last)) else {
                options.error("this secret mount names no secret".into(), "expected `id=name`");
                return None;
            };
            let target = target.or_else(|| env.is_none().then(|| format!("/run/secrets/{id}")));
            let required = options.truth(&["required"]).unwrap_or(false);
            let (mode, uid, gid) =
                (options.number("mode", 8, 0o400), options.number("uid", 10, 0), options.number("gid", 10, 0));
            mount(target, false, RunMountKind::Secret { id, env, required, mode, uid, gid })
        }
    }
}

/// Fields of a line of CSV; a field in double quotes may hold commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for char in text.chars() {
        match char {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            char => fields.last_mut().expect("never empty").push(char),
        }
    }
    fields
}
