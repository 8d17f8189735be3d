//! Where the result of a build goes, as `-o` says it: names in the store, registries, archives, layouts, plain files.
//!
//! Everything is brought close first (uploaded by digest, written beside its destination), then all names move. A
//! failure or an interrupt before that leaves nothing that is seen.

mod annotation;
mod files;
mod form;
mod spec;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use ctk_client::{Client, ClientError, ClientOptions, PushOptions};
use ctk_layer::LayerError;
use ctk_oci::{Descriptor, Digest, Document, Manifest, Platform, Reference, media_type};
use ctk_plan::{Cancel, Reporter, Step};
use ctk_snapshot::{SnapshotError, Snapshots};
use ctk_store::{
    Aside, Export, Name, Ref, Store, StoreError, export_docker_archive, export_layout, export_layout_archive,
};

use crate::layout::reachable;
use crate::packing::{Ground, PackingError};

pub(crate) use annotation::target;
pub use annotation::{Annotation, Level};
pub use form::Form;
pub use spec::fields;

/// One `-o`.
#[derive(Clone, Debug)]
pub enum Output {
    /// `image` and `registry`.
    Image(Pictured),
    /// `oci` and `docker`.
    Archive(Archive),
    /// `local` and `tar`.
    Files(Files),
}

/// An image under names, here and in registries.
#[derive(Clone, Debug, Default)]
pub struct Pictured {
    /// Its names; those of the build if there are none.
    pub names: Vec<String>,
    /// Whether it goes to the registries that the names say.
    pub push: bool,
    /// Whether it gets no tag there.
    pub by_digest: bool,
    /// Whether the registries' certificates are not checked, and plain HTTP will do.
    pub insecure: bool,
    /// Whether it gets its names here.
    pub store: bool,
    /// Whether its layers are unpacked at once.
    pub unpack: bool,
    /// Whether it is also called `NAME@DIGEST`.
    pub canonical: bool,
    /// What an image without names is called: `PREFIX@DIGEST`.
    pub dangling_prefix: Option<String>,
    /// How it differs from what was built.
    pub form: Form,
}

/// An image as a layout or archive.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Whether it is what `docker load` reads.
    pub docker: bool,
    /// Where; `None` is into the store.
    pub dest: Option<Dest>,
    /// Whether it is one file, and no folder.
    pub tar: bool,
    /// Its names; those of the build if there are none.
    pub names: Vec<String>,
    /// How it differs from what was built.
    pub form: Form,
}

/// The files of an image.
#[derive(Clone, Debug)]
pub struct Files {
    /// Whether they become a tar stream instead of a folder.
    pub tar: bool,
    /// Where.
    pub dest: Dest,
    /// Whether each platform has a folder; by default if there are several.
    pub split: Option<bool>,
    /// Whether other files of the folder go.
    pub delete: bool,
    /// `source-date-epoch`; concerns the build.
    pub epoch_seconds: Option<i64>,
}

impl Default for Files {
    fn default() -> Files {
        Files { tar: false, dest: Dest::Stdout, split: None, delete: false, epoch_seconds: None }
    }
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// `-`
    Stdout,
    /// A file or folder.
    Path(PathBuf),
}

impl Output {
    /// Whether it writes to standard output.
    pub fn is_stdout(&self) -> bool {
        match self {
            Output::Image(_) => false,
            Output::Archive(archive) => archive.dest == Some(Dest::Stdout),
            Output::Files(files) => files.dest == Dest::Stdout,
        }
    }

    /// The one file that it writes, if it writes one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Output::Archive(Archive { dest: Some(Dest::Path(path)), tar: true, .. })
            | Output::Files(Files { dest: Dest::Path(path), tar: true, .. }) => Some(path),
            _ => None,
        }
    }

    /// The file or folder that it writes, if it writes one.
    fn path(&self) -> Option<&Path> {
        match self {
            Output::Archive(Archive { dest: Some(Dest::Path(path)), .. })
            | Output::Files(Files { dest: Dest::Path(path), .. }) => Some(path),
            _ => None,
        }
    }

    /// Whether the image's names mean it afterwards, here or in a registry.
    pub fn is_named(&self) -> bool {
        match self {
            Output::Image(_) => true,
            Output::Archive(archive) => archive.dest.is_none(),
            Output::Files(_) => false,
        }
    }

    /// `source-date-epoch`, if it says one.
    pub fn epoch_seconds(&self) -> Option<i64> {
        match self {
            Output::Image(image) => image.form.epoch_seconds,
            Output::Archive(archive) => archive.form.epoch_seconds,
            Output::Files(files) => files.epoch_seconds,
        }
    }
}

/// Refuses outputs that would write over one another: at one place, or one inside the folder of another. `directory` is
/// what relative destinations are relative to. The error is one sentence and what to do.
pub fn check_places(outputs: &[Output], directory: &Path) -> Result<(), String> {
    let place = |output: &Output| -> Option<PathBuf> {
        let path = directory.join(output.path()?);
        // A device or a pipe is no place where something stays.
        let stays = fs::metadata(&path).map_or(true, |found| found.is_file() || found.is_dir());
        stays.then(|| resolved(&path))
    };
    let places: Vec<(&Output, PathBuf)> = outputs.iter().filter_map(|o| Some((o, place(o)?))).collect();
    for (number, (output, path)) in places.iter().enumerate() {
        let written = |output: &Output| output.path().unwrap_or(Path::new("")).display().to_string();
        for (earlier, other) in &places[..number] {
            if path == other {
                return Err(format!("two outputs go to {}; give each a place of its own", written(output)));
            }
            let (inner, outer) = if path.starts_with(other) { (output, earlier) } else { (earlier, output) };
            if path.starts_with(other) || other.starts_with(path) {
                let (inner, outer) = (written(inner), written(outer));
                return Err(format!(
                    "one output goes to {inner}, inside {outer}, where another goes; give each a place of its own"
                ));
            }
        }
    }
    Ok(())
}

/// The path with its links followed, as far as it is there, and without `..` in what is not.
fn resolved(path: &Path) -> PathBuf {
    let mut there = path;
    loop {
        if let Ok(real) = there.canonicalize() {
            let mut real = real;
            for part in path.strip_prefix(there).unwrap_or(Path::new("")).components() {
                match part {
                    Component::ParentDir => _ = real.pop(),
                    Component::Normal(name) => real.push(name),
                    _ => {}
                }
            }
            return real;
        }
        match there.parent() {
            Some(parent) => there = parent,
            None => return path.to_path_buf(),
        }
    }
}

/// What was built.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// The manifest, or the index of several platforms.
    pub descriptor: &'a Descriptor,
    /// The manifests by platform.
    pub manifests: &'a [(Platform, Descriptor)],
    /// Layers that were not built here.
    pub base_layers: &'a BTreeSet<Digest>,
}

/// What an export is done with.
pub struct ExportRequest<'a> {
    /// The image, complete in the store.
    pub image: Image<'a>,
    /// Where it goes; nowhere but into the store under its names if there is none.
    pub outputs: &'a [Output],
    /// `-t`, as written.
    pub names: &'a [String],
    /// `--annotation`: for every output that is an image.
    pub annotations: &'a [Annotation],
    /// The full name under which the store keeps what the user calls so.
    pub store_name: &'a (dyn Fn(&str) -> Result<String, String> + Sync),
    /// The store.
    pub store: &'a Store,
    /// Its unpacked layers.
    pub snapshots: &'a Snapshots,
    /// How registries are spoken to.
    pub client: &'a Client,
    /// What relative destinations are relative to.
    pub directory: &'a Path,
    /// Hears what happens.
    pub reporter: &'a Reporter,
    /// Says stop.
    pub cancel: &'a Cancel,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The image of the first output that is one; what was built if none is.
    pub image: Descriptor,
    /// Its config, if it is of one platform.
    pub config: Option<Digest>,
    /// What it is for, if that is one platform.
    pub platform: Option<Platform>,
    /// The names that it got, as docker writes them, each once.
    pub names: Vec<String>,
    /// Whether any output was an image.
    pub is_image: bool,
}

impl Exported {
    /// Notes a name, once however many outputs give it.
    fn name(&mut self, name: String) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// What was asked for does not go together.
    #[error("{0}")]
    Refused(String),
    /// The filesystem refused.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The registry did not take it.
    #[error("failed to push `{name}`")]
    Registry {
        /// The image's name.
        name: String,
        /// What the registry said.
        #[source]
        source: Box<ClientError>,
    },
    /// A tar stream could not be written.
    #[error("cannot write the files")]
    Tar(#[source] LayerError),
    /// Layers.
    #[error("the image's files cannot be read")]
    Snapshot(#[source] SnapshotError),
    /// The store.
    #[error("the image cannot be read from the store")]
    Store(#[source] StoreError),
    /// Its layers cannot be packed as asked for.
    #[error("the image's layers cannot be packed so")]
    Pack(#[source] PackingError),
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> ExportError {
        match error {
            StoreError::Cancelled => ExportError::Cancelled,
            error => ExportError::Store(error),
        }
    }
}

impl From<PackingError> for ExportError {
    fn from(error: PackingError) -> ExportError {
        match error {
            PackingError::Cancelled => ExportError::Cancelled,
            PackingError::Store(error) => error.into(),
            error => ExportError::Pack(error),
        }
    }
}

impl From<SnapshotError> for ExportError {
    fn from(error: SnapshotError) -> ExportError {
        match error {
            SnapshotError::Cancelled => ExportError::Cancelled,
            error => ExportError::Snapshot(error),
        }
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError + use<> {
    let path = path.to_path_buf();
    move |source| ExportError::File { action, path, source }
}

/// What remains to be done when everything else is: quick, and seen.
enum Last {
    Names(Vec<(String, Option<Ref>)>),
    Tag {
        client: Client,
        reference: Reference,
        image: Descriptor,
    },
    Folder(files::StagedFolder),
    File {
        part: Aside,
        dest: PathBuf,
    },
    /// Into a layout that is there: its index is written last.
    Layout {
        dest: PathBuf,
        exports: Vec<Export>,
    },
    NewLayout {
        part: PartFolder,
        dest: PathBuf,
    },
    /// Written last, because it cannot be taken back.
    Stdout(Output, Descriptor),
}

/// Sends the image everywhere. What goes to standard output is written to `stdout`, at the end.
pub fn export(request: &ExportRequest<'_>, stdout: &mut dyn Write) -> Result<Exported, ExportError> {
    let default = [Output::Image(Pictured { store: true, ..Pictured::default() })];
    let outputs = if request.outputs.is_empty() { &default } else { request.outputs };
    let mut exported = Exported {
        image: request.image.descriptor.clone(),
        config: None,
        platform: None,
        names: Vec::new(),
        is_image: false,
    };
    let mut last = Vec::new();
    for output in outputs {
        let step = request.reporter.step(title(output));
        let done = prepare(request, output, &step, &mut exported, &mut last);
        step.conclude(done)?;
    }
    last.sort_by_key(|last| matches!(last, Last::Stdout(..)));
    for last in last {
        if request.cancel.is_cancelled() {
            return Err(ExportError::Cancelled);
        }
        finish(request, last, stdout)?;
    }
    if !media_type::is_index(&exported.image.media_type) {
        let manifest: Document<Manifest> = request.store.document("image manifest", &exported.image)?;
        exported.config = Some(manifest.value().config.digest.clone());
        exported.platform = request.image.manifests.first().map(|(platform, _)| platform.clone());
    }
    Ok(exported)
}

fn title(output: &Output) -> String {
    let to = |dest: &Dest| match dest {
        Dest::Stdout => "standard output".to_owned(),
        Dest::Path(path) => path.display().to_string(),
    };
    match output {
        Output::Image(image) if image.push => "export to registry".into(),
        Output::Image(_) | Output::Archive(Archive { dest: None, .. }) => "export to store".into(),
        Output::Archive(Archive { docker, dest: Some(dest), .. }) => {
            format!("export {} to {}", if *docker { "docker archive" } else { "oci layout" }, to(dest))
        }
        Output::Files(files) => format!("export files to {}", to(&files.dest)),
    }
}

fn prepare(
    request: &ExportRequest<'_>,
    output: &Output,
    step: &Step,
    exported: &mut Exported,
    last: &mut Vec<Last>,
) -> Result<(), ExportError> {
    let (store, cancel) = (request.store, request.cancel);
    let made = |form: &Form, exported: &mut Exported| -> Result<Descriptor, ExportError> {
        let ground = Ground { store, reporter: request.reporter, cancel };
        let image = form.apply(&request.image, request.annotations, ground)?;
        if !std::mem::replace(&mut exported.is_image, true) {
            exported.image = image.clone();
        }
        Ok(image)
    };
    let chosen = |own: &[String]| if own.is_empty() { request.names.to_vec() } else { own.to_vec() };
    match output {
        Output::Image(wanted) => {
            let image = made(&wanted.form, exported)?;
            named(request, wanted, &chosen(&wanted.names), image, step, exported, last)
        }
        Output::Archive(archive) => {
            let image = made(&archive.form, exported)?;
            let names = chosen(&archive.names);
            let Some(dest) = &archive.dest else {
                let wanted = Pictured { store: true, ..Pictured::default() };
                return named(request, &wanted, &names, image, step, exported, last);
            };
            for name in &names {
                exported.name(reference(name)?.to_string());
            }
            match dest {
                Dest::Stdout => last.push(Last::Stdout(output.clone(), image)),
                Dest::Path(path) if !archive.tar => {
                    let (dest, exports) = (request.directory.join(path), exports(&names, &image)?);
                    if dest.exists() {
                        last.push(Last::Layout { dest, exports });
                    } else {
                        let part = PartFolder(part_of(&dest));
                        let written = export_layout(store, &part.0, &exports, cancel);
                        written.map_err(|error| unwritten(&dest)(error.into()))?;
                        last.push(Last::NewLayout { part, dest });
                    }
                }
                Dest::Path(path) => {
                    let dest = request.directory.join(path);
                    let part = aside(&dest)?;
                    write_archive(request, archive, &names, &image, part.file()).map_err(unwritten(&dest))?;
                    last.push(Last::File { part, dest });
                }
            }
            Ok(())
        }
        Output::Files(wanted) => {
            match &wanted.dest {
                Dest::Stdout => last.push(Last::Stdout(output.clone(), request.image.descriptor.clone())),
                Dest::Path(path) if wanted.tar => {
                    let dest = request.directory.join(path);
                    let part = aside(&dest)?;
                    let out = io::BufWriter::new(part.file());
                    let out = files::tar(request, wanted, out).map_err(unwritten(&dest))?;
                    out.into_inner().map_err(|error| file_error("write", &dest)(error.into_error()))?;
                    last.push(Last::File { part, dest });
                }
                Dest::Path(path) => {
                    let dest = request.directory.join(path);
                    last.push(Last::Folder(files::stage(request, wanted, &dest).map_err(unwritten(&dest))?))
                }
            }
            Ok(())
        }
    }
}

/// An image under names: uploaded without a tag, its names noted for the end.
fn named(
    request: &ExportRequest<'_>,
    wanted: &Pictured,
    names: &[String],
    image: Descriptor,
    step: &Step,
    exported: &mut Exported,
    last: &mut Vec<Last>,
) -> Result<(), ExportError> {
    let (store, cancel) = (request.store, request.cancel);
    if wanted.push && names.is_empty() {
        return Err(ExportError::Refused("an image without a name can go to no registry; add `-t NAME`".into()));
    }
    if wanted.unpack {
        let parts = reachable(store, &image)?;
        for descriptor in parts.iter().filter(|part| media_type::is_manifest(&part.media_type)) {
            let manifest = store.document::<Manifest>("image manifest", descriptor)?.into_value();
            request.snapshots.unpack_image(&manifest, Some(step), cancel)?;
        }
    }
    let mut bare = image.clone();
    bare.annotations.clear();
    let mut refs = Vec::new();
    for name in names {
        let full = reference(name)?;
        exported.name(full.to_string());
        if wanted.store && !wanted.by_digest {
            let here = (request.store_name)(name).map_err(ExportError::Refused)?;
            if wanted.canonical {
                let repository = here.rsplit_once(':').map_or(here.as_str(), |(repository, _)| repository);
                refs.push((format!("{repository}@{}", bare.digest), Some(Ref::new(bare.clone()))));
            }
            refs.push((here, Some(Ref::new(bare.clone()))));
        }
        if wanted.push {
            let client = client_for(request.client, &full, wanted.insecure);
            let refused = |source: ClientError| match source {
                ClientError::Cancelled => ExportError::Cancelled,
                source => ExportError::Registry { name: full.to_string(), source: Box::new(source) },
            };
            let options = PushOptions::default();
            client.push_blobs(&full, &bare, store, &options, Some(step), cancel).map_err(refused)?;
            client.push_manifests(&full, &bare, store, cancel).map_err(refused)?;
            if !wanted.by_digest {
                last.push(Last::Tag { client, reference: full, image: bare.clone() });
            }
        }
    }
    if refs.is_empty() && wanted.store {
        let name = match &wanted.dangling_prefix {
            Some(prefix) => format!("{prefix}@{}", bare.digest),
            None => bare.digest.to_string(),
        };
        refs.push((name, Some(Ref::new(bare))));
    }
    last.push(Last::Names(refs));
    Ok(())
}

fn client_for(client: &Client, to: &Reference, insecure: bool) -> Client {
    if !insecure {
        return client.clone();
    }
    let mut options: ClientOptions = client.options().clone();
    options.insecure.push(to.registry().to_owned());
    Client::new(options)
}

/// A name as docker understands it, with its tag.
fn reference(name: &str) -> Result<Reference, ExportError> {
    let parsed: Result<Reference, _> = name.parse();
    let parsed = parsed.map_err(|error| ExportError::Refused(format!("`{name}` is no name for an image: {error}")))?;
    match parsed.digest() {
        Some(_) => Err(ExportError::Refused(format!("`{name}` has a digest; expected a name and a tag"))),
        None => Ok(parsed.or_latest()),
    }
}

fn exports(names: &[String], image: &Descriptor) -> Result<Vec<Export>, ExportError> {
    let one = |name: Option<Name>| Export { name, descriptor: image.clone() };
    if names.is_empty() {
        return Ok(vec![one(None)]);
    }
    names.iter().map(|name| Ok(one(Some(Name::Reference(reference(name)?))))).collect()
}

fn write_archive(
    request: &ExportRequest<'_>,
    archive: &Archive,
    names: &[String],
    image: &Descriptor,
    out: impl Write,
) -> Result<(), ExportError> {
    let out = io::BufWriter::with_capacity(1 << 20, out);
    let exports = exports(names, image)?;
    let mut out = if archive.docker {
        let [(platform, _)] = request.image.manifests else {
            let text = "a docker archive holds one platform; name one `--platform`, or use `type=oci`";
            return Err(ExportError::Refused(text.into()));
        };
        export_docker_archive(request.store, out, &exports, platform, request.cancel)?
    } else {
        export_layout_archive(request.store, out, &exports, request.cancel)?
    };
    out.flush().map_err(file_error("write", Path::new("the archive")))
}

fn finish(request: &ExportRequest<'_>, last: Last, stdout: &mut dyn Write) -> Result<(), ExportError> {
    match last {
        Last::Names(names) => Ok(request.store.update_references(&names)?),
        Last::Tag { client, reference, image } => {
            let moved = client.push_tag(&reference, &image, request.store, request.cancel);
            moved.map_err(|source| match source {
                ClientError::Cancelled => ExportError::Cancelled,
                source => ExportError::Registry { name: reference.to_string(), source: Box::new(source) },
            })
        }
        Last::Folder(staged) => staged.publish(),
        Last::File { part, dest } => part.keep().map_err(file_error("write", &dest)),
        Last::Layout { dest, exports } => {
            let written = export_layout(request.store, &dest, &exports, request.cancel);
            written.map_err(|error| unwritten(&dest)(error.into()))
        }
        Last::NewLayout { part, dest } => fs::rename(&part.0, &dest).map_err(file_error("rename into place", &dest)),
        Last::Stdout(output, image) => match &output {
            Output::Archive(archive) => {
                let names = if archive.names.is_empty() { request.names } else { &archive.names };
                write_archive(request, archive, names, &image, stdout)
            }
            Output::Files(files) => {
                let mut out = files::tar(request, files, io::BufWriter::with_capacity(1 << 20, stdout))?;
                out.flush().map_err(file_error("write to", Path::new("standard output")))
            }
            Output::Image(_) => Ok(()),
        },
    }
}

/// What `dest` is called until it is whole.
fn part_of(dest: &Path) -> PathBuf {
    let mut path = dest.as_os_str().to_owned();
    path.push(format!(".part-{}", std::process::id()));
    path.into()
}

/// A folder beside its final place; what is still there on drop is removed.
struct PartFolder(PathBuf);

impl Drop for PartFolder {
    fn drop(&mut self) {
        // Nothing more can be done about it here.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file for `dest`.
fn aside(dest: &Path) -> Result<Aside, ExportError> {
    if dest.is_dir() {
        return Err(ExportError::Refused(format!("{} is a folder; expected a file's name", dest.display())));
    }
    Aside::new(dest).map_err(file_error("create", dest))
}

/// What kept `dest` from being written, where that is not the store's affair.
fn unwritten(dest: &Path) -> impl Fn(ExportError) -> ExportError + use<> {
    let dest = dest.to_path_buf();
    move |error| match error {
        ExportError::Store(StoreError::Full { source, .. } | StoreError::Output { source, .. })
        | ExportError::Snapshot(SnapshotError::Full { source, .. })
        | ExportError::Tar(LayerError::Write(source))
        | ExportError::File { action: "write", source, .. } => file_error("write", &dest)(source),
        ExportError::Store(StoreError::Io { action, path, source }) => ExportError::File { action, path, source },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_writes_over_another() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        let check = |texts: &[&str], expected: Option<&str>| {
            let outputs: Vec<Output> = texts.iter().map(|text| Output::parse(text).unwrap()).collect();
            let refused = check_places(&outputs, folder.path()).err();
            let as_expected = refused.as_deref().map(|text| text.split("; ").next().unwrap_or_default()) == expected;
            assert!(as_expected, "{texts:?}: {refused:?}");
        };
        check(&["a", "b", "type=tar,dest=c", "type=oci,dest=d/e", "type=registry"], None);
        check(&["a", "a"], Some("two outputs go to a"));
        check(&["n", "./x/../n/"], Some("two outputs go to ./x/../n/"));
        check(&["a", "link"], Some("two outputs go to link"));
        check(&["type=oci,dest=f", "b", "type=docker,dest=f"], Some("two outputs go to f"));
        check(&["link", "type=tar,dest=a/y"], Some("one output goes to a/y, inside link, where another goes"));
        check(&["type=tar,dest=n/y", "n"], Some("one output goes to n/y, inside n, where another goes"));
        check(&["type=tar,dest=/dev/null", "type=oci,dest=/dev/null"], None);
        check(&["n", "nn", "type=tar,dest=n.tar"], None);
    }
}
