//! Annotations and where they go: the manifest, the index, or the descriptor of either.

use ctk_oci::Platform;
use ctk_syntax::nearest;

/// What carries an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The manifests.
    Manifest,
    /// The index of several platforms.
    Index,
    /// What names a manifest, in an index.
    ManifestDescriptor,
    /// What names the index, in a layout.
    IndexDescriptor,
}

const LEVELS: [(&str, Level); 4] = [
    ("manifest", Level::Manifest),
    ("index", Level::Index),
    ("manifest-descriptor", Level::ManifestDescriptor),
    ("index-descriptor", Level::IndexDescriptor),
];

/// One annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Where it goes.
    pub level: Level,
    /// Only for this platform's manifest.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
}

impl Annotation {
    /// An exporter's key: `annotation[-LEVEL][\[PLATFORM\]].KEY`.
    pub(super) fn of_key(key: &str, value: &str) -> Result<Annotation, String> {
        let bad = || format!("`{key}` is no annotation; expected `annotation[-LEVEL][[PLATFORM]].KEY=VALUE`");
        let rest = key.strip_prefix("annotation").ok_or_else(bad)?;
        // A platform may hold no dot, a key may.
        let (head, name) = match rest.find("].") {
            Some(at) if rest.contains('[') => (&rest[..=at], &rest[at + 2..]),
            _ => rest.split_once('.').ok_or_else(bad)?,
        };
        let head =
            if head.is_empty() || head.starts_with('[') { format!("manifest{head}") } else { head[1..].to_owned() };
        if name.is_empty() {
            return Err(bad());
        }
        let (level, platform) = target(&head)?;
        Ok(Annotation { level, platform, key: name.to_owned(), value: value.to_owned() })
    }

    /// `--annotation [LEVEL[\[PLATFORM\]],…:]KEY=VALUE`: one for each level.
    pub fn parse(text: &str) -> Result<Vec<Annotation>, String> {
        let (left, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is no KEY=VALUE"))?;
        // A key may hold colons too; what stands before the first one is levels only if it begins like one.
        let (targets, key) = match left.split_once(':') {
            Some((targets, key)) if is_level(targets) => (targets, key),
            _ => ("manifest", left),
        };
        if key.is_empty() {
            return Err(format!("`{text}` has no key before its `=`"));
        }
        targets
            .split(',')
            .map(|one| {
                let (level, platform) = target(one)?;
                Ok(Annotation { level, platform, key: key.to_owned(), value: value.to_owned() })
            })
            .collect()
    }
}

/// Whether that means a level: it begins with one, or is nearly one.
fn is_level(text: &str) -> bool {
    let word = text.split(['[', ',']).next().unwrap_or_default();
    LEVELS.iter().any(|(level, _)| text.starts_with(level)) || nearest(word, LEVELS.map(|(level, _)| level)).is_some()
}

/// `LEVEL` or `LEVEL[PLATFORM]`.
pub(crate) fn target(text: &str) -> Result<(Level, Option<Platform>), String> {
    let (word, platform) = match text.split_once('[') {
        Some((word, rest)) => {
            let platform = rest.strip_suffix(']').ok_or_else(|| format!("`{text}` lacks its `]`"))?;
            (word, Some(platform.parse::<Platform>().map_err(|error| error.to_string())?))
        }
        None => (text, None),
    };
    let level = LEVELS.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    level.map(|level| (level, platform)).ok_or_else(|| match nearest(word, LEVELS.map(|(name, _)| name)) {
        Some(near) => format!("`{word}` carries no annotations; did you mean `{near}`?"),
        None => format!("`{word}` carries no annotations; there are {}", LEVELS.map(|(name, _)| name).join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_and_keys() {
        let one = |level, platform: Option<&str>, key: &str, value: &str| Annotation {
            level,
            platform: platform.map(|p| p.parse().unwrap()),
            key: key.into(),
            value: value.into(),
        };
        assert_eq!(Annotation::parse("a.b=c=d").unwrap(), [one(Level::Manifest, None, "a.b", "c=d")]);
        assert_eq!(
            Annotation::parse("manifest,index[linux/amd64]:k=v").unwrap(),
            [one(Level::Manifest, None, "k", "v"), one(Level::Index, Some("linux/amd64"), "k", "v")]
        );
        assert_eq!(Annotation::parse("x:y=z").unwrap(), [one(Level::Manifest, None, "x:y", "z")]);
        assert!(Annotation::parse("novalue").is_err());
        assert!(Annotation::parse("manifestt:k=v").is_err());
        let wrong = Annotation::parse("indx:k=v").unwrap_err();
        assert_eq!(wrong, "`indx` carries no annotations; did you mean `index`?");
        let key = |text: &str| Annotation::of_key(text, "v");
        assert_eq!(key("annotation.a.b").unwrap(), one(Level::Manifest, None, "a.b", "v"));
        assert_eq!(key("annotation[linux/arm64].a").unwrap(), one(Level::Manifest, Some("linux/arm64"), "a", "v"));
        assert_eq!(key("annotation-index-descriptor.a").unwrap(), one(Level::IndexDescriptor, None, "a", "v"));
        assert!(key("annotation-foo.a").is_err());
        assert!(key("annotation").is_err());
    }
}
