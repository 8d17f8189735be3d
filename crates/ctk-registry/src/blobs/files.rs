//! Blobs in a directory: `<2 digits>/<32 digits>`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ctk_distribution::ByteRange;
use ctk_oci::Descriptor;
use futures_util::{StreamExt, stream};

use super::{Blobs, Reading, Writing};
use crate::meta::Place;
use crate::{PIECE_BYTES, RegistryError};

/// Pieces read ahead of the socket.
const READ_AHEAD: usize = 2;

/// Blobs below a directory.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Blobs below `root`, made if it does not exist.
    pub fn open(root: impl Into<PathBuf>) -> Result<Files, RegistryError> {
        let root = root.into();
        durable_dir(&root)?;
        Ok(Files { root })
    }

    fn path(&self, place: &Place) -> PathBuf {
        let fan = place.0.get(..2).unwrap_or("xx");
        self.root.join(fan).join(&place.0)
    }
}

impl Blobs for Files {
    fn append(&self, place: &Place, _parts: &str) -> Result<Box<dyn Writing>, RegistryError> {
        let path = self.path(place);
        durable_dir(path.parent().expect("a place is in a folder"))?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(RegistryError::storage("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(RegistryError::UploadBusy),
            Err(fs::TryLockError::Error(error)) => return Err(RegistryError::storage("lock", path)(error)),
        }
        let held = file.seek(SeekFrom::End(0)).map_err(RegistryError::storage("seek", &path))?;
        Ok(Box::new(Growing { path, file, held }))
    }

    fn read(&self, place: &Place, range: ByteRange) -> Result<Option<Reading>, RegistryError> {
        let path = self.path(place);
        match File::open(&path) {
            Ok(file) => Ok(Some(stream_file(file, range))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RegistryError::storage("open", path)(error)),
        }
    }

    fn size(&self, place: &Place) -> Result<Option<u64>, RegistryError> {
        let path = self.path(place);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RegistryError::storage("stat", path)(error)),
        }
    }

    fn remove(&self, place: &Place, _parts: &str) -> Result<(), RegistryError> {
        let path = self.path(place);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(RegistryError::storage("remove", path)(error)),
        }
    }

    fn adopt(&self, place: &Place, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError> {
        let to = self.path(place);
        let parent = to.parent().expect("a place is in a folder");
        durable_dir(parent)?;
        if fs::hard_link(path, &to).is_err() {
            copy_verified(path, &to, descriptor)?;
        }
        sync_dir(parent)
    }

    fn places(&self, visit: &mut dyn FnMut(Place) -> Result<(), RegistryError>) -> Result<(), RegistryError> {
        for fan in fs::read_dir(&self.root).map_err(RegistryError::storage("list", &self.root))? {
            let fan = fan.map_err(RegistryError::storage("list", &self.root))?.path();
            if !fan.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&fan).map_err(RegistryError::storage("list", &fan))? {
                let entry = entry.map_err(RegistryError::storage("list", &fan))?;
                if let Ok(name) = entry.file_name().into_string() {
                    visit(Place(name))?;
                }
            }
        }
        Ok(())
    }
}

/// A file that grows, locked against every other writer of any process.
struct Growing {
    path: PathBuf,
    file: File,
    held: u64,
}

impl Writing for Growing {
    fn held(&self) -> u64 {
        self.held
    }

    fn unsaved(&mut self, from: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), RegistryError> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut place = from;
        while place < self.held {
            let length = (self.held - place).min(PIECE_BYTES as u64) as usize;
            let read = self.file.read_exact_at(&mut piece[..length], place);
            read.map_err(RegistryError::storage("read", &self.path))?;
            each(&piece[..length]);
            place += length as u64;
        }
        Ok(())
    }

    fn write(&mut self, pieces: &[Bytes]) -> Result<(), RegistryError> {
        for piece in pieces {
            if let Err(error) = self.file.write_all(piece) {
                // Part of the piece may be there: the file is cut back to what was counted.
                let _ = self.file.set_len(self.held);
                let _ = self.file.seek(SeekFrom::Start(self.held));
                return Err(RegistryError::storage("write", &self.path)(error));
            }
            self.held += piece.len() as u64;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<String, RegistryError> {
        Ok(String::new())
    }

    fn finish(&mut self) -> Result<(), RegistryError> {
        self.file.sync_all().map_err(RegistryError::storage("sync", &self.path))?;
        sync_dir(self.path.parent().expect("a place is in a folder"))
    }
}

/// Reads by positioned reads on blocking threads, a thread only while a read lasts: slow clients hold memory for two
/// pieces and no thread.
fn stream_file(file: File, range: ByteRange) -> Reading {
    let file = Arc::new(file);
    let starts = stream::iter((range.start..range.end).step_by(PIECE_BYTES));
    let pieces = starts.map(move |start| {
        let file = file.clone();
        let length = (range.end - start).min(PIECE_BYTES as u64) as usize;
        async move {
            let read = move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, start).map(|()| Bytes::from(piece))
            };
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
    });
    pieces.buffered(READ_AHEAD).boxed()
}

/// Makes a directory and its parents, each entry durable.
pub(crate) fn durable_dir(path: &Path) -> Result<(), RegistryError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        durable_dir(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => parent.map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(RegistryError::storage("create", path)(error)),
    }
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> Result<(), RegistryError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(RegistryError::storage("sync", path))
}

/// Copies `source` to the new file `path` and compares it with `descriptor`; a failure leaves nothing.
fn copy_verified(source: &Path, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError> {
    let copied = (|| {
        let mut from = File::open(source).map_err(RegistryError::storage("open", source))?;
        let mut to = File::create_new(path).map_err(RegistryError::storage("create", path))?;
        let mut digester = descriptor.digest.algorithm().digester();
        let mut piece = vec![0; PIECE_BYTES];
        let mut size = 0;
        loop {
            let length = from.read(&mut piece).map_err(RegistryError::storage("read", source))?;
            if length == 0 {
                break;
            }
            digester.update(&piece[..length]);
            size += length as u64;
            to.write_all(&piece[..length]).map_err(RegistryError::storage("write", path))?;
        }
        let found = digester.finish();
        if found != descriptor.digest || size != descriptor.size {
            let (expected, expected_size) = (descriptor.digest.clone(), descriptor.size);
            return Err(RegistryError::Mismatch { expected, expected_size, found, found_size: size });
        }
        to.sync_all().map_err(RegistryError::storage("sync", path))
    })();
    if copied.is_err() {
        let _ = fs::remove_file(path);
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_exam() {
        let folder = tempfile::tempdir().unwrap();
        super::super::conformance::run(&Files::open(folder.path().join("blobs")).unwrap());
    }
}
