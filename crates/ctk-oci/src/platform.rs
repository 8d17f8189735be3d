//! Platforms: `os/architecture[/variant]`, with the names of Go's `GOOS` and `GOARCH`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// Windows build number, mostly.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Required features of the system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform `{0}` is malformed; expected `os/architecture` or `os/architecture/variant`, e.g. `linux/amd64`")]
pub struct PlatformError(String);

impl Platform {
    /// `os/architecture` without a variant.
    pub fn new(os: &str, architecture: &str) -> Platform {
        Platform {
            architecture: architecture.into(),
            os: os.into(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// The platform that this binary was compiled for.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform::new("linux", architecture)
    }

    /// How well `offered` serves when `self` is wanted: 0 is exact, more is worse, `None` not at all.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (variant_number(self), variant_number(offered)) {
            (wanted, has) if wanted == has => Some(0),
            (Some(wanted), Some(has)) if has < wanted => Some(wanted - has),
            (Some(_), None) => Some(100),
            (None, Some(_)) => Some(200),
            _ => None,
        }
    }

    /// A map of the platform's parts, as `TARGETOS` and friends are made from.
    pub fn parts(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("PLATFORM", self.to_string()),
            ("OS", self.os.clone()),
            ("ARCH", self.architecture.clone()),
            ("VARIANT", self.variant.clone().unwrap_or_default()),
        ])
    }
}

/// The variant as a number; arm64 without one is v8, amd64 without one is v1, arm without one is v7.
fn variant_number(platform: &Platform) -> Option<u32> {
    let named = platform.variant.as_deref().and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse().ok());
    named.or(match platform.architecture.as_str() {
        "arm64" => Some(8),
        "amd64" => Some(1),
        "arm" => Some(7),
        _ => None,
    })
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(plain) {
            return Err(PlatformError(text.into()));
        }
        let architecture = match parts[1] {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            other => other,
        };
        let mut platform = Platform::new(&parts[0].to_lowercase(), &architecture.to_lowercase());
        platform.variant = parts.get(2).map(|v| v.to_lowercase());
        if platform.architecture == "arm64" && platform.variant.as_deref() == Some("v8") {
            platform.variant = None;
        }
        Ok(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_normalised() {
        assert_eq!("linux/aarch64/v8".parse::<Platform>().unwrap().to_string(), "linux/arm64");
        assert_eq!("Linux/x86_64".parse::<Platform>().unwrap().to_string(), "linux/amd64");
        assert!("linux".parse::<Platform>().is_err());
        assert!("linux//v7".parse::<Platform>().is_err());
    }

    #[test]
    fn lower_variants_serve_higher_ones() {
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        let v6: Platform = "linux/arm/v6".parse().unwrap();
        assert_eq!(v7.rank(&v6), Some(1));
        assert_eq!(v6.rank(&v7), None);
        assert_eq!(v7.rank(&v7), Some(0));
    }
}
