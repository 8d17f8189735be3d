//! Mounts as people ask for them: `--volume`, `--mount`, `--tmpfs` as text become [`Asked`]. Nothing is looked up here.

use crate::failure::Failure;

/// One mount as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The option and its text, for messages.
    pub text: String,
    /// Of what.
    pub kind: Kind,
    /// Where.
    pub destination: String,
    /// Words of the mount itself: `ro`, `noexec`, `size=…`.
    pub words: Vec<String>,
    /// The part of it that is shown.
    pub subpath: Option<String>,
    /// Whether all in it becomes the container's user's.
    pub chown: bool,
    /// Ids shown as others: the container's own mappings, or these.
    pub idmap: Option<String>,
    /// Whether an empty volume stays so.
    pub no_copy: bool,
    /// Whether what the container writes goes over it, and not into it.
    pub overlay: bool,
    /// Where that goes and what overlay needs, if not a folder of the container's own.
    pub upper: (Option<String>, Option<String>),
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path of the host, and whether it is made if it is missing.
    Bind(String, bool),
    /// A volume by its name; one of its own if there is none.
    Volume(Option<String>),
    /// A new file system in memory.
    Tmpfs,
    /// An image.
    Image(String),
    /// A new set of terminals.
    Devpts,
}

impl Kind {
    /// As `inspect` says it.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Bind(..) => "bind",
            Kind::Volume(_) => "volume",
            Kind::Tmpfs => "tmpfs",
            Kind::Image(_) => "image",
            Kind::Devpts => "devpts",
        }
    }
}

impl Asked {
    /// A mount without further wishes.
    pub fn new(text: impl Into<String>, kind: Kind, destination: impl Into<String>) -> Asked {
        Asked {
            text: text.into(),
            kind,
            destination: destination.into(),
            words: Vec::new(),
            subpath: None,
            chown: false,
            idmap: None,
            no_copy: false,
            overlay: false,
            upper: (None, None),
        }
    }

    /// Whether the container can write there.
    pub fn is_writable(&self) -> bool {
        !self.words.iter().any(|word| word == "ro" || word == "rro")
            && !matches!(&self.kind, Kind::Image(_) if !self.has("rw"))
    }

    /// Whether the word was given.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    fn wrong(&self, why: impl std::fmt::Display, hint: Option<&str>) -> Failure {
        Failure::sentence(format!("{}: {why}", self.text), hint)
    }

    /// Takes one word of its options.
    fn take(&mut self, word: &str) -> Result<(), Failure> {
        const PLAIN: [&str; 26] = [
            "ro",
            "rw",
            "rro",
            "nosuid",
            "suid",
            "nodev",
            "dev",
            "noexec",
            "exec",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "private",
            "rprivate",
            "unbindable",
            "runbindable",
            "bind",
            "rbind",
            "noatime",
            "relatime",
            "nodiratime",
            "strictatime",
            "nosymfollow",
            "sync",
            "notmpcopyup",
        ];
        const OF_TMPFS: [&str; 7] = ["size", "mode", "nr_inodes", "nr_blocks", "uid", "gid", "huge"];
        /// The two cannot be true at once.
        const CONTRARY: [(&str, &str); 4] = [("ro", "rw"), ("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        match (name, value) {
            // Nothing has labels without SELinux.
            ("z" | "Z" | "copy" | "" | "consistent" | "cached" | "delegated", None) => {}
            ("readonly", None) => return self.take("ro"),
            ("U", None) => self.chown = true,
            ("O", None) => self.overlay = true,
            ("nocopy", None) => self.no_copy = true,
            ("idmap", value) => self.idmap = Some(value.unwrap_or_default().to_owned()),
            ("tmpcopyup", None) if self.kind == Kind::Tmpfs => self.words.push(word.into()),
            ("upperdir", Some(path)) => self.upper.0 = Some(path.into()),
            ("workdir", Some(path)) => self.upper.1 = Some(path.into()),
            ("size", Some(size)) if self.kind == Kind::Tmpfs && !size.ends_with('%') => {
                let bytes = super::parse::bytes(size).map_err(|why| self.wrong(format!("`{word}`: {why}"), None))?;
                self.words.push(format!("size={bytes}"));
            }
            ("mode", Some(mode)) if self.kind == Kind::Tmpfs && u32::from_str_radix(mode, 8).is_err() => {
                return Err(self.wrong(format!("`{mode}` is no octal mode"), Some("as `mode=1777`")));
            }
            (name, Some(_)) if self.kind == Kind::Tmpfs && OF_TMPFS.contains(&name) => self.words.push(word.into()),
            (name, Some(_)) if OF_TMPFS.contains(&name) => {
                return Err(self.wrong(format!("`{name}` is for a tmpfs"), None));
            }
            ("notmpcopyup", None) if self.kind != Kind::Tmpfs => {
                return Err(self.wrong("`notmpcopyup` is for a tmpfs", None));
            }
            (plain, None) if PLAIN.contains(&plain) => {
                let other = CONTRARY.iter().find_map(|(a, b)| match plain {
                    one if one == *a => Some(*b),
                    one if one == *b => Some(*a),
                    _ => None,
                });
                if let Some(other) = other.filter(|other| self.has(other)) {
                    return Err(self.wrong(format!("`{plain}` and `{other}` contradict each other"), None));
                }
                if !self.has(plain) {
                    self.words.push(plain.into());
                }
            }
            _ => {
                let more = ["z", "Z", "U", "O", "nocopy", "idmap", "readonly", "tmpcopyup"];
                let near = ctk_syntax::nearest(name, PLAIN.into_iter().chain(more).chain(OF_TMPFS));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let hint = hint.as_deref().unwrap_or("as `ro`, `z`, `U`, `rslave`, `noexec`");
                return Err(self.wrong(format!("`{word}` is no option of a mount"), Some(hint)));
            }
        }
        Ok(())
    }

    /// What contradicts itself.
    fn checked(self) -> Result<Asked, Failure> {
        let bind = matches!(self.kind, Kind::Bind(..));
        if self.overlay && !bind {
            return Err(self.wrong("`O` is for a folder of the host", Some("an image has `rw` for that")));
        }
        if self.overlay && (self.has("ro") || self.chown || self.idmap.is_some()) {
            return Err(self.wrong("`O` does not go with `ro`, `U` and `idmap`", None));
        }
        match &self.upper {
            (None, None) => {}
            (Some(_), Some(_)) if self.overlay => {}
            _ if self.overlay => return Err(self.wrong("`upperdir` and `workdir` go together", None)),
            _ => return Err(self.wrong("`upperdir` and `workdir` go with `O`", None)),
        }
        if self.no_copy && !matches!(self.kind, Kind::Volume(_)) {
            return Err(self.wrong("`nocopy` is for a volume", None));
        }
        if self.idmap.is_some() && !bind && !matches!(self.kind, Kind::Volume(_)) {
            return Err(self.wrong("`idmap` is for folders and volumes", None));
        }
        if self.subpath.is_some() && !matches!(self.kind, Kind::Volume(_) | Kind::Image(_)) {
            return Err(self.wrong("a part is shown of volumes and images", Some("name the folder itself in `src=`")));
        }
        Ok(self)
    }
}

/// `[HOST|VOLUME:]PATH[:OPTIONS]`.
pub fn volume(text: &str) -> Result<Asked, Failure> {
    let wrong = || {
        let hint = "it is `HOST:PATH[:ro]` for a folder or file of the host, `NAME:PATH[:ro]` for a volume, or `PATH`";
        Failure::sentence(format!("--volume `{text}` cannot be understood"), Some(hint))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, options) = match parts.as_slice() {
        [path] => (None, *path, ""),
        [source, path] => (Some(*source), *path, ""),
        [source, path, options] => (Some(*source), *path, *options),
        _ => return Err(wrong()),
    };
    let kind = match source {
        None => Kind::Volume(None),
        Some("") => return Err(wrong()),
        Some(host) if host.starts_with(['/', '.']) => Kind::Bind(host.into(), false),
        Some(name) => {
            ctk_volume::check_name(name).map_err(Failure::during(format!("--volume `{text}` cannot be understood")))?;
            Kind::Volume(Some(name.into()))
        }
    };
    let mut asked = Asked::new(format!("--volume `{text}`"), kind, absolute("--volume", text, path)?);
    for word in options.split(',') {
        asked.take(word)?;
    }
    asked.checked()
}

/// `PATH[:OPTIONS]`.
pub fn tmpfs(text: &str) -> Result<Asked, Failure> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut asked = Asked::new(format!("--tmpfs `{text}`"), Kind::Tmpfs, absolute("--tmpfs", text, path)?);
    for word in options.split(',') {
        asked.take(word)?;
    }
    asked.checked()
}

/// `type=bind,src=…,dst=…,ro`.
pub fn in_words(text: &str) -> Result<Asked, Failure> {
    let wrong = |why: &str, hint: Option<&str>| Failure::sentence(format!("--mount `{text}`: {why}"), hint);
    let pairs: Vec<(&str, Option<&str>)> = text
        .split(',')
        .map(|word| word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value))))
        .collect();
    let find = |names: &[&str]| pairs.iter().find(|(name, _)| names.contains(name)).and_then(|(_, value)| *value);
    let source = find(&["src", "source"]);
    let creates = pairs.iter().any(|(name, value)| *name == "bind-create-src" && *value != Some("false"));
    let others = ["volume-driver", "volume-opt", "volume-label", "z", "Z", "bind", "rbind"];
    let others = others.iter().chain(&["shared", "rshared", "slave", "rslave", "private", "rprivate"]);
    if let Some((other, _)) = pairs.iter().find(|(name, _)| !KEYS.contains(name) && !others.clone().any(|o| o == name))
    {
        let near = ctk_syntax::nearest(other, KEYS).map(|near| format!("did you mean `{near}`?"));
        return Err(wrong(&format!("there is no `{other}`"), near.as_deref()));
    }
    let target = find(&["dst", "destination", "target"]).ok_or_else(|| wrong("`dst=PATH` is missing", None))?;
    let kind = match (find(&["type"]).unwrap_or("volume"), source) {
        ("bind", Some(source)) => Kind::Bind(source.into(), creates),
        ("image", Some(source)) => Kind::Image(source.into()),
        (word @ ("bind" | "image"), None) => {
            let what = if word == "bind" { "`src=PATH` is missing" } else { "`src=IMAGE` is missing" };
            return Err(wrong(what, None));
        }
        ("volume", source) => {
            let name = source.filter(|name| !name.is_empty());
            if let Some(name) = name {
                if name.starts_with('/') {
                    return Err(wrong("a volume has a name, no path", Some("`type=bind` shows a folder of the host")));
                }
                ctk_volume::check_name(name).map_err(Failure::during(format!("--mount `{text}`")))?;
            }
            Kind::Volume(name.map(str::to_owned))
        }
        ("tmpfs" | "ramfs", None) => Kind::Tmpfs,
        ("devpts", None) => Kind::Devpts,
        ("tmpfs" | "ramfs" | "devpts", Some(_)) => return Err(wrong("a new file system has no source", None)),
        ("glob", _) => return Err(wrong("`glob` is not there", Some("mount the files one by one, or their folder"))),
        (other, _) => {
            let near = ctk_syntax::nearest(other, ["bind", "volume", "tmpfs", "image", "devpts"]);
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let what = format!("type `{other}` is none of bind, volume, tmpfs, image, devpts");
            return Err(wrong(&what, hint.as_deref()));
        }
    };
    let mut asked = Asked::new(format!("--mount `{text}`"), kind, absolute("--mount", text, target)?);
    for (name, value) in &pairs {
        word(&mut asked, name, *value)?;
    }
    if asked.kind == Kind::Devpts {
        asked
            .words
            .splice(0..0, ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"].map(String::from));
    }
    asked.checked()
}

/// Words of `--mount`.
const KEYS: [&str; 38] = [
    "type",
    "src",
    "source",
    "dst",
    "destination",
    "target",
    "ro",
    "readonly",
    "rw",
    "readwrite",
    "bind-propagation",
    "bind-nonrecursive",
    "bind-recursive",
    "bind-create-src",
    "consistency",
    "relabel",
    "U",
    "chown",
    "idmap",
    "volume-subpath",
    "image-subpath",
    "subpath",
    "volume-nocopy",
    "nocopy",
    "tmpfs-size",
    "tmpfs-mode",
    "tmpcopyup",
    "notmpcopyup",
    "noexec",
    "exec",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "size",
    "mode",
    "uid",
    "gid",
];

/// One word of `--mount`.
fn word(asked: &mut Asked, name: &str, value: Option<&str>) -> Result<(), Failure> {
    let yes = !matches!(value, Some("false" | "0"));
    let given = || value.filter(|value| !value.is_empty());
    let missing = |asked: &Asked| asked.wrong(format!("`{name}` needs a value"), None);
    let of = |asked: &Asked, kind: &str| match asked.kind.word() == kind {
        true => Ok(()),
        false => Err(asked.wrong(format!("`{name}` is for a {kind}, and this is a {}", asked.kind.word()), None)),
    };
    match name {
        "type" | "src" | "source" | "dst" | "destination" | "target" | "consistency" | "relabel" => Ok(()),
        "ro" | "readonly" => asked.take(if yes { "ro" } else { "rw" }),
        "rw" | "readwrite" => asked.take(if yes { "rw" } else { "ro" }),
        "bind-create-src" => of(asked, "bind"),
        "bind-propagation" => {
            of(asked, "bind")?;
            let kind = given().ok_or_else(|| missing(asked))?;
            match ["shared", "rshared", "slave", "rslave", "private", "rprivate"].contains(&kind) {
                true => asked.take(kind),
                false => {
                    let hint = Some("it is shared, slave or private, with `r` before it for all below, too");
                    Err(asked.wrong(format!("`{kind}` is no propagation"), hint))
                }
            }
        }
        "bind-nonrecursive" => {
            of(asked, "bind")?;
            if yes { asked.take("bind") } else { Ok(()) }
        }
        "bind-recursive" => {
            of(asked, "bind")?;
            match value {
                Some("disabled") => asked.take("bind"),
                Some("enabled" | "writable") => Ok(()),
                Some("readonly") => asked.take("rro"),
                _ => Err(asked.wrong("`bind-recursive` is enabled, disabled, writable or readonly", None)),
            }
        }
        "U" | "chown" => {
            asked.chown = yes;
            Ok(())
        }
        "idmap" => {
            asked.idmap = Some(value.unwrap_or_default().to_owned()).filter(|_| yes);
            Ok(())
        }
        "volume-subpath" | "image-subpath" | "subpath" => {
            let path = given().ok_or_else(|| missing(asked))?;
            if path.split('/').any(|part| part == "..") {
                return Err(asked.wrong(format!("`{path}` leads out with its `..`"), None));
            }
            asked.subpath = Some(path.trim_start_matches('/').to_owned());
            Ok(())
        }
        "volume-nocopy" | "nocopy" => {
            of(asked, "volume")?;
            asked.no_copy = yes;
            Ok(())
        }
        "volume-driver" if matches!(value, Some("local")) => Ok(()),
        "volume-driver" => Err(asked.wrong("there are no drivers of volumes but `local`", None)),
        "volume-opt" | "volume-label" => {
            let hint = Some("`ctk volume create` makes a volume with options and labels");
            Err(asked.wrong(format!("`{name}` is not there"), hint))
        }
        "tmpfs-size" | "size" | "tmpfs-mode" | "mode" | "uid" | "gid" => {
            of(asked, "tmpfs")?;
            let value = given().ok_or_else(|| missing(asked))?;
            asked.take(&format!("{}={value}", name.trim_start_matches("tmpfs-")))
        }
        "tmpcopyup" => {
            of(asked, "tmpfs")?;
            asked.take(if yes { "tmpcopyup" } else { "notmpcopyup" })
        }
        "notmpcopyup" | "noexec" | "exec" | "nosuid" | "suid" | "nodev" | "dev" if value.is_none() => asked.take(name),
        "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" | "z" | "Z" | "rbind" | "bind"
            if value.is_none() =>
        {
            asked.take(name)
        }
        other => {
            let near = ctk_syntax::nearest(other, KEYS).map(|near| format!("did you mean `{near}`?"));
            Err(asked.wrong(format!("there is no `{other}`"), near.as_deref()))
        }
    }
}

/// `CONTAINER[:ro]`.
pub fn from_container(text: &str) -> Result<(&str, Vec<&str>), Failure> {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let options: Vec<&str> = options.split(',').filter(|option| !option.is_empty() && *option != "z").collect();
    match options.iter().find(|option| !matches!(**option, "ro" | "rw")) {
        Some(other) => {
            let what = format!("--volumes-from `{text}`: `{other}` is none of ro, rw, z");
            Err(Failure::sentence(what, None))
        }
        None => Ok((name, options)),
    }
}

fn absolute(option: &str, text: &str, path: &str) -> Result<String, Failure> {
    match path.starts_with('/') && clean(path) != "/" {
        true => Ok(clean(path)),
        false => {
            let what = format!("{option} `{text}`: `{path}` is no path in the container; it begins with `/`, and more");
            Err(Failure::sentence(what, None))
        }
    }
}

/// A path without `.`, `..` and doubled slashes.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: Result<Asked, Failure>) -> String {
        result.expect_err("it is wrong").text()
    }

    #[track_caller]
    fn check(asked: Result<Asked, Failure>, kind: Kind, destination: &str, words: &[&str]) {
        let asked = asked.unwrap_or_else(|failure| panic!("{}", failure.text()));
        assert_eq!((asked.kind, asked.destination.as_str()), (kind, destination));
        assert_eq!(asked.words, words);
    }

    #[test]
    fn volumes_are_read_as_fingers_write_them() {
        check(volume("/data"), Kind::Volume(None), "/data", &[]);
        check(volume("web:/data/../srv/:ro,z"), Kind::Volume(Some("web".into())), "/srv", &["ro"]);
        check(volume("./x:/x"), Kind::Bind("./x".into(), false), "/x", &[]);
        check(volume("/a:/b:rslave,noexec"), Kind::Bind("/a".into(), false), "/b", &["rslave", "noexec"]);
        assert!(volume("/a:/b:U").is_ok_and(|asked| asked.chown));
        assert!(volume("/a:/b:O").is_ok_and(|asked| asked.overlay));
        assert!(volume("/a:/b:idmap=uids=0-1-10").is_ok_and(|asked| asked.idmap.as_deref() == Some("uids=0-1-10")));
        check(tmpfs("/run:size=1m,mode=755"), Kind::Tmpfs, "/run", &["size=1048576", "mode=755"]);
    }

    #[test]
    fn mounts_in_words() {
        check(in_words("type=bind,src=/a,dst=/b,ro"), Kind::Bind("/a".into(), false), "/b", &["ro"]);
        check(in_words("type=bind,src=/a,dst=/b,bind-create-src"), Kind::Bind("/a".into(), true), "/b", &[]);
        check(in_words("dst=/b"), Kind::Volume(None), "/b", &[]);
        check(in_words("type=tmpfs,dst=/b,tmpfs-size=1k"), Kind::Tmpfs, "/b", &["size=1024"]);
        check(in_words("type=image,src=web,dst=/b,rw=true"), Kind::Image("web".into()), "/b", &["rw"]);
        check(in_words("type=volume,src=v,dst=/b,ro=false"), Kind::Volume(Some("v".into())), "/b", &["rw"]);
        let part = in_words("src=v,dst=/b,volume-subpath=/x/y,volume-nocopy").ok().unwrap();
        assert_eq!((part.subpath.as_deref(), part.no_copy), (Some("x/y"), true));
    }

    #[test]
    fn every_mistake_says_what_is_wrong() {
        for (text, expected) in [
            ("", "is no path in the container"),
            ("a:b:c:d", "cannot be understood"),
            ("/a:b", "is no path in the container"),
            ("/a:/", "is no path in the container"),
            (":/b", "`NAME:PATH[:ro]`"),
            ("a b:/x", "only letters, digits"),
            ("/a:/b:ro,rw", "`rw` and `ro` contradict"),
            ("/a:/b:rsalve", "did you mean `rslave`?"),
            ("/a:/b:size=5m", "`size` is for a tmpfs"),
            ("v:/b:O", "`O` is for a folder of the host"),
            ("/a:/b:O,ro", "`O` does not go with `ro`"),
            ("/a:/b:upperdir=/u,workdir=/w", "go with `O`"),
            ("/a:/b:O,upperdir=/u", "go together"),
            ("/a:/b:nocopy", "`nocopy` is for a volume"),
        ] {
            let found = said(volume(text));
            assert!(found.contains(expected), "{text}: {found}");
        }
        for (text, expected) in [
            ("type=bind,dst=/b", "`src=PATH` is missing"),
            ("type=bind,src=/a", "`dst=PATH` is missing"),
            ("type=bnd,src=/a,dst=/b", "did you mean `bind`?"),
            ("type=glob,src=/a*,dst=/b", "`glob` is not there"),
            ("type=tmpfs,src=/a,dst=/b", "has no source"),
            ("type=bind,src=/a,dst=/b,tmpfs-size=5m", "`tmpfs-size` is for a tmpfs, and this is a bind"),
            ("type=tmpfs,dst=/b,tmpfs-size=many", "expected a size"),
            ("type=tmpfs,dst=/b,tmpfs-mode=9", "`9` is no octal mode"),
            ("type=volume,src=/a,dst=/b", "a volume has a name"),
            ("type=volume,src=v,dst=/b,volume-subpath=../x", "leads out"),
            ("type=bind,src=/a,dst=/b,subpath=x", "a part is shown of volumes and images"),
            ("type=volume,src=v,dst=/b,volume-driver=nfs", "no drivers"),
            ("type=bind,src=/a,dst=/b,bind-propagation=loud", "is no propagation"),
            ("type=bind,src=/a,dst=/b,readonli", "did you mean `readonly`?"),
        ] {
            let found = said(in_words(text));
            assert!(found.contains(expected), "{text}: {found}");
        }
        assert!(said(tmpfs("x")).contains("is no path"));
        assert!(said(tmpfs("/x:sise=5m")).contains("did you mean `size`?"));
        assert!(from_container("a:exec").err().unwrap().text().contains("none of ro, rw, z"));
    }
}
