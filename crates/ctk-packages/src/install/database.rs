//! dpkg's database as dpkg itself would have left it: `status`, `info/*`, triggers (dpkg(1), deb-triggers(5)).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::PackagesError;
use crate::apt::deb822::Stanza;
use crate::install::deb::Deb;
use crate::install::rootfs::Root;
use crate::install::unpack::{Unpacked, conffiles};

const ADMIN: &str = "var/lib/dpkg";

/// dpkg writes known fields in this order, all others after them.
const FIELDS: [&str; 27] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
    "Filename",
    "Size",
    "Description",
];

/// How a package is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unpacked,
    Installed,
}

/// The name that dpkg's files use: with the architecture where several may be installed side by side.
pub(crate) fn info_name(deb: &Deb<'_>) -> String {
    match Stanza(&deb.control).get("Multi-Arch") {
        Some("same") => format!("{}:{}", deb.package.name, deb.package.architecture),
        _ => deb.package.name.clone(),
    }
}

/// Directories and files that exist in every dpkg database.
pub(crate) fn create(root: &Root, architecture: &str) -> Result<(), PackagesError> {
    for directory in ["alternatives", "info", "parts", "triggers", "updates"] {
        let path = format!("{ADMIN}/{directory}");
        root.directory(&path).map_err(|source| PackagesError::Root { path: format!("/{path}"), source })?;
    }
    write(root, "arch", format!("{architecture}\n").as_bytes(), 0o644)?;
    write(root, "diversions", b"", 0o644)?;
    write(root, "info/format", b"1\n", 0o644)?;
    write(root, "lock", b"", 0o640)?;
    write(root, "lock-frontend", b"", 0o640)?;
    write(root, "triggers/Lock", b"", 0o600)?;
    write(root, "triggers/Unincorp", b"", 0o644)?;
    Ok(())
}

/// `info/*` of one package.
pub(crate) fn add(root: &Root, deb: &Deb<'_>, unpacked: &Unpacked) -> Result<(), PackagesError> {
    let name = info_name(deb);
    let mut list = String::new();
    for path in unpacked.list.iter().filter(|p| !unpacked.lost.contains(*p)) {
        list.push_str(path);
        list.push('\n');
    }
    write(root, &format!("info/{name}.list"), list.as_bytes(), 0o644)?;
    if deb.file("md5sums").is_none() {
        let configuration = conffiles(deb);
        let mut sums = String::new();
        for (path, md5) in unpacked.md5.iter().filter(|(p, _)| !configuration.contains(p)) {
            let _ = writeln!(sums, "{md5}  {path}");
        }
        write(root, &format!("info/{name}.md5sums"), sums.as_bytes(), 0o644)?;
    }
    for (file, content, executable) in &deb.files {
        write(root, &format!("info/{name}.{file}"), content, if *executable { 0o755 } else { 0o644 })?;
    }
    Ok(())
}

/// What the packages want to be told about: `triggers/File`, `triggers/NAME`.
pub(crate) fn write_triggers(root: &Root, debs: &[Deb<'_>]) -> Result<(), PackagesError> {
    let mut files = String::new();
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for deb in debs {
        for trigger in triggers(deb).into_iter().filter(|t| t.interest) {
            let waits = if trigger.waits { "" } else { "/noawait" };
            match trigger.name.starts_with('/') {
                true => writeln!(files, "{} {}{waits}", trigger.name, info_name(deb)),
                false => writeln!(named.entry(trigger.name).or_default(), "{}{waits}", info_name(deb)),
            }
            .unwrap_or_default();
        }
    }
    if !files.is_empty() {
        write(root, "triggers/File", files.as_bytes(), 0o644)?;
    }
    for (name, text) in named {
        write(root, &format!("triggers/{name}"), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// One line of a package's `triggers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    pub(crate) interest: bool,
    pub(crate) waits: bool,
    pub(crate) name: String,
}

/// The lines of a package's `triggers`.
pub(crate) fn triggers(deb: &Deb<'_>) -> Vec<Trigger> {
    let text = String::from_utf8_lossy(deb.file("triggers").unwrap_or_default()).into_owned();
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (directive, name) = (words.next()?, words.next()?);
            let usable = name.starts_with('/') || (!name.contains('/') && !name.starts_with('.'));
            let (what, how) = directive.split_once('-').unwrap_or((directive, "await"));
            let interest = match what {
                "interest" => true,
                "activate" => false,
                _ => return None,
            };
            usable.then(|| Trigger { interest, waits: how == "await", name: name.into() })
        })
        .collect()
}

/// `status`, with what `state` says of each package.
pub(crate) fn write_status(
    root: &Root,
    debs: &[Deb<'_>],
    unpacked: &BTreeMap<usize, Unpacked>,
    state: impl Fn(usize) -> Option<State>,
) -> Result<(), PackagesError> {
    let mut order: Vec<usize> = (0..debs.len()).collect();
    order.sort_by_key(|n| (&debs[*n].package.name, &debs[*n].package.architecture));
    let mut text = String::new();
    for number in order {
        let Some(state) = state(number) else { continue };
        entry(&mut text, &debs[number], unpacked.get(&number), state);
    }
    write(root, "status", text.as_bytes(), 0o644)
}

fn entry(text: &mut String, deb: &Deb<'_>, unpacked: Option<&Unpacked>, state: State) {
    let status = match state {
        State::Unpacked => "install ok unpacked",
        State::Installed => "install ok installed",
    };
    let mut sums = String::new();
    for path in conffiles(deb) {
        if let Some(md5) = unpacked.and_then(|u| u.md5.get(&path)) {
            let _ = write!(sums, "\n /{path} {md5}");
        }
    }
    let mut fields: Vec<(usize, &str, String)> = Vec::new();
    let rank = |name: &str| FIELDS.iter().position(|f| f.eq_ignore_ascii_case(name)).unwrap_or(FIELDS.len());
    for (name, value) in Stanza(&deb.control).fields() {
        // dpkg writes a value as ` value`, one that begins on its second line without the blank.
        fields.push((rank(name), name, format!(" {value}")));
    }
    fields.push((rank("Status"), "Status", format!(" {status}")));
    if !sums.is_empty() {
        fields.push((rank("Conffiles"), "Conffiles", sums));
    }
    fields.sort_by_key(|(rank, _, _)| *rank);
    for (rank, name, value) in fields {
        let name = FIELDS.get(rank).copied().unwrap_or(name);
        let _ = writeln!(text, "{name}:{value}");
    }
    text.push('\n');
}

fn write(root: &Root, name: &str, bytes: &[u8], mode: u32) -> Result<(), PackagesError> {
    let path = format!("{ADMIN}/{name}");
    let written: io::Result<()> = root.write(&path, bytes, mode);
    written.map_err(|source| PackagesError::Root { path: format!("/{path}"), source })
}
