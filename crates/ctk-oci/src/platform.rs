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

    /// How well `offered` serves when `self` is wanted: 0 is exact, more is worse, `None` not at all. A lower variant
    /// serves a higher one, 386 serves amd64, and arm serves arm64.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        const OTHER_ARCHITECTURE: u32 = 1000;
        if self.os != offered.os {
            return None;
        }
        match (self.architecture.as_str(), offered.architecture.as_str()) {
            ("amd64", "386") => return Some(OTHER_ARCHITECTURE),
            ("arm64", "arm") => {
                let has = variant_number(offered)?;
                return 8u32.checked_sub(has).map(|less| OTHER_ARCHITECTURE + less);
            }
            (wanted, has) if wanted != has => return None,
            _ => {}
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

/// What stands alone for a system: it is meant with this machine's architecture.
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// What stands alone for an architecture: it is meant with Linux.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x",
];

/// Go's names for others', and no variant where it says nothing.
fn normal(architecture: &str, variant: &str) -> (String, Option<String>) {
    let numbered = |variant: &str| match variant.parse::<u8>() {
        Ok(number) => Some(format!("v{number}")),
        Err(_) => Some(variant.to_owned()).filter(|v| !v.is_empty()),
    };
    let (architecture, variant) = match architecture {
        "i386" | "i686" => ("386", None),
        "x86_64" | "x86-64" | "amd64" => ("amd64", numbered(variant).filter(|v| v != "v1")),
        "aarch64" | "arm64" => ("arm64", numbered(variant).filter(|v| v != "v8" && v != "v8.0")),
        "armhf" => ("arm", Some("v7".into())),
        "armel" => ("arm", Some("v6".into())),
        "arm" => ("arm", numbered(variant).or(Some("v7".into()))),
        other => (other, numbered(variant)),
    };
    (architecture.to_owned(), variant)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let lower = text.to_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let plain =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !parts.iter().all(plain) {
            return Err(PlatformError(text.into()));
        }
        let (os, (architecture, variant)) = match parts[..] {
            [os] if SYSTEMS.contains(&os) => (os, (Platform::host().architecture, None)),
            [architecture] => match normal(architecture, "") {
                normal if ARCHITECTURES.contains(&normal.0.as_str()) => ("linux", normal),
                _ => return Err(PlatformError(text.into())),
            },
            [os, architecture] => (os, normal(architecture, "")),
            [os, architecture, variant] => (os, normal(architecture, variant)),
            _ => return Err(PlatformError(text.into())),
        };
        let os = if os == "macos" { "darwin" } else { os };
        Ok(Platform { variant, ..Platform::new(os, &architecture) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_normalised() {
        for (text, expected) in [
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/i386", "linux/386"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        assert_eq!("linux".parse::<Platform>(), Ok(Platform::host()));
        for text in ["x86", "linux//v7", "", "linux/arm/v7/x", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn lower_variants_serve_higher_ones() {
        for (wanted, offers, expected) in [
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"][..], Some("linux/arm/v6")),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64", "linux/arm64/v9"], Some("linux/arm64")),
            ("linux/arm64", &["linux/arm/v6", "linux/arm/v7", "linux/amd64"], Some("linux/arm/v7")),
            ("linux/amd64", &["linux/amd64/v2", "linux/386"], Some("linux/386")),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some("linux/amd64/v2")),
            ("linux/386", &["linux/amd64"], None),
            ("linux/amd64", &["windows/amd64"], None),
            ("linux/s390x", &["linux/s390x"], Some("linux/s390x")),
        ] {
            let wanted: Platform = wanted.parse().unwrap();
            let offers: Vec<Platform> = offers.iter().map(|o| o.parse().unwrap()).collect();
            let best = offers.iter().filter_map(|o| Some((wanted.rank(o)?, o))).min_by_key(|(rank, _)| *rank);
            assert_eq!(best.map(|(_, o)| o.to_string()).as_deref(), expected, "{wanted}");
        }
    }
}
