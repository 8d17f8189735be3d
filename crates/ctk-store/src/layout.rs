//! An OCI layout directory as a home of blobs (image-spec `image-layout.md`), for copies that bypass the store.
//!
//! ```text
//! oci-layout                    the version
//! index.json                    what is in it, by names; changes last, by a rename
//! blobs/<algorithm>/<hex>       bytes
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ctk_oci::{Descriptor, Digest, Index};

use crate::archive::{CONTAINERD_NAME, REF_NAME};
use crate::error::Context;
use crate::export::{Name, name_of};
use crate::fsutil::{make_directory, read_if_there, replace};
use crate::limits::ARCHIVE_INDEX_MAX_BYTES;
use crate::{BlobReader, BlobWriter, Blobs, Sink, StoreError};

const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout directory, which need not exist until something is written.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// The layout in `directory`. Looks at nothing yet.
    pub fn new(directory: &Path) -> Layout {
        Layout { directory: directory.to_owned() }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `index.json` lists; nothing when there is none. [`StoreError::Archive`] beyond 16 MiB.
    pub fn members(&self) -> Result<Vec<Descriptor>, StoreError> {
        Ok(self.index()?.manifests)
    }

    fn index(&self) -> Result<Index, StoreError> {
        let path = self.directory.join("index.json");
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > ARCHIVE_INDEX_MAX_BYTES) {
            let reason = format!("`index.json` has more than {ARCHIVE_INDEX_MAX_BYTES} bytes");
            return Err(StoreError::Archive { what: self.directory.display().to_string(), reason });
        }
        match read_if_there(&path)? {
            None => Ok(Index::new(Vec::new())),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|source| StoreError::Json { path, source }),
        }
    }

    /// The image that the layout calls `name`, by its tag or its whole name; or the one with that digest. Without a
    /// name the only one that has a name, or the only one. `Err` lists the names there are.
    pub fn find(&self, name: Option<&str>) -> Result<Result<Descriptor, Vec<String>>, StoreError> {
        let members = self.members()?;
        let plain = |member: &Descriptor| {
            let mut found = member.clone();
            found.annotations.remove(REF_NAME);
            found.annotations.remove(CONTAINERD_NAME);
            found
        };
        let named = |name: &str| {
            let is = |member: &&Descriptor| {
                let names = [REF_NAME, CONTAINERD_NAME].map(|key| member.annotations.get(key));
                let tag = |own: &String| own.rsplit_once(':').is_some_and(|(_, tag)| tag == name);
                names.into_iter().flatten().any(|own| own == name || tag(own))
            };
            members.iter().find(is).or_else(|| members.iter().find(|member| member.digest.to_string() == name))
        };
        let found = match name {
            Some(name) => named(name).cloned(),
            None => {
                let mut distinct: Vec<&Descriptor> = Vec::new();
                let with_name = members.iter().filter(|member| name_of(member).is_some());
                for member in with_name {
                    if !distinct.iter().any(|other| other.digest == member.digest) {
                        distinct.push(member);
                    }
                }
                match (distinct.as_slice(), members.as_slice()) {
                    ([only], _) => Some(plain(only)),
                    ([], [only]) => Some(plain(only)),
                    _ => None,
                }
            }
        };
        Ok(match found {
            Some(found) => Ok(plain(&found)),
            None => Err(members.iter().map(|m| name_of(m).cloned().unwrap_or_else(|| m.digest.to_string())).collect()),
        })
    }

    /// Adds images whose blobs are there to the index. Names that it already has are moved; its other images stay.
    pub fn name(&self, images: impl IntoIterator<Item = (Option<Name>, Descriptor)>) -> Result<(), StoreError> {
        make_directory(&self.directory)?;
        let mut index = self.index()?;
        for (name, descriptor) in images {
            let member = named_member(name.as_ref(), descriptor);
            let name = name_of(&member).cloned();
            let stays = |old: &Descriptor| match &name {
                Some(_) => name_of(old) != name.as_ref(),
                None => old.digest != member.digest,
            };
            // An image that has a name need not be listed without one.
            if name.is_none() && index.manifests.iter().any(|old| !stays(old) && name_of(old).is_some()) {
                continue;
            }
            index.manifests.retain(stays);
            index.manifests.push(member);
        }
        let (directory, suffix) = (&self.directory, std::process::id());
        replace(&directory.join("oci-layout"), &directory.join(format!(".oci-layout.{suffix}")), VERSION)?;
        let bytes = serde_json::to_vec(&index).expect("plain data serialises");
        replace(&directory.join("index.json"), &directory.join(format!(".index.json.{suffix}")), &bytes)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }
}

/// A layout's version file.
pub(crate) fn version() -> &'static [u8] {
    VERSION
}

/// How an index lists an image that has a name.
pub(crate) fn named_member(name: Option<&Name>, descriptor: Descriptor) -> Descriptor {
    let mut member = descriptor;
    match name {
        None => {}
        Some(Name::Plain(name)) => {
            member.annotations.insert(REF_NAME.into(), name.clone());
        }
        Some(Name::Reference(name)) => {
            let tag = name.tag().unwrap_or("latest");
            member.annotations.insert(REF_NAME.into(), tag.to_owned());
            member.annotations.insert(CONTAINERD_NAME.into(), name.to_string());
        }
    }
    member
}

impl Blobs for Layout {
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error).context("stat", &path),
        }
    }

    fn open(&self, descriptor: &Descriptor) -> Result<BlobReader<Box<dyn Read + Send>>, StoreError> {
        let path = self.path(&descriptor.digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { digest: descriptor.digest.clone() })
            }
            file => Ok(BlobReader::new(Box::new(file.context("open", &path)?), descriptor)),
        }
    }

    fn create<'a>(&'a self, expected: Option<&Descriptor>) -> Result<Box<dyn Sink + 'a>, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let blobs = self.directory.join("blobs");
        make_directory(&blobs)?;
        let part = blobs.join(format!(".part-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&part).context("create", &part)?;
        let writer = Some(BlobWriter::new(file, expected));
        Ok(Box::new(LayoutBlob { layout: self, part, writer }))
    }
}

/// A blob on its way into a layout.
struct LayoutBlob<'a> {
    layout: &'a Layout,
    part: PathBuf,
    writer: Option<BlobWriter<File>>,
}

impl Write for LayoutBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().expect("not committed").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for LayoutBlob<'_> {
    fn commit(mut self: Box<Self>) -> Result<(Digest, u64), StoreError> {
        let (file, digest, size) = self.writer.take().expect("not committed").finish()?;
        file.sync_data().context("write", &self.part)?;
        let path = self.layout.path(&digest);
        make_directory(path.parent().expect("a blob is in a directory"))?;
        fs::rename(&self.part, &path).context("rename into place", &path)?;
        Ok((digest, size))
    }
}

impl Drop for LayoutBlob<'_> {
    fn drop(&mut self) {
        // Gone already when it was committed.
        let _ = fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use ctk_oci::media_type;

    use super::*;

    #[test]
    fn a_layout_is_a_home_of_blobs() {
        let directory = tempfile::tempdir().unwrap();
        crate::conformance::run(&Layout::new(&directory.path().join("l")));
    }

    #[test]
    fn images_are_found_by_what_they_are_called() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        assert_eq!(layout.find(None).unwrap(), Err(Vec::new()));
        let image = |text: &str| Descriptor::of(media_type::MANIFEST, text.as_bytes());
        let (one, two, signature) = (image("1"), image("2"), image("s"));
        layout.name([(None, one.clone())]).unwrap();
        assert_eq!(layout.find(None).unwrap(), Ok(one.clone()));
        layout.name([(Some(Name::Plain("v1".into())), one.clone()), (None, signature.clone())]).unwrap();
        assert_eq!(layout.members().unwrap().len(), 3);
        assert_eq!(layout.find(None).unwrap(), Ok(one.clone()));
        layout.name([(Some(Name::of("example.test/app:v2")), two.clone())]).unwrap();
        for (name, expected) in [("v1", &one), ("v2", &two), ("example.test/app:v2", &two)] {
            assert_eq!(layout.find(Some(name)).unwrap().as_ref(), Ok(expected), "{name}");
        }
        assert_eq!(layout.find(Some(&signature.digest.to_string())).unwrap(), Ok(signature));
        assert!(layout.find(None).unwrap().is_err());
        assert!(layout.find(Some("v3")).unwrap().unwrap_err().contains(&"v1".to_owned()));
        // A name moves.
        layout.name([(Some(Name::Plain("v1".into())), two.clone())]).unwrap();
        assert_eq!(layout.find(Some("v1")).unwrap(), Ok(two));
    }
}
