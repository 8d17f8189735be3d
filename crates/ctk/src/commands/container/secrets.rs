//! Secrets: `ctk secret` keeps them in the store, `--secret` shows them to a container.
//!
//! ```text
//! secrets/<name>/secret.json, data    of the store; data is for root alone
//! containers/<id>/secrets/…           what a container has, in a directory for root alone; it sees a copy in memory
//! ```
//! They are never part of a layer, of what `inspect` shows, or of a log.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ctk_monitor::{Container, check_name, time};
use ctk_oci::Mount;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Desk;
use super::parse::pair;
use super::table::{Table, shown};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Largest secret, in bytes: what podman takes.
const SECRET_BYTES: u64 = 512_000;
/// Where a container finds them.
const FOLDER: &str = "/run/secrets";

/// Secrets that containers are shown
#[derive(Args)]
pub struct Secrets {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep a secret
    Create(Create),
    /// List secrets
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show all about secrets but what they are
    Inspect(Inspect),
    /// Remove secrets
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Say by the exit code whether there is such a secret: 0 or 1
    Exists {
        /// Which
        #[arg(value_name = "SECRET")]
        name: String,
    },
}

impl Secrets {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let kept = Kept::of(&Desk::open(context));
        match self.command {
            Command::Create(command) => command.run(context, &kept),
            Command::Ls(command) => command.run(&kept),
            Command::Inspect(command) => command.run(&kept),
            Command::Rm(command) => command.run(&kept),
            Command::Exists { name } if kept.path(&name).is_some() => Ok(()),
            Command::Exists { .. } => Err(Failure::Exit(1)),
        }
    }
}

/// `secret.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Description {
    name: String,
    created: u64,
    labels: BTreeMap<String, String>,
}

/// The secrets of the store.
struct Kept {
    root: PathBuf,
}

impl Kept {
    fn of(desk: &Desk) -> Kept {
        Kept { root: desk.root.join("secrets") }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = self.root.join(name);
        (check_name(name).is_ok() && path.join("data").exists()).then_some(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| self.path(name).is_some());
        names.sort_unstable();
        names
    }

    fn find(&self, name: &str) -> Result<PathBuf, Failure> {
        self.path(name).ok_or_else(|| {
            let near = ctk_syntax::nearest(name, self.names().iter().map(String::as_str)).map(str::to_owned);
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`ctk secret create` keeps one; `--secret id=NAME,src=FILE` takes a file".into(),
            };
            Failure::sentence(format!("there is no secret `{name}`"), Some(&hint))
        })
    }

    fn described(&self, name: &str) -> Result<Description, Failure> {
        let path = self.find(name)?.join("secret.json");
        let text = fs::read(&path).map_err(Failure::during(format!("cannot read {}", path.display())))?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn row(&self, name: &str) -> Result<Value, Failure> {
        let description = self.described(name)?;
        Ok(json!({
            "Name": name, "Driver": "file", "CreatedAt": time::text(description.created), "Labels": description.labels,
        }))
    }
}

fn private_folder(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Failure::during(format!("cannot make {}", path.display())))
}

/// Writes a file that nobody else may read, before there is anything in it.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(Failure::during(format!("cannot write {}", path.display())))
}

#[derive(Args)]
struct Create {
    /// SOURCE is the name of an environment variable
    #[arg(long)]
    env: bool,
    /// Set a label
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Take the place of one of that name
    #[arg(long)]
    replace: bool,
    /// Its name
    name: String,
    /// A file; `-` is standard input
    source: String,
}

impl Create {
    fn run(self, context: &Context, kept: &Kept) -> Result<(), Failure> {
        let name = self.name.as_str();
        check_name(name).map_err(|_| {
            let what = format!("`{name}` cannot be a secret's name");
            Failure::sentence(what, Some("it is of letters, digits and _ . -, and begins with one of the first two"))
        })?;
        let bytes = match (self.env, self.source.as_str()) {
            (true, variable) => of_variable(context, variable)?,
            (false, "-") => limited(std::io::stdin(), "standard input")?,
            (false, file) => of_file(file)?,
        };
        if bytes.is_empty() {
            return Err(Failure::sentence(format!("secret `{name}` is empty"), None));
        }
        private_folder(&kept.root)?;
        let new = kept.root.join(format!(".new-{}", std::process::id()));
        let _ = fs::remove_dir_all(&new);
        private_folder(&new)?;
        write_private(&new.join("data"), &bytes)?;
        let labels = self.label.iter().map(|text| pair(text)).collect();
        let description = Description { name: name.into(), created: time::now(), labels };
        write_private(&new.join("secret.json"), &serde_json::to_vec(&description)?)?;
        let to = kept.root.join(name);
        let flags = match self.replace && to.exists() {
            true => rustix::fs::RenameFlags::EXCHANGE,
            false => rustix::fs::RenameFlags::NOREPLACE,
        };
        let put = rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &to, flags);
        let _ = fs::remove_dir_all(&new);
        match put {
            Ok(()) => output(&format!("{name}\n")),
            Err(rustix::io::Errno::EXIST) => {
                let what = format!("there is a secret `{name}` already");
                Err(Failure::sentence(what, Some("`--replace` takes its place")))
            }
            Err(errno) => Err(Failure::during(format!("cannot make {}", to.display()))(errno)),
        }
    }
}

#[derive(Args)]
struct Ls {
    /// Their names only
    #[arg(short, long)]
    quiet: bool,
    /// `json`, or a template as `{{.Name}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// No line with the names of columns
    #[arg(short, long)]
    noheading: bool,
}

impl Ls {
    fn run(self, kept: &Kept) -> Result<(), Failure> {
        let names = kept.names();
        if self.quiet {
            return output(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
        }
        let rows = names.iter().map(|name| kept.row(name)).collect::<Result<_, _>>()?;
        let columns = [("NAME", "Name"), ("DRIVER", "Driver"), ("CREATED", "CreatedAt")];
        output(&Table { columns: &columns, rows }.text(self.format.as_deref(), self.noheading)?)
    }
}

#[derive(Args)]
struct Inspect {
    /// A template as `{{.CreatedAt}}`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Which
    #[arg(required = true, value_name = "SECRET")]
    names: Vec<String>,
}

impl Inspect {
    fn run(self, kept: &Kept) -> Result<(), Failure> {
        let rows = self.names.iter().map(|name| kept.row(name)).collect::<Result<Vec<_>, _>>()?;
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
    /// No error for one that is not there
    #[arg(short, long)]
    ignore: bool,
    /// Which
    #[arg(required_unless_present = "all", value_name = "SECRET")]
    names: Vec<String>,
}

impl Rm {
    fn run(self, kept: &Kept) -> Result<(), Failure> {
        let names = if self.all { kept.names() } else { self.names.clone() };
        let mut failed = false;
        for name in &names {
            if self.ignore && kept.path(name).is_none() {
                continue;
            }
            let removed = kept.find(name).and_then(|path| {
                fs::remove_dir_all(&path).map_err(Failure::during(format!("cannot remove {}", path.display())))
            });
            match removed {
                Ok(()) => output(&format!("{name}\n"))?,
                Err(failure) => {
                    eprint!("{}", failure.text());
                    failed = true;
                }
            }
        }
        if failed { Err(Failure::Exit(1)) } else { Ok(()) }
    }
}

fn limited(source: impl Read, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source.take(SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(Failure::during(format!("cannot read {what}")))?;
    match bytes.len() as u64 > SECRET_BYTES {
        true => Err(Failure::sentence(format!("{what} has more than the {SECRET_BYTES} bytes of a secret"), None)),
        false => Ok(bytes),
    }
}

fn of_file(path: &str) -> Result<Vec<u8>, Failure> {
    let file = ctk_store::open_given(Path::new(path)).map_err(Failure::during(format!("cannot read {path}")))?;
    limited(file, path)
}

fn of_variable(context: &Context, name: &str) -> Result<Vec<u8>, Failure> {
    match context.environment().get(name) {
        Some(value) => Ok(value.as_bytes().to_vec()),
        None => Err(Failure::sentence(format!("the environment has no variable `{name}`"), None)),
    }
}

/// One `--secret`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    name: String,
    file: Option<String>,
    variable: Option<String>,
    /// Whether it is shown as a variable, and not as a file.
    as_variable: bool,
    target: Option<String>,
    ids: (u32, u32),
    mode: u32,
}

/// `id=NAME,src=FILE|env=VARIABLE,…`, or `NAME,…` for one that is kept.
fn read(text: &str) -> Result<Asked, Failure> {
    const KEYS: [&str; 9] = ["id", "src", "source", "env", "type", "target", "uid", "gid", "mode"];
    let wrong = |why: String, hint: Option<&str>| Failure::sentence(format!("--secret `{text}`: {why}"), hint);
    let mut asked = Asked { mode: 0o444, ..Asked::default() };
    for (index, word) in text.split(',').enumerate() {
        let Some((name, value)) = word.split_once('=') else {
            if index == 0 && !word.is_empty() {
                asked.name = word.into();
                continue;
            }
            return Err(wrong(format!("`{word}` is no KEY=VALUE"), None));
        };
        let id = || {
            let id: Option<u32> = value.parse().ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| wrong(format!("`{value}` is no number of a user or group"), None))
        };
        match name {
            _ if value.is_empty() => return Err(wrong(format!("`{name}` has no value"), None)),
            "id" => asked.name = value.into(),
            "src" | "source" => asked.file = Some(value.into()),
            "env" => asked.variable = Some(value.into()),
            "type" => {
                asked.as_variable = match value {
                    "env" => true,
                    "mount" | "file" => false,
                    _ => return Err(wrong(format!("type `{value}` is neither mount nor env"), None)),
                }
            }
            "target" | "dst" | "destination" => asked.target = Some(value.into()),
            "uid" => asked.ids.0 = id()?,
            "gid" => asked.ids.1 = id()?,
            "mode" => {
                let mode = u32::from_str_radix(value.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o777);
                let hint = Some("as `mode=0400`");
                asked.mode = mode.ok_or_else(|| wrong(format!("`{value}` is no octal mode"), hint))?;
            }
            other => {
                let near = ctk_syntax::nearest(other, KEYS).map(|near| format!("did you mean `{near}`?"));
                return Err(wrong(format!("there is no `{other}`"), near.as_deref()));
            }
        }
    }
    if asked.name.is_empty() {
        return Err(wrong(
            "it has no name".into(),
            Some("as `id=NAME,src=FILE`, or `NAME` for one of `ctk secret ls`"),
        ));
    }
    check_name(&asked.name).map_err(|_| wrong(format!("`{}` is no name", asked.name), None))?;
    if asked.file.is_some() && asked.variable.is_some() {
        return Err(wrong("`src` and `env` are two places, and it comes from one".into(), None));
    }
    let target = asked.target.as_deref().unwrap_or(&asked.name);
    let parts = target.trim_start_matches('/').split('/');
    let bad = parts.clone().any(|part| matches!(part, "" | "." | ".."));
    let nested = !target.starts_with('/') && target.contains('/');
    match asked.as_variable {
        true if target.contains(['=', '\0', '/']) => Err(wrong(format!("`{target}` is no name of a variable"), None)),
        false if bad || nested => {
            let hint = Some("it is a name below /run/secrets, or an absolute path");
            Err(wrong(format!("`{target}` is no place for it"), hint))
        }
        _ => Ok(asked),
    }
}

/// What a container gets of secrets.
#[derive(Default)]
pub struct Shown {
    /// What shows them, in this order.
    pub mounts: Vec<Mount>,
    /// Variables.
    pub env: Vec<String>,
    /// The names of these.
    pub variables: Vec<String>,
}

/// Reads all `--secret`, and puts what they are into the container's directory. `outside` gives ids as the host has them.
pub fn show(
    context: &Context,
    desk: &Desk,
    given: &[String],
    container: &Container,
    outside: &dyn Fn((u32, u32)) -> (u32, u32),
) -> Result<Shown, Failure> {
    let (mut all, kept) = (Shown::default(), Kept::of(desk));
    let mut files: Vec<String> = Vec::new();
    let folder = container.secrets();
    for text in given {
        let asked = read(text)?;
        let bytes = match (&asked.file, &asked.variable) {
            (Some(file), _) => of_file(file)?,
            (_, Some(variable)) => of_variable(context, variable)?,
            _ => of_file(&kept.find(&asked.name)?.join("data").to_string_lossy())?,
        };
        let target = asked.target.clone().unwrap_or_else(|| asked.name.clone());
        if asked.as_variable {
            let what = format!("--secret `{text}`: a variable is a text without NUL, and this is none");
            let value = String::from_utf8(bytes).ok().filter(|value| !value.contains('\0'));
            let value =
                value.ok_or_else(|| Failure::sentence(what, Some("leave `type=env` out: it becomes a file")))?;
            all.env.push(format!("{target}={value}"));
            all.variables.push(target);
            continue;
        }
        let at = if target.starts_with('/') { target } else { format!("{FOLDER}/{target}") };
        if files.contains(&at) {
            return Err(Failure::sentence(format!("--secret `{text}`: there is another one at {at}"), None));
        }
        let path = match at.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/')).filter(|n| !n.contains('/')) {
            Some(name) => folder.join("run").join(name),
            None => folder.join("elsewhere").join(files.len().to_string()),
        };
        private_folder(&folder)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path.parent().unwrap_or(&folder))
            .map_err(Failure::during("cannot make the folder of secrets"))?;
        write_private(&path, &bytes)?;
        let failed = || Failure::during(format!("cannot set the owner of {}", path.display()));
        let (uid, gid) = outside(asked.ids);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(failed())?;
        fs::set_permissions(&path, PermissionsExt::from_mode(asked.mode)).map_err(failed())?;
        if path.starts_with(folder.join("elsewhere")) {
            let options = ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"];
            all.mounts.push(Mount::new("bind", &path.to_string_lossy(), &at, &options));
        }
        files.push(at);
    }
    if folder.join("run").exists() {
        // What it sees is a copy in memory: the tmpfs takes up what it covers.
        let options = ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"];
        all.mounts.push(Mount::new("bind", &folder.join("run").to_string_lossy(), FOLDER, &options));
        let options = ["tmpcopyup", "nosuid", "nodev", "noexec", "mode=755"];
        all.mounts.push(Mount::new("tmpfs", "tmpfs", FOLDER, &options));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_podman_and_buildkit_write_them() {
        let read = |text| read(text).unwrap_or_else(|failure| panic!("{}", failure.text()));
        assert_eq!(read("key"), Asked { name: "key".into(), mode: 0o444, ..Asked::default() });
        let asked = read("id=key,src=./k,target=/etc/k,uid=5,gid=6,mode=0400");
        assert_eq!((asked.file.as_deref(), asked.target.as_deref()), (Some("./k"), Some("/etc/k")));
        assert_eq!((asked.ids, asked.mode), ((5, 6), 0o400));
        assert!(read("id=key,env=KEY,type=env,target=TOKEN").as_variable);
    }

    #[test]
    fn every_mistake_says_what_is_wrong() {
        for (text, expected) in [
            ("", "is no KEY=VALUE"),
            ("src=x", "it has no name"),
            ("id=a,src=x,env=Y", "comes from one"),
            ("a,typ=env", "did you mean `type`?"),
            ("a,type=volume", "neither mount nor env"),
            ("a,mode=999", "no octal mode"),
            ("a,uid=root", "no number"),
            ("a,target=../x", "no place for it"),
            ("a,target=x/y", "no place for it"),
            ("a,type=env,target=A=B", "no name of a variable"),
            ("a,b", "is no KEY=VALUE"),
            ("a,target=", "has no value"),
            ("../a", "is no name"),
        ] {
            let failure = read(text).expect_err(text);
            assert!(failure.text().contains(expected), "{text}: {}", failure.text());
        }
    }
}
