//! What a container finds in its file system: mounts become those of the specification, and what they need is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ctk_monitor::Container;
use ctk_oci::Mount;
use ctk_plan::Cancel;
use ctk_runtime::Root;
use ctk_snapshot::{LayerKey, Snapshots};
use ctk_volume::{Backing, Description, Filling, Held, Volumes};
use serde_json::{Value, json};

use super::make::Base;
use super::mounts::{Asked, Kind, clean};
use super::options::{MakeOptions, Pull};
use super::{Desk, image, mounts as words};
use crate::context::Context;
use crate::failure::Failure;

/// What mounts a container has.
pub struct Mounts {
    /// For the specification.
    pub all: Vec<Mount>,
    /// As `inspect` tells them.
    pub told: Vec<Value>,
    /// Names of other volumes than its own.
    pub named: Vec<String>,
    /// Images that are mounted: their manifests and layers.
    pub images: Vec<(String, Vec<LayerKey>)>,
    own: OwnVolumes,
    overlays: usize,
}

/// Volumes that go with the container, and all its volumes for as long as it is made.
struct OwnVolumes {
    volumes: Volumes,
    names: Vec<String>,
    held: Vec<Held>,
    kept: bool,
}

impl Drop for OwnVolumes {
    fn drop(&mut self) {
        self.held.clear();
        if self.kept {
            return;
        }
        for name in &self.names {
            if let Some(volume) = self.volumes.get(name) {
                let _ = self.volumes.remove::<ctk_volume::Error>(&volume, || Ok(Vec::new()));
            }
        }
    }
}

impl Mounts {
    /// Names of volumes that go with the container.
    pub fn anonymous(&self) -> &[String] {
        &self.own.names
    }

    /// Says that the container is there: what is its own stays as long as it does.
    pub fn keep(mut self) {
        self.own.kept = true;
    }
}

/// The container that mounts are made for.
pub struct For<'a> {
    /// The environment.
    pub context: &'a Context,
    /// All containers.
    pub desk: &'a Desk,
    /// All layers.
    pub snapshots: &'a Snapshots,
    /// What its image says.
    pub base: &'a Base,
    /// Its root, for reading.
    pub root: &'a Root,
    /// Its user and group, as it sees them.
    pub ids: (u32, u32),
    /// Users inside and outside; empty if they are the same.
    pub uid_mappings: &'a [(u32, u32, u32)],
    /// The same for groups.
    pub gid_mappings: &'a [(u32, u32, u32)],
    /// Its directory.
    pub container: &'a Container,
}

impl For<'_> {
    /// Whether it has users of its own.
    fn is_mapped(&self) -> bool {
        !self.uid_mappings.is_empty()
    }

    /// Ids of the container as the host has them.
    pub fn outside(&self, ids: (u32, u32)) -> (u32, u32) {
        let map = |id: u32, list: &[(u32, u32, u32)]| {
            let found = list.iter().find(|(inside, _, count)| id >= *inside && id - inside < *count);
            found.map_or(id, |(inside, outside, _)| outside + (id - inside))
        };
        (map(ids.0, self.uid_mappings), map(ids.1, self.gid_mappings))
    }
}

/// Reads all options of mounts, and makes what they need.
pub fn mounts(target: &For<'_>, options: &MakeOptions) -> Result<Mounts, Failure> {
    let asked = everything(target, options)?;
    let volumes = target.desk.containers.volumes();
    let own = OwnVolumes { volumes, names: Vec::new(), held: Vec::new(), kept: false };
    let mut mounts =
        Mounts { all: Vec::new(), told: Vec::new(), named: Vec::new(), images: Vec::new(), own, overlays: 0 };
    for one in asked {
        let made = match one.kind.clone() {
            Kind::Bind(source, creates) => bind(target, &mut mounts, &one, &source, creates)?,
            Kind::Volume(name) => volume(target, &mut mounts, &one, name)?,
            Kind::Tmpfs => {
                mounts.tell(&one, "", "", "");
                tmpfs(target, &one)
            }
            Kind::Image(name) => image_mount(target, &mut mounts, &one, &name)?,
            Kind::Devpts => Mount::new("devpts", "devpts", &one.destination, &strs(&one.words)),
        };
        mounts.all.push(made);
    }
    Ok(mounts)
}

/// All mounts that were asked for: by options, by other containers, by the image, by a read-only root.
fn everything(target: &For<'_>, options: &MakeOptions) -> Result<Vec<Asked>, Failure> {
    let files = &options.files;
    let mut asked: Vec<Asked> = Vec::new();
    let given = files.volume.iter().map(|text| words::volume(text));
    let given = given.chain(files.mount.iter().map(|text| words::in_words(text)));
    for one in given.chain(files.tmpfs.iter().map(|text| words::tmpfs(text))) {
        let one = one?;
        if asked.iter().any(|other| other.destination == one.destination) {
            let what = format!("{}: something else is mounted at {}", one.text, one.destination);
            return Err(Failure::sentence(what, Some("leave one of them out")));
        }
        asked.push(one);
    }
    let is_free = |asked: &[Asked], place: &str| !asked.iter().any(|asked| asked.destination == place);
    for text in &files.volumes_from {
        for one in from_container(target.desk, text)? {
            if is_free(&asked, &one.destination) {
                asked.push(one);
            }
        }
    }
    for path in target.base.image.volumes.keys() {
        if is_free(&asked, &clean(path)) {
            asked.push(Asked::new(format!("VOLUME {path} of the image"), Kind::Volume(None), clean(path)));
        }
    }
    if files.read_only && files.read_only_tmpfs {
        for (path, mode) in [("/run", "mode=755"), ("/tmp", "mode=1777"), ("/var/tmp", "mode=1777")] {
            if is_free(&asked, path) {
                let words = vec!["rw".into(), mode.into()];
                asked.push(Asked { words, ..Asked::new("--read-only", Kind::Tmpfs, path) });
            }
        }
    }
    Ok(asked)
}

/// What another container has mounted of the host and of volumes.
fn from_container(desk: &Desk, text: &str) -> Result<Vec<Asked>, Failure> {
    let (name, options) = words::from_container(text)?;
    let config = desk.find(name)?.config()?;
    let told = config.asked.get("mounts").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for mount in &told {
        let text_of = |name: &str| mount.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = match text_of("Type").as_str() {
            "bind" => Kind::Bind(text_of("Source"), false),
            "volume" => Kind::Volume(Some(text_of("Name"))),
            _ => continue,
        };
        let mut one = Asked::new(format!("--volumes-from `{text}`"), kind, text_of("Destination"));
        let words = mount.get("Options").and_then(Value::as_array).cloned().unwrap_or_default();
        one.words = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        one.subpath = mount.get("SubPath").and_then(Value::as_str).map(str::to_owned);
        one.no_copy = true;
        for option in &options {
            one.words.retain(|word| !matches!(word.as_str(), "ro" | "rw" | "rro"));
            one.words.push((*option).into());
        }
        all.push(one);
    }
    Ok(all)
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn wrong(one: &Asked, why: impl std::fmt::Display, hint: Option<&str>) -> Failure {
    Failure::sentence(format!("{}: {why}", one.text), hint)
}

impl Mounts {
    fn tell(&mut self, one: &Asked, name: &str, source: &str, driver: &str) {
        let propagation = one
            .words
            .iter()
            .find(|word| ["shared", "slave", "private"].iter().any(|kind| word.trim_start_matches('r') == *kind));
        let mut told = json!({
            "Type": one.kind.word(), "Source": source, "Destination": one.destination, "Mode": "",
            "Options": one.words, "RW": one.is_writable(),
            "Propagation": propagation.map_or("rprivate", String::as_str),
        });
        if let Some(told) = told.as_object_mut() {
            for (field, value) in
                [("Name", name), ("Driver", driver), ("SubPath", one.subpath.as_deref().unwrap_or(""))]
            {
                if !value.is_empty() {
                    told.insert(field.into(), json!(value));
                }
            }
        }
        self.told.push(told);
    }

    /// The folder of the next overlay, with what it covers as its root's attributes.
    fn overlay(&mut self, container: &Container, like: Option<&Path>, discards: bool) -> Result<PathBuf, Failure> {
        let folder = container.overlay(self.overlays);
        self.overlays += 1;
        let failed = || Failure::during(format!("cannot make {}", folder.display()));
        std::fs::create_dir_all(folder.join("fs")).map_err(failed())?;
        std::fs::create_dir_all(folder.join("work")).map_err(failed())?;
        if discards {
            std::fs::write(folder.join("discard"), "").map_err(failed())?;
        }
        if let Some(like) = like {
            let (written, covered) = (folder.join("fs"), std::fs::metadata(like).map_err(failed())?);
            use std::os::unix::fs::MetadataExt;
            std::os::unix::fs::chown(&written, Some(covered.uid()), Some(covered.gid())).map_err(failed())?;
            std::fs::set_permissions(&written, covered.permissions()).map_err(failed())?;
        }
        Ok(folder)
    }
}

/// The words of a bind mount, with how mounts below it are told of each other.
fn bind_words(one: &Asked, usual: &[&str]) -> Vec<String> {
    let mut all = vec![if one.has("bind") { "bind".to_owned() } else { "rbind".into() }];
    all.extend(usual.iter().filter(|word| !one.has(word.trim_start_matches("no"))).map(|word| (*word).to_owned()));
    all.extend(one.words.iter().filter(|word| !matches!(word.as_str(), "bind" | "rbind")).cloned());
    if !one.words.iter().any(|word| ["shared", "slave", "private", "bindable"].iter().any(|kind| word.contains(kind))) {
        all.push("rprivate".into());
    }
    all.extend(one.subpath.as_ref().map(|path| format!("subpath={path}")));
    all
}

/// Places that programs of the host need as they are: what is in them never becomes somebody else's.
const OF_THE_HOST: [&str; 18] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root",
    "/run", "/sbin", "/sys", "/usr", "/var",
];

fn bind(target: &For<'_>, mounts: &mut Mounts, one: &Asked, source: &str, creates: bool) -> Result<Mount, Failure> {
    if creates && !Path::new(source).exists() {
        std::fs::create_dir_all(source).map_err(Failure::during(format!("{}: cannot make {source}", one.text)))?;
    }
    let source = Path::new(source).canonicalize().map_err(|error| {
        let hint = format!("make it first: `mkdir -p {source}`; or `--mount type=bind,bind-create-src,src=…,dst=…`");
        let hint = (error.kind() == std::io::ErrorKind::NotFound).then_some(hint.as_str());
        wrong(one, format!("cannot mount {source}: {error}"), hint)
    })?;
    let Some(text) = source.to_str().map(str::to_owned) else {
        return Err(wrong(one, "the path is no UTF-8", None));
    };
    mounts.tell(one, "", &text, "");
    if one.overlay {
        if !source.is_dir() {
            return Err(wrong(one, "`O` is for a folder", None));
        }
        return over_folder(target, mounts, one, &source);
    }
    if one.chown {
        if OF_THE_HOST.contains(&text.as_str()) {
            let what = format!("{text} belongs to the host, and does not become somebody else's");
            return Err(wrong(one, what, Some("leave `U` out, or mount a folder below it")));
        }
        give(target, one, &source)?;
    }
    let mount = Mount::new("bind", &text, &one.destination, &strs(&bind_words(one, &[])));
    mapped(target, one, mount)
}

/// What the container writes over a folder of the host, and not into it.
fn over_folder(target: &For<'_>, mounts: &mut Mounts, one: &Asked, source: &Path) -> Result<Mount, Failure> {
    let (upper, work) = match &one.upper {
        (Some(upper), Some(work)) => (PathBuf::from(upper), PathBuf::from(work)),
        _ => {
            let folder = mounts.overlay(target.container, Some(source), true)?;
            (folder.join("fs"), folder.join("work"))
        }
    };
    for path in [&upper, &work] {
        if !path.is_dir() {
            return Err(wrong(one, format!("{} is no folder", path.display()), Some("make it first")));
        }
    }
    let options = [
        format!("lowerdir={}", source.display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
        "index=off".into(),
        "metacopy=off".into(),
        "subpath=/".into(),
    ];
    let words = one.words.iter().filter(|word| !matches!(word.as_str(), "bind" | "rbind")).cloned();
    let options: Vec<String> = options.into_iter().chain(words).collect();
    Ok(Mount::new("overlay", "overlay", &one.destination, &strs(&options)))
}

/// Makes it all the container's user's.
fn give(target: &For<'_>, one: &Asked, path: &Path) -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags};
    // Ids of a volume are stored as the container sees them.
    let shown = matches!(one.kind, Kind::Volume(_)) && target.is_mapped();
    let owner = if shown { target.ids } else { target.outside(target.ids) };
    let failed = |error| Failure::during(format!("{}: cannot open {}", one.text, path.display()))(error);
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    Ok(ctk_snapshot::copy::give(std::os::fd::AsFd::as_fd(&file), owner, &Cancel::new())?)
}

/// Adds mapped ids.
fn mapped(target: &For<'_>, one: &Asked, mut mount: Mount) -> Result<Mount, Failure> {
    match one.idmap.as_deref() {
        // Whoever has a volume next may have other ids outside: what is stored are those inside.
        None if matches!(one.kind, Kind::Volume(_)) && target.is_mapped() && mount.kind.as_deref() == Some("bind") => {
            mount.options.push("idmap".into());
        }
        None => {}
        Some("" | "true") if target.uid_mappings.is_empty() => {
            let hint = "give --userns or --uidmap, too, or mappings of its own: `idmap=uids=0-1000-1;gids=0-1000-1`";
            return Err(wrong(one, "`idmap` shows ids as the container's own, and it has none", Some(hint)));
        }
        Some("" | "true") => mount.options.push("idmap".into()),
        Some(text) => {
            let read = id_maps(text).ok_or_else(|| {
                let hint = "it is `uids=STORED-SHOWN-COUNT[#…];gids=…`";
                wrong(one, format!("`idmap={text}` cannot be understood"), Some(hint))
            })?;
            (mount.uid_mappings, mount.gid_mappings) = read;
            mount.options.push("idmap".into());
        }
    }
    Ok(mount)
}

type IdMaps = (Vec<ctk_oci::IdMapping>, Vec<ctk_oci::IdMapping>);

/// `uids=0-1-10#10-11-10;gids=0-100-10`: as stored, as shown, how many.
fn id_maps(text: &str) -> Option<IdMaps> {
    let one = |text: &str| {
        let mut numbers = text.trim_start_matches('@').split('-').map(|number| number.parse::<u32>().ok());
        let (container_id, host_id, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers
            .next()
            .is_none()
            .then_some(ctk_oci::IdMapping { container_id, host_id, size })
            .filter(|map| map.size > 0)
    };
    let list = |text: &str| text.split('#').map(one).collect::<Option<Vec<_>>>();
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for part in text.split(';') {
        match part.split_once('=')? {
            ("uids", maps) => users = list(maps)?,
            ("gids", maps) => groups = list(maps)?,
            _ => return None,
        }
    }
    // One of them stands for both.
    if groups.is_empty() {
        groups.clone_from(&users);
    } else if users.is_empty() {
        users.clone_from(&groups);
    }
    Some((users, groups))
}

fn volume(target: &For<'_>, mounts: &mut Mounts, one: &Asked, name: Option<String>) -> Result<Mount, Failure> {
    let anonymous = name.is_none();
    let name = name.unwrap_or_else(super::identity::id);
    let described = || Description {
        name: name.clone(),
        created: ctk_monitor::time::now(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        anonymous,
        fresh: true,
    };
    let held = mounts.own.volumes.hold(&name, described)?;
    if anonymous {
        mounts.own.names.push(name.clone());
    } else {
        mounts.named.push(name.clone());
    }
    let description = held.description()?;
    let read = ctk_volume::read(&description.options)?;
    let data = held.data();
    let mount = match read.backing {
        Backing::Mounted(mut mount) => {
            mounts.tell(one, &name, mount.source.as_deref().unwrap_or_default(), "local");
            if let Some(part) = &one.subpath {
                if mount.kind.as_deref() != Some("bind") {
                    return Err(wrong(one, format!("volume {name} is mounted from elsewhere, and shown whole"), None));
                }
                mount.options.push(format!("subpath={part}"));
            }
            if let (Some("bind"), Some(source)) = (mount.kind.as_deref(), mount.source.as_deref())
                && !Path::new(source).exists()
            {
                let hint = format!("volume {name} shows {source}; make it first");
                return Err(wrong(one, format!("there is no {source}"), Some(&hint)));
            }
            mount.destination.clone_from(&one.destination);
            mount.options.extend(one.words.iter().cloned());
            mount
        }
        Backing::Folder => {
            if !one.no_copy && !read.no_copy && one.subpath.is_none() {
                fill(target, one, &held)?;
            }
            if one.chown {
                give(target, one, &data)?;
            }
            if let Some(part) = &one.subpath {
                exists_inside(one, &data, part)?;
            }
            let text = data.to_string_lossy();
            mounts.tell(one, &name, &text, "local");
            Mount::new("bind", &text, &one.destination, &strs(&bind_words(one, &["nosuid", "nodev"])))
        }
    };
    mounts.own.held.push(held);
    mapped(target, one, mount)
}

/// Gives an empty volume what the image has there.
fn fill(target: &For<'_>, one: &Asked, held: &Held) -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags};
    let path = one.destination.clone();
    let mut copy = |data: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let to = rustix::fs::open(data, flags, Mode::empty())?;
        let to = std::os::fd::AsFd::as_fd(&to);
        let filled = ctk_snapshot::copy::fill(to, target.root.file(), path.as_bytes(), &Cancel::new());
        filled.map_err(std::io::Error::other)
    };
    held.first_use(Filling { fill: &mut copy, owner: target.ids }).map_err(Failure::during(format!(
        "{}: cannot fill volume {}",
        one.text,
        held.name()
    )))
}

/// Says early what would fail at the start.
fn exists_inside(one: &Asked, folder: &Path, part: &str) -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let look = || {
        let root = rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&root, part, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)
    };
    match look() {
        Ok(_) => Ok(()),
        Err(errno) => Err(wrong(one, format!("there is no `{part}` in it: {}", std::io::Error::from(errno)), None)),
    }
}

fn tmpfs(target: &For<'_>, one: &Asked) -> Mount {
    let mut all = vec!["nosuid".to_owned(), "nodev".into(), "tmpcopyup".into()];
    all.retain(|word| !one.has(word.trim_start_matches("no")) && !one.has(&format!("no{word}")));
    all.extend(one.words.iter().filter(|word| !word.ends_with("tmpcopyup")).cloned());
    if one.has("tmpcopyup") {
        all.push("tmpcopyup".into());
    }
    if one.chown {
        let (uid, gid) = target.outside(target.ids);
        all.extend([format!("uid={uid}"), format!("gid={gid}")]);
    }
    Mount::new("tmpfs", "tmpfs", &one.destination, &strs(&all))
}

fn image_mount(target: &For<'_>, mounts: &mut Mounts, one: &Asked, name: &str) -> Result<Mount, Failure> {
    let (store, cancel) = (target.snapshots.store(), Cancel::new());
    let found = image::find(target.context, store, name, Pull::Missing, None, &cancel)?;
    let layers = target.snapshots.unpack_image(&found.manifest, None, &cancel)?;
    let writes = one.has("rw");
    mounts.tell(one, "", &found.name, "");
    let folder = mounts.overlay(target.container, None, false)?;
    // Its attributes are the image's, which whoever makes the directory sets.
    std::fs::remove_dir(folder.join("fs")).map_err(Failure::during("cannot prepare a mounted image"))?;
    let mut mount = target.snapshots.own_layer(&layers, &folder, true)?;
    if !writes {
        mount.options.retain(|option| !option.starts_with("upperdir=") && !option.starts_with("workdir="));
        // An overlay that is only read wants two directories.
        mount.options.push(format!("lowerdir={}", target.container.bundle().join("rootfs").display()));
        mount.options.push("ro".into());
    }
    let part = one.subpath.as_deref().unwrap_or("/");
    if one.subpath.is_some() && target.snapshots.tree(&layers)?.stat(part)?.is_none() {
        return Err(wrong(one, format!("there is no `{part}` in the image"), None));
    }
    mount.options.push(format!("subpath={part}"));
    mount.options.push("nodev".into());
    mount
        .options
        .extend(one.words.iter().filter(|word| !matches!(word.as_str(), "ro" | "rw" | "bind" | "rbind")).cloned());
    mount.destination.clone_from(&one.destination);
    mounts.images.push((found.manifest_digest.to_string(), layers));
    Ok(mount)
}
