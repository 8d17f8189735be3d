//! `linux.intelRdt`: shares of caches and memory bandwidth, by the `resctrl` file system
//! (`config-linux.md#intelrdt`). A class of service is a directory there; processes whose ids are in its `tasks` get
//! its shares.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::spec::IntelRdt;

/// What a container wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdt {
    /// The directory of the class; empty for the one that every process is in.
    pub class: String,
    /// Whether the class is the container's own: made and removed with it.
    pub own: bool,
    /// Lines of `schemata`.
    pub lines: Vec<String>,
    /// The name of its monitoring group, if it has one.
    pub monitor: Option<String>,
}

impl fmt::Display for Rdt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "class of service `{}`{}", self.class, if self.own { " of its own" } else { "" })?;
        self.lines.iter().try_for_each(|line| write!(f, " {line}"))?;
        match &self.monitor {
            Some(name) => write!(f, " monitored as `{name}`"),
            None => Ok(()),
        }
    }
}

const FIELD: &str = "linux.intelRdt";

/// Decides from the configuration.
pub(crate) fn plan(rdt: &IntelRdt, id: &str) -> Result<Rdt, Error> {
    let given = rdt.clos_id.as_deref().filter(|class| !class.is_empty());
    let class = match given {
        // The root of the tree.
        Some("/") => "",
        Some(class) if matches!(class, "." | ".." | "info" | "mon_data" | "mon_groups") || class.contains('/') => {
            let reason = format!("`{class}` is no name of a directory for it");
            return Err(Error::config(&format!("{FIELD}.closID"), reason));
        }
        Some(class) => class,
        None => id,
    };
    let mut lines = Vec::new();
    let one_line = |text: &str, name: &str| match text.contains('\n') {
        true => Err(Error::config(&format!("{FIELD}.{name}"), "has more than one line")),
        false => Ok(text.to_owned()),
    };
    if let Some(schema) = rdt.l3_cache_schema.as_deref().filter(|text| !text.is_empty()) {
        // Bandwidth is what the other field says.
        let bandwidth = rdt.mem_bw_schema.is_some();
        lines.extend(schema.lines().filter(|line| !(bandwidth && line.starts_with("MB:"))).map(String::from));
    }
    if let Some(schema) = rdt.mem_bw_schema.as_deref().filter(|text| !text.is_empty()) {
        if !schema.starts_with("MB:") {
            return Err(Error::config(&format!("{FIELD}.memBwSchema"), "does not begin with `MB:`"));
        }
        lines.push(one_line(schema, "memBwSchema")?);
    }
    for (index, schema) in rdt.schemata.iter().enumerate() {
        lines.push(one_line(schema, &format!("schemata[{index}]"))?);
    }
    let monitor = rdt.enable_monitoring.then(|| id.to_owned());
    Ok(Rdt { class: class.into(), own: given.is_none(), lines, monitor })
}

/// Where the file system is mounted.
fn mount() -> Result<PathBuf, Error> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("resctrl ").then(|| before.split(' ').nth(4))?
    });
    found.map(PathBuf::from).ok_or_else(|| Error::Unsupported {
        what: FIELD.into(),
        reason: "no `resctrl` file system is mounted; `mount -t resctrl resctrl /sys/fs/resctrl` makes it available \
                 where the processor has it, or leave it out"
            .into(),
    })
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let step = format!("set up `{}`", path.display());
    move |source| Error::Step { step, field: FIELD.into(), source }
}

impl Rdt {
    /// Where the directories are, and which of them go with the container: those of its own, and a class that is not
    /// there yet.
    pub(crate) fn place(&self) -> Result<(PathBuf, Vec<PathBuf>), Error> {
        let class = mount()?.join(&self.class);
        let mut own = Vec::new();
        if let Some(name) = &self.monitor {
            own.push(class.join("mon_groups").join(name));
        }
        if !class.exists() {
            if !self.own && self.lines.is_empty() {
                let reason = format!("`{}` is not there, and nothing says what it should be", class.display());
                return Err(Error::config(&format!("{FIELD}.closID"), reason));
            }
            own.push(class.clone());
        }
        Ok((class, own))
    }

    /// Makes the directories and puts a process into them.
    pub(crate) fn join(&self, class: &Path, own: &[PathBuf], pid: i32) -> Result<(), Error> {
        let schemata = class.join("schemata");
        if own.iter().any(|path| path == class) {
            fs::create_dir(class).map_err(failed(class))?;
            for line in &self.lines {
                fs::write(&schemata, format!("{line}\n")).map_err(failed(&schemata))?;
            }
        } else if !self.lines.is_empty() {
            let text = fs::read_to_string(&schemata).map_err(failed(&schemata))?;
            // The kernel aligns them with spaces.
            let has = |line: &String| text.lines().any(|found| found.trim() == line.trim());
            if let Some(line) = self.lines.iter().find(|line| !has(line)) {
                let reason = format!("`{line}` is not what the class `{}` has", self.class);
                return Err(Error::config(FIELD, reason));
            }
        }
        let put = |directory: &Path| {
            let tasks = directory.join("tasks");
            fs::write(&tasks, pid.to_string()).map_err(failed(&tasks))
        };
        put(class)?;
        if let Some(group) = own.iter().find(|path| *path != class) {
            fs::create_dir(group).map_err(failed(group))?;
            put(group)?;
        }
        Ok(())
    }
}
