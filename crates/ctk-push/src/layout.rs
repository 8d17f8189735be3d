//! OCI layouts and archives as files: reading their indexes, writing their blobs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ctk_oci::{Descriptor, Document, Index, Manifest, media_type};
use ctk_plan::{Cancel, ProgressUnit, Step};
use ctk_store::{Store, StoreError};

use crate::limits;
use crate::scratch::{self, Scratch};

/// The annotation that names an image of a layout (image-spec 1.1, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The image that an index calls `name`.
pub(crate) fn named<'a>(index: &'a Index, name: &str) -> Option<&'a Descriptor> {
    index.manifests.iter().find(|member| member.annotations.get(REF_NAME).is_some_and(|n| n == name))
}

/// Everything below `image` and itself, parts before wholes, each once.
pub(crate) fn reachable(store: &Store, image: &Descriptor) -> Result<Vec<Descriptor>, StoreError> {
    let mut found = Vec::new();
    visit(store, image, 0, &mut found)?;
    Ok(found)
}

fn visit(store: &Store, at: &Descriptor, depth: usize, found: &mut Vec<Descriptor>) -> Result<(), StoreError> {
    if found.iter().any(|seen| seen.digest == at.digest) {
        return Ok(());
    }
    if media_type::is_index(&at.media_type) && depth < limits::INDEX_DEPTH {
        let index: Document<Index> = store.document("image index", at)?;
        for member in &index.value().manifests {
            visit(store, member, depth + 1, found)?;
        }
    } else if media_type::is_manifest(&at.media_type) {
        let manifest: Document<Manifest> = store.document("image manifest", at)?;
        let manifest = manifest.value();
        for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if !found.iter().any(|seen| seen.digest == part.digest) {
                found.push(part.clone());
            }
        }
    }
    found.push(at.clone());
    Ok(())
}

/// Writes the blobs that `directory/blobs` lacks, each by a rename once it is whole and on disk.
pub(crate) fn write_blobs(
    store: &Store,
    blobs: &[Descriptor],
    directory: &Path,
    step: &Step,
    cancel: &Cancel,
) -> Result<(), WriteError> {
    let total: u64 = blobs.iter().map(|b| b.size).sum();
    let mut done = 0;
    let mut changed: Vec<PathBuf> = Vec::new();
    for blob in blobs {
        let folder = directory.join("blobs").join(blob.digest.algorithm().name());
        let path = folder.join(blob.digest.hex());
        if !std::fs::metadata(&path).is_ok_and(|m| m.len() == blob.size) {
            if !changed.contains(&folder) {
                let made = std::fs::create_dir_all(&folder);
                made.map_err(|e| WriteError::File("make directory", folder.clone(), e))?;
                scratch::clean(&folder);
                changed.push(folder.clone());
            }
            copy_blob(store, blob, &folder, &path, cancel)?;
        }
        done += blob.size;
        step.progress(done, Some(total), ProgressUnit::Bytes);
    }
    for folder in changed {
        scratch::sync_folder(&folder).map_err(|e| WriteError::File("sync", folder, e))?;
    }
    Ok(())
}

/// Why a blob could not be written.
pub(crate) enum WriteError {
    Store(StoreError),
    File(&'static str, PathBuf, io::Error),
}

fn copy_blob(store: &Store, blob: &Descriptor, folder: &Path, to: &Path, cancel: &Cancel) -> Result<(), WriteError> {
    let mut reader = store.open_blob(blob).map_err(WriteError::Store)?;
    let out = Scratch::new(folder).map_err(|e| WriteError::File("create a file in", folder.into(), e))?;
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        if cancel.is_cancelled() {
            return Err(WriteError::Store(StoreError::Cancelled));
        }
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(WriteError::Store(StoreError::Input { what: blob.digest.to_string(), source })),
        };
        let written = io::Write::write_all(&mut out.file(), &buffer[..count]);
        written.map_err(|e| WriteError::File("write", out.path().into(), e))?;
    }
    out.keep(to).map_err(|e| WriteError::File("rename into place", to.into(), e))
}

/// Reads the first of `wanted` that the tar archive `path` holds; `None` when the archive or the entry isn't there.
/// Contents of other entries are stepped over, not read.
pub(crate) fn read_from_archive(path: &Path, wanted: &str) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0u8; 512];
    for _ in 0..limits::ARCHIVE_ENTRIES {
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "this is no tar archive");
        if &header[257..262] != b"ustar" {
            return Err(malformed());
        }
        let size = number(&header[124..136]).ok_or_else(malformed)?;
        let name = text(&header[..100]);
        if name == wanted && matches!(header[156], b'0' | 0) {
            if size > limits::INDEX_BYTES {
                let message = format!("`{wanted}` has {size} bytes; at most {} are read", limits::INDEX_BYTES);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let mut bytes = vec![0; size as usize];
            file.read_exact(&mut bytes)?;
            return Ok(Some(bytes));
        }
        let padded = size.checked_next_multiple_of(512).and_then(|n| i64::try_from(n).ok()).ok_or_else(malformed)?;
        file.seek(SeekFrom::Current(padded))?;
    }
    Ok(None)
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim_start_matches("./").to_string()
}

/// A size: octal digits, or GNU's binary form for 8 GiB and more.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        return field[4..].iter().try_fold(0u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let digits = text(field);
    let digits = digits.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}
