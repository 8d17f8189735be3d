//! An image as everybody can see it: the tree that its layers make, and its config without dates.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ctk_oci::Digest;
use serde_json::Value;

/// Contents up to this many bytes are shown, longer ones by digest.
const SHOWN_BYTES: usize = 100;

/// What a path names; several paths may name one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// As `find -type`: `f`, `d`, `l`, `p`, `c`, `b`.
    kind: char,
    mode: u32,
    uid: u64,
    gid: u64,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// Of a file: its text or digest; of a link: its target; of a device: its numbers.
    content: String,
}

/// Paths and what they name, as unpacking the layers would make it.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    paths: BTreeMap<Vec<u8>, usize>,
    nodes: Vec<Node>,
}

/// An image: its tree and its config.
#[derive(Clone, Debug)]
pub struct Image {
    /// The tree.
    pub tree: Tree,
    /// The config without dates and layers.
    pub config: Value,
}

impl Image {
    /// The image of an OCI layout's folder; if an index has several, the one for `platform`.
    pub fn of_layout(layout: &Path, platform: &str) -> Result<Image, String> {
        let mut index = json(&layout.join("index.json"))?;
        loop {
            let of_platform = |one: &&Value| {
                let at = &one["platform"];
                let parts = ["os", "architecture", "variant"].iter().filter_map(|part| at[part].as_str());
                parts.collect::<Vec<_>>().join("/") == platform
            };
            let manifests = index["manifests"].as_array().ok_or("an index without manifests")?;
            let chosen = manifests.iter().find(of_platform).or(manifests.first()).ok_or("an empty index")?;
            let document = json(&blob(layout, &chosen["digest"]))?;
            if document["manifests"].is_array() {
                index = document;
                continue;
            }
            return Image::of_manifest(&document, |digest| blob(layout, digest));
        }
    }

    /// The image of a folder with `manifest.json` and blobs beside it.
    pub fn of_directory(folder: &Path) -> Result<Image, String> {
        let manifest = json(&folder.join("manifest.json"))?;
        let hex = |digest: &Value| digest.as_str().unwrap_or_default().rsplit(':').next().map(str::to_owned);
        Image::of_manifest(&manifest, |digest| folder.join(hex(digest).unwrap_or_default()))
    }

    fn of_manifest(manifest: &Value, blob: impl Fn(&Value) -> PathBuf) -> Result<Image, String> {
        let mut tree = Tree::new();
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let bytes = fs::read(blob(&layer["digest"])).map_err(|error| error.to_string())?;
            tree.apply(&bytes).map_err(|error| format!("layer {}: {error}", layer["digest"]))?;
        }
        let mut config = json(&blob(&manifest["config"]["digest"]))?;
        let fields = config.as_object_mut().ok_or("a config that is no object")?;
        fields.remove("created");
        fields.remove("rootfs");
        for entry in fields.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(entry) = entry.as_object_mut() else { continue };
            entry.remove("created");
            // These two say who built, not what.
            entry.remove("comment");
            let by = entry.get("created_by").and_then(|by| by.as_str()?.strip_suffix(" # buildkit").map(Value::from));
            by.into_iter().for_each(|by| drop(entry.insert("created_by".to_owned(), by)));
        }
        Ok(Image { tree, config })
    }

    /// A line a path that `base` has not so or not at all, then a line a value of the config that `base` has not so.
    pub fn golden(&self, base: &Image) -> String {
        let (ours, theirs) = (self.tree.lines(), base.tree.lines());
        let mut out = String::new();
        let mut paths: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            match (ours.get(path), theirs.get(path)) {
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some(ours), _) => writeln!(out, "{path} {ours}").expect("a string"),
                (None, _) => writeln!(out, "{path} gone").expect("a string"),
            }
        }
        let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        leaves("", &self.config, &mut ours);
        leaves("", &base.config, &mut theirs);
        for (name, value) in ours.iter().filter(|(name, value)| theirs.get(*name) != Some(value)) {
            writeln!(out, "{name} {value}").expect("a string");
        }
        for name in theirs.keys().filter(|name| !ours.contains_key(*name)) {
            writeln!(out, "{name} gone").expect("a string");
        }
        out
    }
}

/// A document's values by their paths; arrays of texts are values.
fn leaves(at: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    let within = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match value {
        Value::Object(fields) if !fields.is_empty() && at != "config.Labels" => {
            fields.iter().for_each(|(name, value)| leaves(&within(name), value, out));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, item)| drop(out.insert(within(&format!("{at:02}")), item.to_string())));
        }
        _ => drop(out.insert(at.to_owned(), value.to_string())),
    }
}

fn json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs").join(digest.as_str().unwrap_or_default().replace(':', "/"))
}

impl Tree {
    /// An empty root.
    pub fn new() -> Tree {
        let mut tree = Tree::default();
        tree.put(Vec::new(), Node { kind: 'd', mode: 0o755, ..Node::default() });
        tree
    }

    /// A line for every path: type, mode, owner, then what else there is.
    pub fn lines(&self) -> BTreeMap<String, String> {
        let mut links = vec![0; self.nodes.len()];
        self.paths.values().for_each(|node| links[*node] += 1);
        let line = |(path, at): (&Vec<u8>, &usize)| {
            let node = &self.nodes[*at];
            let mut line = format!("{} {:04o} {}:{}", node.kind, node.mode, node.uid, node.gid);
            if links[*at] > 1 {
                let first = self.paths.iter().find(|(_, node)| *node == at).expect("it has a path").0;
                write!(line, " links={} of /{}", links[*at], first.escape_ascii()).expect("a string");
            }
            for (name, value) in &node.xattrs {
                write!(line, " {name}={:?}", value.escape_ascii().to_string()).expect("a string");
            }
            if !node.content.is_empty() {
                write!(line, " {}", node.content).expect("a string");
            }
            (format!("/{}", path.escape_ascii()), line)
        };
        self.paths.iter().map(line).collect()
    }

    fn put(&mut self, path: Vec<u8>, node: Node) {
        self.nodes.push(node);
        self.paths.insert(path, self.nodes.len() - 1);
    }

    /// Takes away everything below `path`.
    fn clear(&mut self, path: &[u8]) {
        self.paths.retain(|one, _| !below(one, path));
    }

    /// Applies a layer, compressed or not.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut plain = Vec::new();
        let text = |error: std::io::Error| error.to_string();
        match bytes {
            [0x1f, 0x8b, ..] => {
                flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).map_err(text)?;
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => plain = zstd::decode_all(bytes).map_err(text)?,
            _ => plain = bytes.to_vec(),
        }
        // What is whited out is of the layers below, wherever in the layer that is said.
        for additions in [false, true] {
            let mut archive = tar::Archive::new(plain.as_slice());
            for entry in archive.entries().map_err(text)? {
                self.entry(entry.map_err(text)?, additions)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: tar::Entry<'_, &[u8]>, additions: bool) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let path = normal(&entry.path_bytes());
        let cut = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = cut.map_or((&[][..], &path[..]), |at| (&path[..at], &path[at + 1..]));
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            match hidden {
                _ if additions => {}
                b".wh..opq" => self.clear(parent),
                _ => {
                    let hidden = [parent, if parent.is_empty() { b"" } else { b"/" }, hidden].concat();
                    self.clear(&hidden);
                    self.paths.remove(&hidden);
                }
            }
            return Ok(());
        }
        if !additions {
            return Ok(());
        }
        for at in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
            if !self.paths.contains_key(&path[..at]) {
                self.put(path[..at].to_vec(), Node { kind: 'd', mode: 0o755, ..Node::default() });
            }
        }
        let header = entry.header().clone();
        let mut node = Node {
            kind: 'f',
            mode: header.mode().map_err(text)? & 0o7777,
            uid: header.uid().map_err(text)?,
            gid: header.gid().map_err(text)?,
            ..Node::default()
        };
        for extension in entry.pax_extensions().map_err(text)?.into_iter().flatten() {
            let extension = extension.map_err(text)?;
            let key = String::from_utf8_lossy(extension.key_bytes()).into_owned();
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                node.xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
        let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
        match header.entry_type() {
            tar::EntryType::Link => {
                let node = self.paths.get(&normal(&target)).copied();
                let node = node.ok_or_else(|| format!("a link to nothing: {}", target.escape_ascii()))?;
                self.clear(&path);
                self.paths.insert(path, node);
                return Ok(());
            }
            tar::EntryType::Directory => {
                node.kind = 'd';
                let is_dir = self.paths.get(&path).is_some_and(|at| self.nodes[*at].kind == 'd');
                if !is_dir {
                    self.clear(&path);
                }
                self.put(path, node);
                return Ok(());
            }
            tar::EntryType::Symlink => {
                // Nobody can set a link's mode.
                (node.kind, node.mode) = ('l', 0o777);
                node.content = format!("-> {}", target.escape_ascii());
            }
            tar::EntryType::Fifo => node.kind = 'p',
            kind @ (tar::EntryType::Char | tar::EntryType::Block) => {
                node.kind = if kind == tar::EntryType::Char { 'c' } else { 'b' };
                let (major, minor) = (header.device_major().map_err(text)?, header.device_minor().map_err(text)?);
                node.content = format!("{}:{}", major.unwrap_or(0), minor.unwrap_or(0));
            }
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(text)?;
                node.content = match std::str::from_utf8(&content) {
                    Ok(text) if text.len() <= SHOWN_BYTES => format!("{text:?}"),
                    _ => format!("{} bytes {}", content.len(), Digest::of(&content)),
                };
            }
        }
        self.clear(&path);
        self.put(path, node);
        Ok(())
    }
}

/// Whether `path` is somewhere in the directory `parent`, and not that itself.
fn below(path: &[u8], parent: &[u8]) -> bool {
    match path.strip_prefix(parent) {
        Some(rest) if parent.is_empty() => !rest.is_empty(),
        Some(rest) => rest.first() == Some(&b'/'),
        None => false,
    }
}

/// Without `./`, leading and trailing slashes.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}
