//! A request's path and query, read by a server. Repository names hold slashes, so the path is cut from its end.

use ctk_oci::{Digest, Reference};

/// What a path under `/v2/` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Version,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags {
        /// The repository.
        name: String,
    },
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest {
        /// The repository.
        name: String,
        /// Which manifest.
        target: Target,
    },
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// The repository.
        name: String,
        /// Which blob.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/`
    Uploads {
        /// The repository.
        name: String,
    },
    /// `/v2/<name>/blobs/uploads/<session>`
    Upload {
        /// The repository.
        name: String,
        /// The session: letters, digits and `-` only.
        session: String,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The repository.
        name: String,
        /// The subject.
        digest: Digest,
    },
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A well-formed tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

/// Why a path is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// Nothing of this protocol.
    NotFound,
    /// The repository's name is malformed.
    Name(String),
    /// The digest is malformed.
    Digest(String),
    /// The tag is malformed.
    Tag(String),
}

/// Longest session name taken; ours have 32 characters.
const SESSION_MAX_BYTES: usize = 64;

impl Route {
    /// Splits a path. It must be as the client wrote it, not percent-decoded: nothing valid needs escapes, and
    /// so `%2f` and `//` can never name what `/` names.
    pub fn parse(path: &str) -> Result<Route, RouteError> {
        let rest = path.strip_prefix("/v2").ok_or(RouteError::NotFound)?;
        let rest = match rest.strip_prefix('/') {
            Some(rest) => rest,
            None if rest.is_empty() => return Ok(Route::Version),
            None => return Err(RouteError::NotFound),
        };
        match rest {
            "" => return Ok(Route::Version),
            "_catalog" => return Ok(Route::Catalog),
            _ => {}
        }
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [name @ .., "tags", "list"] => Ok(Route::Tags { name: repository(name)? }),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Route::Uploads { name: repository(name)? })
            }
            [name @ .., "blobs", "uploads", session] => {
                let name = repository(name)?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if session.len() > SESSION_MAX_BYTES || !session.bytes().all(plain) {
                    return Err(RouteError::NotFound);
                }
                Ok(Route::Upload { name, session: (*session).into() })
            }
            [name @ .., "blobs", digest] => Ok(Route::Blob { name: repository(name)?, digest: parse_digest(digest)? }),
            [name @ .., "referrers", digest] => {
                Ok(Route::Referrers { name: repository(name)?, digest: parse_digest(digest)? })
            }
            [name @ .., "manifests", target] => {
                let name = repository(name)?;
                let target = match target.contains(':') {
                    true => Target::Digest(parse_digest(target)?),
                    false => match Reference::new("localhost", &name, Some(target), None) {
                        Ok(_) => Target::Tag((*target).into()),
                        Err(_) => return Err(RouteError::Tag((*target).into())),
                    },
                };
                Ok(Route::Manifest { name, target })
            }
            _ => Err(RouteError::NotFound),
        }
    }

    /// The repository, if the route is within one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Route::Version | Route::Catalog => None,
            Route::Tags { name }
            | Route::Manifest { name, .. }
            | Route::Blob { name, .. }
            | Route::Uploads { name }
            | Route::Upload { name, .. }
            | Route::Referrers { name, .. } => Some(name),
        }
    }
}

fn repository(parts: &[&str]) -> Result<String, RouteError> {
    let name = parts.join("/");
    if name.is_empty() {
        return Err(RouteError::NotFound);
    }
    match Reference::new("localhost", &name, None, None) {
        Ok(_) => Ok(name),
        Err(_) => Err(RouteError::Name(name)),
    }
}

fn parse_digest(text: &str) -> Result<Digest, RouteError> {
    text.parse().map_err(|_| RouteError::Digest(text.into()))
}

/// A request's query. Names may repeat.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands after `?`.
    pub fn parse(text: &str) -> Query {
        Query(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The last value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(path: &str, expected: Route) {
        assert_eq!(Route::parse(path), Ok(expected), "{path}");
    }

    #[test]
    fn paths_are_split_from_the_end() {
        let digest: Digest = EMPTY.parse().unwrap();
        check("/v2/", Route::Version);
        check("/v2", Route::Version);
        check("/v2/_catalog", Route::Catalog);
        check("/v2/a/b/tags/list", Route::Tags { name: "a/b".into() });
        check("/v2/tags/list/tags/list", Route::Tags { name: "tags/list".into() });
        check("/v2/blobs/uploads/blobs/uploads/", Route::Uploads { name: "blobs/uploads".into() });
        check(&format!("/v2/a/blobs/{EMPTY}"), Route::Blob { name: "a".into(), digest: digest.clone() });
        check(
            &format!("/v2/manifests/manifests/{EMPTY}"),
            Route::Manifest { name: "manifests".into(), target: Target::Digest(digest.clone()) },
        );
        check("/v2/a/manifests/V1.0", Route::Manifest { name: "a".into(), target: Target::Tag("V1.0".into()) });
        check("/v2/a/blobs/uploads/0-a", Route::Upload { name: "a".into(), session: "0-a".into() });
        check(&format!("/v2/a/referrers/{EMPTY}"), Route::Referrers { name: "a".into(), digest });
    }

    #[test]
    fn malformed_paths_are_refused() {
        let refused = |path: &str| Route::parse(path).unwrap_err();
        assert_eq!(refused("/"), RouteError::NotFound);
        assert_eq!(refused("/v2x"), RouteError::NotFound);
        assert_eq!(refused("/v2/a"), RouteError::NotFound);
        assert_eq!(refused("/v2/a/blobs/uploads/../x"), RouteError::NotFound);
        assert_eq!(refused("/v2/a/blobs/uploads/.."), RouteError::NotFound);
        assert_eq!(refused("/v2/A/tags/list"), RouteError::Name("A".into()));
        assert_eq!(refused("/v2/a//b/tags/list"), RouteError::Name("a//b".into()));
        assert_eq!(refused("/v2/../tags/list"), RouteError::Name("..".into()));
        assert_eq!(refused("/v2/a%2fb/tags/list"), RouteError::Name("a%2fb".into()));
        assert_eq!(refused("/v2/a/blobs/sha256:00"), RouteError::Digest("sha256:00".into()));
        assert_eq!(refused("/v2/a/manifests/.x"), RouteError::Tag(".x".into()));
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("digest=sha256%3Aab&mount=&x=a+b");
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("mount"), Some(""));
        assert_eq!(query.get("none"), None);
        let query = Query::parse("tag=b&x=1&tag=a");
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(query.get("tag"), Some("a"));
    }
}
