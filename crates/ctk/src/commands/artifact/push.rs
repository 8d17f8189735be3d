//! `ctk artifact push`: files under a name of their own.

use clap::Args;
use ctk_client::Artifact;

use super::files::Content;
use crate::context::Context;
use crate::failure::Failure;

/// What an artifact is that does not say so (image-spec, `manifest.md`).
const UNKNOWN: &str = "application/vnd.unknown.artifact.v1";

/// Push files under a name of their own
#[derive(Args)]
pub struct Push {
    /// Where to
    #[arg(value_name = "REFERENCE")]
    reference: String,
    #[command(flatten)]
    content: Content,
    /// What kind of thing it is, a media type
    #[arg(long, value_name = "TYPE", default_value = UNKNOWN)]
    artifact_type: String,
    /// A file for the manifest's `config`, with its media type
    #[arg(long, value_name = "FILE[:MEDIA-TYPE]")]
    config: Option<String>,
}

impl Push {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let to = context.full_name(&self.reference, &cancel)?.or_latest();
        let config = self.config.as_deref().map(super::files::given).transpose()?;
        let artifact = Artifact {
            artifact_type: self.artifact_type,
            config: config.map(|config| ctk_client::ArtifactFile { title: None, ..config }),
            files: self.content.files()?,
            annotations: self.content.annotations()?,
            subject: None,
        };
        super::files::push(context, &to, &artifact, &cancel)
    }
}
