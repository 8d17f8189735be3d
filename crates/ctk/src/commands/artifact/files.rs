//! The files of artifacts, as they are named on the command line and in manifests.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use clap::Args;
use ctk_client::{Artifact, ArtifactFile};
use ctk_oci::Reference;
use ctk_plan::{Address, Cancel, Kind, Reporter};

use crate::commands::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// What goes into an artifact.
#[derive(Args)]
pub struct Content {
    /// The files, each with its media type; else its ending says it
    #[arg(value_name = "FILE[:MEDIA-TYPE]")]
    files: Vec<String>,
    /// An annotation of the manifest; may be repeated
    #[arg(short, long = "annotation", value_name = "NAME=VALUE")]
    annotations: Vec<String>,
}

impl Content {
    pub fn files(&self) -> Result<Vec<ArtifactFile>, Failure> {
        let files = self.files.iter().map(|file| given(file)).collect::<Result<Vec<_>, _>>()?;
        for (place, file) in files.iter().enumerate() {
            if files[..place].iter().any(|other| other.title == file.title) {
                let title = file.title.as_deref().unwrap_or_default();
                let hint = "whoever fetches them would have one in the place of the other";
                return Err(Failure::sentence(format!("two files would be called `{title}`"), Some(hint)));
            }
        }
        Ok(files)
    }

    pub fn annotations(&self) -> Result<BTreeMap<String, String>, Failure> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::sentence(format!("`{text}` is no annotation"), Some("write NAME=VALUE"))),
        };
        self.annotations.iter().map(pair).collect()
    }
}

/// `FILE[:MEDIA-TYPE]`.
pub fn given(text: &str) -> Result<ArtifactFile, Failure> {
    let (path, kind) = match text.rsplit_once(':') {
        Some((path, kind)) if !path.is_empty() && is_media_type(kind) && !Path::new(text).exists() => {
            (path, Some(kind))
        }
        _ => (text, None),
    };
    let path = Path::new(path);
    if path.is_dir() {
        let hint = "an artifact has files; `tar` makes one of a folder";
        return Err(Failure::sentence(format!("`{}` is a folder", path.display()), Some(hint)));
    }
    let Some(title) = title(path) else {
        return Err(Failure::sentence(format!("`{}` has no name in UTF-8", path.display()), None));
    };
    let media_type = kind.unwrap_or_else(|| by_ending(&title)).to_owned();
    Ok(ArtifactFile { path: path.to_owned(), media_type, title: Some(title), annotations: BTreeMap::new() })
}

/// What a file is called in the manifest: its path as given when that stays in the working directory, else its name.
fn title(path: &Path) -> Option<String> {
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return path.file_name()?.to_str().map(str::to_owned);
    }
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_str()),
        _ => None,
    });
    Some(parts.collect::<Option<Vec<_>>>()?.join("/")).filter(|title| !title.is_empty())
}

/// `type/subtype`, as RFC 6838 has them.
fn is_media_type(text: &str) -> bool {
    let word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    text.split_once('/').is_some_and(|(kind, sub)| word(kind) && word(sub))
}

fn by_ending(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let known = [
        (".spdx.json", "application/spdx+json"),
        (".cdx.json", "application/vnd.cyclonedx+json"),
        (".sarif.json", "application/sarif+json"),
        (".sarif", "application/sarif+json"),
        (".intoto.jsonl", "application/vnd.in-toto+json"),
        (".json", "application/json"),
        (".txt", "text/plain"),
        (".md", "text/markdown"),
        (".html", "text/html"),
        (".xml", "application/xml"),
        (".yaml", "application/yaml"),
        (".yml", "application/yaml"),
        (".tar", "application/x-tar"),
        (".tar.gz", "application/gzip"),
        (".tgz", "application/gzip"),
        (".gz", "application/gzip"),
        (".zst", "application/zstd"),
        (".zip", "application/zip"),
        (".pem", "application/x-pem-file"),
        (".wasm", "application/wasm"),
    ];
    known.iter().find(|(ending, _)| name.ends_with(ending)).map_or("application/octet-stream", |(_, kind)| kind)
}

/// Pushes it and says what it is.
pub fn push(context: &Context, to: &Reference, artifact: &Artifact, cancel: &Cancel) -> Result<(), Failure> {
    let reporter = Reporter::new(Address::new(Kind::Image, to.to_string()), context.sink());
    let step = reporter.step("push");
    let pushed = context.client().push_artifact(to, artifact, Some(&step), cancel);
    let pushed = step.conclude(pushed);
    context.end_story();
    let pushed = pushed.map_err(of_client)?;
    let name = match to.tag() {
        Some(_) => format!("{to} {}", pushed.digest),
        None => to.with_digest(pushed.digest).to_string(),
    };
    output(&format!("{name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named() {
        for (text, path, kind, called) in [
            ("a.txt", "a.txt", "text/plain", "a.txt"),
            ("./sub/b.spdx.json", "./sub/b.spdx.json", "application/spdx+json", "sub/b.spdx.json"),
            ("../c", "../c", "application/octet-stream", "c"),
            ("/etc/d.yaml", "/etc/d.yaml", "application/yaml", "d.yaml"),
            ("e:application/vnd.x+json", "e", "application/vnd.x+json", "e"),
            ("e:1.0", "e:1.0", "application/octet-stream", "e:1.0"),
        ] {
            let file = given(text).ok().unwrap();
            let found = (file.path.to_str().unwrap(), file.media_type.as_str(), file.title.as_deref().unwrap());
            assert_eq!(found, (path, kind, called), "{text}");
        }
        assert!(given("/").is_err());
    }
}
