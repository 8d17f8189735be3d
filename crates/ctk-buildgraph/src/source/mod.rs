//! Where a context comes from, as it is written on a command line or in the project file. Pure: nothing is looked at.

mod git;

use std::fmt;

use ctk_oci::{Digest, Platform, Reference};

pub use git::{GitSource, GitTime, is_commit, without_password};

/// What a text says a context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// `-`: a tar archive, or else a Dockerfile, on standard input.
    Stdin,
    /// A directory.
    Local(String),
    /// A repository.
    Git(GitSource),
    /// `http://…`, `https://…`: an archive or another file.
    Http(String),
    /// `docker-image://reference`
    Image(Reference),
    /// `docker-image://scratch`: no files.
    Scratch,
    /// `oci-layout://path[:tag][@digest]`
    OciLayout(OciLayout),
    /// `target:name`: another image of the project.
    Target(String),
}

/// An image in an OCI image layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OciLayout {
    /// Its directory.
    pub path: String,
    /// Which, by its name in the layout; without a digest and a tag it is `latest`.
    pub tag: Option<String>,
    /// Which, by its digest.
    pub digest: Option<Digest>,
}

/// What is wrong with the text of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing.
    #[error("a context cannot be empty; `.` is the current directory")]
    Empty,
    /// A scheme that means nothing.
    #[error("`{scheme}` contexts are not known{}", hint(.near))]
    Scheme {
        /// Which.
        scheme: String,
        /// The one that is nearly it.
        near: Option<String>,
    },
    /// `file://`
    #[error("`file` URLs are no contexts; name the directory itself: `{path}`")]
    File {
        /// The directory.
        path: String,
    },
    /// `input:`, which only frontends that call frontends know.
    #[error(
        "`input:` contexts come from a frontend that calls another one; name a directory, an image or a repository"
    )]
    Input,
    /// Something only named contexts can be.
    #[error("`{text}` can be a named context, but not the main one")]
    NotMain {
        /// As written.
        text: String,
    },
    /// `-` as a named context.
    #[error("standard input can be the main context only")]
    NotNamed,
    /// An image whose name is none.
    #[error("`{text}` names no image: {reason}")]
    Reference {
        /// As written.
        text: String,
        /// Why not.
        reason: String,
    },
    /// A digest or a path that is none.
    #[error("`{text}` names no image in a layout: {reason}")]
    Layout {
        /// As written.
        text: String,
        /// Why not.
        reason: String,
    },
    /// A context's name that is none.
    #[error("`{text}` cannot name a context: {reason}")]
    Name {
        /// As written.
        text: String,
        /// Why not.
        reason: String,
    },
    /// Neither `name=` nor a source.
    #[error("`{text}` is no named context; expected `name=source`")]
    NoName {
        /// As written.
        text: String,
    },
    /// A key twice.
    #[error("`{key}` of a repository is said more than once")]
    QueryRepeated {
        /// Which.
        key: String,
    },
    /// A key without a value.
    #[error("`{key}` of a repository has no value")]
    QueryEmpty {
        /// Which.
        key: String,
    },
    /// A key that means nothing.
    #[error("`{key}` is nothing that can be said of a repository{}", hint(.near))]
    QueryUnknown {
        /// Which.
        key: String,
        /// The one that is nearly it.
        near: Option<String>,
    },
    /// A value that its key does not know.
    #[error("`{key}` of a repository cannot be `{value}`; expected {expected}")]
    QueryValue {
        /// Which.
        key: String,
        /// As written.
        value: String,
        /// What is right.
        expected: &'static str,
    },
    /// Two different things said of one.
    #[error("the {what} of a repository cannot be both `{first}` and `{second}`")]
    Conflict {
        /// `ref`, `subdir`, `checksum`.
        what: &'static str,
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// Two kinds of refs.
    #[error("`tag` and `branch` of a repository exclude each other")]
    TagAndBranch,
    /// `--keep-git-dir` with `keep-git-dir=false`.
    #[error("`--keep-git-dir` and `keep-git-dir=false` contradict each other")]
    KeepConflict,
    /// A checksum that is none.
    #[error("`{text}` is no commit; expected hexadecimal digits")]
    BadCommit {
        /// As written.
        text: String,
    },
    /// `fetch-by-commit` with nothing to fetch by.
    #[error("`fetch-by-commit` needs `commit=` with all digits of the commit")]
    FetchWithoutCommit,
    /// A `%` that escapes nothing.
    #[error("`{text}` has a `%` that no two hexadecimal digits follow")]
    BadEscape {
        /// As written.
        text: String,
    },
}

fn hint(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

impl ContextSource {
    /// What a named context's source says: everything but standard input.
    pub fn parse(text: &str) -> Result<ContextSource, SourceError> {
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        if text == "-" {
            return Err(SourceError::NotNamed);
        }
        if let Some(image) = text.strip_prefix("docker-image://") {
            if image == "scratch" {
                return Ok(ContextSource::Scratch);
            }
            let bad =
                |e: ctk_oci::ReferenceError| SourceError::Reference { text: text.to_owned(), reason: e.to_string() };
            return Ok(ContextSource::Image(image.parse::<Reference>().map_err(bad)?.or_latest()));
        }
        if let Some(layout) = text.strip_prefix("oci-layout://") {
            return OciLayout::parse(layout).map(ContextSource::OciLayout);
        }
        if let Some(target) = text.strip_prefix("target:") {
            return Ok(ContextSource::Target(target.to_owned()));
        }
        if text.starts_with("input:") {
            return Err(SourceError::Input);
        }
        if let Some(git) = GitSource::parse(text)? {
            return Ok(ContextSource::Git(git));
        }
        match git::scheme(text) {
            None => Ok(ContextSource::Local(text.to_owned())),
            Some((scheme, _)) if ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) => {
                Ok(ContextSource::Http(text.to_owned()))
            }
            Some(("file", path)) => Err(SourceError::File { path: path.to_owned() }),
            Some((scheme, _)) => {
                let known = ["docker-image", "oci-layout", "http", "https", "git", "ssh"];
                let near = ctk_syntax::nearest(scheme, known).map(|n| format!("{n}://"));
                Err(SourceError::Scheme { scheme: scheme.to_owned(), near })
            }
        }
    }

    /// What the main context says. `is_directory` tells whether a path is one: a directory is meant before a
    /// repository whose name could be a path.
    pub fn parse_main(text: &str, is_directory: impl Fn(&str) -> bool) -> Result<ContextSource, SourceError> {
        if text == "-" {
            return Ok(ContextSource::Stdin);
        }
        if !text.is_empty() && is_directory(text) {
            return Ok(ContextSource::Local(text.to_owned()));
        }
        match ContextSource::parse(text)? {
            source @ (ContextSource::Local(_) | ContextSource::Git(_) | ContextSource::Http(_)) => Ok(source),
            _ => Err(SourceError::NotMain { text: text.to_owned() }),
        }
    }

    /// `name=source`, as `--build-context` takes it.
    pub fn parse_named(text: &str) -> Result<(ContextName, ContextSource), SourceError> {
        let Some((name, source)) = text.split_once('=') else {
            return Err(SourceError::NoName { text: text.to_owned() });
        };
        Ok((name.parse()?, ContextSource::parse(source)?))
    }
}

impl OciLayout {
    /// `path[:tag][@digest]`
    pub fn parse(text: &str) -> Result<OciLayout, SourceError> {
        let bad = |reason: String| SourceError::Layout { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| bad(e.to_string()))?)),
            None => (text, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((_, "")) => return Err(bad("its tag is empty".into())),
            Some((path, tag)) => (path, Some(tag.to_owned())),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(bad("it names no directory".into()));
        }
        Ok(OciLayout { path: path.to_owned(), tag, digest })
    }
}

impl fmt::Display for OciLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci-layout://{}", self.path)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// What a named context is called: an image's name as short as it can be written, and the platform it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextName {
    /// e.g. `alpine` for `docker.io/library/alpine:latest`.
    pub name: String,
    /// The only platform it counts for.
    pub platform: Option<Platform>,
}

impl ContextName {
    /// What `FROM text` would find; `text` itself if it is no image's name.
    pub fn short(text: &str) -> String {
        let Ok(reference) = text.parse::<Reference>() else { return text.to_owned() };
        let whole = reference.to_string();
        let short = match reference.registry() {
            "docker.io" => whole.strip_prefix("docker.io/").unwrap_or(&whole),
            _ => &whole,
        };
        let short = match short.strip_prefix("library/") {
            Some(rest) if reference.registry() == "docker.io" => rest,
            _ => short,
        };
        short.strip_suffix(":latest").unwrap_or(short).to_owned()
    }
}

impl std::str::FromStr for ContextName {
    type Err = SourceError;

    /// `name` or `name::os/architecture[/variant]`.
    fn from_str(text: &str) -> Result<ContextName, SourceError> {
        let bad = |reason: String| SourceError::Name { text: text.to_owned(), reason };
        let (name, platform) = match text.split_once("::") {
            Some((name, platform)) => {
                let none = |_| bad(format!("`{platform}` is no platform; expected `os/architecture[/variant]`"));
                (name, Some(platform.parse::<Platform>().map_err(none)?))
            }
            None => (text, None),
        };
        name.parse::<Reference>().map_err(|e| bad(e.to_string()))?;
        Ok(ContextName { name: ContextName::short(name), platform })
    }
}

/// The key of the context among an image's contexts.
impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.platform.iter().try_for_each(|platform| write!(f, "::{platform}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match ContextSource::parse(text) {
            Ok(source) => format!("{source:?}"),
            Err(error) => format!("error: {error}"),
        };
        assert!(shown.contains(expected), "{text}: {shown}");
    }

    #[test]
    fn every_kind() {
        check("libs", r#"Local("libs")"#);
        check("../x", r#"Local("../x")"#);
        check("https://host/r.git", "Git(GitSource");
        check("git@host:r", "Git(GitSource");
        check("https://host/x.tar.gz", r#"Http("https://host/x.tar.gz")"#);
        check("docker-image://alpine", r#"repository: "library/alpine", tag: Some("latest")"#);
        check("docker-image://scratch", "Scratch");
        check("docker-image://Up:per:x", "error: `docker-image://Up:per:x` names no image");
        check("oci-layout://out/x", r#"path: "out/x", tag: None, digest: None"#);
        check("oci-layout:///abs:v1", r#"path: "/abs", tag: Some("v1")"#);
        check("oci-layout://x@sha256:12", "error: `x@sha256:12` names no image in a layout");
        check("target:base", r#"Target("base")"#);
        check("input:base", "error: `input:`");
        check("-", "error: standard input");
        check("", "error: a context cannot be empty");
        check("file:///srv", "name the directory itself: `/srv`");
        check("htps://host/x", "did you mean `http");
    }

    #[test]
    fn the_main_context() {
        assert_eq!(ContextSource::parse_main("-", |_| false), Ok(ContextSource::Stdin));
        let here = |text: &str| text == "github.com/a/b";
        assert_eq!(
            ContextSource::parse_main("github.com/a/b", here),
            Ok(ContextSource::Local("github.com/a/b".into()))
        );
        assert!(matches!(ContextSource::parse_main("github.com/a/b", |_| false), Ok(ContextSource::Git(_))));
        assert!(ContextSource::parse_main("docker-image://alpine", |_| false).is_err());
    }

    #[test]
    fn names_are_as_short_as_can_be() {
        for (text, name) in [
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine:3", "alpine:3"),
            ("docker.io/a/b", "a/b"),
            ("ghcr.io/a/b:latest", "ghcr.io/a/b"),
        ] {
            assert_eq!(text.parse::<ContextName>().unwrap().to_string(), name);
        }
        let name: ContextName = "base::linux/arm64".parse().unwrap();
        assert_eq!((name.name.as_str(), name.to_string().as_str()), ("base", "base::linux/arm64"));
        assert!("Up".parse::<ContextName>().is_err());
        assert!("a::nowhere".parse::<ContextName>().is_err());
        assert!(ContextSource::parse_named("libs").is_err());
        assert_eq!(ContextSource::parse_named("libs=./l").unwrap().1, ContextSource::Local("./l".into()));
    }
}
