//! `ctk pipeline run`: steps are run, and what happens is kept as a record.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};
use ctk_pipeline::project::Steps;
use ctk_pipeline::run::native::Program;
use ctk_pipeline::run::record::{Record, clear, header_steps};
use ctk_pipeline::run::secrets::{Given, parse_source, values};
use ctk_pipeline::run::storage::{Mapping, ask_vault, tell};
use ctk_pipeline::run::{
    Ending, Job, Journal, Outcome, Request, SecretSource, Settings, collect_junit, enter, fill, html, limits, places,
};
use ctk_plan::Address;
use ctk_snapshot::Snapshots;
use serde_json::{Value, json};

use super::{FileArgs, of_run, records};
use crate::commands::project::pair;
use crate::commands::{Arguments, Command as Verb, output};
use crate::context::Context;
use crate::failure::{Failure, code};
use crate::report::duration;

/// A run that took longer than it may exits with this, as `timeout` does.
const EXIT_TIMED_OUT: u8 = 124;

/// Run a file's steps, or a pipeline of the project
///
/// FILE may also be the name of a pipeline in containers.kdl.
///
/// Exits with 0 when all went well, 1 when a step failed or the file is wrong, 124 when the run took longer than its
/// timeout, 125 when it could not be made, and 130 when it was interrupted.
#[derive(Args, Clone)]
pub struct Run {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Clone)]
struct How {
    /// The folder that is copied into the workspace; what `.gcloudignore`, else `.gitignore`, names stays out [default: .]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Begin with an empty workspace
    #[arg(long, conflicts_with = "source")]
    no_source: bool,
    /// Go on with an earlier run from what failed: its id, the beginning of it, or `latest`
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    /// Steps that run at once, at most
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// What stands for a secret of the cloud: the variable's or the secret's name, and env:NAME, file:PATH,
    /// command:LINE or vault:PATH#FIELD
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = secret)]
    secrets: Vec<(String, SecretSource)>,
    /// Where a bucket or repository of the cloud is here: a folder, s3://BUCKET, or a URL
    #[arg(long = "map", value_name = "ADDRESS=PLACE")]
    map: Vec<String>,
    /// Between the signal that asks a step to end and the one that ends it [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = time)]
    grace: Option<Duration>,
    /// Give steps every right on this machine, as Cloud Build does on its own
    #[arg(long)]
    privileged: bool,
    /// Push and upload nothing at the end
    #[arg(long)]
    no_push: bool,
    /// Keep the workspace when all went well
    #[arg(long)]
    keep: bool,
    /// Say where a run here and one in Cloud Build could differ, and run nothing
    #[arg(long)]
    explain: bool,
    /// Read JUnit reports of the workspace that the pattern names, e.g. `**/junit*.xml`
    #[arg(long, value_name = "PATTERN")]
    junit: Vec<String>,
    /// Write the run as one HTML file when it has ended
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    html: Option<PathBuf>,
    /// Set a variable of the project
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    vars: Vec<(String, String)>,
    /// POST to this URL when the run begins and when it ends
    #[arg(long, value_name = "URL")]
    webhook: Vec<String>,
}

fn secret(text: &str) -> Result<(String, SecretSource), String> {
    let (name, source) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=SOURCE")?;
    let source = match parse_source(source)? {
        SecretSource::File { path } => {
            let path = std::path::absolute(&path).map_err(|error| error.to_string())?;
            SecretSource::File { path: path.display().to_string() }
        }
        source => source,
    };
    Ok((name.to_owned(), source))
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    ctk_syntax::parse_duration(text).ok_or_else(|| "expected a duration such as `10s`".into())
}

/// What a run needs to be read again.
#[derive(serde::Serialize, serde::Deserialize)]
struct Again {
    arguments: Vec<String>,
    build_id: String,
}

/// What is to be run.
struct Asked {
    job: Job,
    /// Of a Cloud Build file.
    looked: Option<super::Looked>,
    /// Images of the project that steps use.
    images: BTreeSet<Address>,
    /// The project's folder.
    source: Option<PathBuf>,
    junit: Vec<String>,
    webhooks: Vec<String>,
}

/// A run that has a record.
struct Begun {
    journal: Journal,
    earlier: Option<Record>,
    job: Job,
    how: How,
    source: Option<PathBuf>,
}

impl Run {
    /// Whether nothing runs.
    pub fn only_explains(&self) -> bool {
        self.how.explain
    }

    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if self.how.explain {
            let asked = self.job(context, "00000000-0000-0000-0000-000000000000")?;
            let text =
                super::explain::text(asked.looked.as_ref(), &asked.job, self.how.privileged, &mapping(&self.how.map)?);
            return output(&text);
        }
        let begun = match self.how.resume.clone() {
            None => self.begin(context)?,
            Some(id) => self.resume(context, &id)?,
        };
        let outcome = carry_out(context, &begun).map_err(|failure| match failure {
            Failure::Interrupted => Failure::Interrupted,
            failure => {
                eprint!("{}", failure.text());
                Failure::Exit(code::RUN_FAILED)
            }
        })?;
        conclude(context, &begun, &outcome)
    }

    /// What is asked for: a pipeline of the project, or a file.
    fn job(&self, context: &Context, build_id: &str) -> Result<Asked, Failure> {
        let found = super::project::find(context, self.file.file.as_deref(), &self.how.vars)?;
        let Some((session, decl)) = found else {
            return self.of_file(context, self.file.clone(), build_id);
        };
        let mut asked = match &decl.steps {
            Steps::Own(job) => Asked {
                job: Job::clone(job),
                looked: None,
                images: BTreeSet::new(),
                source: None,
                junit: Vec::new(),
                webhooks: Vec::new(),
            },
            Steps::CloudBuild { file, substitutions } => {
                let own = self.file.of(session.directory().join(file), substitutions);
                let mut asked = self.of_file(context, own, build_id)?;
                asked.job.name = decl.address.to_string();
                asked
            }
        };
        let needs = session.project().get(&decl.address).map(|resource| resource.needs.clone()).unwrap_or_default();
        asked.images = needs.into_iter().filter(|need| need.kind.is_applied()).collect();
        asked.source = Some(session.directory().to_owned());
        asked.junit = decl.junit.clone();
        asked.webhooks = decl.webhooks.clone();
        // Images of the project are made by the project, before any step runs.
        if !asked.images.is_empty() && !self.how.explain {
            let request = ctk_apply::Request { only: asked.images.clone(), ..ctk_apply::Request::default() };
            let applied = session.apply(&request, context.sink(), &ctk_plan::Cancel::new());
            context.explain(applied)?;
        }
        Ok(asked)
    }

    /// What a Cloud Build file asks for, and how it was read.
    fn of_file(&self, context: &Context, mut file: FileArgs, build_id: &str) -> Result<Asked, Failure> {
        if file.build_id.chars().all(|c| c == '0' || c == '-') {
            file.build_id = build_id.to_owned();
        }
        let looked = file.look()?;
        let said = looked.diagnostics.render(&looked.sources, context.color());
        let Some(plan) = looked.plan.as_ref().filter(|_| !looked.diagnostics.has_errors()) else {
            return Err(Failure::Explained(said));
        };
        if context.progress().is_for_people() {
            eprint!("{said}");
        }
        let job = Job::of_plan(&looked.name, plan);
        Ok(Asked {
            job,
            looked: Some(looked),
            images: BTreeSet::new(),
            source: None,
            junit: Vec::new(),
            webhooks: Vec::new(),
        })
    }

    fn begin(mut self, context: &Context) -> Result<Begun, Failure> {
        let build_id = uuid()?;
        let asked = self.job(context, &build_id)?;
        let job = asked.job;
        self.how.junit.extend(asked.junit);
        self.how.webhook.extend(asked.webhooks);
        let here = std::env::current_dir()?;
        let source = match (&self.how.source, self.how.no_source) {
            (_, true) => None,
            (Some(folder), _) => {
                Some(folder.canonicalize().map_err(Failure::during(format!("cannot use {}", folder.display())))?)
            }
            (None, _) => Some(asked.source.unwrap_or_else(|| here.clone())),
        };
        let again = Again { arguments: std::env::args().collect(), build_id };
        let journal = records(context).begin(&id()?, &job, &here, serde_json::to_value(again)?).map_err(of_run)?;
        Ok(Begun { journal, earlier: None, job, how: self.how, source })
    }

    /// The run as it was begun; what is said now comes on top.
    fn resume(self, context: &Context, id: &str) -> Result<Begun, Failure> {
        let records = records(context);
        let found = records.find(id).map_err(of_run)?;
        let id = found.header.id.clone();
        let unreadable = || Failure::sentence(format!("run `{id}` was begun by another version of ctk"), None);
        let again: Again = serde_json::from_value(found.header.again.clone()).map_err(|_| unreadable())?;
        if found.ending() == Some(Ending::Succeeded) {
            let hint = "run the file anew";
            return Err(Failure::sentence(format!("run `{id}` succeeded: there is nothing to go on with"), Some(hint)));
        }
        std::env::set_current_dir(&found.header.directory)
            .map_err(Failure::during(format!("cannot enter {}", found.header.directory.display())))?;
        let first = Arguments::try_parse_from(&again.arguments).map_err(|_| unreadable())?;
        let Verb::Pipeline(super::Pipeline { command: super::Command::Run(first) }) = first.command else {
            return Err(unreadable());
        };
        let asked = first.job(context, &again.build_id)?;
        let job = asked.job;
        let mut how = first.how;
        how.junit.extend(asked.junit);
        how.webhook.extend(asked.webhooks);
        how.secrets.extend(self.how.secrets);
        how.map.extend(self.how.map);
        how.junit.extend(self.how.junit);
        how.webhook.extend(self.how.webhook);
        how.jobs = self.how.jobs.or(how.jobs);
        how.grace = self.how.grace.or(how.grace);
        how.html = self.how.html.or(how.html);
        how.privileged |= self.how.privileged;
        how.no_push |= self.how.no_push;
        how.keep |= self.how.keep;
        let (journal, earlier) = records.resume(&id, &job).map_err(of_run)?;
        super::remove_containers(context, std::slice::from_ref(&id))?;
        Ok(Begun { journal, earlier: Some(earlier), job, how, source: None })
    }
}

fn mapping(map: &[String]) -> Result<Mapping, Failure> {
    let mut mapping = Mapping::default();
    for text in map {
        let (from, to) = text.split_once('=').unwrap_or((text, ""));
        let to = match to.contains("://") || to.is_empty() {
            true => to.to_owned(),
            false => std::path::absolute(to)?.display().to_string(),
        };
        mapping
            .add(&format!("{from}={to}"))
            .map_err(|why| Failure::sentence(format!("--map `{text}`: {why}"), None))?;
    }
    Ok(mapping)
}

/// Bytes that nobody guesses.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A number as Cloud Build gives its builds.
fn uuid() -> Result<String, Failure> {
    let mut bytes = random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// The moment, and something that no other run of the same second has.
fn id() -> Result<String, Failure> {
    let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    Ok(format!("{now}-{}", random::<3>()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// Runs what has begun. Until the places are made there is one thread only.
fn carry_out(context: &Context, begun: &Begun) -> Result<Outcome, Failure> {
    let Begun { journal, job, how, .. } = begun;
    let here = std::env::current_dir()?;
    let settings = Settings {
        at_once: how.jobs.map_or(limits::STEPS_AT_ONCE, usize::from),
        grace: how.grace.unwrap_or(limits::GRACE),
        privileged: how.privileged,
        push: !how.no_push,
        mapping: mapping(&how.map)?,
    };
    let stand_ins: BTreeMap<String, SecretSource> = how.secrets.iter().cloned().collect();
    let environment = |name: &str| context.environment().raw(name);
    let vault = |path: &str| {
        let variable = |name: &str| environment(name).ok_or_else(|| format!("{name} is not set"));
        ask_vault(&variable("VAULT_ADDR")?, &variable("VAULT_TOKEN")?, path)
    };
    let given = Given { stand_ins: &stand_ins, environment: &environment, vault: &vault };
    let secrets = values(&job.secrets, &given).map_err(of_run)?;
    let root = super::absolute(context.options().store);
    let state = super::absolute(context.state_directory());
    let cancel = ctk_plan::Cancel::new();
    if begun.earlier.is_none() {
        fill(journal, job, begun.source.as_deref(), &root, &cancel).map_err(of_run)?;
    }
    let program = std::env::current_exe()?;
    // What is written elsewhere must be seen where it was.
    let mut needed = vec![root.clone(), state.clone()];
    needed.extend(how.html.iter().cloned());
    needed.extend(settings.mapping.0.values().filter(|place| place.starts_with('/')).map(PathBuf::from));
    let needed: Vec<&Path> = needed.iter().map(PathBuf::as_path).collect();
    enter(&journal.folder.join("root"), &places(journal, job).map_err(of_run)?, &needed).map_err(of_run)?;
    // Where paths of the command line begin; it may be hidden now.
    let _ = std::env::set_current_dir(&here);
    crate::signals::cancel_on_interrupt(&cancel);
    let store = context.store()?;
    let snapshots = Snapshots::open_as(&store, context.layers()?);
    let fetch = ctk_client::RegistryFetch::new(context.client());
    let path = if program.is_file() { program } else { "/proc/self/exe".into() };
    let mut env =
        vec![("CTK_ROOT".to_owned(), root.display().to_string()), ("CTK_PROGRESS".to_owned(), "plain".to_owned())];
    if let Some(file) =
        context.options().client.registries.first().filter(|_| context.options().client.registries.len() == 1)
    {
        env.push(("CTK_REGISTRIES".to_owned(), std::path::absolute(file)?.display().to_string()));
    }
    let program = Program { path, words: vec!["pipeline".into(), "carry-out".into()], env };
    let github = context.environment().get("GITHUB_ACTIONS").as_deref() == Some("true");
    let header = &journal.header;
    let steps = header_steps(job);
    let watch = crate::report::pipeline::watch(context.progress(), github, &steps, journal.folder.join("logs"));
    webhooks(how, journal, json!({ "event": "started", "run": header.id, "name": header.name, "steps": steps.len() }));
    let request = Request {
        job,
        journal,
        earlier: begun.earlier.as_ref(),
        settings: &settings,
        store: &store,
        snapshots: &snapshots,
        fetch: &fetch,
        state: &state,
        program: &program,
        secrets: &secrets,
        watch,
        cancel: &cancel,
    };
    let outcome = ctk_pipeline::run::run(&request).map_err(of_run)?;
    drop(request);
    let (step, message) = match outcome.failures.first() {
        Some((step, message)) => (step.map(|step| job.tasks[step].label()), Some(message.clone())),
        None => (None, None),
    };
    let body = json!({ "event": "finished", "run": header.id, "name": header.name, "state": outcome.ending.word(),
                       "seconds": journal.elapsed(), "step": step, "message": message });
    webhooks(how, journal, body);
    Ok(outcome)
}

fn webhooks(how: &How, journal: &Journal, body: Value) {
    for url in &how.webhook {
        if let Err(why) = tell(url, &body) {
            let message = format!("a webhook was not told: {why}");
            eprintln!("warning: {message}");
            journal.write(&ctk_pipeline::run::Event::Warning { step: None, message });
        }
    }
}

/// Says how it ended; the exit code says it, too.
fn conclude(context: &Context, begun: &Begun, outcome: &Outcome) -> Result<(), Failure> {
    let Begun { journal, job, how, .. } = begun;
    let id = &journal.header.id;
    if !how.junit.is_empty() {
        junit(journal, how)?;
    }
    if outcome.ending == Ending::Succeeded && !how.keep {
        clear(journal).map_err(of_run)?;
    }
    let record = records(context).find(id).map_err(of_run)?;
    if let Some(path) = &how.html {
        std::fs::write(path, html(&record)).map_err(Failure::during(format!("cannot write {}", path.display())))?;
    }
    let count = job.tasks.len();
    let plural = if count == 1 { "" } else { "s" };
    let took = duration(record.last());
    output(&format!("{id} {}: {count} step{plural} in {took}\n", outcome.ending.word()))?;
    match outcome.ending {
        Ending::Succeeded => Ok(()),
        Ending::Cancelled => {
            eprintln!("interrupted; `ctk pipeline run --resume {id}` goes on with it");
            Err(Failure::Exit(code::INTERRUPTED))
        }
        ending => {
            let mut text = String::new();
            for (step, why) in &outcome.failures {
                text += &story(&record, *step, why);
            }
            text += &format!("  hint: `ctk pipeline run --resume {id}` goes on from what failed\n");
            eprint!("{text}");
            Err(Failure::Exit(if ending == Ending::TimedOut { EXIT_TIMED_OUT } else { code::FAILURE }))
        }
    }
}

/// What failed: the step, what it ran, how it ended, and where its lines are.
fn story(record: &Record, step: Option<usize>, why: &str) -> String {
    let Some(number) = step else { return format!("error: {why}\n") };
    let Some(step) = record.header.steps.get(number) else { return format!("error: {why}\n") };
    let line: String = step.line.chars().take(400).collect();
    let log = record.log(number);
    format!("error: step {} failed: {why}\n  it ran: {line}\n  its log: {}\n", step.label, log.display())
}

/// Reads the reports before the workspace goes.
fn junit(journal: &Journal, how: &How) -> Result<(), Failure> {
    let summary = collect_junit(&journal.folder.join("workspace"), &how.junit).map_err(of_run)?;
    let path = journal.folder.join("junit.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&summary)?)
        .map_err(Failure::during(format!("cannot write {}", path.display())))?;
    let mut text = format!("{} ({} reports)\n", summary.line(), summary.files);
    for bad in &summary.bad {
        text += &format!("  ✗ {bad}\n");
    }
    for name in &summary.unreadable {
        text += &format!("  ! {name} is no JUnit report\n");
    }
    output(&text)
}
