//! Uploads: bytes hashed as they arrive, written where they stay. The hash is saved with its number of bytes, so
//! that any process can go on; what was written after the last save is hashed again.

use bytes::Bytes;
use ctk_oci::{Algorithm, Digest, Digester, Reference};

use super::{Storage, now, random_name};
use crate::blobs::Writing;
use crate::meta::{Held, Place, Upload};
use crate::{RegistryError, UPLOADS_LIMIT};

/// An upload's name and repository.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: String,
    pub repository: String,
}

/// An upload open for more bytes, locked against every other writer. Dropped, it keeps what it has.
pub(crate) struct Append {
    upload: Upload,
    writing: Box<dyn Writing>,
    digester: Digester,
}

impl Storage {
    /// Opens a session of a repository, hashed by `algorithm`.
    pub(crate) fn start_upload(&self, repository: &str, algorithm: Algorithm) -> Result<Session, RegistryError> {
        Reference::new("localhost", repository, None, None)?;
        let id = random_name()?;
        let upload = Upload {
            place: Place(id.clone()),
            repository: repository.into(),
            algorithm,
            size: 0,
            state: algorithm.digester().save(),
            parts: String::new(),
        };
        self.meta.start_upload(upload, UPLOADS_LIMIT, now())?;
        Ok(Session { id, repository: repository.into() })
    }

    /// Opens a session for more bytes. `UploadBusy` while another request holds it.
    pub(crate) fn append(&self, session: &Session) -> Result<Append, RegistryError> {
        let place = session.place();
        let found = || self.meta.upload(&session.repository, &place)?.ok_or(RegistryError::UploadUnknown);
        let first = found()?;
        let mut writing = self.blobs.append(&place, &first.parts)?;
        // What the writer before us saved is only known now that it is gone; so is whether it finished.
        let upload = match found() {
            Ok(upload) => upload,
            Err(error) => {
                self.forget_stray(&place);
                return Err(error);
            }
        };
        if upload.parts != first.parts {
            drop(writing);
            writing = self.blobs.append(&place, &upload.parts)?;
        }
        let saved = Digester::restore(upload.algorithm, &upload.state).filter(|_| upload.size <= writing.held());
        let (mut digester, from) = match saved {
            Some(digester) => (digester, upload.size),
            None => (upload.algorithm.digester(), 0),
        };
        writing.unsaved(from, &mut |piece| digester.update(piece))?;
        Ok(Append { upload, writing, digester })
    }

    /// Opening a place makes it; one that was cancelled in between must not stay.
    fn forget_stray(&self, place: &Place) {
        if let Ok(false) = self.meta.knows(place) {
            let _ = self.blobs.remove(place, "");
        }
    }

    /// Saves how far a session is, so that any process can go on without reading its bytes again.
    pub(crate) fn save(&self, append: &mut Append) -> Result<(), RegistryError> {
        append.upload.parts = append.writing.save()?;
        append.upload.size = append.writing.held();
        append.upload.state = append.digester.save();
        match self.meta.save_upload(append.upload.clone(), now())? {
            true => Ok(()),
            false => Err(RegistryError::UploadUnknown),
        }
    }

    /// Removes a session.
    pub(crate) fn cancel_upload(&self, session: &Session) -> Result<(), RegistryError> {
        let place = session.place();
        let upload = self.meta.upload(&session.repository, &place)?.ok_or(RegistryError::UploadUnknown)?;
        if !self.meta.cancel_upload(&session.repository, &place, now())? {
            return Err(RegistryError::UploadUnknown);
        }
        self.blobs.remove(&place, &upload.parts)?;
        self.meta.forget(vec![place])
    }

    /// The place of content that is known and not there: whoever pushes it again mends it.
    fn lost(&self, digest: &Digest) -> Result<Option<Place>, RegistryError> {
        for holder in self.meta.holders(digest, 1)? {
            if let Some(held) = self.meta.blob(&holder, digest)?
                && !self.is_there(&held)?
            {
                return Ok(Some(held.place));
            }
        }
        Ok(None)
    }

    /// Makes the session a blob of its repository, if its bytes hash to `digest`; else removes it and says so.
    pub(crate) fn finish_upload(
        &self,
        session: &Session,
        mut append: Append,
        digest: &Digest,
    ) -> Result<u64, RegistryError> {
        let size = append.size();
        let found = if digest.algorithm() == append.upload.algorithm {
            append.digester.clone().finish()
        } else {
            // The upload was opened for another hash: only now is it known which one it should have been.
            append.writing.finish()?;
            self.hash(digest.algorithm(), &Held { place: session.place(), size })?
        };
        if found != *digest {
            drop(append);
            self.cancel_upload(session)?;
            let expected = digest.clone();
            return Err(RegistryError::Mismatch { expected, expected_size: size, found, found_size: size });
        }
        if digest.algorithm() == append.upload.algorithm {
            append.writing.finish()?;
        }
        let lost = self.lost(digest)?;
        let place = session.place();
        match self.meta.finish_upload(&session.repository, &place, digest, size, lost.as_ref(), now())? {
            true => Ok(size),
            false => Err(RegistryError::UploadUnknown),
        }
    }
}

impl Append {
    /// Bytes held so far.
    pub(crate) fn size(&self) -> u64 {
        self.writing.held()
    }

    /// Writes and hashes more bytes.
    pub(crate) fn write(&mut self, pieces: &[Bytes], limit: u64) -> Result<(), RegistryError> {
        for piece in pieces {
            if self.size() + piece.len() as u64 > limit {
                return Err(RegistryError::BlobLimit { limit });
            }
            self.writing.write(std::slice::from_ref(piece))?;
            self.digester.update(piece);
        }
        Ok(())
    }
}
