//! What is in the layers and is of no use: removed later, there twice, tools and caches that only the build needed.

use std::collections::BTreeMap;
use std::io::Read;

use ctk_snapshot::{LayerKey, NodeKind, TreeView};

use super::order::{first_line, listed};
use super::{Advice, Flaw, Scene};
use crate::BuildError;
use crate::explain::NotedStep;
use crate::limits::{ACCOUNT_FILE_BYTES, ADVICE_FILES, ADVICE_MIN_BYTES};

/// Leavings of package managers and the way to go without them.
const CACHES: [(&str, &str); 17] = [
    ("var/lib/apt/lists", "apt-get's lists: `rm -rf /var/lib/apt/lists/*` in the same RUN, or a cache mount"),
    ("var/cache/apt", "apt-get's downloads: `apt-get clean` in the same RUN, or a cache mount"),
    ("var/cache/apk", "apk's downloads: `apk add --no-cache`"),
    ("var/cache/dnf", "dnf's downloads: `dnf clean all` in the same RUN, or a cache mount"),
    ("var/cache/yum", "yum's downloads: `yum clean all` in the same RUN, or a cache mount"),
    (
        "root/.cache/pip",
        "pip's downloads: `pip install --no-cache-dir`, or `RUN --mount=type=cache,target=/root/.cache/pip`",
    ),
    ("root/.cache/uv", "uv's downloads: `RUN --mount=type=cache,target=/root/.cache/uv`"),
    ("root/.npm", "npm's downloads: `npm cache clean --force` in the same RUN, or a cache mount"),
    ("root/.cache/yarn", "yarn's downloads: `yarn cache clean` in the same RUN, or a cache mount"),
    ("usr/local/share/.cache/yarn", "yarn's downloads: `yarn cache clean` in the same RUN, or a cache mount"),
    ("root/.cache/go-build", "Go's build cache: `RUN --mount=type=cache,target=/root/.cache/go-build`"),
    ("root/go/pkg/mod", "Go's modules: build in a stage of its own and copy the result"),
    ("root/.cargo/registry", "cargo's crates: `RUN --mount=type=cache,target=/root/.cargo/registry`"),
    ("usr/local/cargo/registry", "cargo's crates: `RUN --mount=type=cache,target=/usr/local/cargo/registry`"),
    ("root/.m2", "Maven's downloads: `RUN --mount=type=cache,target=/root/.m2`"),
    ("root/.gradle", "Gradle's downloads: `RUN --mount=type=cache,target=/root/.gradle`"),
    ("root/.composer/cache", "Composer's downloads: `RUN --mount=type=cache,target=/root/.composer/cache`"),
];

/// Programs that build others.
const TOOLS: [&str; 17] = [
    "gcc", "g++", "cc", "c++", "clang", "clang++", "tcc", "ld", "as", "make", "cmake", "ninja", "rustc", "cargo", "go",
    "javac", "ghc",
];
/// Where they are.
const PROGRAMS: [&str; 5] = ["usr/bin", "bin", "usr/local/bin", "usr/local/go/bin", "usr/local/cargo/bin"];

/// A layer that was built here.
struct Layer<'a> {
    step: &'a NotedStep,
    /// Its regular files with their sizes.
    files: BTreeMap<String, u64>,
    view: TreeView,
}

pub(super) fn look(scene: &Scene<'_>, advice: &mut Vec<Advice>) -> Result<(), BuildError> {
    let snapshots = scene.job.request.world.snapshots;
    let keys = scene.tree.keys();
    for key in &keys {
        // A base that was never unpacked: nothing ran on it, and it was copied nowhere.
        if !snapshots.has(key)? {
            return Ok(());
        }
    }
    let mut layers = Vec::new();
    let mut count = 0;
    for (at, piece) in scene.tree.0.iter().enumerate() {
        let made = piece.by.as_deref().and_then(|by| scene.steps.steps.iter().find(|step| step.key == by));
        let Some(step) = made else { continue };
        let view = snapshots.tree(std::slice::from_ref(&piece.layer))?;
        let mut files = BTreeMap::new();
        walk(&view, "", &mut files, &mut count)?;
        layers.push((at, Layer { step, files, view }));
    }
    let last = snapshots.tree(&keys)?;
    gone(scene, &keys, &layers, &last, advice)?;
    twice(&layers, &last, advice)?;
    leavings(&layers, &last, advice)?;
    let base: Vec<LayerKey> = scene.tree.0.iter().filter(|p| p.by.is_none()).map(|p| p.layer.clone()).collect();
    tools(&layers, &snapshots.tree(&base)?, &last, advice)
}

fn walk(view: &TreeView, at: &str, files: &mut BTreeMap<String, u64>, count: &mut usize) -> Result<(), BuildError> {
    for name in view.list(if at.is_empty() { "/" } else { at })? {
        // Names that are no text are too rare to be advised on.
        let Ok(name) = String::from_utf8(name) else { continue };
        let path = if at.is_empty() { name } else { format!("{at}/{name}") };
        *count += 1;
        if *count > ADVICE_FILES {
            return Ok(());
        }
        match view.stat_link(&path)? {
            Some(node) if node.kind == NodeKind::Directory => walk(view, &path, files, count)?,
            Some(node) if node.kind == NodeKind::File => drop(files.insert(path, node.size)),
            _ => {}
        }
    }
    Ok(())
}

/// Files that a later step removes: by the two steps.
fn gone(
    scene: &Scene<'_>,
    keys: &[LayerKey],
    layers: &[(usize, Layer<'_>)],
    last: &TreeView,
    advice: &mut Vec<Advice>,
) -> Result<(), BuildError> {
    let mut wasted: BTreeMap<(usize, usize), (u64, Vec<&str>)> = BTreeMap::new();
    for (number, (_, layer)) in layers.iter().enumerate() {
        let mut left: Vec<(&String, u64)> = Vec::new();
        for (path, bytes) in &layer.files {
            let again = layers[number + 1..].iter().any(|(_, later)| later.files.contains_key(path));
            if !again && last.stat_link(path)?.is_none() {
                left.push((path, *bytes));
            }
        }
        for (later, (at, _)) in layers.iter().enumerate().skip(number + 1) {
            if left.is_empty() {
                break;
            }
            let view = scene.job.request.world.snapshots.tree(&keys[..=*at])?;
            let mut still = Vec::new();
            for (path, bytes) in left {
                if view.stat_link(path)?.is_some() {
                    still.push((path, bytes));
                    continue;
                }
                let entry = wasted.entry((number, later)).or_default();
                entry.0 += bytes;
                entry.1.push(path);
            }
            left = still;
        }
    }
    for ((made, removed), (bytes, paths)) in wasted {
        let (made, removed) = (layers[made].1.step, layers[removed].1.step);
        advice.push(Advice {
            rule: Flaw::Deleted,
            message: format!(
                "{} of `{}` {} removed by `{}`, and {} in the layer",
                some(&paths),
                first_line(&made.written),
                if paths.len() == 1 { "is" } else { "are" },
                first_line(&removed.written),
                if paths.len() == 1 { "stays" } else { "stay" }
            ),
            hint: if made.kind == "exec" {
                "make and remove them in one RUN, or build in another stage and copy the result".into()
            } else {
                "mount them: `RUN --mount=type=bind`, or copy in another stage".into()
            },
            place: made.place.clone(),
            bytes: Some(bytes),
            seconds: None,
        });
    }
    Ok(())
}

/// Content that an earlier layer has already.
fn twice(layers: &[(usize, Layer<'_>)], last: &TreeView, advice: &mut Vec<Advice>) -> Result<(), BuildError> {
    // Only files of the same size can be the same.
    let mut sizes: BTreeMap<u64, Vec<(usize, &str)>> = BTreeMap::new();
    for (number, (_, layer)) in layers.iter().enumerate() {
        for (path, bytes) in layer.files.iter().filter(|(_, bytes)| **bytes > 0) {
            sizes.entry(*bytes).or_default().push((number, path));
        }
    }
    let mut found: BTreeMap<(usize, usize), (u64, Vec<&str>, bool)> = BTreeMap::new();
    for (bytes, files) in sizes.iter().filter(|(_, files)| files.len() > 1) {
        let mut seen: BTreeMap<[u8; 32], Vec<(usize, &str)>> = BTreeMap::new();
        if files.iter().all(|(number, _)| *number == files[0].0) {
            continue;
        }
        for (number, path) in files {
            let digest = digest(&layers[*number].1.view, path)?;
            let before = seen.entry(digest).or_default();
            // Of the same name if there is one, else the first.
            let same_path = before.iter().rev().find(|(earlier, old)| earlier != number && old == path);
            let earlier = same_path.or(before.first()).map(|(earlier, _)| *earlier);
            if let Some(earlier) = earlier.filter(|earlier| earlier != number)
                && last.stat_link(path)?.is_some()
            {
                let entry = found.entry((earlier, *number)).or_insert((0, Vec::new(), true));
                entry.0 += bytes;
                entry.1.push(path);
                entry.2 &= same_path.is_some();
            }
            before.push((*number, path));
        }
    }
    for ((earlier, later), (bytes, paths, same_path)) in found {
        let (earlier, later) = (layers[earlier].1.step, layers[later].1.step);
        let hint = match (same_path, earlier.kind.as_str()) {
            (true, "file") => "give owner and mode when it is copied: `COPY --chown=… --chmod=…`",
            (true, _) => "change owner and mode in the RUN that makes the files",
            (false, _) => "copy it once, and link to it",
        };
        advice.push(Advice {
            rule: Flaw::Duplicate,
            message: format!(
                "{} of `{}` {} in the layer of `{}` already",
                some(&paths),
                first_line(&later.written),
                if paths.len() == 1 { "is" } else { "are" },
                first_line(&earlier.written)
            ),
            hint: hint.into(),
            place: later.place.clone(),
            bytes: Some(bytes),
            seconds: None,
        });
    }
    Ok(())
}

fn digest(view: &TreeView, path: &str) -> Result<[u8; 32], BuildError> {
    let mut file = view.open_file(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).map_err(BuildError::read("read", path))? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            n => drop(hasher.update(&buffer[..n])),
        }
    }
}

fn leavings(layers: &[(usize, Layer<'_>)], last: &TreeView, advice: &mut Vec<Advice>) -> Result<(), BuildError> {
    for (_, layer) in layers {
        for (directory, hint) in CACHES {
            let mut bytes = 0;
            for (path, size) in &layer.files {
                let inside = path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
                if inside && last.stat_link(path)?.is_some() {
                    bytes += size;
                }
            }
            if bytes >= ADVICE_MIN_BYTES {
                advice.push(Advice {
                    rule: Flaw::PackageCache,
                    message: format!("`{}` leaves /{directory}", first_line(&layer.step.written)),
                    hint: hint.into(),
                    place: layer.step.place.clone(),
                    bytes: Some(bytes),
                    seconds: None,
                });
            }
        }
    }
    Ok(())
}

/// Development packages that dpkg knows and the base has not, else compilers by their names.
fn tools(
    layers: &[(usize, Layer<'_>)],
    base: &TreeView,
    last: &TreeView,
    advice: &mut Vec<Advice>,
) -> Result<(), BuildError> {
    const STATUS: &str = "var/lib/dpkg/status";
    let status = |view: &TreeView| -> Result<BTreeMap<String, u64>, BuildError> {
        match view.stat(STATUS)? {
            Some(_) => Ok(development(&String::from_utf8_lossy(&view.read(STATUS, ACCOUNT_FILE_BYTES * 16)?))),
            None => Ok(BTreeMap::new()),
        }
    };
    let before = status(base)?;
    let mut packages = status(last)?;
    packages.retain(|name, _| !before.contains_key(name));
    let hint = "build in a stage of its own, and copy what it makes into one without them";
    if !packages.is_empty() {
        let by = layers.iter().rev().find(|(_, layer)| layer.files.contains_key(STATUS)).map(|(_, layer)| layer.step);
        let mut names: Vec<(&String, &u64)> = packages.iter().collect();
        names.sort_by(|one, other| other.1.cmp(one.1));
        let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        advice.push(Advice {
            rule: Flaw::BuildTools,
            message: format!("packages for building are in the image: {}", some(&names)),
            hint: hint.into(),
            place: by.and_then(|step| step.place.clone()),
            bytes: Some(packages.values().sum()),
            seconds: None,
        });
        return Ok(());
    }
    for (_, layer) in layers {
        let is_tool = |path: &str| {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            PROGRAMS.contains(&directory) && TOOLS.contains(&name)
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        for (path, size) in layer.files.iter().filter(|(path, _)| is_tool(path)) {
            if last.stat_link(path)?.is_some() {
                found.push(path.as_str());
                bytes += size;
            }
        }
        if !found.is_empty() {
            advice.push(Advice {
                rule: Flaw::BuildTools,
                message: format!(
                    "`{}` puts tools for building into the image: {}",
                    first_line(&layer.step.written),
                    some(&found)
                ),
                hint: hint.into(),
                place: layer.step.place.clone(),
                bytes: Some(bytes),
                seconds: None,
            });
        }
    }
    Ok(())
}

/// Installed packages for development with their bytes, of dpkg's status file (deb822).
fn development(status: &str) -> BTreeMap<String, u64> {
    const NAMES: [&str; 7] = ["build-essential", "gcc", "g++", "clang", "make", "cmake", "binutils"];
    let mut all = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (Some(name), Some(size)) = (field("Package"), field("Installed-Size")) else { continue };
        let installed = field("Status").is_some_and(|status| status.ends_with(" installed"));
        let section = field("Section").map_or("", |section| section.rsplit('/').next().unwrap_or(section));
        let stem = name.split('-').next().unwrap_or(name);
        let is = matches!(section, "devel" | "libdevel")
            || NAMES.contains(&name)
            || (name.ends_with("-dev"))
            || (matches!(stem, "gcc" | "cpp") && !name.ends_with("-base"));
        if installed && is {
            all.insert(name.to_owned(), size.trim().parse::<u64>().unwrap_or(0) * 1024);
        }
    }
    all
}

/// The directory that both lie in.
fn shared<'a>(one: &'a str, other: &'a str) -> &'a str {
    let parts = one.split('/').zip(other.split('/')).take_while(|(one, other)| one == other);
    let bytes = parts.map(|(part, _)| part.len() + 1).sum::<usize>();
    &one[..bytes.saturating_sub(1)]
}

/// A few as they are; of more their directory, or the first and how many there are besides.
fn some(paths: &[&str]) -> String {
    let common = paths.iter().map(|path| path.rsplit_once('/').map_or("", |(directory, _)| directory));
    let common = common.reduce(shared).unwrap_or_default();
    match paths {
        [_, _, _, _, ..] if !common.is_empty() => format!("{} files in `{common}`", paths.len()),
        [one, two, three, more @ ..] if more.len() > 1 => {
            format!("`{one}`, `{two}`, `{three}` and {} more", more.len())
        }
        few => listed(few),
    }
}
