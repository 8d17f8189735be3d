//! Image manifests and indexes (image-spec 1.1, `manifest.md`, `image-index.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Descriptor, Platform, media_type};

/// One image or artifact: a config and its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; absent in some old OCI manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config, or the empty descriptor of an artifact.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields of later specifications, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Manifest {
    /// An OCI image manifest of `config` and `layers`.
    pub fn image(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.into()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }
}

/// Several manifests under one name, usually one a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; absent in some old OCI indexes and in layouts' `index.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The members.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields of later specifications, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Index {
    /// An OCI index of `manifests`.
    pub fn new(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.into()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The member that fits `wanted` best: exact variant, then a lower one, then none named;
    /// the first of equals. A platform is optional (image specification, index, `manifests`): where no member has a
    /// fitting one, the only image that names none is meant, and its config says what it is for. `None` when no member
    /// has the system and architecture.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let ranked = self.manifests.iter().filter_map(|member| Some((wanted.rank(member.platform.as_ref()?)?, member)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, member)| member).or_else(|| {
            let is_image = |member: &&Descriptor| member.platform.is_none() && member.artifact_type.is_none();
            let mut unnamed = self.manifests.iter().filter(is_image);
            unnamed.next().filter(|_| unnamed.next().is_none())
        })
    }

    /// What [`Index::select`] chooses from, for people: `linux/amd64, linux/arm64`, `2 without a platform`.
    pub fn offers(&self) -> String {
        // Attestations say `unknown`.
        let named = self.manifests.iter().filter_map(|m| m.platform.as_ref()).filter(|p| p.os != "unknown");
        let mut offers: Vec<String> = named.map(Platform::to_string).collect();
        let unnamed = self.manifests.iter().filter(|m| m.platform.is_none()).count();
        if unnamed > 0 {
            offers.push(format!("{unnamed} without a platform"));
        }
        offers.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn index(platforms: &[Option<&str>]) -> Index {
        let member = |(number, platform): (usize, &Option<&str>)| {
            let digest: Digest = format!("sha256:{number:064}").parse().unwrap();
            let platform = platform.map(|text| text.parse().unwrap());
            Descriptor { platform, ..Descriptor::new(media_type::MANIFEST, digest, 1) }
        };
        Index::new(platforms.iter().enumerate().map(member).collect())
    }

    #[test]
    fn a_member_is_chosen_by_its_platform() {
        for (platforms, wanted, chosen) in [
            (&[Some("linux/arm64"), Some("linux/amd64")][..], "linux/amd64", Some(1)),
            (&[None, Some("linux/amd64")], "linux/amd64", Some(1)),
            // The only one that names none.
            (&[None], "linux/amd64", Some(0)),
            (&[Some("linux/arm64"), None], "linux/amd64", Some(1)),
            (&[Some("unknown/unknown"), None], "linux/amd64", Some(1)),
            // Which of them is meant, nobody says.
            (&[None, None], "linux/amd64", None),
            (&[Some("linux/arm64")], "linux/amd64", None),
            (&[], "linux/amd64", None),
        ] {
            let index = index(platforms);
            let found = index.select(&wanted.parse().unwrap());
            let place = found.map(|found| index.manifests.iter().position(|member| member == found).unwrap());
            assert_eq!(place, chosen, "{platforms:?}");
        }
        assert_eq!(
            index(&[Some("linux/arm64"), None, Some("unknown/unknown")]).offers(),
            "linux/arm64, 1 without a platform"
        );
        assert_eq!(index(&[]).offers(), "");
    }

    #[test]
    fn an_artifact_is_no_image() {
        let mut index = index(&[None, None]);
        index.manifests[1].artifact_type = Some("application/spdx+json".into());
        assert_eq!(index.select(&Platform::host()), Some(&index.manifests[0]));
    }
}
