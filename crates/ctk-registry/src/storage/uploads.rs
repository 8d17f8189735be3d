//! Uploads: a file that grows, hashed as it grows, and becomes a blob by a link.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use ctk_oci::{Algorithm, Digest, Digester};

use super::Storage;
use super::files::{durable_dir, link_or_copy, random_name, sync_dir};
use crate::{PIECE_BYTES, RegistryError, UPLOADS_LIMIT};

/// An upload's name and repository.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: String,
    pub repository: String,
}

/// Hashes of the uploads that this process wrote to, with the number of bytes hashed. What is not here (another
/// process wrote, or this one restarted) is hashed again from the file at the end.
static HASHES: Mutex<Option<HashMap<PathBuf, (Digester, u64)>>> = Mutex::new(None);

fn remember(path: PathBuf, state: (Digester, u64)) {
    HASHES.lock().expect("no holder panics").get_or_insert_with(HashMap::new).insert(path, state);
}

fn recall(path: &Path) -> Option<(Digester, u64)> {
    HASHES.lock().expect("no holder panics").as_mut()?.remove(path)
}

/// Forgets the hash of an upload that is gone.
pub(super) fn forget(path: &Path) {
    recall(path);
}

/// An upload open for more bytes, locked against every other writer. Dropped, it keeps what it has.
pub(crate) struct Append {
    directory: PathBuf,
    file: File,
    size: u64,
    hash: Option<(Digester, u64)>,
}

impl Storage {
    /// Opens a session of a repository.
    pub(crate) fn start_upload(&self, repository: &str) -> Result<Session, RegistryError> {
        self.repository(repository)?;
        let uploads = self.root.join("uploads");
        let open = fs::read_dir(&uploads).map_err(RegistryError::storage("list", &uploads))?.count();
        if open >= UPLOADS_LIMIT {
            return Err(RegistryError::UploadsLimit { limit: UPLOADS_LIMIT });
        }
        let id = random_name()?;
        let directory = uploads.join(&id);
        // Not durable: after a power cut the client starts over.
        fs::create_dir(&directory).map_err(RegistryError::storage("create", &directory))?;
        let name = directory.join("repository");
        fs::write(&name, repository).map_err(RegistryError::storage("write", &name))?;
        let data = directory.join("data");
        File::create_new(&data).map_err(RegistryError::storage("create", &data))?;
        remember(directory, (Algorithm::Sha256.digester(), 0));
        Ok(Session { id, repository: repository.into() })
    }

    /// Opens a session for more bytes. `UploadBusy` while another request holds it.
    pub(crate) fn append(&self, session: &Session) -> Result<Append, RegistryError> {
        let directory = self.upload_directory(session)?;
        let data = directory.join("data");
        let mut file = File::options().read(true).write(true).open(&data).map_err(|e| missing("open", &data, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(RegistryError::UploadBusy),
            Err(fs::TryLockError::Error(error)) => return Err(RegistryError::storage("lock", data)(error)),
        }
        // Finished or cancelled between the open and the lock: the name is gone.
        fs::metadata(&data).map_err(|error| missing("stat", &data, error))?;
        let size = file.seek(SeekFrom::End(0)).map_err(RegistryError::storage("seek", &data))?;
        let hash = recall(&directory).filter(|(_, hashed)| *hashed == size);
        Ok(Append { directory, file, size, hash })
    }

    /// Removes a session.
    pub(crate) fn cancel_upload(&self, session: &Session) -> Result<(), RegistryError> {
        let directory = self.upload_directory(session)?;
        recall(&directory);
        fs::remove_dir_all(&directory).map_err(|error| missing("remove", &directory, error))
    }

    /// Makes the session a blob of its repository, if its bytes hash to `digest`; else removes it and says so.
    pub(crate) fn finish_upload(
        &self,
        session: &Session,
        mut append: Append,
        digest: &Digest,
    ) -> Result<u64, RegistryError> {
        let data = append.directory.join("data");
        let found = append.digest(digest.algorithm())?;
        if found != *digest {
            let size = append.size;
            drop(append);
            self.cancel_upload(session)?;
            let expected = digest.clone();
            return Err(RegistryError::Mismatch { expected, expected_size: size, found, found_size: size });
        }
        let content = self.content(digest);
        if !content.exists() {
            append.file.sync_all().map_err(RegistryError::storage("sync", &data))?;
            let parent = content.parent().expect("content has a parent");
            durable_dir(parent)?;
            link_or_copy(&data, &content, &self.temporary()?)?;
            sync_dir(parent)?;
        }
        if let Err(error) = self.adopt(&session.repository, digest, &content) {
            // A sweep of another process took `content` this instant: our own file is still there.
            match error {
                RegistryError::Storage { ref cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                    append.file.sync_all().map_err(RegistryError::storage("sync", &data))?;
                    self.adopt(&session.repository, digest, &data)?;
                }
                error => return Err(error),
            }
        }
        fs::remove_dir_all(&append.directory).map_err(RegistryError::storage("remove", &append.directory))?;
        append.hash = None;
        Ok(append.size)
    }

    fn upload_directory(&self, session: &Session) -> Result<PathBuf, RegistryError> {
        let directory = self.root.join("uploads").join(&session.id);
        let name = directory.join("repository");
        let repository = fs::read_to_string(&name).map_err(|error| missing("read", &name, error))?;
        // A session is reached only through its own repository.
        if repository != session.repository {
            return Err(RegistryError::UploadUnknown);
        }
        Ok(directory)
    }
}

impl Append {
    /// Bytes held so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes and hashes more bytes.
    pub(crate) fn write(&mut self, pieces: &[Bytes], limit: u64) -> Result<(), RegistryError> {
        for piece in pieces {
            if self.size + piece.len() as u64 > limit {
                return Err(RegistryError::BlobLimit { limit });
            }
            if let Err(error) = self.file.write_all(piece) {
                // Part of the piece may be there: the file is cut back to what was counted and hashed.
                let _ = self.file.set_len(self.size);
                let _ = self.file.seek(SeekFrom::Start(self.size));
                return Err(RegistryError::storage("write", self.directory.join("data"))(error));
            }
            self.size += piece.len() as u64;
            if let Some((digester, hashed)) = &mut self.hash {
                digester.update(piece);
                *hashed = self.size;
            }
        }
        Ok(())
    }

    fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, RegistryError> {
        if let (Algorithm::Sha256, Some((digester, _))) = (algorithm, self.hash.take_if(|(_, n)| *n == self.size)) {
            return Ok(digester.finish());
        }
        let path = self.directory.join("data");
        let mut digester = algorithm.digester();
        let mut piece = vec![0; PIECE_BYTES];
        self.file.seek(SeekFrom::Start(0)).map_err(RegistryError::storage("seek", &path))?;
        loop {
            match self.file.read(&mut piece).map_err(RegistryError::storage("read", &path))? {
                0 => break,
                length => digester.update(&piece[..length]),
            }
        }
        Ok(digester.finish())
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(state) = self.hash.take() {
            remember(std::mem::take(&mut self.directory), state);
        }
    }
}

fn missing(action: &'static str, path: &Path, error: io::Error) -> RegistryError {
    match error.kind() {
        io::ErrorKind::NotFound => RegistryError::UploadUnknown,
        _ => RegistryError::storage(action, path)(error),
    }
}
