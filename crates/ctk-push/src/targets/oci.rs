//! `oci:DIRECTORY`: an OCI image layout on disk (image-spec 1.1, `image-layout.md`). Tags are the annotation
//! `org.opencontainers.image.ref.name` in its `index.json`; images of others in the same layout stay.

use std::path::{Path, PathBuf};

use ctk_oci::{Descriptor, Index};
use ctk_plan::Step;
use ctk_store::{Export, Name, export_layout};

use super::{BadLocation, Context, Found, Naming, Place, Reach, Ready, path_of};
use crate::error::PushError;
use crate::layout::{WriteError, named, reachable, write_blobs};

#[derive(Clone, Debug)]
struct Layout {
    path: PathBuf,
    image: String,
}

pub(super) fn parse(naming: &Naming, rest: &str) -> Result<(Box<dyn Place>, Option<String>), BadLocation> {
    let (path, tag) = split_tag(rest);
    let path = path_of(naming, path, "oci:dist/images")?;
    let layout = Layout { path, image: naming.image.clone() };
    Ok((Box::new(layout), tag.map(str::to_string)))
}

/// `dist/images:1.0` is a path and a tag, as skopeo reads it.
pub(super) fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => (path, Some(tag)),
        _ => (text, None),
    }
}

/// What image-spec's `annotations.md` allows as a name: parts of letters, digits and `-._:@/+`.
pub(super) fn ref_name(tag: &str) -> Result<String, String> {
    let separator = |c: char| "-._:@/+".contains(c);
    let good = !tag.is_empty()
        && tag.len() <= 255
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || separator(c))
        && !tag.starts_with(separator)
        && !tag.ends_with(separator);
    if good { Ok(tag.into()) } else { Err("expected letters, digits, and `-._:@/+` between them".into()) }
}

impl Place for Layout {
    fn location(&self) -> String {
        format!("oci:{}", self.path.display())
    }

    fn tag(&self, tag: &str) -> Result<String, String> {
        ref_name(tag)
    }

    /// A layout holds several images, so an unnamed tag is the image's name.
    fn default_tag(&self) -> String {
        self.image.clone()
    }

    fn observe(&self, reach: &Reach<'_>, tags: &[String]) -> Vec<Found> {
        let root = reach.project.join(&self.path);
        let index = match read_index(&root) {
            Ok(Some(index)) => index,
            Ok(None) => return vec![Found::Absent; tags.len()],
            Err(reason) => return vec![Found::Unreachable { reason }; tags.len()],
        };
        let found = |tag: &String| match named(&index, tag) {
            // A name without its blob is no image.
            Some(member) if root.join(blob_path(member)).exists() => Found::Digest { digest: member.digest.clone() },
            _ => Found::Absent,
        };
        tags.iter().map(found).collect()
    }

    fn upload(
        &self,
        context: &Context<'_>,
        image: &Descriptor,
        tags: &[String],
        step: &Step,
    ) -> Result<Box<dyn Ready>, PushError> {
        let place = self.location();
        let root = context.reach.project.join(&self.path);
        let blobs = reachable(context.store, image).map_err(context.store_error(&place, "upload"))?;
        write_blobs(context.store, &blobs, &root, step, context.reach.cancel).map_err(|error| match error {
            WriteError::Store(source) => context.store_error(&place, "upload")(source),
            WriteError::File(action, path, source) => context.file_error(&place, action, &path)(source),
        })?;
        Ok(Box::new(Uploaded { layout: self.clone(), image: image.clone(), tags: tags.to_vec() }))
    }
}

struct Uploaded {
    layout: Layout,
    image: Descriptor,
    tags: Vec<String>,
}

impl Ready for Uploaded {
    fn publish(self: Box<Self>, context: &Context<'_>) -> Result<(), PushError> {
        let place = self.layout.location();
        let root = context.reach.project.join(&self.layout.path);
        let directory = std::fs::File::open(&root).map_err(context.file_error(&place, "open", &root))?;
        // Several pushes may share one layout, and the index is read before it is replaced.
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| context.file_error(&place, "lock", &root)(error.into()))?;
        let export = |tag: &String| Export { name: Some(Name::Plain(tag.clone())), descriptor: self.image.clone() };
        let exports: Vec<Export> = self.tags.iter().map(export).collect();
        export_layout(context.store, &root, &exports, context.reach.cancel)
            .map_err(context.store_error(&place, "publish"))
    }
}

fn blob_path(descriptor: &Descriptor) -> PathBuf {
    Path::new("blobs").join(descriptor.digest.algorithm().name()).join(descriptor.digest.hex())
}

fn read_index(root: &Path) -> Result<Option<Index>, String> {
    let path = root.join("index.json");
    match std::fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(index) => Ok(Some(index)),
            Err(error) => Err(format!("`{}` is no OCI index: {error}", path.display())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
    }
}
