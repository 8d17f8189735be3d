//! `ctk volume`: folders of containers that outlive them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ctk_monitor::time;
use ctk_plan::Cancel;
use ctk_store::Aside;
use ctk_volume::{Backing, Description, Volume};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::parse::{number, pair};
use super::table::{Table, shown};
use super::{Desk, identity, parse};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Volumes: folders of containers that outlive them
#[derive(Args)]
pub struct Volumes {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a volume
    Create(Create),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show all about volumes
    Inspect(Inspect),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Remove all volumes that no container has
    Prune(Prune),
    /// Write what is in a volume as a tar archive
    Export(Export),
    /// Unpack a tar archive into a volume
    Import(Import),
    /// Say by the exit code whether there is such a volume: 0 or 1
    Exists(Exists),
}

impl Volumes {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        match self.command {
            Command::Create(command) => command.run(&desk),
            Command::Ls(command) => command.run(&desk),
            Command::Inspect(command) => command.run(&desk),
            Command::Rm(command) => command.run(&desk),
            Command::Prune(command) => command.run(&desk),
            Command::Export(command) => command.run(&desk, &context.cancel_on_interrupt()),
            Command::Import(command) => command.run(&desk, &context.cancel_on_interrupt()),
            Command::Exists(command) => match desk.containers.volumes().get(&command.name) {
                Some(_) => Ok(()),
                None => Err(Failure::Exit(1)),
            },
        }
    }
}

/// What can be done with a volume that is not there.
fn find(desk: &Desk, name: &str) -> Result<Volume, Failure> {
    desk.containers.volumes().find(name).map_err(|error| match error {
        missing @ ctk_volume::Error::Missing { .. } => {
            Failure::sentence(missing.to_string(), Some("`ctk volume ls` lists them"))
        }
        other => other.into(),
    })
}

#[derive(Args)]
struct Create {
    /// Its name [default: 64 digits]
    name: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// What is mounted instead of a folder of the store: `type=tmpfs`, `type=none`, `device=PATH`, `o=bind,uid=…,gid=…`
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Who has its folder [default: the user of the first container that gets it]
    #[arg(long, value_name = "ID")]
    uid: Option<u32>,
    /// The group that has it
    #[arg(long, value_name = "ID")]
    gid: Option<u32>,
    /// `local`; there are no others
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// No error for one that is there already
    #[arg(long)]
    ignore: bool,
}

impl Create {
    fn run(self, desk: &Desk) -> Result<(), Failure> {
        if self.driver != "local" {
            let what = format!("--driver `{}`: there are no drivers but `local`", self.driver);
            return Err(Failure::sentence(what, Some("mount it on the host, and show that folder with --opt")));
        }
        let mut options: BTreeMap<String, String> = self.opt.iter().map(|text| pair(text)).collect();
        let owner = [self.uid.map(|id| format!("uid={id}")), self.gid.map(|id| format!("gid={id}"))];
        let words: Vec<String> = options.remove("o").into_iter().chain(owner.into_iter().flatten()).collect();
        if !words.is_empty() {
            options.insert("o".into(), words.join(","));
        }
        let name = self.name.clone().unwrap_or_else(identity::id);
        let description = Description {
            name: name.clone(),
            created: time::now(),
            labels: self.label.iter().map(|text| pair(text)).collect(),
            options,
            anonymous: self.name.is_none(),
            fresh: true,
        };
        match desk.containers.volumes().create(&description) {
            Ok(_) => {}
            Err(ctk_volume::Error::Taken { .. }) if self.ignore => {}
            Err(error @ ctk_volume::Error::Taken { .. }) => {
                let hint = "`--ignore` takes it as it is; `ctk volume rm` removes it";
                return Err(Failure::sentence(error.to_string(), Some(hint)));
            }
            Err(error) => return Err(Failure::during("cannot make the volume")(error)),
        }
        output(&format!("{name}\n"))
    }
}

/// A volume as a row.
fn row(desk: &Desk, volume: &Volume, description: &Description) -> Value {
    let device = ctk_volume::read(&description.options).ok().and_then(|read| match read.backing {
        Backing::Mounted(mount) => mount.source,
        Backing::Folder => None,
    });
    let users = || desk.containers.users_of_volume(volume.name()).unwrap_or_default();
    json!({
        "Name": volume.name(),
        "Driver": "local",
        "Mountpoint": volume.data(),
        "CreatedAt": time::text(description.created),
        "Labels": description.labels,
        "Options": description.options,
        "Device": device,
        "Anonymous": description.anonymous,
        "Scope": "local",
        "Users": users(),
    })
}

/// One `--filter`.
struct Filter {
    key: String,
    value: String,
    negated: bool,
    until: u64,
}

fn filters(given: &[String]) -> Result<Vec<Filter>, Failure> {
    const KEYS: [&str; 8] = ["name", "label", "driver", "dangling", "opt", "until", "anonymous", "since"];
    let one = |text: &String| {
        let wrong = |hint: &str| Failure::sentence(format!("--filter `{text}` cannot be understood"), Some(hint));
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is KEY=VALUE"))?;
        let (key, negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
        if !KEYS.contains(&key) {
            let near = ctk_syntax::nearest(key, KEYS).map(|near| format!("did you mean `{near}`?"));
            return Err(wrong(&near.unwrap_or_else(|| format!("keys are {}", KEYS.join(", ")))));
        }
        if matches!(key, "dangling" | "anonymous") && !matches!(value, "true" | "false" | "1" | "0") {
            return Err(wrong("it is true or false"));
        }
        let until = match key {
            "until" | "since" => {
                let age = parse::duration(value).map_err(|why| wrong(&why))?;
                time::now().saturating_sub(age.as_nanos() as u64)
            }
            _ => 0,
        };
        Ok(Filter { key: key.into(), value: value.into(), negated, until })
    };
    given.iter().map(one).collect()
}

impl Filter {
    fn takes(&self, desk: &Desk, volume: &Volume, description: &Description) -> Result<bool, Failure> {
        let of = |map: &BTreeMap<String, String>| match self.value.split_once('=') {
            Some((name, value)) => map.get(name).is_some_and(|found| found == value),
            None => map.contains_key(&self.value),
        };
        let yes = matches!(self.value.as_str(), "true" | "1");
        let found = match self.key.as_str() {
            "name" => volume.name().contains(&self.value),
            "label" => of(&description.labels),
            "opt" => of(&description.options),
            "driver" => self.value == "local",
            "anonymous" => description.anonymous == yes,
            "dangling" => desk.containers.users_of_volume(volume.name())?.is_empty() == yes,
            "until" => description.created <= self.until,
            _ => description.created >= self.until,
        };
        Ok(found != self.negated)
    }
}

/// All volumes that the filters take. Those that go away meanwhile are not there.
fn chosen(desk: &Desk, given: &[String]) -> Result<Vec<(Volume, Description)>, Failure> {
    let filters = filters(given)?;
    let mut all = Vec::new();
    for volume in desk.containers.volumes().list()? {
        let description = match volume.description() {
            Err(ctk_volume::Error::Missing { .. }) => continue,
            other => other?,
        };
        let mut takes = true;
        for filter in &filters {
            takes &= filter.takes(desk, &volume, &description)?;
        }
        if takes {
            all.push((volume, description));
        }
    }
    Ok(all)
}

#[derive(Args)]
struct Ls {
    /// Their names only
    #[arg(short, long)]
    quiet: bool,
    /// Only those: `name=`, `label=`, `opt=`, `driver=`, `dangling=`, `anonymous=`, `until=`, `since=`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, or a template as `{{.Name}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// No line with the names of columns
    #[arg(short, long)]
    noheading: bool,
}

impl Ls {
    fn run(self, desk: &Desk) -> Result<(), Failure> {
        let rows = chosen(desk, &self.filter)?;
        if self.quiet {
            return output(&rows.iter().map(|(volume, _)| format!("{}\n", volume.name())).collect::<String>());
        }
        let rows = rows.iter().map(|(volume, description)| row(desk, volume, description)).collect();
        let table = Table { columns: &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")], rows };
        output(&table.text(self.format.as_deref(), self.noheading)?)
    }
}

#[derive(Args)]
struct Inspect {
    /// All of them
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// A template as `{{.Mountpoint}}`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Which
    #[arg(required_unless_present = "all", value_name = "VOLUME")]
    names: Vec<String>,
}

impl Inspect {
    fn run(self, desk: &Desk) -> Result<(), Failure> {
        let found: Vec<Volume> = match self.all {
            true => desk.containers.volumes().list()?,
            false => self.names.iter().map(|name| find(desk, name)).collect::<Result<_, _>>()?,
        };
        let mut rows = Vec::new();
        for volume in &found {
            rows.push(row(desk, volume, &volume.description()?));
        }
        match &self.format {
            None => output(&shown(&Value::Array(rows), None)?),
            Some(format) => rows.iter().try_for_each(|row| output(&shown(row, Some(format))?)),
        }
    }
}

#[derive(Args)]
struct Rm {
    /// All of them
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Stop and remove the containers that have them, too; no error for one that is not there
    #[arg(short, long)]
    force: bool,
    /// How long these may take to end, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10, visible_alias = "timeout", value_parser = number::<u64>)]
    time: u64,
    /// Which
    #[arg(required_unless_present = "all", value_name = "VOLUME")]
    names: Vec<String>,
}

impl Rm {
    fn run(self, desk: &Desk) -> Result<(), Failure> {
        let names: Vec<String> = match self.all {
            true => desk.containers.volumes().list()?.iter().map(|volume| volume.name().to_owned()).collect(),
            false => self.names.clone(),
        };
        let mut failed = false;
        for name in &names {
            let removed = match desk.containers.volumes().find(name) {
                Err(ctk_volume::Error::Missing { .. }) if self.force => continue,
                _ => find(desk, name).and_then(|volume| self.remove(desk, &volume).map(|()| volume)),
            };
            match removed {
                Ok(volume) => output(&format!("{}\n", volume.name()))?,
                Err(failure) => {
                    eprint!("{}", failure.text());
                    failed = true;
                }
            }
        }
        if failed { Err(Failure::Exit(1)) } else { Ok(()) }
    }

    fn remove(&self, desk: &Desk, volume: &Volume) -> Result<(), Failure> {
        if self.force {
            for user in desk.containers.users_of_volume(volume.name())? {
                match desk.containers.find(&user) {
                    Ok(container) => desk.remove(&container, true, self.time, false)?,
                    Err(ctk_monitor::Error::Missing { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        remove(desk, volume)
    }
}

/// Removes a volume that no container has.
fn remove(desk: &Desk, volume: &Volume) -> Result<(), Failure> {
    let users = || desk.containers.users_of_volume(volume.name());
    match desk.containers.volumes().remove(volume, users) {
        Err(ctk_monitor::Error::Volume(error @ ctk_volume::Error::InUse { .. })) => {
            let hint = "`ctk rm` removes a container; `ctk volume rm --force` removes them all, and the volume";
            Err(Failure::sentence(error.to_string(), Some(hint)))
        }
        // With the container that was removed.
        Err(ctk_monitor::Error::Volume(ctk_volume::Error::Missing { .. })) => Ok(()),
        other => Ok(other?),
    }
}

#[derive(Args)]
struct Prune {
    /// Only those: as for `ctk volume ls`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Nobody is asked; accepted because fingers know it
    #[arg(short, long, hide = true)]
    force: bool,
}

impl Prune {
    fn run(self, desk: &Desk) -> Result<(), Failure> {
        desk.containers.volumes().clean()?;
        for (volume, _) in chosen(desk, &self.filter)? {
            if !desk.containers.users_of_volume(volume.name())?.is_empty() {
                continue;
            }
            match remove(desk, &volume) {
                // Somebody was faster and has it now.
                Err(Failure::Error { .. }) if !desk.containers.users_of_volume(volume.name())?.is_empty() => {}
                other => {
                    other?;
                    output(&format!("{}\n", volume.name()))?;
                }
            }
        }
        Ok(())
    }
}

/// The folder of what is in a volume, and something for messages.
fn open(volume: &Volume) -> Result<OwnedFd, Failure> {
    let path = match ctk_volume::read(&volume.description()?.options)?.backing {
        Backing::Folder => volume.data(),
        Backing::Mounted(mount) if mount.kind.as_deref() == Some("bind") => mount.source.unwrap_or_default().into(),
        Backing::Mounted(mount) => {
            let kind = mount.kind.unwrap_or_default();
            let what = format!("volume {} is a {kind} that is mounted for each container alone", volume.name());
            let hint = "`ctk cp` copies from and to a container that has it";
            return Err(Failure::sentence(what, Some(hint)));
        }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| Failure::during(format!("cannot open {}", path.display()))(io::Error::from(errno)))
}

#[derive(Args)]
struct Export {
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Which
    #[arg(value_name = "VOLUME")]
    name: String,
}

impl Export {
    fn run(self, desk: &Desk, cancel: &Cancel) -> Result<(), Failure> {
        let root = open(&find(desk, &self.name)?)?;
        to_archive(self.output.as_deref(), |out| {
            let mut tar = ctk_layer::TarWriter::new(out);
            ctk_snapshot::archive(root.as_fd(), (b"", false), b"", &mut tar, cancel)?;
            tar.finish()?;
            Ok(())
        })
    }
}

/// Writes an archive to a file, which is whole or not there, or to standard output.
pub fn to_archive(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match path {
        Some(path) if path != Path::new("-") => {
            let attempt = format!("cannot write {}", path.display());
            let failed = |error: io::Error| Failure::during(&attempt)(error);
            let aside = Aside::new(path).map_err(failed)?;
            write(&mut io::BufWriter::with_capacity(1 << 18, aside.file()))?;
            aside.keep().map_err(failed)
        }
        _ if io::stdout().is_terminal() => {
            Err(Failure::sentence("an archive is no text for a terminal", Some("add `--output PATH`, or redirect")))
        }
        _ => write(&mut io::stdout().lock()),
    }
}

#[derive(Args)]
struct Import {
    /// Which; made if it is not there
    #[arg(value_name = "VOLUME")]
    name: String,
    /// The archive, plain or compressed; `-` is standard input
    #[arg(value_name = "ARCHIVE", default_value = "-")]
    source: PathBuf,
}

impl Import {
    fn run(self, desk: &Desk, cancel: &Cancel) -> Result<(), Failure> {
        let described = || Description { name: self.name.clone(), created: time::now(), ..Description::default() };
        let held = desk.containers.volumes().hold(&self.name, described)?;
        let root = open(&held)?;
        let source: Box<dyn io::Read + Send> = match self.source == Path::new("-") {
            true => Box::new(io::stdin()),
            false => {
                let opened = ctk_store::open_given(&self.source);
                Box::new(opened.map_err(Failure::during(format!("cannot read {}", self.source.display())))?)
            }
        };
        let what = self.source.display().to_string();
        let keep = ctk_snapshot::copy::Mtime::Keep;
        ctk_snapshot::copy::extract(root.as_fd(), b"", &what, source, None, keep, cancel)?;
        Ok(())
    }
}

#[derive(Args)]
struct Exists {
    /// Which
    #[arg(value_name = "VOLUME")]
    name: String,
}
