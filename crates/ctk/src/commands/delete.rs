//! `ctk delete`: tags and manifests of a registry, with what refers to them.

use clap::{Args, ValueEnum};
use ctk_client::{ClientError, DeleteOptions, Doomed, DoomedKind};
use serde_json::{Value, json};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Delete tags or manifests from a registry
#[derive(Args)]
pub struct Delete {
    /// `HOST/REPOSITORY:TAG` is the tag alone, `HOST/REPOSITORY@DIGEST` the manifest with all its tags
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// The manifest that a tag names, with all its tags
    #[arg(long)]
    manifest: bool,
    /// Also what refers to the manifest, and what refers to that; means --manifest
    #[arg(long)]
    referrers: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Don't fail for what isn't there
    #[arg(short, long)]
    force: bool,
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line each, as it goes.
    Lines,
    /// One JSON value.
    Json,
}

impl Delete {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let client = context.client();
        let options = DeleteOptions { manifest: self.manifest, referrers: self.referrers };
        // All is looked up before anything goes: a misspelt name among several changes nothing.
        let mut doomed: Vec<Doomed> = Vec::new();
        for name in &self.references {
            let reference = &context.full_name(name, &cancel)?;
            if reference.tag().is_none() && reference.digest().is_none() {
                let text = format!("`{reference}` names a repository");
                return Err(Failure::sentence(text, Some("say which tag (`:TAG`) or manifest (`@DIGEST`)")));
            }
            let found = client.doomed(reference, options, &cancel).map_err(of_client)?;
            if found.is_empty() && !self.force {
                let hint = format!("`ctk tags {}/{}` lists what exists", reference.registry(), reference.repository());
                return Err(Failure::sentence(format!("`{reference}` does not exist"), Some(&hint)));
            }
            let fresh: Vec<Doomed> = found.into_iter().filter(|one| !doomed.contains(one)).collect();
            doomed.extend(fresh);
        }
        let mut told = Vec::new();
        for one in &doomed {
            let deleted = match self.dry_run {
                true => false,
                false => client.delete_doomed(one, &cancel).map_err(|error| explain(one, error))?,
            };
            match self.format {
                Format::Json => told.push(value(one, deleted)),
                // Told at once: should the next one fail, this one is gone all the same.
                Format::Lines => output(&line(one, self.dry_run, deleted))?,
            }
        }
        match self.format {
            Format::Json => output(&(serde_json::to_string_pretty(&told)? + "\n")),
            Format::Lines => Ok(()),
        }
    }
}

fn word(kind: DoomedKind) -> &'static str {
    match kind {
        DoomedKind::Tag => "tag",
        DoomedKind::Manifest => "manifest",
        DoomedKind::Referrer => "referrer",
        DoomedKind::List => "list of referrers",
    }
}

fn line(one: &Doomed, dry_run: bool, deleted: bool) -> String {
    let done = match (dry_run, deleted) {
        (true, _) => "would delete",
        (false, true) => "deleted",
        (false, false) => "gone already:",
    };
    let kind = one.artifact_type.as_ref().map(|kind| format!(" ({kind})")).unwrap_or_default();
    format!("{done} {} {}{kind}\n", word(one.kind), one.reference)
}

fn value(one: &Doomed, deleted: bool) -> Value {
    let kind = word(one.kind).replace(' ', "-");
    let mut value = json!({ "reference": one.reference.to_string(), "kind": kind, "deleted": deleted });
    if let Some(kind) = &one.artifact_type {
        value["artifactType"] = json!(kind);
    }
    value
}

/// Registries say little about why they delete nothing.
fn explain(one: &Doomed, error: ClientError) -> Failure {
    let hint = match (error.status(), one.kind) {
        (Some(400 | 405 | 501), DoomedKind::Tag) => {
            "this registry deletes no tag alone; `--manifest` deletes the manifest that it names, with all its tags"
        }
        (Some(400 | 405 | 501), _) => "this registry is set up to delete nothing",
        _ => return of_client(error),
    };
    Failure::Error { code: None, error: Box::new(error), hint: Some(hint.into()) }
}
