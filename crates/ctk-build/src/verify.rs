//! Building again without any earlier result, and what turned out otherwise.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use ctk_layer::{Entry, EntryKind, TarReader, decode};
use ctk_oci::{Descriptor, ImageConfig, Manifest, Platform};
use serde_json::Value;

use crate::{BuildError, BuildRequest, Built, build};

/// Bytes of two files that are compared at once.
const BLOCK_BYTES: usize = 1 << 16;

/// The first thing in which an image differs from its second build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// For which platform it was built.
    pub platform: Platform,
    /// The layer's number, from 1, and the instruction that made it; none if the layers are the same.
    pub layer: Option<(usize, String)>,
    /// What differs: a file, or a setting of the config.
    pub path: String,
    /// In what.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layer {
            Some((number, made_by)) => write!(f, "layer {number} of {}, made by `{made_by}`: ", self.platform)?,
            None => write!(f, "the config for {}: ", self.platform)?,
        }
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Builds the image of `request` once more, without any earlier result and leaving none, and compares it with `built`.
/// Gives the first difference of each platform. What cache mounts hold is there both times.
pub fn verify(request: &BuildRequest<'_>, built: &Built) -> Result<Vec<Difference>, BuildError> {
    let state_directory = request.state_directory.clone();
    let again = build(&BuildRequest { no_cache: true, apart: true, state_directory, ..*request })?;
    let mut found = Vec::new();
    for ((platform, first), (_, second)) in built.manifests.iter().zip(&again.manifests) {
        if first.digest != second.digest {
            found.push(compare(request, platform, first, second)?);
        }
    }
    Ok(found)
}

fn compare(
    request: &BuildRequest<'_>,
    platform: &Platform,
    first: &Descriptor,
    second: &Descriptor,
) -> Result<Difference, BuildError> {
    let store = request.world.store;
    let manifest = |d: &Descriptor| store.document::<Manifest>("image manifest", d).map(|m| m.into_value());
    let (first, second) = (manifest(first)?, manifest(second)?);
    let config = |m: &Manifest| store.document::<ImageConfig>("image config", &m.config).map(|c| c.into_value());
    let (config_a, config_b) = (config(&first)?, config(&second)?);
    let of_config = |path: String, what: String| Difference { platform: platform.clone(), layer: None, path, what };
    let history = config_a.history.iter().filter(|line| !line.empty_layer);
    let made_by: Vec<String> = history.map(|line| line.created_by.clone().unwrap_or_default()).collect();
    for (at, (a, b)) in first.layers.iter().zip(&second.layers).enumerate() {
        if a.digest == b.digest {
            continue;
        }
        if let Some((path, what)) = layers(request, a, b)? {
            let layer = Some((at + 1, made_by.get(at).cloned().unwrap_or_default()));
            return Ok(Difference { platform: platform.clone(), layer, path, what });
        }
    }
    let (a, b) = (first.layers.len(), second.layers.len());
    if a != b {
        return Ok(of_config("layers".into(), format!("{a} and {b}")));
    }
    let json = |config: &ImageConfig| serde_json::to_value(config).expect("plain data serialises");
    let (path, what) = values("", &json(&config_a), &json(&config_b)).unwrap_or(("".into(), "its bytes differ".into()));
    Ok(of_config(path, what))
}

/// The first path of two documents that differs.
fn values(path: &str, a: &Value, b: &Value) -> Option<(String, String)> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.filter_map(|key| {
                values(&below(key), a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            })
            .next()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(at, (a, b))| values(&below(&at.to_string()), a, b))
        }
        (a, b) if a == b => None,
        (a, b) => Some((path.to_owned(), format!("{a} and {b}"))),
    }
}

/// The first path in which two layers differ, and how.
fn layers(request: &BuildRequest<'_>, a: &Descriptor, b: &Descriptor) -> Result<Option<(String, String)>, BuildError> {
    let store = request.world.store;
    let open = |d: &Descriptor| -> Result<_, BuildError> {
        let blob = store.open_blob(d)?;
        let (_, plain) = decode(blob).map_err(BuildError::read("read", d.digest.to_string()))?;
        Ok(TarReader::new(plain))
    };
    let (mut tar_a, mut tar_b) = (open(a)?, open(b)?);
    loop {
        if request.world.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let (entry_a, entry_b) = (next(&mut tar_a, a)?, next(&mut tar_b, b)?);
        let only = |entry: &Entry, which: &str| Some((shown(entry), format!("is only in the {which} build")));
        let (entry_a, entry_b) = match (entry_a, entry_b) {
            (None, None) => return Ok(None),
            (Some(entry), None) => return Ok(only(&entry, "first")),
            (None, Some(entry)) => return Ok(only(&entry, "second")),
            (Some(a), Some(b)) => (a, b),
        };
        if entry_a.path != entry_b.path {
            let mut later = HashSet::new();
            while let Some(entry) = next(&mut tar_b, b)? {
                later.insert(entry.path);
            }
            let in_both = later.contains(&entry_a.path);
            return Ok(if in_both { only(&entry_b, "second") } else { only(&entry_a, "first") });
        }
        let what = match attributes(&entry_a, &entry_b) {
            Some(what) => Some(what),
            None => contents(&mut tar_a, &mut tar_b).map_err(BuildError::read("read", a.digest.to_string()))?,
        };
        if let Some(what) = what {
            return Ok(Some((shown(&entry_a), what)));
        }
    }
}

fn shown(entry: &Entry) -> String {
    format!("/{}", entry.display())
}

fn next<R: Read>(tar: &mut TarReader<R>, layer: &Descriptor) -> Result<Option<Entry>, BuildError> {
    let failed = |error: ctk_layer::LayerError| {
        BuildError::read("read", layer.digest.to_string())(std::io::Error::other(error.to_string()))
    };
    tar.next_entry().map_err(failed)
}

/// What differs between two entries of one path, their bytes aside.
fn attributes(a: &Entry, b: &Entry) -> Option<String> {
    let kind = |kind: &EntryKind| match kind {
        EntryKind::File { .. } => "a file".to_owned(),
        EntryKind::Directory => "a directory".to_owned(),
        EntryKind::Symlink { target } => format!("a symbolic link to {}", String::from_utf8_lossy(target)),
        EntryKind::HardLink { target } => format!("a hard link to {}", String::from_utf8_lossy(target)),
        EntryKind::CharDevice { major, minor } => format!("a character device {major}:{minor}"),
        EntryKind::BlockDevice { major, minor } => format!("a block device {major}:{minor}"),
        EntryKind::Fifo => "a pipe".to_owned(),
    };
    let (kind_a, kind_b) = (kind(&a.kind), kind(&b.kind));
    if kind_a != kind_b {
        return Some(format!("is {kind_a}, then {kind_b}"));
    }
    if a.mode != b.mode {
        return Some(format!("mode {:04o}, then {:04o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        return Some(format!("owner {}:{}, then {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if a.mtime != b.mtime {
        let time = |t: ctk_layer::Time| format!("{}.{:09}", t.seconds, t.nanos);
        return Some(format!("modified at {}, then {}", time(a.mtime), time(b.mtime)));
    }
    let names = a.xattrs.keys().chain(b.xattrs.keys());
    if let Some(name) = names.into_iter().find(|name| a.xattrs.get(*name) != b.xattrs.get(*name)) {
        return Some(format!("attribute {}", String::from_utf8_lossy(name)));
    }
    None
}

/// Where the bytes of two entries first differ.
fn contents(a: &mut impl Read, b: &mut impl Read) -> std::io::Result<Option<String>> {
    let (mut block_a, mut block_b) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut offset = 0u64;
    loop {
        let (count_a, count_b) = (fill(a, &mut block_a)?, fill(b, &mut block_b)?);
        let both = count_a.min(count_b);
        if let Some(at) = (0..both).find(|at| block_a[*at] != block_b[*at]) {
            return Ok(Some(format!("content differs from byte {} on", offset + at as u64)));
        }
        if count_a != count_b {
            let end = offset + both as u64;
            return Ok(Some(format!("content ends at byte {end} in one of the builds, and goes on in the other")));
        }
        if count_a == 0 {
            return Ok(None);
        }
        offset += both as u64;
    }
}

fn fill(stream: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match stream.read(&mut block[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
