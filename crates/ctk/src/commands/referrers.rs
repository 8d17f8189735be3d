//! `ctk referrers`: what is attached to an image in a registry.

use clap::{Args, ValueEnum};
use ctk_client::{Listing, Referrer};
use ctk_oci::Platform;
use serde_json::{Value, json};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// List what refers to an image: signatures, SBOMs, attestations
#[derive(Args)]
pub struct Referrers {
    /// The image, by tag or digest
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Only those of this artifact type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// What refers to the image for this platform, not to the index
    #[arg(long)]
    platform: Option<Platform>,
    /// How they are told; a tree has what refers to them, too
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Also what refers to them, in JSON
    #[arg(short, long)]
    recursive: bool,
}

/// How results are told.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line each.
    Table,
    /// With what refers to them below them.
    Tree,
    /// One JSON value.
    Json,
}

impl Referrers {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let reference = context.full_name(&self.reference, &cancel)?.or_latest();
        let deep = self.format == Format::Tree || self.recursive;
        let kind = self.artifact_type.as_deref();
        let found = context.client().referrers(&reference, self.platform.as_ref(), kind, deep, &cancel);
        let found = found.map_err(of_client)?;
        match self.format {
            Format::Table => {
                let kinds: Vec<&str> = found.found.iter().map(kind_of).collect();
                let width = kinds.iter().map(|kind| kind.len()).max().unwrap_or(0).max(13);
                let mut text = format!("{:width$}  {:>8}  DIGEST\n", "ARTIFACT TYPE", "SIZE");
                for (kind, referrer) in kinds.iter().zip(&found.found) {
                    let size = crate::report::size(referrer.descriptor.size);
                    text += &format!("{kind:width$}  {size:>8}  {}\n", referrer.descriptor.digest);
                }
                output(&text)
            }
            Format::Tree => {
                let mut text = format!("{reference} {}\n", found.subject.digest);
                branches(&found.found, "", &mut text);
                output(&text)
            }
            Format::Json => {
                let listing = match found.listing {
                    Listing::Registry => "registry",
                    Listing::Tag => "tag",
                };
                let referrers: Vec<Value> = found.found.iter().map(|referrer| value(referrer, deep)).collect();
                let whole = json!({ "subject": found.subject, "listing": listing, "referrers": referrers });
                output(&(serde_json::to_string_pretty(&whole)? + "\n"))
            }
        }
    }
}

fn kind_of(referrer: &Referrer) -> &str {
    referrer.descriptor.artifact_type.as_deref().unwrap_or("-")
}

fn branches(referrers: &[Referrer], indent: &str, text: &mut String) {
    for (place, referrer) in referrers.iter().enumerate() {
        let last = place + 1 == referrers.len();
        let (branch, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        *text += &format!("{indent}{branch}{} {}\n", kind_of(referrer), referrer.descriptor.digest);
        branches(&referrer.referrers, &format!("{indent}{below}"), text);
    }
}

fn value(referrer: &Referrer, deep: bool) -> Value {
    let mut value = json!(referrer.descriptor);
    if deep {
        value["referrers"] = referrer.referrers.iter().map(|below| self::value(below, deep)).collect();
    }
    value
}
