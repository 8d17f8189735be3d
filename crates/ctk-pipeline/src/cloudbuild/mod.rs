//! Cloud Build files: from text to a build whose substitutions are made and whose rules hold.
//!
//! | stage | file |
//! |---|---|
//! | what fields there are | `schema.rs` |
//! | names, types, duplicates | `value.rs` |
//! | substitutions | `substitutions.rs` |
//! | fields as Rust has them | `decode.rs` |
//! | limits and rules | `rules.rs`, `secrets.rs`, `steps.rs` |

mod decode;
mod rules;
pub mod schema;
mod secrets;
mod steps;
mod substitutions;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

use ctk_syntax::{Diagnostics, SourceId, Sources, Span, Spanned};

pub use substitutions::{BUILT_IN, GIVEN_BUILT_IN};

use crate::yaml;

/// What a file's substitutions are made of besides itself.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// From the command line: `_KEY`s, which win over those of the file, and [`GIVEN_BUILT_IN`]s.
    pub given: BTreeMap<String, String>,
    /// Values of [`BUILT_IN`] substitutions; those without one are empty.
    pub built_in: BTreeMap<String, String>,
    /// Whether the file is read as a trigger reads it: unmatched and unused substitutions are fine, and
    /// `dynamicSubstitutions` is on.
    pub trigger: bool,
    /// The event that a trigger got, with `body` at its top.
    pub payload: Option<serde_json::Value>,
}

/// A build, every substitution made.
#[derive(Clone, Debug)]
pub struct Build {
    /// In the order of the file; never empty.
    pub steps: Vec<Step>,
    /// Images that must be there after the steps, and are pushed.
    pub images: Vec<Spanned<String>>,
    /// What is uploaded after the steps.
    pub artifacts: Vec<Artifact>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Words that find the build again.
    pub tags: Vec<String>,
    /// Variables with secrets, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// What is fetched before the steps.
    pub dependencies: Vec<Dependency>,
    /// Every substitution with its value, also those that no step uses.
    pub substitutions: BTreeMap<String, String>,
    /// What of the file is not carried out here.
    pub notes: Vec<Note>,
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in the file, from 0.
    pub number: usize,
    /// All of it.
    pub span: Span,
    /// The image.
    pub name: Spanned<String>,
    /// What others wait for.
    pub id: Option<Spanned<String>>,
    /// Arguments.
    pub args: Vec<Spanned<String>>,
    /// Instead of the image's.
    pub entrypoint: Option<Spanned<String>>,
    /// A script instead of arguments.
    pub script: Option<Spanned<String>>,
    /// Variables: automapped substitutions, those of the options, its own.
    pub env: BTreeMap<String, String>,
    /// Names of secret variables.
    pub secret_env: Vec<Spanned<String>>,
    /// Absolute.
    pub directory: String,
    /// The steps that must have ended before it begins, by number, ascending. Those that others of them wait for are
    /// left out.
    pub waits_for: Vec<usize>,
    /// Shared with other steps.
    pub volumes: Vec<Volume>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Whether the build goes on when it fails.
    pub allow_failure: bool,
    /// Exit codes with which the build goes on.
    pub allow_exit_codes: Vec<i64>,
}

/// A volume of steps.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Volume {
    /// Its name in the build.
    pub name: String,
    /// Where the step has it.
    pub path: String,
}

/// What is uploaded after the steps.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Artifact {
    /// Files to a bucket.
    Objects {
        /// `gs://…/`.
        location: String,
        /// Patterns below the workspace.
        paths: Vec<String>,
    },
    /// A file to a Maven repository.
    Maven {
        /// Where.
        repository: String,
        /// What.
        path: String,
        /// Its coordinates: group, artifact, version.
        coordinates: [String; 3],
    },
    /// A module to a Go repository.
    Go {
        /// Name, location and project of the repository.
        repository: [String; 3],
        /// The folder of the source.
        source: String,
        /// The module and its version.
        module: [String; 2],
    },
    /// Packages to a Python repository.
    Python {
        /// Where.
        repository: String,
        /// Patterns below the workspace.
        paths: Vec<String>,
    },
    /// A package to an npm registry.
    Npm {
        /// Where.
        repository: String,
        /// The folder with `package.json`.
        path: String,
    },
}

/// Where a secret variable is from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Secret {
    /// A version of Secret Manager.
    Manager {
        /// `projects/…/secrets/…/versions/…`.
        version: String,
    },
    /// Encrypted in the file. The text is left out of plans.
    Encrypted {
        /// The key of the key management service.
        key: String,
    },
}

/// What is fetched before the steps.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dependency {
    /// The repository; none: the workspace begins empty.
    pub repository: Option<String>,
    /// What of it.
    pub revision: Option<String>,
    /// Where in the workspace.
    pub path: Option<String>,
    /// Commits of history; -1 is all.
    pub depth: i64,
    /// With its submodules.
    pub submodules: bool,
    /// With its tags.
    pub tags: bool,
}

/// What of a file is not carried out here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// The field.
    pub field: String,
    /// What becomes of it.
    pub text: String,
}

/// Reads a file. With errors in the diagnostics there is no build; warnings are there either way.
pub fn read(sources: &Sources, id: SourceId, inputs: &Inputs) -> (Option<Build>, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let build = yaml::parse(sources, id, &mut diagnostics).and_then(|root| {
        let object = value::Reading { diagnostics: &mut diagnostics }.object(&root, &schema::BUILD, "")?;
        Some(decode::build(object, sources, inputs, &mut diagnostics))
    });
    diagnostics.sort();
    let build = build.filter(|_| !diagnostics.has_errors());
    (build, diagnostics)
}
