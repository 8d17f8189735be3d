//! Whether what the metadata says is what is there.

use ctk_distribution::ByteRange;
use ctk_oci::{Algorithm, Digest};
use futures_util::StreamExt;

use super::Storage;
use crate::meta::{Held, Place};
use crate::{RegistryError, SWEEP_STEP_ENTRIES};

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Something wrong with the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A blob has no bytes.
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// A blob's bytes are not those of its name.
    Damaged {
        /// The blob.
        digest: Digest,
        /// What is there instead.
        found: String,
    },
    /// Bytes that nothing names.
    Unknown {
        /// Where.
        place: Place,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Missing { digest } => write!(f, "{digest} has no bytes; push what names it again"),
            Fault::Damaged { digest, found } => write!(f, "{digest} is {found}; delete it and push it again"),
            Fault::Unknown { place } => write!(f, "nothing names the file {place}"),
        }
    }
}

impl Storage {
    /// Compares every blob with its size and, with `bytes`, with its digest; looks for bytes that nothing names.
    /// Reads only; beside a running server, what changes meanwhile is not reported. Call from outside the runtime.
    pub fn check(&self, bytes: bool) -> Result<Checked, RegistryError> {
        let mut checked = Checked::default();
        let mut after = String::new();
        loop {
            let page = self.meta.all_blobs(&after, SWEEP_STEP_ENTRIES)?;
            let Some((last, _)) = page.last() else { break };
            after = last.to_string();
            for (digest, held) in page {
                checked.blobs += 1;
                checked.bytes += held.size;
                let fault = match self.blobs.size(&held.place)? {
                    None => Some(Fault::Missing { digest }),
                    Some(size) if size != held.size => {
                        let found = format!("{size} bytes long instead of {}", held.size);
                        Some(Fault::Damaged { digest, found })
                    }
                    Some(_) if bytes => self.damage(&digest, &held)?,
                    Some(_) => None,
                };
                // Whoever was deleted while we looked is not missing.
                if let Some(fault) = fault
                    && self.meta.knows(&held.place)?
                {
                    checked.faults.push(fault);
                }
            }
        }
        self.blobs.places(&mut |place| {
            if !self.meta.knows(&place)? && self.blobs.size(&place)?.is_some() {
                checked.faults.push(Fault::Unknown { place });
            }
            Ok(())
        })?;
        Ok(checked)
    }

    fn damage(&self, digest: &Digest, held: &Held) -> Result<Option<Fault>, RegistryError> {
        match self.hash(digest.algorithm(), held) {
            Ok(found) if found == *digest => Ok(None),
            Ok(found) => Ok(Some(Fault::Damaged { digest: digest.clone(), found: found.to_string() })),
            Err(RegistryError::Unreadable { .. }) => {
                Ok(Some(Fault::Damaged { digest: digest.clone(), found: "unreadable".into() }))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a finished place and hashes it. Not for tasks of the runtime: it waits for one.
    pub(super) fn hash(&self, algorithm: Algorithm, held: &Held) -> Result<Digest, RegistryError> {
        let whole = ByteRange { start: 0, end: held.size };
        let unreadable = |cause| RegistryError::Unreadable { place: held.place.0.clone(), cause };
        let gone = || unreadable(std::io::ErrorKind::NotFound.into());
        let mut reading = self.blobs.read(&held.place, whole)?.ok_or_else(gone)?;
        let mut digester = algorithm.digester();
        ctk_http::runtime().handle().block_on(async {
            while let Some(piece) = reading.next().await {
                digester.update(&piece.map_err(unreadable)?);
            }
            Ok(digester.finish())
        })
    }
}
