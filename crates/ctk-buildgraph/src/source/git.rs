//! Git repositories as they are named in `ADD`, in contexts and on the command line.
//!
//! ```text
//! https://host/repo.git[?query][#ref[:subdir]]      also http:
//! ssh://[user@]host/repo[?query][#ref[:subdir]]     also git:
//! [user@]host:repo[?query][#ref[:subdir]]            without a user a dot or `.git` must tell it from a file
//! github.com/owner/repo…                            deprecated: it looks like a path
//! ```
//! Query keys: `ref`, `tag`, `branch`, `subdir`, `checksum` (or `commit`), `keep-git-dir`, `submodules`, `mtime`,
//! `fetch-by-commit`.

use std::fmt;

use ctk_syntax::nearest;
use serde::Serialize;

use super::SourceError;

/// A checkout of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GitSource {
    /// What `git fetch` takes.
    pub url: String,
    /// Branch, tag, other ref or commit; none is the repository's default branch.
    #[serde(skip)]
    pub reference: Option<String>,
    /// Folder within the checkout, without leading or trailing `/`.
    pub subdir: Option<String>,
    /// What the commit must begin with: lower-case hexadecimal digits.
    #[serde(skip)]
    pub checksum: Option<String>,
    /// Whether `.git` stays; none where nothing is said, which means no.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules come too.
    pub submodules: bool,
    /// What time files have.
    pub mtime: GitTime,
    /// Whether only the commit itself may be fetched, not the ref.
    #[serde(skip)]
    pub fetch_by_commit: bool,
    /// Whether it was written as `github.com/…`, which could be a path.
    #[serde(skip)]
    pub like_path: bool,
}

/// What time the files of a checkout have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GitTime {
    /// When they were checked out.
    #[default]
    Checkout,
    /// The commit's.
    Commit,
}

const KEYS: [&str; 10] =
    ["ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime", "fetch-by-commit"];

/// The parts of a text that names a repository.
struct Parts<'t> {
    url: String,
    query: &'t str,
    fragment: &'t str,
    /// Whether query and fragment have `%20` and the like.
    encoded: bool,
}

impl GitSource {
    /// The repository that `text` names; none if it names none. An error is a sentence about a text that does, but not
    /// rightly.
    pub fn parse(text: &str) -> Result<Option<GitSource>, SourceError> {
        let like_path = text.starts_with("github.com/");
        let Some(parts) = (if like_path { Some(github(text)) } else { split(text) }) else { return Ok(None) };
        let mut source = GitSource {
            url: parts.url,
            reference: None,
            subdir: None,
            checksum: None,
            keep_git_dir: None,
            submodules: true,
            mtime: GitTime::Checkout,
            fetch_by_commit: false,
            like_path,
        };
        let decode = |text: &str| if parts.encoded { decode(text) } else { Ok(text.to_owned()) };
        let fragment = decode(parts.fragment)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        source.reference = some(reference);
        source.subdir = folder(subdir);
        source.query(parts.query)?;
        Ok(Some(source))
    }

    fn query(&mut self, query: &str) -> Result<(), SourceError> {
        let (mut tag, mut branch, mut seen) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?);
            if seen.contains(&key) {
                return Err(SourceError::QueryRepeated { key });
            }
            let flag = ["keep-git-dir", "submodules", "fetch-by-commit"].contains(&key.as_str());
            if value.is_empty() && !flag && KEYS.contains(&key.as_str()) {
                return Err(SourceError::QueryEmpty { key });
            }
            match key.as_str() {
                "ref" => set("ref", &mut self.reference, value.clone())?,
                "tag" => tag = Some(full("refs/tags/", &value)),
                "branch" => branch = Some(full("refs/heads/", &value)),
                "subdir" => match folder(&value) {
                    Some(value) => set("subdir", &mut self.subdir, value)?,
                    None => self.subdir = None,
                },
                "checksum" | "commit" => set("checksum", &mut self.checksum, checksum(&value)?)?,
                "keep-git-dir" => self.keep_git_dir = Some(boolean(&key, &value)?),
                "submodules" => self.submodules = boolean(&key, &value)?,
                "fetch-by-commit" => self.fetch_by_commit = boolean(&key, &value)?,
                "mtime" => {
                    self.mtime = match value.as_str() {
                        "checkout" => GitTime::Checkout,
                        "commit" => GitTime::Commit,
                        _ => return Err(SourceError::QueryValue { key, value, expected: "`checkout` or `commit`" }),
                    }
                }
                _ => {
                    let near = nearest(&key, KEYS).map(str::to_owned);
                    return Err(SourceError::QueryUnknown { key, near });
                }
            }
            seen.push(key);
        }
        if let (Some(_), Some(_)) = (&tag, &branch) {
            return Err(SourceError::TagAndBranch);
        }
        for name in tag.into_iter().chain(branch) {
            set("ref", &mut self.reference, name)?;
        }
        if self.fetch_by_commit && !self.checksum.as_deref().is_some_and(is_commit) {
            return Err(SourceError::FetchWithoutCommit);
        }
        self.commit_is_reference();
        Ok(())
    }

    /// With nothing else said, the commit that is expected is the one that is meant.
    fn commit_is_reference(&mut self) {
        if self.reference.is_none() {
            self.reference = self.checksum.clone();
        }
    }

    /// The same with the flags of `ADD`. An error is a sentence about what they contradict.
    pub fn with_flags(mut self, flag: Option<&str>, keep_git_dir: bool) -> Result<GitSource, SourceError> {
        if let Some(flag) = flag {
            set("checksum", &mut self.checksum, checksum(flag)?)?;
            self.commit_is_reference();
        }
        match (keep_git_dir, self.keep_git_dir) {
            (true, Some(false)) => return Err(SourceError::KeepConflict),
            (true, None) => self.keep_git_dir = Some(true),
            _ => {}
        }
        Ok(self)
    }

    /// The commit, where it is named by all its digits and no ref has to be asked for.
    pub fn commit(&self) -> Option<&str> {
        let named = if self.fetch_by_commit { &self.checksum } else { &self.reference };
        named.as_deref().filter(|name| is_commit(name))
    }

    /// What is looked up in the repository, and in the lock file: the ref, or `HEAD`.
    pub fn wanted(&self) -> &str {
        self.reference.as_deref().unwrap_or("HEAD")
    }

    /// Whether `.git` stays.
    pub fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir == Some(true)
    }
}

/// Without passwords: for people and for the lock file.
impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.url))?;
        match (&self.reference, &self.subdir) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or_default()),
            (reference, Some(subdir)) => write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or_default()),
        }
    }
}

/// Whether `text` is a commit with all its digits: SHA-1 or SHA-256.
pub fn is_commit(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `url` without the password or token that stands in it.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:xxxxx@{host}{path}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A folder below the root, however it is written; none is the root itself.
fn folder(text: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    some(&parts.join("/"))
}

fn full(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn set(what: &'static str, place: &mut Option<String>, value: String) -> Result<(), SourceError> {
    match place {
        Some(there) if *there != value => Err(SourceError::Conflict { what, first: there.clone(), second: value }),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn checksum(text: &str) -> Result<String, SourceError> {
    let digits = text.to_ascii_lowercase();
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(SourceError::BadCommit { text: text.to_owned() });
    }
    Ok(digits)
}

/// As Go's `strconv.ParseBool`; a bare key is true.
fn boolean(key: &str, value: &str) -> Result<bool, SourceError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            Err(SourceError::QueryValue { key: key.to_owned(), value: value.to_owned(), expected: "`true` or `false`" })
        }
    }
}

/// `%20` and the like replaced.
fn decode(text: &str) -> Result<String, SourceError> {
    let bad = || SourceError::BadEscape { text: text.to_owned() };
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16)).ok_or_else(bad);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).map_err(|_| bad())
}

fn github(text: &str) -> Parts<'_> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Parts { url: format!("https://{path}"), query, fragment, encoded: true }
}

fn split(text: &str) -> Option<Parts<'_>> {
    if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
        return None;
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let Some((scheme, path)) = scheme(place) else {
        return is_scp(place).then(|| Parts { url: place.to_owned(), query, fragment, encoded: false });
    };
    let scheme = scheme.to_ascii_lowercase();
    let git = match scheme.as_str() {
        "http" | "https" => path.ends_with(".git"),
        "ssh" | "git" => true,
        _ => false,
    };
    git.then(|| Parts { url: format!("{scheme}://{path}"), query, fragment, encoded: true })
}

/// `scheme://rest`.
pub(super) fn scheme(text: &str) -> Option<(&str, &str)> {
    text.split_once("://").filter(|(s, _)| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// `[user@]host:path`, and nothing that a URL could be.
fn is_scp(text: &str) -> bool {
    let Some((place, path)) = text.split_once(':') else { return false };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    match place.split_once('@') {
        Some((user, host)) => word(user, b"-_") && word(host, b"-."),
        None => {
            let bare = path.is_empty() || path.starts_with('/');
            !bare && word(place, b"-.") && (place.contains('.') || path.ends_with(".git"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> GitSource {
        GitSource::parse(text).unwrap().unwrap_or_else(|| panic!("{text} names no repository"))
    }

    fn check(text: &str, url: &str, reference: Option<&str>, subdir: Option<&str>) {
        let source = parsed(text);
        assert_eq!(
            (source.url.as_str(), source.reference.as_deref(), source.subdir.as_deref()),
            (url, reference, subdir)
        );
    }

    #[test]
    fn every_way_to_name_a_repository() {
        check("https://host/a/r.git", "https://host/a/r.git", None, None);
        check("HTTPS://host/a/r.git#main", "https://host/a/r.git", Some("main"), None);
        check("http://host:8080/r.git#v1:sub/dir/", "http://host:8080/r.git", Some("v1"), Some("sub/dir"));
        check("https://host/r.git#:sub", "https://host/r.git", None, Some("sub"));
        check("https://host/r.git#feature/x", "https://host/r.git", Some("feature/x"), None);
        check("https://host/r.git#a%20b", "https://host/r.git", Some("a b"), None);
        check("git://host/r", "git://host/r", None, None);
        check("ssh://git@host:2222/r.git#v1", "ssh://git@host:2222/r.git", Some("v1"), None);
        check("git@host:owner/r.git#v1:d", "git@host:owner/r.git", Some("v1"), Some("d"));
        check("git@host:/srv/r", "git@host:/srv/r", None, None);
        check("host.example:r.git", "host.example:r.git", None, None);
        check("github.com/moby/moby#v1", "https://github.com/moby/moby", Some("v1"), None);
        assert!(parsed("github.com/moby/moby").like_path);
    }

    #[test]
    fn what_is_no_repository() {
        for text in [
            "./r.git",
            "../r.git",
            "/srv/r.git",
            "r.git",
            "https://host/a.tar.gz",
            "http://host/",
            "file:///srv/r.git",
            ".",
            "-",
        ] {
            assert_eq!(GitSource::parse(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn the_query_form() {
        let source = parsed("https://host/r.git?branch=dev&subdir=/a/b&keep-git-dir&submodules=false&mtime=commit");
        assert_eq!(source.reference.as_deref(), Some("refs/heads/dev"));
        assert_eq!(source.subdir.as_deref(), Some("a/b"));
        assert_eq!((source.keep_git_dir, source.submodules, source.mtime), (Some(true), false, GitTime::Commit));
        let source = parsed("git@host:r?tag=v1&checksum=ABCDEF0");
        assert_eq!((source.url.as_str(), source.wanted()), ("git@host:r", "refs/tags/v1"));
        assert_eq!(source.checksum.as_deref(), Some("abcdef0"));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let source = parsed(&format!("https://host/r.git?commit={commit}&fetch-by-commit=1"));
        assert_eq!((source.wanted(), source.commit(), source.fetch_by_commit), (commit, Some(commit), true));
        let source = parsed("https://host/r.git?ref=main#main");
        assert_eq!(source.wanted(), "main");
    }

    fn refused(query: &str, expected: &str) {
        let error = GitSource::parse(&format!("https://host/r.git{query}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{query}: {error}");
    }

    #[test]
    fn what_contradicts_itself() {
        refused("?ref=a#b", "`b` and `a`");
        refused("?tag=a&branch=a", "`tag` and `branch`");
        refused("?ref=main&tag=v1", "`main` and `refs/tags/v1`");
        refused("?subdir=a#main:b", "`b` and `a`");
        refused("?checksum=abc&commit=def", "`abc` and `def`");
        refused("?ref=a&ref=a", "more than once");
        refused("?ref=", "has no value");
        refused("?mtime=now", "`checkout` or `commit`");
        refused("?submodules=maybe", "`true` or `false`");
        refused("?checksum=xyz", "hexadecimal");
        refused("?submodule=1", "did you mean `submodules`");
        refused("?fetch-by-commit&checksum=abc", "all digits");
        refused("?ref=%zz", "%zz");
    }

    #[test]
    fn flags_of_add() {
        let source = parsed("https://host/r.git?keep-git-dir=false&checksum=abc");
        assert!(source.clone().with_flags(None, true).is_err());
        assert!(source.clone().with_flags(Some("abd"), false).is_err());
        assert!(source.with_flags(Some("abc"), false).is_ok());
        let source = parsed("https://host/r.git").with_flags(Some("abc"), true).unwrap();
        assert_eq!((source.keeps_git_dir(), source.wanted()), (true, "abc"));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(parsed("https://u:secret@host/r.git#v1").to_string(), "https://u:xxxxx@host/r.git#v1");
        assert_eq!(parsed("ssh://git@host/r").to_string(), "ssh://git@host/r");
    }
}
