//! The kinds of target: a file each, and a line each in [`TABLE`].

mod docker_archive;
mod oci;
mod oci_archive;
mod registry;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use ctk_client::Client;
use ctk_oci::{Descriptor, Digest, Platform};
use ctk_plan::{Address, Cancel, Step};
use ctk_store::Store;

use crate::error::PushError;

/// One kind of target.
pub struct Row {
    /// Its word, for people and fingerprints.
    pub word: &'static str,
    /// What a location of this kind begins with.
    pub prefix: &'static str,
    /// Raised when what it writes changes.
    pub semantics: u32,
    /// Reads what follows the prefix: the place, and a tag if the location has one.
    #[allow(clippy::type_complexity)]
    pub(crate) parse: fn(&Naming, &str) -> Result<(Box<dyn Place>, Option<String>), BadLocation>,
}

/// Every kind. The last one takes locations without a prefix, too.
pub const TABLE: &[Row] = &[
    Row { word: "oci", prefix: "oci:", semantics: 1, parse: oci::parse },
    Row { word: "oci-archive", prefix: "oci-archive:", semantics: 1, parse: oci_archive::parse },
    Row { word: "docker-archive", prefix: "docker-archive:", semantics: 1, parse: docker_archive::parse },
    Row { word: "registry", prefix: "docker://", semantics: 1, parse: registry::parse },
];

/// The row for a location, and the location without its prefix.
pub(crate) fn row(location: &str) -> (&'static Row, &str) {
    let found = TABLE.iter().find_map(|row| Some((row, location.strip_prefix(row.prefix)?)));
    found.unwrap_or((&TABLE[TABLE.len() - 1], location))
}

/// What names of places are made from.
pub(crate) struct Naming {
    /// The project's `registry`, without a slash at its end.
    pub registry: Option<String>,
    /// The image's name as part of a repository.
    pub image: String,
    /// The folder that paths start from, relative to the project's.
    pub directory: PathBuf,
}

/// What is wrong with a location.
pub(crate) struct BadLocation {
    pub code: &'static str,
    pub message: String,
    pub label: String,
    pub hint: Option<String>,
}

/// The ways to the outside that observing and pushing may use.
pub struct Reach<'a> {
    /// Speaks to registries.
    pub client: &'a Client,
    /// Registries of this project, whose directories can be read without asking over the network.
    pub local: &'a [&'a dyn LocalRegistry],
    /// The project's folder; relative paths of layouts and archives start there.
    pub project: &'a Path,
    /// What an archive for one platform holds.
    pub platform: &'a Platform,
    /// Stops it.
    pub cancel: &'a Cancel,
}

/// A registry that this project serves, seen from inside.
pub trait LocalRegistry: Send + Sync {
    /// `host:port` as references name it.
    fn host(&self) -> &str;

    /// What a tag names now; `None` when there is no such tag or repository. The error is for people.
    fn tag(&self, repository: &str, tag: &str) -> Result<Option<Digest>, String>;
}

/// What observing a tag found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Found {
    /// It names this. Compare with [`crate::PushDecl::wanted`].
    Digest {
        /// What.
        digest: Digest,
    },
    /// There is no such tag.
    Absent,
    /// The place did not answer.
    Unreachable {
        /// What happened, in one line for people.
        reason: String,
    },
}

/// Where images can be put.
pub(crate) trait Place: Send + Sync + Debug {
    /// The location, as the file says it, made whole.
    fn location(&self) -> String;

    /// A tag made whole, or why the place cannot have it.
    fn tag(&self, tag: &str) -> Result<String, String>;

    /// The tag when none is said.
    fn default_tag(&self) -> String {
        "latest".into()
    }

    /// What a tag of it is called, for people.
    fn name(&self, tag: &str) -> String {
        format!("{}:{tag}", self.location())
    }

    /// What the tags name now; reads only.
    fn observe(&self, reach: &Reach<'_>, tags: &[String]) -> Vec<Found>;

    /// What observing finds after `image` was pushed.
    fn identity(&self, upload: &Context<'_>, image: &Descriptor) -> Result<Digest, PushError> {
        let _ = upload;
        Ok(image.digest.clone())
    }

    /// Brings everything but the tags. Safe to repeat.
    fn upload(
        &self,
        context: &Context<'_>,
        image: &Descriptor,
        tags: &[String],
        step: &Step,
    ) -> Result<Box<dyn Ready>, PushError>;
}

/// An uploaded image, whose tags can be moved. Dropping it instead leaves nothing that is seen.
pub(crate) trait Ready: Send {
    /// Moves the tags.
    fn publish(self: Box<Self>, context: &Context<'_>) -> Result<(), PushError>;
}

/// What both phases of a push work with.
pub(crate) struct Context<'a> {
    pub push: &'a Address,
    pub store: &'a Store,
    pub reach: &'a Reach<'a>,
}

impl Context<'_> {
    /// An error of the store about `place`.
    pub fn store_error(
        &self,
        place: &str,
        action: &'static str,
    ) -> impl Fn(ctk_store::StoreError) -> PushError + use<'_> {
        let place = place.to_string();
        move |source| match source {
            ctk_store::StoreError::Cancelled => PushError::Cancelled,
            source => {
                PushError::Store { push: self.push.clone(), place: place.clone(), action, source: Box::new(source) }
            }
        }
    }

    /// An error of the filesystem about `place`.
    pub fn file_error(
        &self,
        place: &str,
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> PushError + use<> {
        let (push, place, path) = (self.push.clone(), place.to_string(), path.to_path_buf());
        move |source| PushError::File { push, place, action, path, source }
    }
}

/// The path of a layout or archive, relative to the project's folder.
pub(crate) fn path_of(naming: &Naming, text: &str, example: &str) -> Result<PathBuf, BadLocation> {
    if text.is_empty() {
        return Err(BadLocation {
            code: crate::codes::BAD_LOCATION,
            message: "the location has no path".into(),
            label: format!("expected e.g. `{example}`"),
            hint: None,
        });
    }
    Ok(naming.directory.join(text))
}
