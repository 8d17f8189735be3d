//! `ctk copy`: an image between registries, the store, layouts and archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ctk_client::{Copied, CopyFrom, CopyOptions, CopyTo};
use ctk_oci::{Descriptor, Digest, Document, Index, Platform, Reference, media_type};
use ctk_plan::{Address, Cancel, Kind, Reporter, Step};
use ctk_store::{
    Aside, Export, Imported, Layout, Name, Ref, Store, export_docker_archive, export_layout_archive, import_archive,
};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Copy an image between registries, the store, layouts and archives
#[derive(Args)]
pub struct Copy {
    /// `[docker://]REFERENCE`, `store:NAME`, `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`;
    /// the file `-` is standard input
    from: String,
    /// The same; the file `-` is standard output
    to: String,
    /// Of an index only the image for this platform, as an image of its own
    #[arg(long)]
    platform: Option<Platform>,
    /// Every platform of an index, which is the default
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Also what refers to the image and its members: signatures, SBOMs
    #[arg(short, long)]
    recursive: bool,
}

/// One end of a copy.
enum End {
    Registry(Reference),
    Store(String),
    Layout(PathBuf, Option<String>),
    OciArchive(PathBuf, Option<String>),
    DockerArchive(PathBuf, Option<String>),
}

impl End {
    fn parse(context: &Context, text: &str, cancel: &Cancel) -> Result<End, Failure> {
        let place = |rest: &str| {
            // `@` chooses by digest what has no name.
            let by_digest = rest.split_once('@').filter(|(_, digest)| digest.parse::<Digest>().is_ok());
            match by_digest.or_else(|| rest.split_once(':')) {
                Some((path, name)) => (PathBuf::from(path), Some(name.to_owned()).filter(|name| !name.is_empty())),
                None => (PathBuf::from(rest), None),
            }
        };
        let end = match text.split_once(':') {
            Some(("store", name)) => End::Store(name.to_owned()),
            Some(("oci", rest)) => {
                let (path, name) = place(rest);
                End::Layout(path, name)
            }
            Some(("oci-archive", rest)) => {
                let (path, name) = place(rest);
                End::OciArchive(path, name)
            }
            Some(("docker-archive", rest)) => {
                let (path, name) = place(rest);
                End::DockerArchive(path, name)
            }
            _ => End::Registry(context.full_name(text, cancel)?.or_latest()),
        };
        if let End::Layout(path, _) | End::OciArchive(path, _) | End::DockerArchive(path, _) = &end
            && path.as_os_str().is_empty()
        {
            return Err(Failure::sentence(format!("`{text}` names no path"), None));
        }
        Ok(end)
    }
}

fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

impl Copy {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let (from, to) = (End::parse(context, &self.from, &cancel)?, End::parse(context, &self.to, &cancel)?);
        if self.recursive && matches!(to, End::DockerArchive(..)) {
            let hint = "an OCI archive (`oci-archive:`) has room for them";
            return Err(Failure::sentence("a docker archive cannot hold what refers to an image", Some(hint)));
        }
        if let End::OciArchive(path, _) | End::DockerArchive(path, _) = &to
            && is_stream(path)
            && io::stdout().is_terminal()
        {
            return Err(Failure::sentence("an archive is no text for a terminal", Some("redirect standard output")));
        }
        let reporter = Reporter::new(Address::new(Kind::Image, self.to.as_str()), context.sink());
        let step = reporter.step(format!("copy from {}", self.from));
        let copied = self.copy(context, &from, &to, &step, &cancel);
        step.finish(match &copied {
            Ok(_) => ctk_plan::Outcome::Done,
            Err(_) => ctk_plan::Outcome::Failed("not copied".into()),
        });
        context.end_story();
        let copied = copied?;
        match &to {
            // Where the archive went.
            End::OciArchive(path, _) | End::DockerArchive(path, _) if is_stream(path) => Ok(()),
            End::Registry(reference) => output(&format!("{reference} {}\n", copied.root.digest)),
            _ => output(&format!("{} {}\n", self.to, copied.root.digest)),
        }
    }

    fn copy(&self, context: &Context, from: &End, to: &End, step: &Step, cancel: &Cancel) -> Result<Copied, Failure> {
        let through_store =
            !matches!(from, End::Registry(_) | End::Layout(..)) || !matches!(to, End::Registry(_) | End::Layout(..));
        let store = if through_store { Some(context.store()?) } else { None };
        let store = store.as_ref();
        let source = match from {
            End::Registry(reference) => CopyFrom::Registry(reference),
            End::Store(name) => {
                let store = store.expect("opened above");
                let (found, root) = context.require(store, name)?;
                let others = if self.recursive { kept_referrers(store, &found)? } else { Vec::new() };
                CopyFrom::Local { blobs: Arc::new(store.clone()), store: Some(store), root, others, shown: found }
            }
            End::Layout(path, name) => {
                let layout = Layout::new(path);
                let root = layout.find(name.as_deref())?.map_err(|known| not_found(path, name.as_deref(), &known))?;
                let others = layout.members()?;
                CopyFrom::Local { blobs: Arc::new(layout), store: None, root, others, shown: self.from.clone() }
            }
            End::OciArchive(path, name) | End::DockerArchive(path, name) => {
                let store = store.expect("opened above");
                let imported = read_archive(store, path, cancel)?;
                let others = imported.iter().map(|image| image.descriptor.clone()).collect();
                let root = chosen(imported, path, name.as_deref())?;
                let blobs = Arc::new(store.clone());
                CopyFrom::Local { blobs, store: Some(store), root, others, shown: self.from.clone() }
            }
        };
        // A docker archive has one image.
        let host = Platform::host();
        let platform = match (&self.platform, to) {
            (None, End::DockerArchive(..)) => Some(&host),
            (platform, _) => platform.as_ref(),
        };
        let options = CopyOptions { platform, referrers: self.recursive };
        let client = context.client();
        let layout = match to {
            End::Layout(path, _) => Layout::new(path),
            _ => Layout::new(Path::new("")),
        };
        let goal = match to {
            End::Registry(reference) => CopyTo::Registry(reference),
            End::Layout(..) => CopyTo::Local(&layout),
            _ => CopyTo::Store(store.expect("opened above")),
        };
        let copied = client.transfer(source, goal, options, Some(step), cancel).map_err(of_client)?;
        match to {
            End::Registry(_) => {}
            End::Layout(_, name) => {
                let referrers = copied.referrers.iter().map(|(_, referrer)| (None, bare(referrer)));
                let image = (name.clone().map(Name::Plain), copied.root.clone());
                layout.name(std::iter::once(image).chain(referrers))?;
            }
            End::Store(name) => keep(store.expect("opened above"), name, &copied)?,
            End::OciArchive(path, name) | End::DockerArchive(path, name) => {
                let mut exports = vec![Export { name: name.clone().map(Name::Plain), descriptor: copied.root.clone() }];
                exports.extend(copied.referrers.iter().map(|(_, r)| Export { name: None, descriptor: bare(r) }));
                let store = store.expect("opened above");
                write_archive(path, |out| {
                    match to {
                        End::OciArchive(..) => export_layout_archive(store, out, &exports, cancel).map(drop)?,
                        _ => {
                            export_docker_archive(store, out, &exports, platform.unwrap_or(&host), cancel).map(drop)?
                        }
                    }
                    Ok(())
                })?;
            }
        }
        Ok(copied)
    }
}

/// A list of referrers repeats what the manifest says; an index of a layout need not.
fn bare(referrer: &Descriptor) -> Descriptor {
    let mut descriptor = Descriptor::new(referrer.media_type.as_str(), referrer.digest.clone(), referrer.size);
    descriptor.artifact_type = referrer.artifact_type.clone();
    descriptor
}

fn not_found(path: &Path, name: Option<&str>, known: &[String]) -> Failure {
    let place = path.display();
    let hint = format!("it has {}", known.iter().take(8).cloned().collect::<Vec<_>>().join(", "));
    match (name, known) {
        (_, []) => Failure::sentence(format!("there is no image in `{place}`"), None),
        (Some(name), _) => Failure::sentence(format!("`{place}` has no image `{name}`"), Some(&hint)),
        (None, _) => {
            let hint = format!("append `:NAME` or `@DIGEST`; {hint}");
            Failure::sentence(format!("`{place}` has several images; say which"), Some(&hint))
        }
    }
}

fn read_archive(store: &Store, path: &Path, cancel: &Cancel) -> Result<Vec<Imported>, Failure> {
    let (shown, stream): (String, Box<dyn Read + Send>) = match is_stream(path) {
        true => ("standard input".into(), Box::new(io::stdin())),
        false => {
            let shown = path.display().to_string();
            let file = File::open(path).map_err(Failure::during(format!("cannot open `{shown}`")))?;
            (shown, Box::new(file))
        }
    };
    import_archive(store, &shown, stream, cancel).map_err(|error| match error {
        // What is wrong with the stream alone does not say which stream.
        ctk_store::StoreError::Layer(_) => Failure::during(format!("cannot read {shown}"))(error),
        error => error.into(),
    })
}

/// The image of an archive that is meant: the named one, or the only one that is no attachment.
fn chosen(imported: Vec<Imported>, path: &Path, name: Option<&str>) -> Result<Descriptor, Failure> {
    let known: Vec<String> = imported
        .iter()
        .flat_map(|image| match image.names.is_empty() {
            true => vec![image.descriptor.digest.to_string()],
            false => image.names.clone(),
        })
        .collect();
    let named = imported.iter().any(|image| !image.names.is_empty());
    let fits = |image: &&Imported| match name {
        Some(name) => {
            image.descriptor.digest.to_string() == name
                || image.names.iter().any(|n| n == name || n.ends_with(&format!(":{name}")))
        }
        None => !named || !image.names.is_empty(),
    };
    let mut fitting = imported.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only.descriptor.clone()),
        _ => Err(not_found(path, name, &known)),
    }
}

fn write_archive(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
    if is_stream(path) {
        let mut out = io::BufWriter::with_capacity(256 << 10, io::stdout().lock());
        write(&mut out)?;
        return out.flush().map_err(Failure::during("cannot write to standard output"));
    }
    let failed = |error: io::Error| Failure::during(format!("cannot write `{}`", path.display()))(error);
    let aside = Aside::new(path).map_err(failed)?;
    write(&mut aside.file())?;
    aside.keep().map_err(failed)
}

/// What the store keeps under `NAME:sha256-…`, as registries without a list of referrers do.
fn kept_referrers(store: &Store, name: &str) -> Result<Vec<Descriptor>, Failure> {
    let Ok(image) = name.parse::<Reference>() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (other, kept) in store.references()? {
        let Ok(other) = other.parse::<Reference>() else { continue };
        let same = other.registry() == image.registry() && other.repository() == image.repository();
        let is_list = other.tag().is_some_and(|tag| tag.starts_with("sha256-") || tag.starts_with("sha512-"));
        if same && is_list && media_type::is_index(&kept.descriptor.media_type) {
            found.extend(store.document::<Index>("list of referrers", &kept.descriptor)?.into_value().manifests);
        }
    }
    Ok(found)
}

/// Names what was copied, and its referrers after what they refer to.
fn keep(store: &Store, name: &str, copied: &Copied) -> Result<(), Failure> {
    let name = super::store_name(name)?;
    let mut lists: BTreeMap<&Digest, Vec<Descriptor>> = BTreeMap::new();
    for (subject, referrer) in &copied.referrers {
        lists.entry(subject).or_default().push(referrer.clone());
    }
    let mut changes = vec![(name.to_string(), Some(Ref::new(copied.root.clone())))];
    for (subject, referrers) in lists {
        let list = name.with_tag(&ctk_client::referrers_tag(subject))?.to_string();
        let mut index = match store.reference(&list)? {
            Some(kept) => store.document::<Index>("list of referrers", &kept.descriptor)?.into_value(),
            None => Index::new(Vec::new()),
        };
        for referrer in referrers {
            if !index.manifests.iter().any(|known| known.digest == referrer.digest) {
                index.manifests.push(referrer);
            }
        }
        let descriptor = store.put(media_type::INDEX, Document::new(index).bytes())?;
        changes.push((list, Some(Ref::new(descriptor))));
    }
    Ok(store.update_references(&changes)?)
}
