//! ADD of a URL: a tree with one file.

use std::io::Write;

use ctk_oci::{Algorithm, Digest};
use ctk_plan::ProgressUnit;
use ctk_snapshot::LayerKey;

use super::Work;
use crate::BuildError;
use crate::limits::DOWNLOAD_BYTES;

/// Downloads the file.
pub(super) fn run(
    work: &Work<'_>,
    url: &str,
    file_name: &str,
    checksum: Option<&Digest>,
    key: &LayerKey,
) -> Result<Option<LayerKey>, BuildError> {
    work.http(url, file_name, checksum, key)
}

impl Work<'_> {
    fn http(
        &self,
        url: &str,
        file_name: &str,
        checksum: Option<&Digest>,
        key: &LayerKey,
    ) -> Result<Option<LayerKey>, BuildError> {
        let workspace = self.job.request.world.snapshots.begin(&[])?;
        let path = workspace.upper().join(file_name);
        let mut file = std::fs::File::create(&path).map_err(BuildError::read("create", &path))?;
        let digest = ctk_http::runtime().block_on(self.download(url, &mut file, checksum))?;
        if let Some(wanted) = checksum.filter(|wanted| **wanted != digest) {
            let reason = format!("its digest is {digest}, not {wanted}");
            return Err(BuildError::Download { url: url.to_owned(), reason });
        }
        // Not for everybody's eyes, as it may have needed a password.
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600))
            .map_err(|e| BuildError::read("chmod", &path)(e.into()))?;
        self.commit(workspace, key)
    }

    async fn download(
        &self,
        url: &str,
        file: &mut std::fs::File,
        checksum: Option<&Digest>,
    ) -> Result<Digest, BuildError> {
        let failed = |reason: String| BuildError::Download { url: url.to_owned(), reason };
        let client = ctk_http::client(self.job.request.world.http).map_err(|e| failed(e.to_string()))?;
        let mut response = client.get(url).send().await.map_err(|e| failed(chain(&e)))?;
        if !response.status().is_success() {
            return Err(failed(format!("the server answered {}", response.status())));
        }
        let total = response.content_length();
        let mut digester = checksum.map_or(Algorithm::Sha256, Digest::algorithm).digester();
        let mut done = 0u64;
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(chain(&e)))? {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            done += chunk.len() as u64;
            if done > DOWNLOAD_BYTES {
                return Err(failed(format!("it is larger than {DOWNLOAD_BYTES} bytes")));
            }
            digester.update(&chunk);
            file.write_all(&chunk).map_err(BuildError::read("write", url))?;
            self.step.progress(done, total, ProgressUnit::Bytes);
        }
        Ok(digester.finish())
    }
}

/// An error and what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
