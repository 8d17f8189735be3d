//! `ctk artifact attach`: files that refer to an image.

use clap::Args;
use ctk_client::Artifact;
use ctk_oci::Platform;

use super::files::Content;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Push files that refer to an image: its SBOM, signature, report
#[derive(Args)]
pub struct Attach {
    /// The image, by tag or digest
    #[arg(value_name = "REFERENCE")]
    reference: String,
    #[command(flatten)]
    content: Content,
    /// What kind of thing it is, a media type: `application/spdx+json`
    #[arg(long, value_name = "TYPE", required = true)]
    artifact_type: String,
    /// Attach to the image for this platform, not to the index
    #[arg(long)]
    platform: Option<Platform>,
}

impl Attach {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let reference = context.full_name(&self.reference, &cancel)?.or_latest();
        let subject = context.client().subject(&reference, self.platform.as_ref(), &cancel).map_err(of_client)?;
        // By digest: an attachment has no tag.
        let to = reference.with_digest(subject.digest.clone());
        let artifact = Artifact {
            artifact_type: self.artifact_type,
            config: None,
            files: self.content.files()?,
            annotations: self.content.annotations()?,
            subject: Some(subject),
        };
        super::files::push(context, &to, &artifact, &cancel)
    }
}
