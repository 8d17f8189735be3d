//! Cache keys.
//!
//! A vertex has two. The *definition key* is known before anything runs: the hash of its operation,
//! of its inputs' definition keys and of the content of what it reads from local contexts. The
//! *content key* is known when its inputs are there: the same operation over what the inputs turned
//! out to be, so a stage that was rebuilt to the same files rebuilds nothing after it.

use std::fmt;

use crate::{Graph, Op, Selection, VertexId};

/// Raised when an operation's behaviour changes; else caches lie.
const SEMANTICS: u32 = 7;

/// 32 bytes as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Content of what a build reads from outside the graph.
pub trait Sources {
    /// Digest of the content of `selection`; the same files give the same text.
    fn selection(&self, selection: &Selection) -> String;
    /// What else must count for this vertex, e.g. the digest of a moving URL.
    fn source(&self, op: &Op) -> Option<String> {
        let _ = op;
        None
    }
}

/// Hashes length-prefixed parts, so that no two lists of parts run together.
pub struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// For keys of `kind`; different kinds never meet.
    pub fn new(kind: &str) -> KeyHasher {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        hasher.part(kind.as_bytes());
        hasher.part(&SEMANTICS.to_le_bytes());
        hasher
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut KeyHasher {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The key's bytes.
    pub fn bytes(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// The key.
    pub fn finish(&self) -> Key {
        Key(self.0.finalize().to_hex().to_string())
    }
}

impl Op {
    /// The canonical text that keys hash.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data serialises")
    }

    /// The key of this operation over inputs that are described by `inputs`.
    pub fn key(&self, kind: &str, inputs: &[&[u8]], sources: &dyn Sources) -> Key {
        let mut hasher = KeyHasher::new(kind);
        hasher.part(&self.canonical());
        for selection in self.selections() {
            hasher.part(sources.selection(selection).as_bytes());
        }
        if let Some(source) = sources.source(self) {
            hasher.part(source.as_bytes());
        }
        inputs.iter().for_each(|input| {
            hasher.part(input);
        });
        hasher.finish()
    }
}

impl Graph {
    /// The definition keys of all vertices, by [`VertexId::index`].
    pub fn definition_keys(&self, sources: &dyn Sources) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::with_capacity(self.len());
        for (_, vertex) in self.vertices() {
            let inputs: Vec<&[u8]> = vertex.inputs.iter().map(|i: &VertexId| keys[i.index()].0.as_bytes()).collect();
            let key = vertex.op.key("definition", &inputs, sources);
            keys.push(key);
        }
        keys
    }
}
