//! `checkpoint` writes a container's processes down, `restore` makes them again, both by CRIU: see [`crate::criu`].
//!
//! What belongs to the host is not written down but named: bind mounts and the like are external mounts, called by their
//! place in the container; namespaces by path are external too; standard streams that are pipes are those that `restore`
//! has. The directory of images also has `descriptors.json`, which says what the standard streams were, as runc writes it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use ctk_runtime::Hierarchy;
use ctk_sys::Step;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Error;
use crate::action::{Action, text};
use crate::cgroup::{self, Cgroups};
use crate::container::{self, Made, Options};
use crate::criu::{Criu, Directories, Fields, Kind, LABELS, Notification, OLDEST, Place, send_terminal};
use crate::equipment;
use crate::plan::{self, Plan, Switches};
use crate::spec::Spec;
use crate::state::{self, Kept, Record, Status};

/// What becomes of cgroups (`criu_cg_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// They are left alone.
    Ignore = 0,
    /// Those that are not there are made, with their properties.
    #[default]
    Soft = 3,
    /// Properties are written always.
    Full = 4,
    /// One that is there already is an error.
    Strict = 5,
}

impl CgroupMode {
    /// From its name.
    pub fn named(name: &str) -> Option<CgroupMode> {
        match name {
            "ignore" => Some(CgroupMode::Ignore),
            "soft" => Some(CgroupMode::Soft),
            "full" => Some(CgroupMode::Full),
            "strict" => Some(CgroupMode::Strict),
            _ => None,
        }
    }
}

/// What both ways have in common.
#[derive(Clone, Debug)]
pub struct Images {
    /// The directory of images.
    pub directory: PathBuf,
    /// The directory of logs; without one, that of images.
    pub work: Option<PathBuf>,
    /// Connections of TCP are kept.
    pub tcp_established: bool,
    /// Unix sockets with an end elsewhere are allowed.
    pub external_unix_sockets: bool,
    /// Processes may belong to a session of outside, as of a shell.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Memory that is in an image of before is not kept twice.
    pub auto_dedup: bool,
    /// The network namespace is left empty.
    pub empty_network: bool,
    /// What becomes of cgroups.
    pub cgroups: CgroupMode,
    /// The program.
    pub criu: Criu,
}

/// What `checkpoint` is asked for beside that.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// The images of a `--pre-dump`, relative to the directory of images.
    pub parent: Option<PathBuf>,
    /// The container goes on.
    pub leave_running: bool,
    /// Only memory is written down.
    pub pre_dump: bool,
    /// Where memory is sent: address and port.
    pub page_server: Option<(String, u16)>,
    /// Connections that are not made yet are passed over.
    pub tcp_skip_in_flight: bool,
    /// Files without a name get one.
    pub link_remap: bool,
}

/// What `restore` is asked for beside that.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// Another profile of the security module, as `apparmor:name`.
    pub lsm_profile: Option<String>,
    /// Another `context` of mounts.
    pub lsm_mount_context: Option<String>,
}

const ALL: &str = "checkpoint and restore";
const DESCRIPTORS: &str = "descriptors.json";
/// Bytes of it: three links.
const DESCRIPTORS_BYTES: u64 = 64 * 1024;
/// An annotation that names a file of CRIU's options.
pub(crate) const CONFIG: &str = "org.criu.config";
const NEW_NETWORK: u64 = libc::CLONE_NEWNET as u64;

impl Images {
    fn open(&self, log: &str, make: bool) -> Result<Directories, Error> {
        let find = |path: &Path, make: bool| {
            if make && let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
                return Err(Error::file("make", path)(error));
            }
            fs::canonicalize(path).map_err(Error::file("find", path))
        };
        let images = find(&self.directory, make)?;
        let work = self.work.as_deref().map(|path| find(path, true)).transpose()?;
        let log = self.work.as_ref().unwrap_or(&self.directory).join(log);
        Ok(Directories { images, work, log })
    }

    /// The options that both have. `log` is the name of the log.
    fn fields(&self, log: &str, root: &str, spec: &Spec) -> Fields {
        let mut fields = Fields::default();
        fields.on(4, self.external_unix_sockets).on(5, self.tcp_established);
        fields.on(7, self.shell_job).on(8, self.file_locks).number(9, 4).text(10, log).on(12, true).text(13, root);
        fields.on(16, self.auto_dedup).on(24, true).number(34, self.cgroups as u64).on(50, true);
        if self.empty_network {
            fields.number(38, NEW_NETWORK);
        }
        if let Some(path) = spec.annotations.as_ref().and_then(|all| all.get(CONFIG)).filter(|path| !path.is_empty()) {
            fields.text(51, path);
        }
        fields
    }
}

fn only_root(attempt: &str) -> Result<(), Error> {
    if rustix::process::geteuid().is_root() && !ctk_runtime::in_user_namespace() {
        return Ok(());
    }
    let reason = "CRIU needs root, outside of any user namespace".into();
    Err(Error::Unsupported { what: attempt.into(), reason })
}

/// Containers that CRIU would write down and not make again: to be said before anything is lost.
fn can_be_made_again(attempt: &str, spec: &Spec) -> Result<(), Error> {
    let all = spec.linux.iter().flat_map(|linux| linux.namespaces.iter());
    for (index, one) in all.enumerate() {
        let by_path = one.path.as_deref().is_some_and(|path| !path.is_empty());
        let reason = match one.kind.as_str() {
            "user" => {
                "CRIU reads the images as the root of that namespace, who may not: they hold memory, and are root's"
            }
            "pid" if by_path => "its processes need the process ids of before, which are not kept free for them",
            "cgroup" | "mount" | "time" if by_path => "CRIU joins no such namespace",
            _ => continue,
        };
        let how = if by_path { " by path" } else { "" };
        let what = format!("{attempt} with a {} namespace{how} (linux.namespaces[{index}])", one.kind);
        return Err(Error::Unsupported { what, reason: reason.into() });
    }
    Ok(())
}

/// Writes a container down. Unless it goes on, it is removed then; what poststop hooks complain about is given back.
pub fn checkpoint(root: &Path, id: &str, images: &Images, options: &Checkpoint) -> Result<Vec<Error>, Error> {
    const LOG: &str = "dump.log";
    only_root("checkpoint")?;
    let kept = Kept::open(root, id)?;
    match kept.status() {
        Status::Running | Status::Paused => {}
        status => return Err(Error::Status { attempt: "checkpoint", status: status.word() }),
    }
    let spec = kept.config()?;
    can_be_made_again("checkpoint", &spec)?;
    images.criu.check(ALL, OLDEST)?;
    if options.pre_dump && !images.criu.tracks_memory()? {
        let reason = "this kernel does not tell which memory has changed (CONFIG_MEM_SOFT_DIRTY)".into();
        return Err(Error::Unsupported { what: "--pre-dump".into(), reason });
    }
    let hierarchies = cgroup::hierarchies();
    let host = container::host(Path::new(&kept.record.bundle), id, &hierarchies, Switches::default());
    let plan = plan::plan(&spec, &host)?;
    let pid = kept.record.pid;
    let directories = images.open(LOG, true)?;
    let parent = options.parent.as_deref().map(|path| parent(&images.directory, path)).transpose()?;
    let mut fields = images.fields(LOG, &plan.rootfs, &spec);
    fields.number(2, pid as u64).on(3, options.leave_running).on(46, options.tcp_skip_in_flight);
    fields.on(18, options.link_remap);
    if let Some(parent) = parent {
        fields.text(14, parent).on(15, true);
    }
    if let Some((address, port)) = &options.page_server {
        let mut server = Fields::default();
        server.text(1, address).number(2, (*port).into());
        fields.message(11, &server);
    }
    if let Some(path) = kept.record.cgroups.freezer() {
        fields.text(44, &path.display().to_string());
    }
    let kind = match options.pre_dump {
        true => Kind::PreDump,
        false => {
            external_namespaces(&spec, &mut fields)?;
            let path = format!("/proc/{pid}/mountinfo");
            let mounts = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            for (place, name) in external_mounts(&plan, pid, &mounts)? {
                fields.message(23, Fields::default().text(1, &place).text(2, &name));
            }
            let descriptors = descriptors(pid, &mounts);
            let files: BTreeSet<&str> = descriptors.iter().map(String::as_str).filter(|key| is_file(key)).collect();
            for key in files {
                fields.text(37, key);
            }
            let path = images.directory.join(DESCRIPTORS);
            fs::write(&path, serde_json::json!(descriptors).to_string()).map_err(Error::file("write", path))?;
            Kind::Dump
        }
    };
    images.criu.run(kind, fields, &directories, &Place::default(), &mut |_| Ok(()))?;
    match options.leave_running || options.pre_dump {
        true => Ok(Vec::new()),
        false => Ok(container::remove(&kept, Some(&spec))),
    }
}

/// The images of before, as CRIU takes them: from the directory of images.
fn parent<'a>(images: &Path, path: &'a Path) -> Result<&'a str, Error> {
    let wrong = |reason: &str| {
        let what = format!("--parent-path `{}`", path.display());
        Err(Error::Unsupported { what, reason: reason.into() })
    };
    if path.is_absolute() {
        return wrong("it must be relative to --image-path, so that images can move together");
    }
    if !images.join(path).is_dir() {
        return wrong(&format!("there is no such directory below or beside `{}`", images.display()));
    }
    path.to_str().map_or_else(|| wrong("it is not UTF-8"), Ok)
}

/// What the standard streams of a process are, as CRIU calls them: `pipe:[7]`, and `file[1c:9]` for one on a mount that
/// is not the container's, by the numbers of mount and file.
fn descriptors(pid: i32, mounts: &str) -> Vec<String> {
    let of_host = |number: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok())?;
        let inode = fs::metadata(format!("/proc/{pid}/fd/{number}")).ok()?.ino();
        mount_point(mounts, id).is_none().then(|| format!("file[{id:x}:{inode:x}]"))
    };
    let link = |number: i32| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default().display().to_string();
        if link.starts_with('/') { of_host(number).unwrap_or(link) } else { link }
    };
    (0..3).map(link).collect()
}

fn is_file(key: &str) -> bool {
    key.starts_with("file[")
}

/// What CRIU and we call a namespace that belongs to the host.
fn key(kind: &str) -> Option<(&'static str, &'static str)> {
    match kind {
        "network" => Some(("net", "extRootNetNS")),
        _ => None,
    }
}

/// Namespaces by path, with their kinds.
fn by_path(spec: &Spec) -> impl Iterator<Item = (&str, &str)> {
    let all = spec.linux.iter().flat_map(|linux| linux.namespaces.iter());
    all.filter_map(|one| Some((one.kind.as_str(), one.path.as_deref().filter(|path| !path.is_empty())?)))
}

fn external_namespaces(spec: &Spec, fields: &mut Fields) -> Result<(), Error> {
    for (kind, path) in by_path(spec) {
        if let Some((name, key)) = key(kind) {
            let inode = fs::metadata(path).map_err(Error::file("open the namespace", path))?.ino();
            fields.text(37, &format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(())
}

/// Mounts that belong to the host: where they are, and what they are called.
fn external_mounts(plan: &Plan, pid: i32, mounts: &str) -> Result<Vec<(String, String)>, Error> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| Error::file("open", path)(e.into()))?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for task in &plan.tasks {
        let (at, name) = match &task.action {
            Action::Bind(bind) => (&bind.at, bind.at.to_string_lossy().into_owned()),
            Action::CgroupDirectory { at, .. } => (at, at.to_string_lossy().into_owned()),
            _ => continue,
        };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let Ok(file) = rustix::fs::openat2(&root, at.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)
        else {
            // The container has let go of it.
            continue;
        };
        if let Some(place) = mount_id(&file).and_then(|id| mount_point(mounts, id))
            && seen.insert(place.clone())
        {
            all.push((place, name));
        }
    }
    Ok(all)
}

fn mount_id(file: &OwnedFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Where a mount is, of the text of a `mountinfo`.
fn mount_point(mounts: &str, id: u64) -> Option<String> {
    let of = |line: &&str| line.split(' ').next().is_some_and(|word| word.parse() == Ok(id));
    let place = mounts.lines().find(of)?.split(' ').nth(4)?;
    // As the kernel writes what would be taken for the end of a field.
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    Some(plain.iter().fold(place.to_owned(), |text, (code, letter)| text.replace(code, letter)))
}

/// Makes a container again, which goes on at once.
pub fn restore(mut options: Options, images: &Images, wanted: &Restore) -> Result<Made, Error> {
    only_root("restore")?;
    state::check_id(&options.id)?;
    let bundle = fs::canonicalize(&options.bundle).map_err(Error::file("find the bundle", &options.bundle))?;
    let (spec, config) = container::read_bundle(&bundle)?;
    can_be_made_again("restore", &spec)?;
    let hierarchies = cgroup::hierarchies();
    let host = container::host(&bundle, &options.id, &hierarchies, options.switches);
    plan::check_hooks(&spec)?;
    let plan = plan::plan(&spec, &host)?;
    let path = images.directory.join(DESCRIPTORS);
    let descriptors = cgroup::read_limited(&path, DESCRIPTORS_BYTES).map_err(Error::file("read", &path))?;
    let descriptors: Vec<String> =
        serde_json::from_str(&descriptors).map_err(|e| Error::file("understand", path)(e.into()))?;
    images.criu.check(ALL, OLDEST)?;
    for (option, value) in [("--lsm-profile", &wanted.lsm_profile), ("--lsm-mount-context", &wanted.lsm_mount_context)]
    {
        if value.as_deref().is_some_and(|value| !value.is_empty()) {
            images.criu.check(option, LABELS)?;
        }
    }
    let record = container::record(&spec, &plan, &bundle, &options);
    let mut kept = Kept::create(&options.root, record, &config)?;
    let made = (|| {
        let rules = container::device_rules(&spec)?;
        let held = equipment::make(&mut kept, &spec, &plan, &rules, &options, &hierarchies)?;
        mount_points(&plan)?;
        let parts = Parts { images, wanted, spec: &spec, plan: &plan, descriptors: &descriptors };
        let result = make_again(&parts, &mut kept, &mut options, &hierarchies);
        let _ = fs::remove_dir(kept.root_place());
        let pid = result?;
        drop(held);
        let raw = Pid::from_raw(pid).ok_or(Error::Ended)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| Error::Clone(e.into()))?;
        kept.record.pid = pid;
        kept.record.start_time = state::start_time(pid).unwrap_or(0);
        kept.record.status = Status::Running;
        kept.write()?;
        options.pid_file.as_deref().map_or(Ok(()), |path| container::write_pid(path, pid))?;
        Ok(pidfd)
    })();
    match made {
        Ok(pidfd) => Ok(Made { kept, pidfd, warnings: Vec::new(), spec }),
        Err(error) => {
            container::undo(&mut kept, &spec);
            Err(error)
        }
    }
}

struct Parts<'a> {
    images: &'a Images,
    wanted: &'a Restore,
    spec: &'a Spec,
    plan: &'a Plan,
    descriptors: &'a [String],
}

/// Has CRIU make the processes; gives the first.
fn make_again(
    parts: &Parts<'_>,
    kept: &mut Kept,
    options: &mut Options,
    hierarchies: &[Hierarchy],
) -> Result<i32, Error> {
    const LOG: &str = "restore.log";
    let Parts { images, wanted, spec, plan, descriptors } = *parts;
    let directories = images.open(LOG, false)?;
    let place = kept.root_place();
    fs::create_dir(&place).map_err(Error::file("make", &place))?;
    let mut fields = images.fields(LOG, &place.display().to_string(), spec);
    // Device files are opened by any path that leads there; the first process will be our child.
    fields.on(6, true).on(26, true);
    for (field, value) in [(53, &wanted.lsm_profile), (63, &wanted.lsm_mount_context)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            fields.text(field, value);
        }
    }
    let inherit = |fields: &mut Fields, key: &str, number: i32| {
        fields.message(27, Fields::default().text(1, key).number(2, number as u64));
    };
    // Files that CRIU has from us, by their own numbers.
    let mut open = Vec::new();
    for (kind, path) in by_path(spec) {
        match key(kind) {
            Some((_, key)) => {
                let file = File::open(path).map_err(Error::file("open the namespace", path))?;
                fcntl_setfd(&file, FdFlags::empty()).map_err(|e| Error::file("open", path)(e.into()))?;
                inherit(&mut fields, key, file.as_raw_fd());
                open.push(file);
            }
            None => {
                fields.message(39, Fields::default().text(1, kind).text(2, path));
            }
        }
    }
    for (number, key) in descriptors.iter().enumerate() {
        let first = descriptors.iter().position(|other| other == key) == Some(number);
        if first && (key.contains("pipe:") || is_file(key)) {
            inherit(&mut fields, key, number as i32);
        }
    }
    for (name, source) in sources(plan, &kept.record.cgroups) {
        fields.message(23, Fields::default().text(1, &name).text(2, &source));
    }
    for (controller, path) in cgroup_roots(&kept.record.cgroups, hierarchies) {
        fields.message(25, Fields::default().text(1, &controller).text(2, &path));
    }
    // A mount namespace of its own, where the root is a mount: nothing of it has to be unmounted.
    let membership = kept.record.cgroups.membership()?;
    let (root, at) = (text(&plan.rootfs, "root.path")?, text(&place.display().to_string(), "")?);
    let mut steps: Vec<Step<'_>> = membership.legacy.iter().map(|file| write_self(file)).collect();
    steps.push(Step::Propagation { at: c"/", flags: libc::MS_SLAVE | libc::MS_REC });
    steps.push(Step::PlaceDirectory { path: &root, at: &at });
    let cgroup = membership.unified.as_ref().map(AsRawFd::as_raw_fd);
    let place = Place { namespaces: libc::CLONE_NEWNS as u32, cgroup, steps: &steps };
    let console = options.console.take();
    let record = &kept.record;
    let mut notified = |notification: Notification| match (notification.script.as_str(), notification.file) {
        ("setup-namespaces", _) => set_up(spec, plan, record, notification.pid),
        ("orphan-pts-master", Some(file)) => match &console {
            Some(socket) => send_terminal(socket, &file),
            None => Err(Error::config("process.terminal", "needs --console-socket, or `restore` in the foreground")),
        },
        _ => Ok(()),
    };
    images.criu.run(Kind::Restore, fields, &directories, &place, &mut notified)
}

fn write_self(file: &OwnedFd) -> Step<'_> {
    Step::Write { file: file.as_raw_fd(), bytes: b"0" }
}

/// What the runtime does when the namespaces are there, and no process is yet.
fn set_up(spec: &Spec, plan: &Plan, record: &Record, pid: i32) -> Result<(), Error> {
    if let (Some(rdt), Some(class)) = (&plan.rdt, &record.rdt_class) {
        rdt.join(class, &record.rdt_own, pid)?;
    }
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let mut state = record.state();
    (state.status, state.pid) = (Status::Creating, pid);
    crate::hooks::run(&hooks.prestart, "prestart", &state)?;
    crate::hooks::run(&hooks.create_runtime, "createRuntime", &state)
}

/// What external mounts are now: by name, a path of the host.
fn sources(plan: &Plan, cgroups: &Cgroups) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for task in &plan.tasks {
        match &task.action {
            Action::Bind(bind) => {
                all.push((bind.at.to_string_lossy().into_owned(), bind.source.to_string_lossy().into_owned()));
            }
            Action::CgroupDirectory { name, at } => {
                if let Some(found) = cgroups.directories.iter().find(|directory| directory.name == *name) {
                    all.push((at.to_string_lossy().into_owned(), found.path.display().to_string()));
                }
            }
            _ => {}
        }
    }
    all
}

/// Where cgroups are now, by controller: the images may know another place.
fn cgroup_roots(cgroups: &Cgroups, hierarchies: &[Hierarchy]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for directory in &cgroups.directories {
        let hierarchy = hierarchies.iter().find(|hierarchy| hierarchy.controllers == directory.controllers);
        let Some(below) = hierarchy.and_then(|hierarchy| directory.path.strip_prefix(&hierarchy.mount).ok()) else {
            continue;
        };
        let path = format!("/{}", below.display());
        match directory.controllers.is_empty() {
            true => all.push((String::new(), path)),
            false => all.extend(directory.controllers.iter().map(|controller| (controller.clone(), path.clone()))),
        }
    }
    all
}

/// Makes in the root what is mounted on, where it is missing: CRIU does not. What is on a tmpfs comes with it.
fn mount_points(plan: &Plan) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(plan.rootfs.as_str(), flags, Mode::empty())
        .map_err(|e| Error::file("open", &plan.rootfs)(e.into()))?;
    let mut fresh: Vec<String> = Vec::new();
    for task in &plan.tasks {
        let (at, directory) = match &task.action {
            Action::Fresh(mount) | Action::CopyUp(mount) => (&mount.at, true),
            Action::Bind(bind) => {
                let source = fs::metadata(Path::new(bind.source.to_string_lossy().as_ref()));
                (&bind.at, source.is_ok_and(|source| source.is_dir()))
            }
            _ => continue,
        };
        let at = at.to_string_lossy().into_owned();
        if !fresh.iter().any(|above| at.starts_with(&format!("{above}/"))) {
            make_inside(&root, &at, directory).map_err(|e| Error::Step {
                step: format!("make `{at}` in the root"),
                field: task.field.clone(),
                source: e.into(),
            })?;
        }
        fresh.push(at);
    }
    Ok(())
}

/// Makes a directory or an empty file, and directories above it, below a root that no link leads out of.
fn make_inside(root: &OwnedFd, at: &str, directory: bool) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &str| rustix::fs::openat2(root, path, flags, Mode::empty(), inside);
    let parts: Vec<&str> = at.split('/').filter(|part| !part.is_empty()).collect();
    let mut above = root.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    for (index, part) in parts.iter().enumerate() {
        let path = parts.get(..=index).unwrap_or_default().join("/");
        above = match open(&path) {
            Err(Errno::NOENT) => {
                match directory || index + 1 < parts.len() {
                    true => rustix::fs::mkdirat(&above, *part, Mode::from_raw_mode(0o755))?,
                    false => {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        drop(rustix::fs::openat(&above, *part, flags, Mode::from_raw_mode(0o644))?);
                    }
                }
                open(&path)?
            }
            other => other?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_numbers() {
        let mounts = "21 20 0:5 / / rw - ext4 x rw\n22 21 0:6 /a /a\\040b rw master:1 - tmpfs t rw\n";
        assert_eq!(mount_point(mounts, 22).as_deref(), Some("/a b"));
        assert_eq!(mount_point(mounts, 23), None);
        // The root of this process is one.
        let root = OwnedFd::from(File::open("/").unwrap());
        let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(mount_id(&root).and_then(|id| mount_point(&own, id)).as_deref(), Some("/"));
    }

    #[test]
    fn parents_are_beside_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        fs::create_dir_all(folder.path().join("before")).unwrap();
        fs::create_dir_all(&images).unwrap();
        assert_eq!(parent(&images, Path::new("../before")).unwrap(), "../before");
        let told = |path: &Path| parent(&images, path).unwrap_err().to_string();
        assert!(told(&folder.path().join("before")).contains("must be relative to --image-path"));
        assert!(told(Path::new("../none")).contains("there is no such directory"));
    }

    #[test]
    fn what_is_not_made_again_is_not_written_down() {
        let told = |namespaces: &str| {
            let text =
                format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"linux":{{"namespaces":[{namespaces}]}}}}"#);
            can_be_made_again("checkpoint", &state::parse(&text).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(told(r#"{"type":"pid"},{"type":"network","path":"/run/netns/x"},{"type":"mount"}"#), Ok(()));
        let user = told(r#"{"type":"pid"},{"type":"user"}"#).unwrap_err();
        assert!(
            user.starts_with("checkpoint with a user namespace (linux.namespaces[1]) is not supported: CRIU reads"),
            "{user}"
        );
        let pid = told(r#"{"type":"pid","path":"/proc/1/ns/pid"}"#).unwrap_err();
        assert!(pid.contains("a pid namespace by path (linux.namespaces[0])") && pid.contains("process ids of before"));
        assert!(told(r#"{"type":"mount","path":"/x"}"#).unwrap_err().contains("CRIU joins no such namespace"));
    }

    #[test]
    fn what_is_missing_is_made_inside() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/real", folder.path().join("link")).unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        let root = OwnedFd::from(File::open(folder.path()).unwrap());
        make_inside(&root, "/a/b", true).unwrap();
        make_inside(&root, "/link/c/file", false).unwrap();
        make_inside(&root, "/link/c/file", false).unwrap();
        assert!(folder.path().join("a/b").is_dir());
        assert!(folder.path().join("real/c/file").is_file());
        assert_eq!(make_inside(&root, "/real/c/file/x", true), Err(Errno::NOTDIR));
    }

    #[test]
    fn modes_have_names() {
        use crate::action::NAMESPACES;
        assert_eq!(CgroupMode::named("strict"), Some(CgroupMode::Strict));
        assert_eq!(CgroupMode::named("hard"), None);
        assert!(NAMESPACES.iter().filter(|(name, _)| key(name).is_some()).count() == 1);
    }
}
