//! `oci-archive:FILE`: an OCI image layout as one tar file. The file holds this image only and is replaced as a whole.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use ctk_oci::{Descriptor, Index};
use ctk_plan::Step;
use ctk_store::{Export, Name, StoreError, export_layout_archive};

use super::{BadLocation, Context, Found, Naming, Place, Reach, Ready, oci, path_of};
use crate::error::PushError;
use crate::layout::{named, read_from_archive};
use crate::scratch::{self, Scratch};

#[derive(Debug)]
struct Archive {
    path: PathBuf,
}

pub(super) fn parse(naming: &Naming, rest: &str) -> Result<(Box<dyn Place>, Option<String>), BadLocation> {
    let (path, tag) = oci::split_tag(rest);
    let path = path_of(naming, path, "oci-archive:dist/api.tar")?;
    Ok((Box::new(Archive { path }), tag.map(str::to_string)))
}

impl Place for Archive {
    fn location(&self) -> String {
        format!("oci-archive:{}", self.path.display())
    }

    fn tag(&self, tag: &str) -> Result<String, String> {
        oci::ref_name(tag)
    }

    fn observe(&self, reach: &Reach<'_>, tags: &[String]) -> Vec<Found> {
        let path = reach.project.join(&self.path);
        let bytes = match read_from_archive(&path, "index.json") {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return vec![Found::Absent; tags.len()],
            Err(error) => {
                let reason = format!("cannot read `{}`: {error}", path.display());
                return vec![Found::Unreachable { reason }; tags.len()];
            }
        };
        let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { return vec![Found::Absent; tags.len()] };
        let found = |tag: &String| match named(&index, tag) {
            Some(member) => Found::Digest { digest: member.digest.clone() },
            None => Found::Absent,
        };
        tags.iter().map(found).collect()
    }

    fn upload(
        &self,
        context: &Context<'_>,
        image: &Descriptor,
        tags: &[String],
        _step: &Step,
    ) -> Result<Box<dyn Ready>, PushError> {
        let export = |tag: &String| Export { name: Some(Name::Plain(tag.clone())), descriptor: image.clone() };
        let exports: Vec<Export> = tags.iter().map(export).collect();
        let place = self.location();
        write_aside(context, &place, &context.reach.project.join(&self.path), |out| {
            export_layout_archive(context.store, out, &exports, context.reach.cancel)
        })
    }
}

/// Writes a file beside `path`, on disk when this returns; publishing renames it into place.
pub(super) fn write_aside(
    context: &Context<'_>,
    place: &str,
    path: &Path,
    write: impl FnOnce(BufWriter<&File>) -> Result<BufWriter<&File>, StoreError>,
) -> Result<Box<dyn Ready>, PushError> {
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        let reason = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is there, and no plain file");
        return Err(context.file_error(place, "replace", path)(reason));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(context.file_error(place, "make directory", folder))?;
    scratch::clean(folder);
    let aside = Scratch::new(folder).map_err(context.file_error(place, "create a file in", folder))?;
    let out = write(BufWriter::with_capacity(1 << 20, aside.file())).map_err(context.store_error(place, "upload"))?;
    let flushed = out.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all());
    flushed.map_err(context.file_error(place, "write", aside.path()))?;
    Ok(Box::new(Written { aside, path: path.into(), place: place.into() }))
}

/// A written file that nobody sees yet; removed when it is dropped.
struct Written {
    aside: Scratch,
    path: PathBuf,
    place: String,
}

impl Ready for Written {
    fn publish(self: Box<Self>, context: &Context<'_>) -> Result<(), PushError> {
        let Written { aside, path, place } = *self;
        aside.keep(&path).map_err(context.file_error(&place, "rename into place", &path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        scratch::sync_folder(folder).map_err(context.file_error(&place, "sync", folder))
    }
}
