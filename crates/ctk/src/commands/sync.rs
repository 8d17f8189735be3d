//! `ctk sync`: many images from registry to registry, as a file lists them.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ctk_client::{Client, Credentials, PARALLEL_BLOBS, Secret};
use ctk_push::sync::{SyncFile, SyncItem, SyncOptions, SyncOutcome, SyncSyntax, sync};
use serde_json::{Value, json};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};
use crate::report::size;

/// Copy many images from registry to registry, as a file lists them; only what is missing
#[derive(Args)]
pub struct Sync {
    /// KDL (`.kdl`), skopeo's YAML (`.yaml`), or lines of `SOURCE [TARGET]`; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the file is written [default: as its name ends]
    #[arg(long, value_enum, value_name = "SYNTAX")]
    syntax: Option<Syntax>,
    /// Where to, for what does not say it: `HOST/PREFIX`; before the file's own `to`
    #[arg(long, value_name = "PLACE")]
    to: Option<String>,
    /// The source's host becomes a part of the target's name
    #[arg(long)]
    scoped: bool,
    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Images on their way at once
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Print a report of all images in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Syntax {
    /// `copy "SOURCE" { tag "…" }`.
    Kdl,
    /// `SOURCE [TARGET]` a line.
    Lines,
    /// As `skopeo sync --src yaml` reads it.
    Yaml,
}

impl Sync {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let (name, text) = self.read()?;
        let syntax = match self.syntax {
            Some(Syntax::Kdl) => SyncSyntax::Kdl,
            Some(Syntax::Lines) => SyncSyntax::Lines,
            Some(Syntax::Yaml) => SyncSyntax::Yaml,
            None => SyncSyntax::of(&name),
        };
        let mut file = SyncFile::parse(&name, &text, syntax, context.color()).map_err(Failure::Explained)?;
        if let Some(to) = &self.to {
            let wrong = |reason: String| Failure::sentence(format!("`--to {to}` is no place: {reason}"), None);
            file.set_to(to).map_err(wrong)?;
        }
        file.scoped |= self.scoped;
        let client = self.client(context, &file);
        let options = SyncOptions { dry_run: self.dry_run, jobs: self.jobs.into() };
        let json = self.json;
        let told = |item: &SyncItem| {
            if !json {
                // What a closed pipe does not take is in the exit code all the same.
                let _ = output(&line(item));
            }
        };
        let items = sync(&client, &file, options, &context.sink(), &told, &cancel);
        context.end_story();
        let items = items.map_err(of_client)?;
        let count = |what: fn(&SyncOutcome) -> bool| items.iter().filter(|item| what(&item.outcome)).count();
        let failed = count(|outcome| matches!(outcome, SyncOutcome::Failed { .. }));
        let copied = count(|outcome| matches!(outcome, SyncOutcome::Copied(_)));
        let missing = count(|outcome| matches!(outcome, SyncOutcome::Missing));
        let present = count(|outcome| matches!(outcome, SyncOutcome::Present));
        let bytes: u64 =
            items.iter().map(|item| if let SyncOutcome::Copied(sent) = &item.outcome { sent.bytes } else { 0 }).sum();
        if json {
            let whole = json!({
                "copied": copied, "present": present, "missing": missing, "failed": failed, "bytes": bytes,
                "images": items.iter().map(value).collect::<Vec<_>>(),
            });
            output(&(serde_json::to_string_pretty(&whole)? + "\n"))?;
        } else {
            let done = match self.dry_run {
                true => format!("{missing} would be copied"),
                false => format!("{copied} copied ({} sent)", size(bytes)),
            };
            output(&format!("{done}, {present} already there, {failed} failed\n"))?;
        }
        match failed {
            0 => Ok(()),
            _ => {
                let hint = "run it again to go on; what is there is not copied again";
                Err(Failure::sentence(format!("{failed} of {} could not be copied", items.len()), Some(hint)))
            }
        }
    }

    fn read(&self) -> Result<(String, String), Failure> {
        if self.file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().lock().take(FILE_LIMIT_BYTES).read_to_string(&mut text)?;
            return Ok(("standard input".into(), text));
        }
        let name = self.file.display().to_string();
        let text = ctk_store::read_given_text(&self.file).map_err(Failure::during(format!("cannot read `{name}`")))?;
        Ok((name, text))
    }

    /// With what a file of skopeo's says about registries.
    fn client(&self, context: &Context, file: &SyncFile) -> Client {
        let mut options = context.options().client;
        for host in &file.hosts {
            if let Some((user, password)) = &host.credentials {
                let credentials = Credentials::Basic { user: user.clone(), password: Secret::new(password.as_str()) };
                options.credentials.insert(host.name.clone(), credentials);
            }
            if host.insecure {
                options.insecure.push(host.name.clone());
            }
        }
        // Several images share what one would have alone, but each may move.
        options.parallel = (PARALLEL_BLOBS * 2 / usize::from(self.jobs)).max(2);
        Client::new(options)
    }
}

/// Largest file read from standard input, in bytes.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

fn line(item: &SyncItem) -> String {
    let to = item.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    match &item.outcome {
        SyncOutcome::Present => String::new(),
        SyncOutcome::Copied(sent) => format!("copied {}{to} ({})\n", item.from, size(sent.bytes)),
        SyncOutcome::Missing => format!("would copy {}{to}\n", item.from),
        SyncOutcome::Failed { reason, hint } => {
            let hint = hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            format!("failed {}{to} ({}): {reason}{hint}\n", item.from, item.place)
        }
    }
}

fn value(item: &SyncItem) -> Value {
    let mut value = json!({ "from": item.from, "place": item.place });
    if let Some(to) = &item.to {
        value["to"] = json!(to);
    }
    if let Some(digest) = &item.digest {
        value["digest"] = json!(digest);
    }
    let outcome = match &item.outcome {
        SyncOutcome::Present => "present",
        SyncOutcome::Missing => "missing",
        SyncOutcome::Copied(sent) => {
            value["blobs"] = json!({ "uploaded": sent.uploaded, "mounted": sent.mounted, "present": sent.present });
            value["bytes"] = json!(sent.bytes);
            "copied"
        }
        SyncOutcome::Failed { reason, hint } => {
            value["error"] = json!(reason);
            if let Some(hint) = hint {
                value["hint"] = json!(hint);
            }
            "failed"
        }
    };
    value["outcome"] = json!(outcome);
    value
}
