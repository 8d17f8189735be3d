//! Repositories: what a ref means, a mirror of each in the store, and checkouts from it.
//!
//! All by the `git` program, which sees nothing of the machine but its search path, proxies, authorities and the agent
//! of `ssh`. Secrets reach it by its environment, never by its arguments.

use std::path::{Path, PathBuf};

use ctk_buildgraph::{GitSource, GitTime, KeyHasher, is_commit, without_password};
use ctk_plan::{Cancel, Step};
use ctk_snapshot::LayerKey;
use ctk_store::Links;
use ctk_syntax::nearest;
use serde::{Deserialize, Serialize};

use super::Given;
use super::checkout::{Files, write};
use super::program::{Access, Git};
use crate::limits::{SUBMODULE_COUNT, SUBMODULE_DEPTH};
use crate::{BuildError, World};

/// Records of checkouts, and of when commits were made.
const TREES: &str = "git-tree";
const TIMES: &str = "git-time";
/// Raised when the same commit gives other files.
const SEMANTICS: &str = "1";
/// Digits of a commit that are enough to look for it.
const PREFIX_DIGITS: usize = 4;

/// The files of a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checkout {
    /// None if there are no files.
    pub layer: Option<LayerKey>,
}

/// The commit that is meant: asks the repository, unless it is named by all its digits.
pub(crate) fn resolve(source: &GitSource, given: &Given<'_>) -> Result<String, BuildError> {
    if let Some(commit) = source.commit() {
        return Ok(commit.to_owned());
    }
    let git = Git::new(source, given, given.world.cancel);
    let commit = match find(&git, source.wanted())? {
        Some(found) => found.commit,
        None => by_prefix(&git, source)?,
    };
    verify(source, &commit)?;
    Ok(commit)
}

/// The commit is the one that was expected.
pub(crate) fn verify(source: &GitSource, commit: &str) -> Result<(), BuildError> {
    match &source.checksum {
        Some(expected) if !commit.starts_with(expected) => Err(BuildError::GitChecksum {
            source_: source.to_string(),
            commit: commit.to_owned(),
            expected: expected.clone(),
        }),
        _ => Ok(()),
    }
}

/// A ref that the repository has.
struct Found {
    /// Its whole name.
    name: String,
    commit: String,
}

/// What the repository calls so. As `git checkout` does, a branch is meant before a tag.
fn find(git: &Git<'_>, wanted: &str) -> Result<Option<Found>, BuildError> {
    if wanted.starts_with('-') {
        return Ok(None);
    }
    let peeled = format!("{wanted}^{{}}");
    let listed = git.remote(&["ls-remote", "--", &git.url, wanted, &peeled])?;
    let listed: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let find = |name: &str| listed.iter().find(|(_, listed)| *listed == name).map(|(commit, _)| (*commit).to_owned());
    let qualified = |kind: &str| format!("refs/{kind}/{}", wanted.trim_start_matches(&format!("refs/{kind}/")));
    let other = if wanted.starts_with("refs/") { wanted.to_owned() } else { format!("refs/{wanted}") };
    let names = match wanted {
        "HEAD" => vec!["HEAD".to_owned()],
        _ => vec![qualified("heads"), qualified("tags"), other],
    };
    Ok(names.into_iter().find_map(|name| {
        let commit = find(&format!("{name}^{{}}")).or_else(|| find(&name))?;
        Some(Found { name, commit })
    }))
}

/// The commit that begins so, looked for in all of the repository.
fn by_prefix(git: &Git<'_>, source: &GitSource) -> Result<String, BuildError> {
    let wanted = source.wanted();
    let digits = wanted.len() >= PREFIX_DIGITS && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    if digits {
        let mirror = Mirror::open(git)?;
        mirror.fetch_all()?;
        let name = format!("{wanted}^{{commit}}");
        if let Some(commit) = mirror.ask(&["rev-parse", "--verify", "--quiet", &name])? {
            return Ok(commit);
        }
    }
    let listed = git.remote(&["ls-remote", "--heads", "--tags", "--refs", "--", &git.url])?;
    let names = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(_, name)| name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")));
    let short = wanted.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
    let near = nearest(short, names).map(str::to_owned);
    Err(BuildError::GitReference { url: without_password(&source.url), reference: wanted.to_owned(), near })
}

/// The checkout, if it is in the store.
pub(crate) fn known(source: &GitSource, commit: &str, world: &World<'_>) -> Result<Option<Checkout>, BuildError> {
    let key = key(source, commit);
    let Some(checkout) = world.store.record::<Checkout>(TREES, key.as_str())? else { return Ok(None) };
    Ok(match &checkout.layer {
        Some(layer) if !world.snapshots.has(layer)? => None,
        _ => Some(checkout),
    })
}

/// The checkout of `commit`, made if it is not in the store. Safe to repeat, and to run several times at once.
pub(crate) fn checkout(
    source: &GitSource,
    commit: &str,
    given: &Given<'_>,
    step: &Step,
    cancel: &Cancel,
) -> Result<Checkout, BuildError> {
    verify(source, commit)?;
    if let Some(checkout) = known(source, commit, given.world)? {
        return Ok(checkout);
    }
    let world = given.world;
    let git = Git::new(source, given, cancel).telling(step);
    let workspace = world.snapshots.begin(&[])?;
    let top = Files { directory: workspace.upper().to_owned(), subdir: source.subdir.clone() };
    let mut count = 0;
    let seconds = tree(&git, source, commit, &top, 0, &mut count)?;
    super::checkout::settle(workspace.upper(), (source.mtime == GitTime::Commit).then_some(seconds))?;
    let layer = match workspace.is_empty()? {
        true => None,
        false => {
            let layer = LayerKey::op(key(source, commit).as_str()).expect("keys are hexadecimal");
            workspace.commit(&layer)?;
            Some(layer)
        }
    };
    let checkout = Checkout { layer };
    let links = Links { layers: checkout.layer.iter().map(LayerKey::to_string).collect(), ..Links::default() };
    world.store.put_record(TIMES, commit, &seconds, &Links::default())?;
    world.store.put_record(TREES, key(source, commit).as_str(), &checkout, &links)?;
    Ok(checkout)
}

/// When `commit` was made: seconds since 1970. Checks it out if nobody knows.
pub(crate) fn seconds(source: &GitSource, commit: &str, given: &Given<'_>) -> Result<i64, BuildError> {
    if let Some(seconds) = known_seconds(commit, given.world)? {
        return Ok(seconds);
    }
    let step = given.world.reporter.step(format!("check out {source}"));
    super::step_result(step, |step| checkout(source, commit, given, step, given.world.cancel))?;
    Ok(given.world.store.record::<i64>(TIMES, commit)?.unwrap_or(0))
}

/// The same if it is known.
pub(crate) fn known_seconds(commit: &str, world: &World<'_>) -> Result<Option<i64>, BuildError> {
    Ok(world.store.record::<i64>(TIMES, commit)?)
}

/// When the newest commit was made that touched `folder` of a work tree; the error says why nobody knows. What was not
/// committed does not count.
pub(crate) fn folder_seconds(folder: &Path, given: &Given<'_>) -> Result<Result<i64, &'static str>, BuildError> {
    let Some(place) = folder.to_str() else { return Ok(Err("its path is not UTF-8")) };
    let git = Git::local(place, given);
    let ask = |words: &[&str]| git.ask(Path::new(""), &[&["-C", place], words].concat());
    if ask(&["rev-parse", "--is-inside-work-tree"])?.as_deref() != Some("true") {
        return Ok(Err("it is in no git work tree"));
    }
    let newest = ask(&["log", "-1", "--format=%ct %H", "--", "."])?.unwrap_or_default();
    let Some((seconds, commit)) = newest.split_once(' ') else { return Ok(Err("no commit has touched it")) };
    let seconds = seconds.parse().map_err(|_| git.failed("read", format!("git says `{newest}`")))?;
    // Where a shallow clone ends a commit seems to touch everything.
    let ends = ask(&["rev-parse", "--path-format=absolute", "--git-path", "shallow"])?.unwrap_or_default();
    let ends = std::fs::read_to_string(ends).unwrap_or_default();
    match ends.lines().any(|end| end == commit) {
        true => Ok(Err("the clone is shallow, and its end may not be what touched it (`git fetch --unshallow`)")),
        false => Ok(Ok(seconds)),
    }
}

fn key(source: &GitSource, commit: &str) -> ctk_buildgraph::Key {
    let named = GitSource { url: without_password(&source.url), ..source.clone() };
    let mut hasher = KeyHasher::new("git");
    hasher.part(SEMANTICS.as_bytes()).part(commit.as_bytes());
    hasher.part(&serde_json::to_vec(&named).expect("plain data serialises"));
    if source.keeps_git_dir() {
        // The ref stands in `.git`.
        hasher.part(source.wanted().as_bytes());
    }
    hasher.finish()
}

/// Writes the files of `commit` and of its submodules. Gives when it was committed.
fn tree(
    git: &Git<'_>,
    source: &GitSource,
    commit: &str,
    files: &Files,
    depth: usize,
    count: &mut usize,
) -> Result<i64, BuildError> {
    let mirror = Mirror::open(git)?;
    mirror.fetch(source, commit)?;
    let seconds = mirror.ask(&["show", "-s", "--format=%ct", commit])?.and_then(|s| s.parse().ok()).unwrap_or(0);
    let root = match &files.subdir {
        None => commit.to_owned(),
        Some(subdir) => format!("{commit}:{subdir}"),
    };
    if let Some(subdir) = &files.subdir
        && mirror.ask(&["cat-file", "-t", &root])?.as_deref() != Some("tree")
    {
        let listed = mirror.ask(&["ls-tree", "-r", "-d", "--name-only", commit])?.unwrap_or_default();
        let near = nearest(subdir, listed.lines()).map(str::to_owned);
        return Err(BuildError::GitFolder { source_: source.to_string(), subdir: subdir.clone(), near });
    }
    let keep = source.keeps_git_dir() && depth == 0 && files.subdir.is_none();
    match keep {
        true => mirror.with_repository(source, commit, files)?,
        false => write(git, &mirror.path, &root, &files.directory)?,
    }
    if source.submodules {
        for module in submodules(git, &mirror, commit, files.subdir.as_deref())? {
            *count += 1;
            if depth >= SUBMODULE_DEPTH || *count > SUBMODULE_COUNT {
                let reason = match depth >= SUBMODULE_DEPTH {
                    true => format!("its submodules have submodules, more than {SUBMODULE_DEPTH} levels"),
                    false => format!("it has more than {SUBMODULE_COUNT} submodules"),
                };
                return Err(git.failed("check out", reason));
            }
            let inside = GitSource {
                url: module.url,
                reference: None,
                subdir: None,
                checksum: None,
                keep_git_dir: None,
                like_path: false,
                fetch_by_commit: false,
                ..source.clone()
            };
            let below = Files { directory: files.directory.join(&module.path), subdir: None };
            let git = git.for_submodule(&inside);
            tree(&git, &inside, &module.commit, &below, depth + 1, count)?;
        }
    }
    drop(mirror);
    Ok(seconds)
}

/// A submodule, its path relative to what is checked out.
struct Submodule {
    path: String,
    url: String,
    commit: String,
}

fn submodules(
    git: &Git<'_>,
    mirror: &Mirror<'_>,
    commit: &str,
    subdir: Option<&str>,
) -> Result<Vec<Submodule>, BuildError> {
    let root = subdir.map_or_else(|| commit.to_owned(), |subdir| format!("{commit}:{subdir}"));
    let listed = mirror.ask(&["ls-tree", "-r", "-z", &root])?.unwrap_or_default();
    let links: Vec<(&str, &str)> =
        listed.split('\0').filter_map(|line| line.strip_prefix("160000 commit ")?.split_once('\t')).collect();
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let blob = format!("{commit}:.gitmodules");
    let config = mirror.ask(&["config", "--blob", &blob, "-z", "--list"])?.unwrap_or_default();
    let mut found = Vec::new();
    for (link, path) in links {
        let whole = subdir.map_or_else(|| path.to_owned(), |subdir| format!("{subdir}/{path}"));
        let settings = || config.split('\0').filter_map(|entry| entry.split_once('\n'));
        let is_path = |(key, value): &(&str, &str)| key.ends_with(".path") && *value == whole;
        // As git itself does: a link that nothing is said of stays an empty folder.
        let Some((key, _)) = settings().find(is_path) else { continue };
        let key = key.trim_end_matches("path").to_owned() + "url";
        let Some((_, url)) = settings().find(|(name, _)| *name == key) else { continue };
        let url = relative(&git.url, url);
        found.push(Submodule { path: path.to_owned(), url, commit: link.to_owned() });
    }
    Ok(found)
}

/// `url` as seen from the repository `base`.
fn relative(base: &str, url: &str) -> String {
    if !url.starts_with("./") && !url.starts_with("../") {
        return url.to_owned();
    }
    let (mut base, mut rest) = (base.trim_end_matches('/').to_owned(), url);
    let mut separator = '/';
    loop {
        if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else if let Some(beside) = rest.strip_prefix("../") {
            rest = beside;
            let cut = base.rfind('/').or_else(|| base.rfind(':')).unwrap_or(0);
            separator = if base[cut..].starts_with(':') { ':' } else { '/' };
            base.truncate(cut);
        } else {
            return format!("{base}{separator}{rest}");
        }
    }
}

/// What the store keeps of a repository: a bare clone, as deep as was needed. Locked while it is looked at.
pub(super) struct Mirror<'g> {
    git: &'g Git<'g>,
    pub path: PathBuf,
    _lock: ctk_store::Lock,
}

impl<'g> Mirror<'g> {
    fn open(git: &'g Git<'g>) -> Result<Mirror<'g>, BuildError> {
        let name = blake3::hash(without_password(&git.url).as_bytes()).to_hex()[..32].to_owned();
        let store = git.given.world.store;
        let lock = store.lock(&format!("git {name}"), git.cancel).map_err(|error| match error {
            ctk_store::StoreError::Cancelled => BuildError::Cancelled,
            other => other.into(),
        })?;
        let path = store.root().join("git").join(name);
        let mirror = Mirror { git, path, _lock: lock };
        std::fs::create_dir_all(&mirror.path).map_err(BuildError::read("create", &mirror.path))?;
        // What a killed fetch left.
        for stale in ["shallow.lock", "packed-refs.lock", "HEAD.lock", "config.lock"] {
            let _ = std::fs::remove_file(mirror.path.join(stale));
        }
        if !mirror.path.join("HEAD").exists() {
            mirror.run(&["init", "--bare", "--quiet", "--template="])?;
        }
        Ok(mirror)
    }

    fn run(&self, args: &[&str]) -> Result<String, BuildError> {
        self.git.run(&self.path, Access::Nothing, &[], args)
    }

    /// What git says, or none if it says no.
    fn ask(&self, args: &[&str]) -> Result<Option<String>, BuildError> {
        self.git.ask(&self.path, args)
    }

    fn has(&self, commit: &str) -> Result<bool, BuildError> {
        let name = format!("{commit}^{{commit}}");
        Ok(self.ask(&["cat-file", "-e", &name])?.is_some())
    }

    fn get(&self, args: &[&str], refspec: &[&str]) -> Result<(), BuildError> {
        let mut all =
            vec!["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head", "--no-recurse-submodules"];
        all.extend(args);
        all.extend(["--", &self.git.url]);
        all.extend(refspec);
        self.git.run(&self.path, Access::Network, &[], &all).map(drop)
    }

    /// Brings a commit: alone, where the server gives that; else what its ref means; else everything.
    fn fetch(&self, source: &GitSource, commit: &str) -> Result<(), BuildError> {
        if !is_commit(commit) {
            return Err(self.git.failed("fetch", format!("`{commit}` is no commit")));
        }
        if self.has(commit)? {
            return Ok(());
        }
        if commit.len() == 64 && self.ask(&["rev-parse", "--show-object-format"])?.as_deref() != Some("sha256") {
            std::fs::remove_dir_all(&self.path).map_err(BuildError::read("remove", &self.path))?;
            std::fs::create_dir_all(&self.path).map_err(BuildError::read("create", &self.path))?;
            self.run(&["init", "--bare", "--quiet", "--template=", "--object-format=sha256"])?;
        }
        let kept = format!("refs/ctk/{commit}");
        let alone = self.get(&["--depth=1"], &[&format!("{commit}:{kept}")]);
        match alone {
            Ok(()) if self.has(commit)? => return Ok(()),
            Err(error) if error.is_cancelled() => return Err(error),
            _ => {}
        }
        let named = source.reference.as_deref().is_none_or(|name| !is_commit(name)) && !source.fetch_by_commit;
        let found = if named { find(self.git, source.wanted())? } else { None };
        if let Some(found) = found.filter(|found| found.commit == commit) {
            let shallow = self.get(&["--depth=1"], &[&format!("{}:{kept}", found.name)]);
            if shallow.is_ok() && self.has(commit)? {
                return Ok(());
            }
        }
        self.fetch_all()?;
        match self.has(commit)? {
            true => Ok(()),
            false => Err(BuildError::GitReference {
                url: without_password(&self.git.url),
                reference: commit.to_owned(),
                near: None,
            }),
        }
    }

    fn fetch_all(&self) -> Result<(), BuildError> {
        let deepen: &[&str] = if self.path.join("shallow").exists() { &["--unshallow"] } else { &[] };
        self.get(deepen, &["refs/*:refs/remote/*"])
    }

    /// A checkout with a repository of its own, which knows this commit and the ref that was asked for.
    fn with_repository(&self, source: &GitSource, commit: &str, files: &Files) -> Result<(), BuildError> {
        let directory = files.directory.join(".git");
        std::fs::create_dir_all(&directory).map_err(BuildError::read("create", &directory))?;
        let run = |access, args: &[&str]| self.git.run(&directory, access, &[], args);
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        run(Access::Nothing, &["init", "--quiet", "--template=", format])?;
        let name = source.reference.as_deref().filter(|name| !is_commit(name));
        let found = name.map(|name| find(self.git, name)).transpose()?.flatten().filter(|f| f.commit == commit);
        let mut wanted = commit.to_owned();
        if let Some(found) = &found {
            // A tag has an object of its own.
            self.get(&["--depth=1"], &[&format!("{0}:{0}", found.name)]).or_else(|error| {
                match error.is_cancelled() {
                    true => Err(error),
                    false => self.get(&[], &[&format!("{0}:{0}", found.name)]),
                }
            })?;
            wanted = format!("{0}:{0}", found.name);
        }
        let kept = format!("refs/ctk/{commit}");
        self.run(&["update-ref", &kept, commit])?;
        let here = format!("file://{}", self.path.display());
        let mut fetch = vec!["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "-u", "--", &here];
        let kept_here = format!("{kept}:refs/ctk");
        fetch.extend([wanted.as_str()].into_iter().filter(|_| found.is_some()));
        fetch.push(&kept_here);
        run(Access::Disk, &fetch)?;
        run(Access::Nothing, &["update-ref", "--no-deref", "HEAD", commit])?;
        run(Access::Nothing, &["update-ref", "-d", "refs/ctk"])?;
        run(Access::Nothing, &["config", "remote.origin.url", &without_password(&source.url)])?;
        run(Access::Nothing, &["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"])?;
        run(Access::Nothing, &["-c", "pack.threads=1", "repack", "--quiet", "-a", "-d", "-f", "-F"])?;
        write(self.git, &directory, commit, &files.directory)?;
        // An index without stat data: the same on every machine.
        run(Access::Nothing, &["read-tree", commit])?;
        for trace in ["FETCH_HEAD", "ORIG_HEAD"] {
            let _ = std::fs::remove_file(directory.join(trace));
        }
        let _ = std::fs::remove_dir_all(directory.join("logs"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submodules_beside_their_repository() {
        for (base, url, whole) in [
            ("https://h/a/r.git", "../b.git", "https://h/a/b.git"),
            ("https://h/a/r.git", "../../c/b.git", "https://h/c/b.git"),
            ("https://h/a/r.git/", "./b", "https://h/a/r.git/b"),
            ("git@h:a/r.git", "../b.git", "git@h:a/b.git"),
            ("git@h:r.git", "../b.git", "git@h:b.git"),
            ("https://h/r.git", "https://other/b.git", "https://other/b.git"),
        ] {
            assert_eq!(relative(base, url), whole);
        }
    }
}
