//! Comparisons with the peers of the package archive, as ratios within one run.
//!
//! Machines are shared and noisy: contenders take turns, the median counts, and only ratios
//! travel. Benchmarks are no tests: nothing here fails because something was slow.

mod builds;
mod cases;
mod containers;
mod forms;
mod layers;
mod lives;
mod others;
mod pipelines;
mod registries;
mod scale;
mod transfers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::ci;

/// Which comparisons to make.
#[derive(Args)]
pub struct Bench {
    /// Only comparisons whose name contains this.
    filter: Option<String>,
    /// Rounds; each contender runs once a round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Replace the table of docs/performance.md.
    #[arg(long)]
    write: bool,
}

/// Makes what is run next.
type Make = Box<dyn FnMut() -> Result<Command, String>>;

/// One contender: what to do before each round, untimed, and what is timed.
pub struct Contender {
    /// As the table names it.
    pub name: String,
    prepare: Option<Make>,
    command: Make,
}

impl Contender {
    /// A contender without preparation.
    pub fn new(name: &str, command: Command) -> Contender {
        Contender::making(name, again(command))
    }

    /// A contender whose command is another each round.
    pub fn making(name: &str, command: impl FnMut() -> Result<Command, String> + 'static) -> Contender {
        Contender { name: name.into(), prepare: None, command: Box::new(command) }
    }

    /// The same, with something to do before each round.
    pub fn after(self, prepare: Command) -> Contender {
        self.after_making(again(prepare))
    }

    /// The same, with something else to do before each round.
    pub fn after_making(mut self, prepare: impl FnMut() -> Result<Command, String> + 'static) -> Contender {
        self.prepare = Some(Box::new(prepare));
        self
    }
}

impl Contender {
    /// Prepared and run, untimed.
    fn once(&mut self) -> Result<(), String> {
        if let Some(prepare) = &mut self.prepare {
            quiet(&mut prepare()?)?;
        }
        quiet(&mut (self.command)()?)
    }

    /// The memory that it took at most, in MiB, in a run of its own; none without GNU time.
    fn peak(&mut self) -> Result<Option<u64>, String> {
        const TIME: &str = "/usr/bin/time";
        if !Path::new(TIME).exists() {
            return Ok(None);
        }
        if let Some(prepare) = &mut self.prepare {
            quiet(&mut prepare()?)?;
        }
        let measured = again((self.command)()?)()?;
        let mut command = Command::new(TIME);
        command.args(["--quiet", "-f", "%M"]).arg(measured.get_program()).args(measured.get_args());
        for (name, value) in measured.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        if let Some(folder) = measured.get_current_dir() {
            command.current_dir(folder);
        }
        let output = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run {TIME}: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(said.lines().last().and_then(|line| line.trim().parse::<u64>().ok()).map(|kib| kib.div_ceil(1024)))
    }
}

/// The same program with the same words, each time.
fn again(command: Command) -> impl FnMut() -> Result<Command, String> {
    move || {
        let mut next = Command::new(command.get_program());
        next.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => next.env(name, value),
                None => next.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            next.current_dir(folder);
        }
        Ok(next)
    }
}

/// One comparison; the first contender is ours.
pub struct Comparison {
    /// As the table names it.
    pub name: &'static str,
    /// What was asked of ours: `at most 1/4 of mmdebstrap`.
    pub bar: &'static str,
    /// Rounds at least, for short runs.
    pub rounds: usize,
    /// Who runs.
    pub contenders: Vec<Contender>,
}

/// Folders and programs that the cases share.
#[derive(Clone)]
pub struct Ground {
    /// The release binary.
    pub ctk: PathBuf,
    /// The workspace.
    pub root: PathBuf,
    /// A fresh folder on a real disk; removed afterwards.
    pub scratch: PathBuf,
}

impl Ground {
    /// `ctk` with a store below the scratch folder.
    pub fn ctk(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ctk);
        command.env("CTK_ROOT", self.scratch.join("store")).args(arguments);
        command
    }

    /// A shell script with `$S` as the scratch folder and `$CTK` as the binary.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).env("S", &self.scratch).env("CTK", &self.ctk);
        command.env("CTK_ROOT", self.scratch.join("store")).env("ROOT", &self.root);
        // podman asks for more than a machine may give even to root.
        command.env("LIMITS", "--ulimit nofile=1024:1024 --ulimit nproc=4096:4096");
        command
    }
}

impl Bench {
    /// Runs what was asked for and prints the table.
    pub fn run(&self, root: &Path) -> Result<(), String> {
        let ctk = ci::release_binary(root)?;
        let scratch = PathBuf::from(format!("/var/tmp/ctk-bench-{}", std::process::id()));
        fs::create_dir_all(&scratch).map_err(|e| format!("cannot make {}: {e}", scratch.display()))?;
        let ground = Ground { ctk, root: root.to_path_buf(), scratch };
        let result = self.compare(&ground);
        let _ = fs::remove_dir_all(&ground.scratch);
        let table = result?;
        print!("{table}");
        if self.write { write_table(root, &table) } else { Ok(()) }
    }

    fn compare(&self, ground: &Ground) -> Result<String, String> {
        let mut table = String::from(
            "| What | Who | median | best | ours : theirs | peak memory | bar |\n|---|---|---|---|---|---|---|\n",
        );
        for case in cases::CASES
            .iter()
            .chain(layers::CASES)
            .chain(scale::CASES)
            .chain(builds::CASES)
            .chain(containers::CASES)
            .chain(pipelines::CASES)
            .chain(lives::CASES)
            .chain(forms::CASES)
            .chain(transfers::CASES)
            .chain(registries::CASES)
        {
            if self.filter.as_ref().is_some_and(|filter| !case.name.contains(filter.as_str())) {
                continue;
            }
            eprintln!("bench: {}", case.name);
            let comparison = (case.make)(ground)?;
            let rounds = self.rounds.max(comparison.rounds);
            table.push_str(&rows(comparison, rounds)?);
        }
        Ok(table)
    }
}

fn rows(mut comparison: Comparison, rounds: usize) -> Result<String, String> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); comparison.contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in comparison.contenders.iter_mut().zip(&mut times) {
            if let Some(prepare) = &mut contender.prepare {
                quiet(&mut prepare()?)?;
            }
            let mut command = (contender.command)()?;
            settle();
            let started = Instant::now();
            quiet(&mut command)?;
            times.push(started.elapsed());
        }
    }
    let peak = comparison.contenders[0].peak()?.map(|mib| format!("{mib} MiB")).unwrap_or_default();
    let ours = median(&mut times[0]);
    let mut text = String::new();
    for (place, (contender, times)) in comparison.contenders.iter().zip(&mut times).enumerate() {
        let theirs = median(times);
        let ratio =
            if place == 0 { String::new() } else { format!("{:.3}", ours.as_secs_f64() / theirs.as_secs_f64()) };
        let (name, peak, bar) =
            if place == 0 { (comparison.name, peak.as_str(), comparison.bar) } else { ("", "", "") };
        let best = times[0];
        text += &format!(
            "| {name} | {} | {} | {} | {ratio} | {peak} | {bar} |\n",
            contender.name,
            show(theirs),
            show(best)
        );
    }
    Ok(text)
}

/// Lets the machine finish what the one before has left to it: files to be written, namespaces and memory to be freed.
fn settle() {
    let _ = Command::new("sync").status();
    std::thread::sleep(Duration::from_millis(100));
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn show(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{:.1} ms", s * 1000.0),
        s => format!("{s:.2} s"),
    }
}

/// Runs to the end; what it printed is shown only if it failed.
pub fn quiet(command: &mut Command) -> Result<(), String> {
    let line = crate::describe(command);
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run {line}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{line}: {}\n{said}", output.status))
}

const BEGIN: &str = "<!-- bench: begin -->\n";
const END: &str = "<!-- bench: end -->\n";

fn write_table(root: &Path, table: &str) -> Result<(), String> {
    let path = root.join("docs/performance.md");
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/performance.md has no begin mark")?;
    let (old, after) = rest.split_once(END).ok_or("docs/performance.md has no end mark")?;
    let table = merged(old, table);
    fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).map_err(|e| format!("cannot write: {e}"))
}

/// The rows of `old`, with the comparisons of `new` in place of those of the same name, or at the end.
fn merged(old: &str, new: &str) -> String {
    let (head, old) = groups(old);
    let (new_head, mut new) = groups(new);
    let mut kept: Vec<String> = Vec::new();
    for (name, rows) in old {
        match new.iter().position(|(other, _)| *other == name) {
            Some(at) => kept.push(new.remove(at).1),
            None => kept.push(rows),
        }
    }
    kept.extend(new.into_iter().map(|(_, rows)| rows));
    let head = if head.is_empty() { new_head } else { head };
    format!("{head}{}", kept.concat())
}

/// The table's head, and its comparisons by name: a row without a name belongs to the one before.
fn groups(table: &str) -> (String, Vec<(String, String)>) {
    let mut lines = table.split_inclusive('\n');
    let head: String = lines.by_ref().take(2).collect();
    let mut groups: Vec<(String, String)> = Vec::new();
    for line in lines {
        let name = line.split('|').nth(1).unwrap_or_default().trim();
        match groups.last_mut() {
            Some((_, rows)) if name.is_empty() => rows.push_str(line),
            _ => groups.push((name.to_owned(), line.to_owned())),
        }
    }
    (head, groups)
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn one_comparison_replaces_its_rows_alone() {
        let old = "| What |\n|---|\n| a | 1 |\n|  | 2 |\n| b | 3 |\n";
        let new = "| What |\n|---|\n| b | 4 |\n|  | 5 |\n| c | 6 |\n";
        assert_eq!(merged(old, new), "| What |\n|---|\n| a | 1 |\n|  | 2 |\n| b | 4 |\n|  | 5 |\n| c | 6 |\n");
    }
}
