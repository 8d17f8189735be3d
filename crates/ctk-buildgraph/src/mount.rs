//! The options of `RUN --mount`, once their variables are replaced.

use ctk_syntax::{nearest, parse_size};

use crate::{Access, From, MountOption, RunMount, RunMountKind, Sharing, WrittenMount};

/// A mount and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMount {
    /// The mount.
    pub mount: RunMount,
    /// Options that it has and that do nothing: a sentence each.
    pub idle: Vec<String>,
}

/// Why options make no mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFault {
    /// A sentence.
    pub message: String,
    /// What would be right.
    pub label: String,
    /// The option that it is about, by its place among them; none if it is about all.
    pub option: Option<usize>,
}

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
/// Keys by their first name, and the types that they say something about.
const KEYS: [(&[&str], &[&str]); 14] = [
    (&["type"], &TYPES),
    (&["target", "dst", "destination"], &TYPES),
    (&["source", "src"], &["bind", "cache", "secret"]),
    (&["from"], &["bind", "cache"]),
    (&["ro", "readonly"], &TYPES),
    (&["rw", "readwrite"], &TYPES),
    (&["id"], &["cache", "secret", "ssh"]),
    (&["sharing"], &["cache"]),
    (&["mode"], &["cache", "secret", "ssh"]),
    (&["uid"], &["cache", "secret", "ssh"]),
    (&["gid"], &["cache", "secret", "ssh"]),
    (&["size"], &["tmpfs"]),
    (&["env"], &["secret"]),
    (&["required"], &["secret", "ssh"]),
];
/// Keys that may stand without a value.
const BARE: [&str; 5] = ["ro", "readonly", "rw", "readwrite", "required"];
/// What BuildKit accepts of every type, although only some make use of it.
const HARMLESS: [(&str, &[&str]); 3] = [("id", &["bind", "tmpfs"]), ("env", &TYPES), ("from", &["tmpfs", "ssh"])];

/// Reads options whose values are final. All mistakes are reported at once.
pub fn mount_of(options: &[MountOption]) -> Result<ReadMount, Vec<MountFault>> {
    let mut reader = Reader { options, faults: Vec::new(), idle: Vec::new() };
    let mount = reader.mount();
    match mount {
        Some(mount) if reader.faults.is_empty() => Ok(ReadMount { mount, idle: reader.idle }),
        _ => Err(reader.faults),
    }
}

impl WrittenMount {
    /// The mount as it stands there, variables not replaced; none if it can only be read with their values.
    pub fn plain(&self) -> Option<RunMount> {
        match self {
            WrittenMount::Plain(mount) => Some(mount.clone()),
            WrittenMount::Options(options) => mount_of(options).ok().map(|read| read.mount),
        }
    }
}

struct Reader<'a> {
    options: &'a [MountOption],
    faults: Vec<MountFault>,
    idle: Vec<String>,
}

impl Reader<'_> {
    /// A mistake of the last option of one of these names.
    fn fault(&mut self, names: &[&str], message: impl Into<String>, label: impl Into<String>) {
        let option = self.options.iter().rposition(|option| names.contains(&option.key.as_str()));
        self.faults.push(MountFault { message: message.into(), label: label.into(), option });
    }

    fn mount(&mut self) -> Option<RunMount> {
        let kind = self.text(&["type"]).unwrap_or("bind").to_ascii_lowercase();
        if !TYPES.contains(&kind.as_str()) {
            let near = nearest(&kind, TYPES);
            let label = near.map_or(format!("expected {}", TYPES.join(", ")), |n| format!("did you mean `{n}`?"));
            self.fault(&["type"], format!("unknown mount type `{kind}`"), label);
            return None;
        }
        self.keys(&kind);
        let mut writes = matches!(kind.as_str(), "cache" | "tmpfs");
        for option in self.options {
            let read_only = matches!(option.key.as_str(), "ro" | "readonly");
            if read_only || matches!(option.key.as_str(), "rw" | "readwrite") {
                // The last one wins.
                writes = self.truth(option).map_or(writes, |yes| yes != read_only);
            }
        }
        let required = self.last(&["required"]).cloned().and_then(|o| self.truth(&o)).unwrap_or(false);
        let target = self.text(&["target", "dst", "destination"]).filter(|t| !t.is_empty()).map(str::to_owned);
        let source = self.text(&["source", "src"]).unwrap_or_default().to_owned();
        let from = self.text(&["from"]).filter(|f| !f.is_empty()).map(|f| From::Text(f.to_owned()));
        let id = self.text(&["id"]).filter(|i| !i.is_empty()).map(str::to_owned);
        let place = Some(target.clone().unwrap_or_else(|| ".".into()));
        let (target, kind) = match kind.as_str() {
            "bind" => (place, RunMountKind::Bind { from: from.unwrap_or(From::Context), source }),
            "cache" => {
                let sharing = self.sharing();
                let (mode, uid, gid) = self.attributes(0o755);
                let id = id.or_else(|| place.as_deref().map(clean_id));
                (place, RunMountKind::Cache { id, sharing, from, source, mode, uid, gid })
            }
            "tmpfs" => (place, RunMountKind::Tmpfs { size_bytes: self.size() }),
            "secret" => {
                writes = false;
                if id.is_some() && !source.is_empty() {
                    self.fault(
                        &["source", "src"],
                        "a secret mount has both `id` and `source`",
                        "they name the same: take one",
                    );
                }
                let env = self.text(&["env"]).map(str::to_owned);
                let base = |path: &String| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
                let named = id.or(Some(source).filter(|s| !s.is_empty())).or_else(|| target.as_ref().map(base));
                let Some(id) = named.filter(|id| !id.is_empty()) else {
                    self.fault(&["type"], "this secret mount names no secret", "expected `id=name`");
                    return None;
                };
                if env.as_ref().is_some_and(|env| env.is_empty() || env.contains('=')) {
                    self.fault(&["env"], "mount option `env` names no variable", "expected `env=NAME`");
                }
                let target = target.or_else(|| env.is_none().then(|| format!("/run/secrets/{}", base(&id))));
                let (mode, uid, gid) = self.attributes(0o400);
                (target, RunMountKind::Secret { id, env, required, mode, uid, gid })
            }
            _ => {
                writes = false;
                let (mode, uid, gid) = self.attributes(0o600);
                let id = id.unwrap_or_else(|| "default".into());
                (target, RunMountKind::Ssh { id, required, mode, uid, gid })
            }
        };
        let access = if writes { Access::ReadWrite } else { Access::ReadOnly };
        Some(RunMount { target, access, kind })
    }

    /// Whether every key is one of this type's.
    fn keys(&mut self, kind: &str) {
        let own = KEYS.iter().filter(|(_, types)| types.contains(&kind));
        let known: Vec<&str> = own.flat_map(|(names, _)| names.iter().copied()).collect();
        for (number, MountOption { key, value }) in self.options.iter().enumerate() {
            let key = key.as_str();
            let mut fault = |message: String, label: String| {
                self.faults.push(MountFault { message, label, option: Some(number) });
            };
            let there = KEYS.iter().any(|(names, _)| names.contains(&key));
            let harmless = HARMLESS.iter().any(|(name, types)| *name == key && types.contains(&kind));
            if key.is_empty() && value.is_none() {
                fault("an option of this mount is empty".into(), "expected `key=value` between commas".into());
            } else if !there {
                let near = nearest(key, known.iter().copied());
                let label = near.map_or(format!("it has {}", known.join(", ")), |n| format!("did you mean `{n}`?"));
                fault(format!("a {kind} mount has no option `{key}`"), label);
            } else if harmless && !known.contains(&key) {
                self.idle.push(format!("option `{key}` of a {kind} mount does nothing"));
            } else if !known.contains(&key) {
                fault(format!("a {kind} mount has no option `{key}`"), format!("it has {}", known.join(", ")));
            }
            if there && value.is_none() && !BARE.contains(&key) {
                fault(format!("mount option `{key}` has no value"), format!("expected `{key}=…`"));
            }
        }
    }

    fn last(&self, names: &[&str]) -> Option<&MountOption> {
        self.options.iter().rev().find(|option| names.contains(&option.key.as_str()))
    }

    fn text(&self, names: &[&str]) -> Option<&str> {
        self.last(names).and_then(|option| option.value.as_deref())
    }

    /// Truth as Go's `strconv.ParseBool` reads it.
    fn truth(&mut self, option: &MountOption) -> Option<bool> {
        match option.value.as_deref() {
            None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Some(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Some(false),
            Some(other) => {
                let message = format!("mount option `{}` cannot be `{other}`", option.key);
                self.fault(&[option.key.as_str()], message, "expected `true` or `false`");
                None
            }
        }
    }

    fn number(&mut self, name: &str, radix: u32, default: u32) -> u32 {
        let Some(text) = self.text(&[name]).map(str::to_owned) else { return default };
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        u32::from_str_radix(&text, radix).ok().filter(|_| plain).unwrap_or_else(|| {
            let what = if radix == 8 { "expected an octal mode such as 0755" } else { "expected a number" };
            self.fault(&[name], format!("mount option `{name}` cannot be `{text}`"), what);
            default
        })
    }

    fn attributes(&mut self, mode: u32) -> (u32, u32, u32) {
        (self.number("mode", 8, mode) & 0o7777, self.number("uid", 10, 0), self.number("gid", 10, 0))
    }

    fn sharing(&mut self) -> Sharing {
        match self.text(&["sharing"]).map(str::to_ascii_lowercase).as_deref() {
            None | Some("shared") => Sharing::Shared,
            Some("private") => Sharing::Private,
            Some("locked") => Sharing::Locked,
            Some(other) => {
                let near = nearest(other, ["shared", "private", "locked"]);
                let label =
                    near.map_or("expected shared, private or locked".into(), |n| format!("did you mean `{n}`?"));
                self.fault(&["sharing"], format!("mount option `sharing` cannot be `{other}`"), label);
                Sharing::Shared
            }
        }
    }

    fn size(&mut self) -> Option<u64> {
        let text = self.text(&["size"])?.to_owned();
        // Docker's MB are MiB here.
        let binary = text.to_ascii_lowercase().replace("ib", "").replace('b', "");
        let size = parse_size(&binary);
        if size.is_none() {
            self.fault(&["size"], format!("mount option `size` cannot be `{text}`"), "expected a size such as `64m`");
        }
        size.filter(|size| *size > 0)
    }
}

/// The name of a cache that says none: its target as written, without `.` and `..`.
fn clean_id(target: &str) -> String {
    let clean = crate::stage::clean("/", target);
    match target.starts_with('/') {
        true => clean,
        false if clean == "/" => ".".into(),
        false => clean[1..].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ReadMount, Vec<MountFault>> {
        let option = |field: &str| match field.split_once('=') {
            Some((key, value)) => MountOption { key: key.to_owned(), value: Some(value.to_owned()) },
            None => MountOption { key: field.to_owned(), value: None },
        };
        mount_of(&text.split(',').map(option).collect::<Vec<_>>())
    }

    fn refused(text: &str, message: &str) {
        let faults = read(text).expect_err(text);
        let all: Vec<String> = faults.iter().map(|f| format!("{}; {}", f.message, f.label)).collect();
        assert!(all.iter().any(|fault| fault.contains(message)), "{text}: {all:?}");
    }

    #[test]
    fn what_buildkit_refuses_is_refused() {
        for (text, message) in [
            ("type=bnd,target=/x", "did you mean `bind`?"),
            ("target=/x,tagret=y", "did you mean `target`?"),
            ("target=/x,foo", "no option `foo`"),
            ("target=/x,,source=y", "is empty"),
            ("target=/x,source", "`source` has no value"),
            ("target=/x,ro=yes", "`ro` cannot be `yes`"),
            ("target=/x,mode=0755", "a bind mount has no option `mode`"),
            ("target=/x,uid=1", "a bind mount has no option `uid`"),
            ("target=/x,size=1", "a bind mount has no option `size`"),
            ("target=/x,sharing=locked", "a bind mount has no option `sharing`"),
            ("target=/x,required", "a bind mount has no option `required`"),
            ("type=cache,target=/x,sharing=lock", "did you mean `locked`?"),
            ("type=cache,target=/x,mode=0888", "`mode` cannot be `0888`"),
            ("type=cache,target=/x,uid=-1", "`uid` cannot be `-1`"),
            ("type=cache,target=/x,gid=+1", "`gid` cannot be `+1`"),
            ("type=cache,target=/x,size=1m", "no option `size`"),
            ("type=cache,target=/x,required", "no option `required`"),
            ("type=tmpfs,target=/x,size=10x", "`size` cannot be `10x`"),
            ("type=tmpfs,target=/x,size=-1", "`size` cannot be `-1`"),
            ("type=tmpfs,target=/x,mode=0700", "no option `mode`"),
            ("type=secret", "names no secret"),
            ("type=secret,env=X", "names no secret"),
            ("type=secret,id=s,env=", "`env` names no variable"),
            ("type=secret,id=s,env", "`env` has no value"),
            ("type=secret,id=s,source=t", "both `id` and `source`"),
            ("type=secret,id=s,from=x", "no option `from`"),
            ("type=secret,id=s,sharing=locked", "no option `sharing`"),
            ("type=secret,id=s,required=maybe", "`required` cannot be `maybe`"),
            ("type=ssh,source=x", "no option `source`"),
            ("type=ssh,sharing=locked", "no option `sharing`"),
            ("type=ssh,size=2", "no option `size`"),
        ] {
            refused(text, message);
        }
    }

    #[test]
    fn what_does_nothing_is_told() {
        for text in ["target=/x,id=1", "target=/x,env=A", "type=tmpfs,target=/x,from=a", "type=ssh,env=A"] {
            assert_eq!(read(text).expect(text).idle.len(), 1, "{text}");
        }
        assert_eq!(read("type=secret,id=s,env=A").unwrap().idle, Vec::<String>::new());
    }

    #[test]
    fn the_last_word_on_access_wins() {
        for (text, writes) in [
            ("target=/x", false),
            ("target=/x,rw", true),
            ("target=/x,rw=false", false),
            ("target=/x,ro=false", true),
            ("target=/x,rw,ro", false),
            ("target=/x,ro,rw", true),
            ("target=/x,ro=T", false),
            ("type=cache,target=/x", true),
            ("type=cache,target=/x,ro", false),
            ("type=tmpfs,target=/x,readonly", false),
            ("type=secret,id=s,rw", false),
            ("type=ssh,rw", false),
        ] {
            assert_eq!(read(text).expect(text).mount.access == Access::ReadWrite, writes, "{text}");
        }
    }

    #[test]
    fn defaults_are_buildkits() {
        let target = |text: &str| read(text).expect(text).mount.target;
        assert_eq!(target("type=bind").as_deref(), Some("."));
        assert_eq!(target("type=secret,id=a/b").as_deref(), Some("/run/secrets/b"));
        assert_eq!(target("type=secret,id=a,env=B"), None);
        assert_eq!(target("type=secret,target=/x/tok").as_deref(), Some("/x/tok"));
        assert_eq!(target("type=ssh"), None);
        let kind = |text: &str| read(text).expect(text).mount.kind;
        assert!(matches!(kind("type=secret,target=/x/tok/"), RunMountKind::Secret { id, .. } if id == "tok"));
        assert!(matches!(kind("type=cache,target=x/../y"), RunMountKind::Cache { id: Some(id), .. } if id == "y"));
        assert!(matches!(kind("type=ssh"), RunMountKind::Ssh { id, mode: 0o600, .. } if id == "default"));
        for (text, size) in [("10MB", 10 << 20), ("1.5m", 3 << 19), ("10MiB", 10 << 20), ("7", 7)] {
            let found = kind(&format!("type=tmpfs,target=/x,size={text}"));
            assert_eq!(found, RunMountKind::Tmpfs { size_bytes: Some(size) }, "{text}");
        }
        assert_eq!(kind("type=tmpfs,target=/x,size=0"), RunMountKind::Tmpfs { size_bytes: None });
    }
}
