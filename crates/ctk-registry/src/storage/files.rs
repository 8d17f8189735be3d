//! Files that are there whole or not at all, also after a power cut.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use ctk_oci::Descriptor;

use crate::{PIECE_BYTES, RegistryError};

/// Makes a directory and its parents, each entry durable.
pub fn durable_dir(path: &Path) -> Result<(), RegistryError> {
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
pub fn sync_dir(path: &Path) -> Result<(), RegistryError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(RegistryError::storage("sync", path))
}

/// 32 random hex digits.
pub fn random_name() -> Result<String, RegistryError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0u8; 16];
    File::open(path).and_then(|mut f| f.read_exact(&mut bytes)).map_err(RegistryError::storage("read", path))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Writes `bytes` to `path` by way of `temporary`: readers see the old file or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8], temporary: &Path) -> Result<(), RegistryError> {
    let parent = path.parent().expect("a stored file has a parent");
    durable_dir(parent)?;
    let written = File::create_new(temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let written = written.map_err(RegistryError::storage("write", temporary));
    let renamed = written.and_then(|()| fs::rename(temporary, path).map_err(RegistryError::storage("rename", path)));
    if renamed.is_err() {
        let _ = fs::remove_file(temporary);
    }
    renamed?;
    sync_dir(parent)
}

/// Gives `source` a second name; copies when it has too many already. An existing name is left.
pub fn link_or_copy(source: &Path, path: &Path, temporary: &Path) -> Result<(), RegistryError> {
    match fs::hard_link(source, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::TooManyLinks | io::ErrorKind::CrossesDevices) => {
            let copied = fs::copy(source, temporary).and_then(|_| File::open(temporary)?.sync_all());
            copied.map_err(RegistryError::storage("copy", temporary))?;
            fs::rename(temporary, path).map_err(RegistryError::storage("rename", path))
        }
        Err(error) => Err(RegistryError::storage("link", path)(error)),
    }
}

/// Copies `source` to the new file `path` and compares it with `descriptor`; a failure leaves nothing.
pub fn copy_verified(source: &Path, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError> {
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
