//! `-o`: text to [`Output`]s. `type=…,key=value,…`, a folder, or `-`.

use std::path::PathBuf;

use ctk_layer::Compression;
use ctk_syntax::{nearest, parse_size};

use crate::limits::LAYER_SIZE_MIN_BYTES;

use super::annotation::Annotation;
use super::{Archive, Dest, Files, Form, Output, Pictured};

/// What `compression-level` may be, by codec.
const GZIP_LEVELS: std::ops::RangeInclusive<i64> = 1..=9;
const ZSTD_LEVELS: std::ops::RangeInclusive<i64> = 1..=19;

/// Keys of every output that is an image.
const FORM_KEYS: &[&str] = &[
    "annotation",
    "attestation-inline",
    "compatibility-version",
    "compression",
    "compression-level",
    "force-compression",
    "layer-size",
    "name",
    "oci-artifact",
    "oci-mediatypes",
    "prefer-nondist-layers",
    "rewrite-timestamp",
    "source-date-epoch",
];

/// Each kind: its word and its own keys, besides [`FORM_KEYS`] for those that are images.
const KINDS: &[(&str, bool, &[&str])] = &[
    (
        "image",
        true,
        &[
            "danging-name-empty-only",
            "dangling-name-prefix",
            "name-canonical",
            "push",
            "push-by-digest",
            "registry.insecure",
            "store",
            "unpack",
        ],
    ),
    (
        "registry",
        true,
        &["dangling-name-prefix", "name-canonical", "push", "push-by-digest", "registry.insecure", "store", "unpack"],
    ),
    ("oci", true, &["dest", "tar"]),
    ("docker", true, &["context", "dest", "tar"]),
    ("local", false, &["attestation-prefix", "dest", "mode", "platform-split", "source-date-epoch"]),
    ("tar", false, &["attestation-prefix", "dest", "platform-split", "source-date-epoch"]),
];

impl Output {
    /// Reads one `-o`. The error is one sentence that says what to write.
    pub fn parse(text: &str) -> Result<Output, String> {
        if text == "-" {
            return Ok(Output::Files(Files { tar: true, dest: Dest::Stdout, ..Files::default() }));
        }
        let fields = fields(text)?;
        if text.is_empty() {
            return Err("an output that says nothing goes nowhere; expected `type=KIND,…`, a folder, or `-`".into());
        }
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            return Ok(Output::Files(Files { dest: Dest::Path(only.into()), ..Files::default() }));
        }
        let mut pairs = Vec::new();
        let mut kind = None;
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` is no KEY=VALUE"))?;
            match key.to_lowercase().as_str() {
                "type" => kind = Some(value.to_owned()),
                // What is in brackets and what follows a dot keeps its letters.
                _ if key.starts_with("annotation") => pairs.push((key.to_owned(), value)),
                key => pairs.push((key.to_owned(), value)),
            }
        }
        let kind = kind.ok_or_else(|| format!("`{text}` names no type; expected `type=KIND,…`, a folder, or `-`"))?;
        let Some((word, image, own)) = KINDS.iter().find(|(word, ..)| *word == kind) else {
            let words = KINDS.iter().map(|(word, ..)| *word);
            return Err(match nearest(&kind, words.clone()) {
                Some(near) => format!("there is no exporter `{kind}`; did you mean `{near}`?"),
                None => format!("there is no exporter `{kind}`; there are {}", words.collect::<Vec<_>>().join(", ")),
            });
        };
        for (key, _) in &pairs {
            let annotation = *image && key.starts_with("annotation");
            let known = own.contains(&key.as_str()) || (*image && FORM_KEYS.contains(&key.as_str()));
            if known || annotation {
                continue;
            }
            let keys = own.iter().chain(if *image { FORM_KEYS } else { &[] }).copied();
            return Err(match nearest(key, keys.clone()) {
                Some(near) => format!("exporter `{word}` knows no key `{key}`; did you mean `{near}`?"),
                None => {
                    format!("exporter `{word}` knows no key `{key}`; it has {}", keys.collect::<Vec<_>>().join(", "))
                }
            });
        }
        match *word {
            "local" | "tar" => files(*word == "tar", &pairs),
            "oci" | "docker" => archive(*word == "docker", &pairs),
            word => pictured(word == "registry", &pairs),
        }
    }
}

fn files(tar: bool, pairs: &[(String, &str)]) -> Result<Output, String> {
    let mut files = Files { tar, ..Files::default() };
    let mut named = false;
    for (key, value) in pairs {
        match key.as_str() {
            "dest" => {
                files.dest = dest(value);
                named = true;
            }
            "platform-split" => files.split = Some(boolean(key, value)?),
            "source-date-epoch" => files.epoch_seconds = Some(epoch(value)?),
            "mode" => {
                files.delete = match *value {
                    "copy" => false,
                    "delete" => true,
                    _ => return Err(format!("`mode={value}` is neither `copy` nor `delete`")),
                }
            }
            // There are no attestations, so nothing gets the prefix.
            _ => {}
        }
    }
    if !tar && (!named || matches!(files.dest, Dest::Stdout)) {
        return Err("exporter `local` needs a folder: `type=local,dest=FOLDER`".into());
    }
    Ok(Output::Files(files))
}

fn archive(docker: bool, pairs: &[(String, &str)]) -> Result<Output, String> {
    let mut archive = Archive { docker, dest: None, tar: true, names: Vec::new(), form: Form::default() };
    // As docker's own archives have it.
    archive.form.docker_types = docker.then_some(true);
    for (key, value) in pairs {
        match key.as_str() {
            "dest" => archive.dest = Some(dest(value)),
            "tar" => archive.tar = boolean(key, value)?,
            "name" => archive.names = names(value),
            "context" => return Err("there is no docker daemon to load into: leave `context` out".into()),
            key => archive.form.read(key, value)?,
        }
    }
    if !archive.tar && !matches!(archive.dest, Some(Dest::Path(_))) {
        return Err("`tar=false` writes a folder: add `dest=FOLDER`".into());
    }
    if !docker {
        archive.dest.get_or_insert(Dest::Stdout);
    }
    archive.form.finish()?;
    Ok(Output::Archive(archive))
}

fn pictured(registry: bool, pairs: &[(String, &str)]) -> Result<Output, String> {
    let mut image = Pictured { push: registry, store: true, ..Pictured::default() };
    for (key, value) in pairs {
        match key.as_str() {
            "name" => image.names = names(value),
            "push" => image.push = boolean(key, value)?,
            "push-by-digest" => image.by_digest = boolean(key, value)?,
            "registry.insecure" => image.insecure = boolean(key, value)?,
            "store" => image.store = boolean(key, value)?,
            "unpack" => image.unpack = boolean(key, value)?,
            "name-canonical" => image.canonical = boolean(key, value)?,
            "dangling-name-prefix" => image.dangling_prefix = Some((*value).to_owned()),
            "danging-name-empty-only" => {
                boolean(key, value)?;
            }
            key => image.form.read(key, value)?,
        }
    }
    image.form.finish()?;
    Ok(Output::Image(image))
}

impl Form {
    fn read(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "oci-mediatypes" => self.docker_types = Some(!boolean(key, value)?),
            "compression" => {
                self.compression = Some(match value {
                    "gzip" => Compression::GZIP,
                    "zstd" => Compression::ZSTD,
                    "uncompressed" => Compression::None,
                    "estargz" => return Err("`compression=estargz` is not supported; `gzip` and `zstd` are".into()),
                    other => {
                        return Err(format!("`{other}` is no compression; there are uncompressed, gzip and zstd"));
                    }
                });
            }
            "compression-level" => {
                let number = value.parse().map_err(|_| format!("`compression-level={value}` is no number"))?;
                self.level = Some(number);
            }
            "force-compression" => self.force = boolean(key, value)?,
            "layer-size" => self.layer_limit_bytes = Some(layer_size(value)?),
            "source-date-epoch" => self.epoch_seconds = Some(epoch(value)?),
            // Files are never younger than the image here, so times need no rewriting afterwards.
            "rewrite-timestamp" | "prefer-nondist-layers" | "attestation-inline" | "oci-artifact" => {
                boolean(key, value)?;
            }
            "compatibility-version" => {
                if !["10", "20", "30"].contains(&value) {
                    return Err(format!("`compatibility-version={value}` is none of 10, 20 and 30"));
                }
                if self.docker_types.is_none() && value != "30" {
                    self.docker_types = Some(true);
                }
            }
            key => self.annotations.push(Annotation::of_key(key, value)?),
        }
        Ok(())
    }

    /// What several keys say together.
    fn finish(&mut self) -> Result<(), String> {
        if let Some(level) = self.level {
            let within = |range: std::ops::RangeInclusive<i64>, what: &str| match range.contains(&level) {
                true => Ok(()),
                false => Err(format!(
                    "`compression-level={level}` is out of range; {what} has {} to {}",
                    range.start(),
                    range.end()
                )),
            };
            self.compression = Some(match self.compression.unwrap_or(Compression::GZIP) {
                Compression::Gzip { .. } => {
                    within(GZIP_LEVELS, "gzip")?;
                    Compression::Gzip { level: level as u32 }
                }
                Compression::Zstd { .. } => {
                    within(ZSTD_LEVELS, "zstd")?;
                    Compression::Zstd { level: level as i32 }
                }
                Compression::None => return Err("`compression=uncompressed` has no level".into()),
            });
        }
        Ok(())
    }
}

fn dest(value: &str) -> Dest {
    if value == "-" { Dest::Stdout } else { Dest::Path(PathBuf::from(value)) }
}

fn names(value: &str) -> Vec<String> {
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn epoch(value: &str) -> Result<i64, String> {
    let seconds = value.parse().ok().filter(|seconds| (0..=ctk_oci::EPOCH_MAX_SECONDS).contains(seconds));
    seconds
        .ok_or_else(|| format!("`source-date-epoch={value}` is no number of seconds since 1970, before the year 10000"))
}

fn layer_size(value: &str) -> Result<u64, String> {
    match parse_size(value) {
        Some(size) if size >= LAYER_SIZE_MIN_BYTES => Ok(size),
        Some(_) => Err(format!("`layer-size={value}` would give too many layers; expected `1MiB` or more")),
        None => Err(format!("`layer-size={value}` is no size; expected e.g. `100MB`, `512MiB`, `2GiB`")),
    }
}

/// As Go's `strconv.ParseBool`.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("`{key}={value}` is neither true nor false")),
    }
}

/// One line of CSV (RFC 4180): a field in quotes may hold commas, and two quotes mean one. Switches of docker that hold
/// lists are written so.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    Some((_, '"')) if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        field.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, c)) => field.push(c),
                    None => return Err(format!("a quote of `{text}` is not closed")),
                }
            };
            found.push(field);
            match quoted[end..].strip_prefix(',') {
                Some(more) => rest = more,
                None if quoted[end..].is_empty() => return Ok(found),
                None => return Err(format!("`{text}` goes on after a closing quote; expected a comma")),
            }
        } else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(format!("a quote inside `{field}`: quote the whole field, `\"KEY=VALUE\"`"));
            }
            found.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str, expected: &str) {
        assert_eq!(Output::parse(text).unwrap_err(), expected, "{text}");
    }

    #[test]
    fn fields_are_csv() {
        let check = |text: &str, expected: &[&str]| assert_eq!(fields(text).unwrap(), expected, "{text}");
        check("a=b,c=d", &["a=b", "c=d"]);
        check(r#"type=image,"name=a:1,b:2",push=true"#, &["type=image", "name=a:1,b:2", "push=true"]);
        check(r#""a=""x""""#, &["a=\"x\""]);
        check("", &[""]);
        assert!(fields("\"a").is_err());
        assert!(fields("\"a\"b").is_err());
        assert!(fields("a\"b").is_err());
    }

    #[test]
    fn short_forms() {
        assert!(matches!(Output::parse("-"), Ok(Output::Files(Files { tar: true, dest: Dest::Stdout, .. }))));
        match Output::parse("out/dir") {
            Ok(Output::Files(Files { tar: false, dest: Dest::Path(path), .. })) => {
                assert_eq!(path.to_str(), Some("out/dir"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(Output::parse("type=tar"), Ok(Output::Files(Files { tar: true, dest: Dest::Stdout, .. }))));
        assert!(matches!(Output::parse("type=docker"), Ok(Output::Archive(Archive { docker: true, dest: None, .. }))));
    }

    #[test]
    fn images() {
        let text = r#"type=image,"name=a:1,b:2",push=true,compression=zstd,compression-level=9,oci-mediatypes=false,annotation-manifest[linux/arm64].Key.a=v"#;
        let Ok(Output::Image(image)) = Output::parse(text) else { panic!("{:?}", Output::parse(text)) };
        assert_eq!(image.names, ["a:1", "b:2"]);
        assert!(image.push);
        assert_eq!(image.form.compression, Some(Compression::Zstd { level: 9 }));
        assert_eq!(image.form.docker_types, Some(true));
        assert_eq!(image.form.annotations[0].key, "Key.a");
        assert!(matches!(Output::parse("type=registry"), Ok(Output::Image(Pictured { push: true, .. }))));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        wrong("type=lcal,dest=x", "there is no exporter `lcal`; did you mean `local`?");
        wrong("dest=x", "`dest=x` names no type; expected `type=KIND,…`, a folder, or `-`");
        wrong("type=oci,dst=x", "exporter `oci` knows no key `dst`; did you mean `dest`?");
        wrong("type=local", "exporter `local` needs a folder: `type=local,dest=FOLDER`");
        wrong("type=image,push=maybe", "`push=maybe` is neither true nor false");
        wrong("type=image,compression=lz4", "`lz4` is no compression; there are uncompressed, gzip and zstd");
        wrong("type=oci,compression-level=99", "`compression-level=99` is out of range; gzip has 1 to 9");
        wrong("type=oci,layer-size=10", "`layer-size=10` would give too many layers; expected `1MiB` or more");
        wrong("type=oci,layer-size=big", "`layer-size=big` is no size; expected e.g. `100MB`, `512MiB`, `2GiB`");
        wrong("type=oci,tar=false", "`tar=false` writes a folder: add `dest=FOLDER`");
        wrong("type=image,compression=estargz", "`compression=estargz` is not supported; `gzip` and `zstd` are");
    }
}
