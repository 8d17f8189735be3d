//! The records of a cache, as JSON.

use std::collections::BTreeMap;

use ctk_oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

/// What a cache's manifest calls itself.
pub(crate) const ARTIFACT_TYPE: &str = "application/vnd.ctk.build.cache.v1";
/// The media type of the records.
pub(crate) const RECORDS_TYPE: &str = "application/vnd.ctk.build.cache.records.v1+json";
/// The field of an image's config that holds records.
pub const INLINE_FIELD: &str = "ctk.build.cache.v1";
/// The version of the records. Others are left alone: a cache is only ever a shortcut.
pub(crate) const VERSION: u32 = 1;

/// Which operation gave which layers. The same results give the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Records {
    version: u32,
    /// The diffIDs of the manifest's layers, in their order; none in an image, whose config has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) diff_ids: Vec<DiffId>,
    /// Layers by their names.
    pub layers: BTreeMap<String, LayerRecord>,
    /// What trees are made of.
    pieces: Vec<Piece>,
    /// Trees by definition key, base first: places in `pieces`.
    definitions: BTreeMap<String, Vec<usize>>,
    /// Layers by content key.
    pub contents: BTreeMap<String, String>,
    /// Cache mounts by the names of their directories.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, MountRecord>,
}

/// A layer of a tree and the definition key of what made it; none for a base's layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The layer's name.
    pub layer: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerRecord {
    /// Digest of the plain tar.
    pub diff_id: DiffId,
    /// Bytes of the plain tar.
    pub size: u64,
    /// No time in it is after this, in seconds since 1970.
    pub epoch: i64,
    /// Digest of the compressed tar.
    pub digest: Digest,
    /// How it was compressed, to the level.
    pub compression: String,
    /// Whether times that a program chose were cut at `epoch`, or are just that: no layer of an image of a later date.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A cache mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountRecord {
    /// What the Dockerfile calls it.
    pub id: String,
    /// Digest of the plain tar of its files.
    pub diff_id: DiffId,
    /// Bytes of the plain tar.
    pub size: u64,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Records {
    /// Records from trees by definition key.
    pub fn new(definitions: &BTreeMap<String, Vec<Piece>>) -> Records {
        let mut pieces: Vec<Piece> = definitions.values().flatten().cloned().collect();
        pieces.sort();
        pieces.dedup();
        let place = |piece: &Piece| pieces.binary_search(piece).expect("collected above");
        let tree = |tree: &Vec<Piece>| tree.iter().map(place).collect();
        let definitions = definitions.iter().map(|(key, pieces)| (key.clone(), tree(pieces))).collect();
        Records { version: VERSION, pieces, definitions, ..Records::default() }
    }

    /// Reads them. The error is what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Records, String> {
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("its records have version {version}, and we know {VERSION}"));
        }
        let records: Records = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match records.definitions.values().flatten().any(|piece| *piece >= records.pieces.len()) {
            true => Err("its records name a piece that is not there".into()),
            false => Ok(records),
        }
    }

    /// The tree of a definition.
    pub fn definition(&self, key: &str) -> Option<Vec<Piece>> {
        Some(self.definitions.get(key)?.iter().map(|place| self.pieces[*place].clone()).collect())
    }

    /// Their bytes.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("plain data serialises")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_come_back_and_bytes_depend_on_nothing_else() {
        let piece = |layer: &str| Piece { layer: layer.into(), by: Some("k".into()) };
        let trees = BTreeMap::from([("b".to_owned(), vec![piece("2"), piece("1")]), ("a".into(), vec![piece("2")])]);
        let records = Records::new(&trees);
        let bytes = serde_json::to_vec(&records).unwrap();
        let back = Records::parse(&bytes).unwrap();
        assert_eq!(back, records);
        assert_eq!(back.definition("b").unwrap(), trees["b"]);
        assert_eq!(back.definition("c"), None);
        assert_eq!(serde_json::to_vec(&back).unwrap(), bytes);
    }

    #[test]
    fn other_versions_and_nonsense_are_told() {
        let check = |text: &str, part: &str| {
            let error = Records::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check(r#"{"version":2,"new":[]}"#, "version 2");
        check(r#"{"version":1,"layers":{},"pieces":[],"definitions":{"a":[0]},"contents":{}}"#, "not there");
        check("[]", "");
    }
}
