//! `oci-archive:FILE`: an OCI image layout as one tar file. The file holds this image only and is replaced as a whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use ctk_oci::{Descriptor, Index};
use ctk_plan::Step;
use ctk_store::{Export, StoreError, export_layout_archive};

use super::{BadLocation, Context, Found, Naming, Place, Reach, Ready, oci, path_of};
use crate::error::PushError;
use crate::layout::{named, read_from_archive};

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
        let mut image = image.clone();
        image.annotations.clear();
        let export = |tag: &String| Export { name: Some(tag.clone()), descriptor: image.clone() };
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
    write: impl FnOnce(std::io::BufWriter<File>) -> Result<std::io::BufWriter<File>, StoreError>,
) -> Result<Box<dyn Ready>, PushError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(context.file_error(place, "make directory", folder))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let out = File::create(&temporary).map_err(context.file_error(place, "create", &temporary))?;
    let aside = Aside { temporary: Some(temporary.clone()), path: path.into(), place: place.into() };
    let out = write(std::io::BufWriter::with_capacity(1 << 20, out)).map_err(context.store_error(place, "upload"))?;
    let out = out.into_inner().map_err(|e| context.file_error(place, "write", &temporary)(e.into_error()))?;
    out.sync_all().map_err(context.file_error(place, "sync", &temporary))?;
    Ok(Box::new(aside))
}

/// A written file that nobody sees yet; removed when it is dropped.
struct Aside {
    temporary: Option<PathBuf>,
    path: PathBuf,
    place: String,
}

impl Ready for Aside {
    fn publish(mut self: Box<Self>, context: &Context<'_>) -> Result<(), PushError> {
        if let Some(temporary) = &self.temporary {
            let fail = context.file_error(&self.place, "rename into place", &self.path);
            std::fs::rename(temporary, &self.path).map_err(fail)?;
            self.temporary = None;
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(context.file_error(&self.place, "sync", folder))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing more can be done about it here.
            let _ = std::fs::remove_file(temporary);
        }
    }
}
