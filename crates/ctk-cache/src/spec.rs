//! `--cache-to` and `--cache-from`: text to places and settings, with buildx's words.

use std::path::PathBuf;

use ctk_layer::Compression;
use ctk_oci::{Digest, Reference};

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A reference of a registry.
    Registry(Reference),
    /// A folder: an OCI layout.
    Local {
        /// Which, relative to where the build's paths start.
        path: PathBuf,
        /// The cache's name in it.
        tag: String,
        /// The cache's manifest, whatever has the name.
        digest: Option<Digest>,
    },
    /// The image itself.
    Inline,
    /// A bucket.
    S3(Box<S3>),
}

/// A bucket. What is not said here is taken from the environment (`AWS_REGION`, `AWS_ACCESS_KEY_ID` and so on).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Where it is.
    pub region: Option<String>,
    /// Before every name of an object.
    pub prefix: String,
    /// Before names of blobs, after `prefix`.
    pub blobs_prefix: String,
    /// Before names of caches, after `prefix`.
    pub manifests_prefix: String,
    /// Names of the cache: an export writes all, an import reads the first that is there.
    pub names: Vec<String>,
    /// The server, if it is not Amazon's.
    pub endpoint_url: Option<String>,
    /// Whether the bucket stands in the path.
    pub use_path_style: bool,
    /// Who we are.
    pub access_key_id: Option<String>,
    /// That we are it.
    pub secret_access_key: Option<String>,
    /// For how long.
    pub session_token: Option<String>,
    /// Blobs sent at once.
    pub upload_parallelism: usize,
}

/// How much of a build is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What the image's own layers come from.
    #[default]
    Min,
    /// All stages.
    Max,
}

/// Cache mounts that travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mounts {
    /// None.
    #[default]
    None,
    /// All that the build's instructions name.
    All,
    /// Those with these ids.
    Ids(Vec<String>),
}

impl Mounts {
    /// Whether the one called `id` does.
    pub fn has(&self, id: &str) -> bool {
        match self {
            Mounts::None => false,
            Mounts::All => true,
            Mounts::Ids(ids) => ids.iter().any(|wanted| wanted == id),
        }
    }
}

/// A cache to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Where.
    pub place: Place,
    /// Cache mounts to take.
    pub mounts: Mounts,
}

/// A cache to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where.
    pub place: Place,
    /// How much.
    pub mode: Mode,
    /// Whether a failure is only told.
    pub ignore_error: bool,
    /// How layers are compressed.
    pub compression: Compression,
    /// Whether layers that came from other caches are compressed so, too.
    pub force_compression: bool,
    /// `false`: an index around the manifest.
    pub image_manifest: bool,
    /// `false`: docker's media types.
    pub oci_mediatypes: bool,
    /// Whether a folder loses what the new cache does not need.
    pub reset: bool,
    /// Cache mounts to send along.
    pub mounts: Mounts,
}

/// What is wrong with a cache's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSetting {
    /// Which; it may be one that is missing.
    pub key: &'static str,
    /// One sentence that says what to write.
    pub message: String,
}

/// The types of caches.
pub const KINDS: [&str; 4] = ["registry", "local", "inline", "s3"];
const S3_KEYS: &[&str] = &[
    "access_key_id",
    "blobs_prefix",
    "bucket",
    "endpoint_url",
    "manifests_prefix",
    "name",
    "prefix",
    "region",
    "secret_access_key",
    "session_token",
    "touch_refresh",
    "upload_parallelism",
    "use_path_style",
];
const EXPORT_KEYS: &[&str] = &[
    "cache-mounts",
    "compression",
    "compression-level",
    "force-compression",
    "ignore-error",
    "image-manifest",
    "mode",
    "oci-mediatypes",
];

/// Keys and values of a written cache; every one is asked for once, what is left is unknown.
struct Fields {
    kind: String,
    pairs: Vec<(String, String)>,
    /// What was asked for last: an error is about it.
    asked: &'static str,
}

impl Fields {
    fn read(text: &str) -> Result<Fields, String> {
        let fields = split(text)?;
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            return Ok(Fields::new("registry", vec![("ref".into(), only.clone())]));
        }
        let mut kind = None;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` is no KEY=VALUE"))?;
            let key = key.trim().to_lowercase();
            match key.as_str() {
                "type" => kind = Some(value.to_owned()),
                _ if pairs.iter().any(|(known, _)| *known == key) => return Err(format!("`{key}` is given twice")),
                _ => pairs.push((key, value.to_owned())),
            }
        }
        let kind = kind.ok_or_else(|| format!("`type=` is missing: {}", one_of(&KINDS)))?;
        if !KINDS.contains(&kind.as_str()) {
            return Err(format!("there are no caches of type `{kind}`; there are {}", one_of(&KINDS)));
        }
        Ok(Fields::new(&kind, pairs))
    }

    fn new(kind: &str, pairs: Vec<(String, String)>) -> Fields {
        Fields { kind: kind.to_owned(), pairs, asked: "type" }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.asked = key;
        let place = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(place).1).filter(|value| !value.is_empty())
    }

    fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, String> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.to_lowercase().as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(format!("`{key}` is `true` or `false`, not `{value}`")),
        }
    }

    fn mounts(&mut self, default: Mounts) -> Mounts {
        match self.take("cache-mounts").as_deref() {
            None => default,
            Some("true" | "1") => Mounts::All,
            Some("false" | "0") => Mounts::None,
            Some(ids) => Mounts::Ids(ids.split(';').map(str::to_owned).collect()),
        }
    }

    /// `path` is the key that names a folder.
    fn place(&mut self, path: &'static str) -> Result<Place, String> {
        let need =
            |fields: &mut Fields, key: &'static str| fields.take(key).ok_or_else(|| format!("`{key}=` is missing"));
        Ok(match self.kind.as_str() {
            "registry" => {
                let text = need(self, "ref")?;
                let reference: Reference = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
                // buildx' word for registries without TLS, which registries.conf and loopback say here.
                self.flag("registry.insecure", false)?;
                Place::Registry(reference)
            }
            "local" => {
                let path = need(self, path)?.into();
                let tag = self.take("tag").unwrap_or_else(|| "latest".into());
                let digest = self.take("digest").map(|text| text.parse().map_err(|_| format!("`{text}` is no digest")));
                Place::Local { path, tag, digest: digest.transpose()? }
            }
            "inline" => Place::Inline,
            _ => {
                let parallel = self.take("upload_parallelism").unwrap_or_else(|| "4".into());
                let upload_parallelism = parallel.parse().ok().filter(|n| (1..=64).contains(n));
                let upload_parallelism =
                    upload_parallelism.ok_or_else(|| format!("`upload_parallelism` is 1 to 64, not `{parallel}`"))?;
                // When objects are written anew so that a lifecycle rule spares them; ours are written once.
                self.take("touch_refresh");
                let names = self.take("name").unwrap_or_else(|| "buildkit".into());
                Place::S3(Box::new(S3 {
                    bucket: need(self, "bucket")?,
                    region: self.take("region"),
                    prefix: self.take("prefix").unwrap_or_default(),
                    blobs_prefix: self.take("blobs_prefix").unwrap_or_else(|| "blobs/".into()),
                    manifests_prefix: self.take("manifests_prefix").unwrap_or_else(|| "manifests/".into()),
                    names: names.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                    endpoint_url: self.take("endpoint_url"),
                    use_path_style: self.flag("use_path_style", false)?,
                    access_key_id: self.take("access_key_id"),
                    secret_access_key: self.take("secret_access_key"),
                    session_token: self.take("session_token"),
                    upload_parallelism,
                }))
            }
        })
    }

    fn compression(&mut self) -> Result<Compression, String> {
        let word = self.take("compression");
        let mut within = |range: std::ops::RangeInclusive<i64>| -> Result<Option<i64>, String> {
            let Some(text) = self.take("compression-level") else { return Ok(None) };
            let level = text.parse().ok().filter(|level| range.contains(level));
            let expected = format!("`compression-level` is {} to {}, not `{text}`", range.start(), range.end());
            level.ok_or(expected).map(Some)
        };
        Ok(match word.as_deref() {
            None | Some("gzip") => {
                within(1..=9)?.map_or(Compression::GZIP, |level| Compression::Gzip { level: level as u32 })
            }
            Some("zstd") => {
                within(1..=19)?.map_or(Compression::ZSTD, |level| Compression::Zstd { level: level as i32 })
            }
            Some("uncompressed") => Compression::None,
            Some(other) => return Err(format!("`compression` is `uncompressed`, `gzip` or `zstd`, not `{other}`")),
        })
    }

    /// What is left is no key of this kind.
    fn end(&self, mut known: Vec<&str>) -> Result<(), String> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        known.sort_unstable();
        Err(format!("a cache of type `{}` has no `{key}`; it has {}", self.kind, known.join(", ")))
    }
}

impl Place {
    /// Names of what is there: two exports with one in common take the place from each other.
    pub fn identities(&self) -> Vec<String> {
        match self {
            Place::Registry(reference) => vec![reference.clone().or_latest().to_string()],
            Place::Local { path, tag, .. } => {
                let parts = path.components().filter(|part| !matches!(part, std::path::Component::CurDir));
                vec![format!("{} {tag}", parts.collect::<PathBuf>().display())]
            }
            Place::Inline => Vec::new(),
            Place::S3(s3) => {
                let of_bucket = |name| format!("s3://{}/{}{}{name}", s3.bucket, s3.prefix, s3.manifests_prefix);
                s3.names.iter().map(of_bucket).collect()
            }
        }
    }
}

impl Import {
    /// Reads one `--cache-from`. The error is one sentence that says what to write.
    pub fn parse(text: &str) -> Result<Import, String> {
        Import::read(&mut Fields::read(text)?)
    }

    /// The cache of type `kind` with these settings, each of which [`Import::keys`] has.
    pub fn from_settings(kind: &str, settings: Vec<(String, String)>) -> Result<Import, BadSetting> {
        let mut fields = Fields::new(kind, settings);
        Import::read(&mut fields).map_err(|message| BadSetting { key: fields.asked, message })
    }

    /// The settings that a cache of type `kind` has where it is read.
    pub fn keys(kind: &str) -> Vec<&'static str> {
        [own_keys(kind, "src"), &["cache-mounts"]].concat()
    }

    fn read(fields: &mut Fields) -> Result<Import, String> {
        let place = fields.place("src")?;
        if place == Place::Inline {
            return Err("an inline cache is read from its image: `type=registry,ref=IMAGE`".into());
        }
        let mounts = fields.mounts(Mounts::All);
        fields.end(Import::keys(&fields.kind))?;
        Ok(Import { place, mounts })
    }
}

impl Export {
    /// Reads one `--cache-to`. The error is one sentence that says what to write.
    pub fn parse(text: &str) -> Result<Export, String> {
        Export::read(&mut Fields::read(text)?)
    }

    /// The cache of type `kind` with these settings, each of which [`Export::keys`] has.
    pub fn from_settings(kind: &str, settings: Vec<(String, String)>) -> Result<Export, BadSetting> {
        let mut fields = Fields::new(kind, settings);
        Export::read(&mut fields).map_err(|message| BadSetting { key: fields.asked, message })
    }

    /// The settings that a cache of type `kind` has where it is written.
    pub fn keys(kind: &str) -> Vec<&'static str> {
        [own_keys(kind, "dest"), EXPORT_KEYS].concat()
    }

    fn read(fields: &mut Fields) -> Result<Export, String> {
        let place = fields.place("dest")?;
        let mode = match fields.take("mode").as_deref() {
            None | Some("min") => Mode::Min,
            Some("max") if place == Place::Inline => {
                return Err("an inline cache has `mode=min` alone: an image holds its own layers only".into());
            }
            Some("max") => Mode::Max,
            Some(other) => return Err(format!("`mode` is `min` or `max`, not `{other}`")),
        };
        let compression = fields.compression()?;
        let export = Export {
            mode,
            ignore_error: fields.flag("ignore-error", false)?,
            compression,
            force_compression: fields.flag("force-compression", false)?,
            image_manifest: fields.flag("image-manifest", true)?,
            oci_mediatypes: fields.flag("oci-mediatypes", true)?,
            reset: matches!(place, Place::Local { .. }) && fields.flag("reset", false)?,
            mounts: fields.mounts(Mounts::None),
            place,
        };
        if !export.oci_mediatypes && matches!(export.compression, Compression::Zstd { .. }) {
            fields.asked = "oci-mediatypes";
            return Err("docker's media types have no zstd: leave `oci-mediatypes=false` out".into());
        }
        if export.place == Place::Inline && export.mounts != Mounts::None {
            return Err("an inline cache holds no cache mounts: an image holds its own layers only".into());
        }
        fields.end(Export::keys(&fields.kind))?;
        Ok(export)
    }
}

fn own_keys(kind: &str, path: &'static str) -> &'static [&'static str] {
    match (kind, path) {
        ("registry", _) => &["ref", "registry.insecure"],
        ("local", "src") => &["digest", "src", "tag"],
        ("local", _) => &["dest", "reset", "tag"],
        ("s3", _) => S3_KEYS,
        _ => &[],
    }
}

fn one_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Fields between commas; one in quotes may hold commas, and two quotes for one (RFC 4180).
fn split(text: &str) -> Result<Vec<String>, String> {
    let (fields, whole) = fields_of(text);
    if whole { Ok(fields) } else { Err(format!("a quote in `{}` has no end", masked(text))) }
}

/// A written cache as messages may show it: without the values of keys that say that they are secret.
pub fn masked(text: &str) -> String {
    let shown = |field: &String| match field.split_once('=') {
        Some((key, _)) if is_secret(key) => format!("{key}=***"),
        _ => field.clone(),
    };
    fields_of(text).0.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// Also a misspelt one.
fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["key", "secret", "token", "password"].iter().any(|word| key.contains(word))
}

/// The fields, and whether every quote has an end.
fn fields_of(text: &str) -> (Vec<String>, bool) {
    let mut fields = vec![String::new()];
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("begins with one");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => field.push(letter),
        }
    }
    (fields, !quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildx_words_are_read() {
        let export = Export::parse("type=registry,ref=h:5000/app:cache,mode=max,compression=zstd").unwrap();
        assert_eq!((export.mode, export.compression), (Mode::Max, Compression::ZSTD));
        assert!(export.image_manifest && export.oci_mediatypes && !export.ignore_error);
        assert_eq!(Import::parse("h:5000/app:cache").unwrap().place, export.place);
        let local = Import::parse("type=local,\"src=/a,b\"").unwrap();
        assert_eq!(local.place, Place::Local { path: "/a,b".into(), tag: "latest".into(), digest: None });
        let s3 = "type=s3,bucket=b,region=r,name=a;b,use_path_style=true,ignore-error=true,prefix=p/";
        let Export { place: Place::S3(s3), ignore_error: true, .. } = Export::parse(s3).unwrap() else {
            panic!("no bucket")
        };
        assert_eq!((s3.names, s3.use_path_style), (vec!["a".to_owned(), "b".into()], true));
        assert_eq!(Export::parse("type=inline").unwrap().mode, Mode::Min);
        let mounts = |text: &str| Export::parse(&format!("type=local,dest=c,cache-mounts={text}")).unwrap().mounts;
        assert_eq!(mounts("true"), Mounts::All);
        assert_eq!(mounts("a;b"), Mounts::Ids(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn messages_show_no_secrets() {
        for (text, shown) in [
            ("type=s3,Secret_Access_Key=a/b=c,bucket=b", "type=s3,Secret_Access_Key=***,bucket=b"),
            ("type=s3,\"session_token=a,b\",mod=max", "type=s3,session_token=***,mod=max"),
            ("\"secret_acces_key=never ends,type=s3", "secret_acces_key=***"),
            ("h:5000/app:cache", "h:5000/app:cache"),
        ] {
            assert_eq!(masked(text), shown);
        }
        let error = Export::parse("type=s3,\"access_key_id=ID").unwrap_err();
        assert!(!error.contains("ID"), "{error}");
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let check = |text: &str, part: &str| {
            let error = Export::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("type=gha,scope=x", "no caches of type `gha`; there are `registry`");
        check("type=registry", "`ref=` is missing");
        check("mode=max,ref=x", "`type=` is missing");
        check("type=local,src=x", "`dest=` is missing");
        check("type=local,dest=x,refs=1", "has no `refs`; it has cache-mounts, compression");
        check("type=inline,mode=max", "mode=min");
        check("type=local,dest=x,mode=all", "`min` or `max`");
        check("type=local,dest=x,compression=zstd,compression-level=20", "1 to 19");
        check("type=local,dest=x,compression=zstd,oci-mediatypes=false", "no zstd");
        assert!(Import::parse("type=inline").unwrap_err().contains("type=registry,ref=IMAGE"));
    }
}
