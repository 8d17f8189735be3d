//! Pages that are made from the code: what `ctk --help` says, the list of error codes, and what `ctk` prints for the
//! examples of the error pages. Project files that stand in hand-written pages are checked with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use regex::Regex;

use crate::tidy::{sources, walk};
use crate::{ci, describe};

/// Commands of examples that need neither privileges nor a network, so that their output can be made anew anywhere.
const REPEATABLE: &[&str] = &["check", "plan", "graph", "fmt", "pipeline"];

/// Pages whose `kdl` blocks together are one project without mistakes.
const PROJECTS: &[&str] = &["README.md", "docs/reference/project-file.md", "docs/guide.md"];

/// What to do.
#[derive(Args)]
pub struct Codegen {
    /// Write nothing; fail if a page would change.
    #[arg(long)]
    check: bool,
}

impl Codegen {
    /// Writes the pages with the binary of `CTK_BINARY`, or one that is built now.
    pub fn run(&self, root: &Path) -> Result<(), String> {
        let binary = match std::env::var_os("CTK_BINARY") {
            Some(binary) => root.join(binary),
            None => ci::dev_binary(root)?,
        };
        codegen(root, &binary, self.check)
    }
}

/// Writes every generated page, or says which would change.
pub fn codegen(root: &Path, binary: &Path, check: bool) -> Result<(), String> {
    let ctk = Ctk { binary };
    let mut pages = vec![
        (root.join("docs/reference/commands.md"), commands(&ctk)?),
        (root.join("docs/reference/runtime-commands.md"), runtime_commands(&ctk)?),
        (root.join("docs/errors/README.md"), error_list(root)),
    ];
    for path in walk(&root.join("docs/errors"), "md") {
        if path.parent() != Some(&root.join("docs/errors")) {
            let text = read(&path)?;
            pages.push((path, example(&ctk, &text)?));
        }
    }
    let mut stale = Vec::new();
    for (path, text) in pages {
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        stale.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        if !check {
            fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
    }
    for page in PROJECTS {
        project(&ctk, &root.join(page))?;
    }
    for page in &stale {
        eprintln!("codegen: {page} {}", if check { "differs from what the code says" } else { "written" });
    }
    match check && !stale.is_empty() {
        true => Err("pages are stale: `cargo xtask codegen` writes them".into()),
        false => Ok(()),
    }
}

/// The binary, started so that nothing of this machine or terminal shows in what it says.
struct Ctk<'a> {
    binary: &'a Path,
}

impl Ctk<'_> {
    /// What it prints, on both streams, in `folder`.
    fn output(&self, arguments: &[&str], folder: &Path) -> Result<String, String> {
        let mut command = Command::new(self.binary);
        let store = folder.join("../store");
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").env("NO_COLOR", "1").env("COLUMNS", "100");
        if !arguments.contains(&"--help") {
            command.env("CTK_ROOT", &store).env("CTK_PROGRESS", "quiet");
        }
        let output = command.output().map_err(|e| format!("cannot run {}: {e}", describe(&command)))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).replace(&format!("{}/", folder.display()), "");
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        Ok(lines.join("\n").trim_end().to_owned())
    }
}

/// A folder that is gone at the end; named `shop`, because a project without a name is called like its folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        let folder = std::env::temp_dir().join(format!("ctk-codegen-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("shop")).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        Ok(Folder(folder))
    }

    fn inner(&self) -> PathBuf {
        self.0.join("shop")
    }

    fn put(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.inner().join(name);
        let parent = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// What the commands say.

const COMMANDS_HEAD: &str = r#"# Commands

*Written by `cargo xtask codegen` from what `ctk --help` says; the part above the first command is in `xtask/src/codegen.rs`.*

Results go to standard output, the story to standard error. An address is `kind:name` as `ctk graph` lists it: `image:api`, `test:api`, `push:api`, `registry:local`.

## Exit codes

| Code | Meaning |
|---|---|
| 0 | done, or nothing to do |
| 1 | something failed; standard error says what, with its causes |
| 2 | `plan --detailed-exitcode`: there is something to do |
| 64 | the command line itself is wrong |
| 124 | `run --timeout`: the program ran longer |
| 125 | `run`: the container could not be started |
| 126 | `run`: the program cannot be executed |
| 127 | `run`: there is no such program |
| 130 | interrupted; run it again to go on |

`run` otherwise exits with the code of its program, or with 128 and the number of the signal that ended it.

## Environment variables

| Variable | What it does |
|---|---|
| `CTK_ROOT` | the store's folder, as `--root`. Without it `/var/lib/ctk` for root, else `$XDG_DATA_HOME/ctk` or `~/.local/share/ctk` |
| `CTK_PROGRESS` | how progress is told, as `--progress` |
| `CTK_REGISTRIES` | the only file about registries, as `--registries` |
| `CTK_LAYERS` | `erofs`: containers mount an image of each layer, made when it is mounted first, not its unpacked tree (`tree`). For root, since linux 6.12 |
| `NO_COLOR` | no colours, whatever the terminal |
| `SOURCE_DATE_EPOCH` | the date, in seconds since 1970, of what a build makes, or `context`: that of the main context; a part of the fingerprint. Without it the newest date among the base and the packages |
| `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | the proxy of every request to registries, in either case of letters |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | authorities instead of those of the system |
| `REGISTRY_AUTH_FILE` | the first file of credentials that is looked into, and the one that `login` writes |
| `DOCKER_CONFIG` | the folder of docker's `config.json`; without it `~/.docker` |
| `CONTAINERS_REGISTRIES_CONF` | takes the place of the system's `containers/registries.conf` |
| `XDG_CONFIG_HOME`, `XDG_RUNTIME_DIR`, `XDG_DATA_HOME`, `HOME` | where the files below are |

A project adds its own by `var … env="NAME"` and `secret … env="NAME"`; nothing else of the environment is seen by builds.

## Files

| File | What it is |
|---|---|
| `containers.kdl` | the project: [its language](project-file.md) |
| `containers.lock` | beside it: what each moving name meant; commit it |
| `~/.config/ctk/registries.conf`, `/etc/ctk/registries.conf` | registries: mirrors, insecure hosts, other locations, in the format of containers-registries.conf(5), version 2 |
| `~/.config/containers/registries.conf.d/*.conf`, `/etc/containers/registries.conf.d/*.conf`, `~/.config/containers/registries.conf` or else `/etc/containers/registries.conf` | the same of podman and its kin, read after ctk's own |
| `~/.config/containerd/certs.d/HOST/hosts.toml`, `/etc/containerd/certs.d/HOST/hosts.toml` | mirrors of a registry that the files above say nothing about, as containerd has them |
| `~/.config/containers/certs.d/HOST/`, `/etc/containers/certs.d/HOST/`, `/etc/docker/certs.d/HOST/` | `*.crt`: authorities of a registry; `*.cert` with `*.key`: our certificate for it |
| `~/.docker/config.json`, `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json` | credentials and credential helpers, as `docker login` and `podman login` write them; the first that knows a host wins |
| `/etc/apt`, `/usr/share/keyrings` | the machine's package sources, keys, proxy and authorities: what `packages` uses unless the project says otherwise |

Inside the store: `blobs` (manifests, configs, compressed layers, by digest), `layers` (the same unpacked, for mounting), `refs` (names of images), `records` (results and caches that can be found out again), `cache` (cache mounts of `run`), `packages` (downloaded OS packages), `stats` (digests of files that did not change), `partial` (downloads to go on with), `locks` and `leases` (who is working), `run` (containers that run), `tmp`. One store serves any number of projects and processes at once. Deleting the folder is safe while no `ctk` runs; it costs time, nothing else.
"#;

fn commands(ctk: &Ctk<'_>) -> Result<String, String> {
    let folder = Folder::new()?;
    let mut page = String::from(COMMANDS_HEAD);
    let top = help(ctk, &folder, &[])?;
    let (own, global) = split_global(&top);
    let _ =
        write!(page, "\n## ctk\n\n```text\n{own}\n```\n\nEvery command takes these, too:\n\n```text\n{global}\n```\n");
    let mut waiting: Vec<Vec<String>> = subcommands(&top).into_iter().map(|name| vec![name]).rev().collect();
    while let Some(path) = waiting.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let text = help(ctk, &folder, &words)?;
        let _ = write!(page, "\n## ctk {}\n\n```text\n{}\n```\n", words.join(" "), split_global(&text).0);
        for name in subcommands(&text).into_iter().rev() {
            waiting.push(path.iter().cloned().chain([name]).collect());
        }
    }
    Ok(page)
}

/// The command line of `ctk-runtime`, which `ctk runtime` is too.
fn runtime_commands(ctk: &Ctk<'_>) -> Result<String, String> {
    let folder = Folder::new()?;
    let top = ctk.output(&["runtime", "--help"], &folder.inner())?;
    let mut page = format!("{RUNTIME_HEAD}\n```text\n{top}\n```\n");
    for verb in subcommands(&top) {
        let text = ctk.output(&["runtime", &verb, "--help"], &folder.inner())?;
        let own = text.split("\n\nOptions of every command").next().unwrap_or_default();
        let _ = write!(page, "\n## ctk-runtime {verb}\n\n```text\n{own}\n```\n");
    }
    Ok(page)
}

const RUNTIME_HEAD: &str = "# Commands of ctk-runtime

This page is what `ctk-runtime --help` says, written by `cargo xtask codegen`. [runtime.md](runtime.md) tells how to use
it.
";

fn help(ctk: &Ctk<'_>, folder: &Folder, path: &[&str]) -> Result<String, String> {
    let mut words = path.to_vec();
    words.push("--help");
    // clap shows a variable's value; there is none.
    Ok(ctk.output(&words, &folder.inner())?.replace("=]", "]"))
}

/// The help without the options that every command has, and those.
fn split_global(help: &str) -> (&str, &str) {
    match help.split_once("\n\nGlobal options:\n") {
        Some((own, global)) => (own, global),
        None => (help, ""),
    }
}

fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|n| *n != "help").map(str::to_owned).collect()
}

// Error codes.

fn error_list(root: &Path) -> String {
    let mut areas: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (code, meaning) in codes(root) {
        let (area, name) = code.split_once("::").unwrap_or((&code, ""));
        areas.entry(area.to_owned()).or_default().push((name.to_owned(), meaning));
    }
    let mut page = String::from(
        "# Error codes\n\n*Written by `cargo xtask codegen` from the `codes.rs` of every crate.*\n\n\
         An error says its code in brackets: `error[project::cycle]`. Each has a page.\n",
    );
    for (area, names) in areas {
        let _ = write!(page, "\n## {area}\n\n| Code | Meaning |\n|---|---|\n");
        for (name, meaning) in names {
            let _ = writeln!(page, "| [{area}::{name}]({area}/{name}.md) | {} |", meaning.replace('|', "\\|"));
        }
    }
    page
}

/// Every code with its meaning, sorted: from `NAME = "area::name", "meaning";`, or from a constant and its row
/// `(NAME, "meaning")`.
pub fn codes(root: &Path) -> BTreeMap<String, String> {
    let code = Regex::new(r#"\b([A-Z0-9_]+)(?:: &str)? = "([a-z0-9]+::[a-z0-9-]+)"(?:,\s*"([^"]*)")?"#).expect("valid");
    let row = Regex::new(r#"\(([A-Z0-9_]+),\s*"([^"]*)"\)"#).expect("valid");
    let mut codes = BTreeMap::new();
    for path in sources(root).iter().filter(|path| path.ends_with("codes.rs")) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let rows: BTreeMap<&str, &str> =
            row.captures_iter(&text).map(|found| found.extract()).map(|(_, [name, meaning])| (name, meaning)).collect();
        for found in code.captures_iter(&text) {
            let meaning = found.get(3).map(|m| m.as_str()).or_else(|| rows.get(&found[1]).copied());
            codes.insert(found[2].to_owned(), meaning.unwrap_or_default().to_owned());
        }
    }
    codes
}

// Examples.

/// A fenced block: the words after the fence, its text, and the place of that text in the page.
struct Block<'a> {
    info: Vec<&'a str>,
    text: &'a str,
    start: usize,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let fence = Regex::new(r"(?ms)^```([^\n]*)\n(.*?)^```$").expect("valid");
    let found = fence.captures_iter(page).filter_map(|found| {
        let text = found.get(2)?;
        let info = found.get(1)?.as_str().split_whitespace().collect();
        Some(Block { info, text: text.as_str(), start: text.start() })
    });
    found.collect()
}

/// The page with the output of its example as `ctk` gives it now. Pages without input files, and with commands that
/// are not [`REPEATABLE`], stay as they are.
fn example(ctk: &Ctk<'_>, page: &str) -> Result<String, String> {
    let folder = Folder::new()?;
    let mut inputs = 0;
    for block in blocks(page) {
        let name = match block.info.as_slice() {
            ["kdl"] => "containers.kdl",
            ["console"] => {
                let Some((first, _)) = block.text.split_once('\n') else { continue };
                let words: Vec<&str> = first.trim_start_matches("$ ").split_whitespace().collect();
                let ["ctk", arguments @ ..] = words.as_slice() else { continue };
                if inputs == 0 || !arguments.first().is_some_and(|word| REPEATABLE.contains(word)) {
                    continue;
                }
                // Files that an example copies or reads need no block of their own.
                folder.put("hello.txt", "hello\n")?;
                let output = ctk.output(arguments, &folder.inner())?;
                let end = block.start + block.text.len();
                return Ok(format!("{}{first}\n{output}\n{}", &page[..block.start], &page[end..]));
            }
            [_, name] => name,
            _ => continue,
        };
        folder.put(name, block.text)?;
        inputs += 1;
    }
    Ok(page.to_owned())
}

/// Checks the project that the `kdl` blocks of a page are.
fn project(ctk: &Ctk<'_>, path: &Path) -> Result<(), String> {
    let page = read(path)?;
    let texts: Vec<&str> = blocks(&page).into_iter().filter(|b| b.info == ["kdl"]).map(|b| b.text).collect();
    let folder = Folder::new()?;
    folder.put("containers.kdl", &texts.join("\n"))?;
    // `check` reads the Dockerfiles that a project names.
    for dockerfile in ["Dockerfile", "web/Dockerfile"] {
        folder.put(dockerfile, "FROM scratch AS runtime\n")?;
    }
    let output = ctk.output(&["check"], &folder.inner())?;
    match output.contains("no mistakes") {
        true => Ok(()),
        false => Err(format!("the kdl blocks of {} have mistakes:\n{output}", path.display())),
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_help() {
        let help = "About\n\nCommands:\n  init  Write\n  serve\n          Serve\n  help  Print\n\nOptions:\n  -h";
        assert_eq!(subcommands(help), ["init", "serve"]);
        assert_eq!(subcommands("About\n\nOptions:\n  -h"), [""; 0]);
    }

    #[test]
    fn options_of_every_command_are_said_once() {
        assert_eq!(split_global("a\n\nGlobal options:\n  -C"), ("a", "  -C"));
        assert_eq!(split_global("a"), ("a", ""));
    }

    #[test]
    fn blocks_have_words_and_text() {
        let page = "a\n```kdl\nx\n```\n```text b.txt\ny\nz\n```\n";
        let found: Vec<_> = blocks(page).into_iter().map(|block| (block.info, block.text, block.start)).collect();
        assert_eq!(found, [(vec!["kdl"], "x\n", 9), (vec!["text", "b.txt"], "y\nz\n", 29)]);
    }
}
