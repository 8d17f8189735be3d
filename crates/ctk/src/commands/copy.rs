//! `ctk copy`: an image between registries, the store, layouts and archives.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use ctk_oci::{Descriptor, Platform, Reference};
use ctk_plan::{Address, Cancel, Kind, Reporter};
use ctk_store::{
    Aside, Depth, Export, Name, Ref, Store, export_docker_archive, export_layout, export_layout_archive,
    import_archive, import_layout,
};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Copy an image between registries, the store, layouts and archives
#[derive(Args)]
pub struct Copy {
    /// `[docker://]REFERENCE`, `store:NAME`, `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`
    from: String,
    /// The same
    to: String,
    /// Only the image for this platform [default: all of an index]
    #[arg(long)]
    platform: Option<Platform>,
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
    fn parse(text: &str) -> Result<End, Failure> {
        let place = |rest: &str| {
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name.to_owned())),
                None => (rest, None),
            };
            (PathBuf::from(path), name)
        };
        Ok(match text.split_once(':') {
            Some(("docker", rest)) if rest.starts_with("//") => {
                End::Registry(rest[2..].parse::<Reference>()?.or_latest())
            }
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
            _ => End::Registry(text.parse::<Reference>()?.or_latest()),
        })
    }
}

impl Copy {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let (from, to) = (End::parse(&self.from)?, End::parse(&self.to)?);
        let reporter = Reporter::new(Address::new(Kind::Image, self.to.as_str()), context.sink());
        let step = reporter.step(format!("copy from {}", self.from));
        let client = context.client();
        if let (End::Registry(from), End::Registry(to)) = (&from, &to) {
            let copied = client.copy(from, to, self.platform.as_ref(), Some(&step), &cancel);
            let copied = step.conclude(copied);
            context.end_story();
            return output(&format!("{to} {}\n", copied.map_err(of_client)?.digest));
        }
        // Everything else goes through the store, which verifies what it takes.
        let store = context.store()?;
        let read = self.read(context, &store, &from, &step, &cancel);
        let copied = read.and_then(|descriptor| {
            write(&client, &store, &to, &descriptor, self.platform.as_ref(), &step, &cancel).map(|()| descriptor)
        });
        match &copied {
            Ok(_) => step.finish(ctk_plan::Outcome::Done),
            Err(_) => step.finish(ctk_plan::Outcome::Failed("not copied".into())),
        }
        context.end_story();
        output(&format!("{} {}\n", self.to, copied?.digest))
    }

    fn read(
        &self,
        context: &Context,
        store: &Store,
        from: &End,
        step: &ctk_plan::Step,
        cancel: &Cancel,
    ) -> Result<Descriptor, Failure> {
        let named = |imported: Vec<ctk_store::Imported>, name: &Option<String>, path: &Path| {
            let count = imported.len();
            let mut matching = imported.into_iter().filter(|image| match name {
                Some(name) => image.names.iter().any(|n| n == name || n.ends_with(&format!(":{name}"))),
                None => count == 1,
            });
            matching.next().map(|image| image.descriptor).ok_or_else(|| match name {
                Some(name) => Failure::sentence(format!("{} has no image `{name}`", path.display()), None),
                None => Failure::sentence(
                    format!("{} has {count} images; say which", path.display()),
                    Some("append `:NAME`"),
                ),
            })
        };
        let archive = |path: &Path| {
            let file = File::open(path)
                .map_err(|e| Failure::sentence(format!("cannot open {}: {e}", path.display()), None))?;
            Ok::<_, Failure>(import_archive(store, &path.display().to_string(), file, cancel)?)
        };
        match from {
            End::Registry(reference) => {
                let client = context.client();
                let pulled = client.pull(reference, self.platform.as_ref(), Depth::Layers, store, Some(step), cancel);
                pulled.map_err(of_client)
            }
            End::Store(name) => Ok(context.require(store, name)?.1),
            End::Layout(path, name) => named(import_layout(store, path, cancel)?, name, path),
            End::OciArchive(path, name) | End::DockerArchive(path, name) => named(archive(path)?, name, path),
        }
    }
}

fn write(
    client: &ctk_client::Client,
    store: &Store,
    to: &End,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
    step: &ctk_plan::Step,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let export =
        |name: &Option<String>| [Export { name: name.clone().map(Name::Plain), descriptor: descriptor.clone() }];
    let whole = |path: &Path, write: &mut dyn FnMut(&mut &File) -> Result<(), Failure>| {
        let failed = |e: std::io::Error| Failure::sentence(format!("cannot write {}: {e}", path.display()), None);
        let aside = Aside::new(path).map_err(failed)?;
        write(&mut aside.file())?;
        aside.keep().map_err(failed)
    };
    match to {
        End::Registry(reference) => {
            let pushed =
                client.push(reference, descriptor, store, &ctk_client::PushOptions::default(), Some(step), cancel);
            pushed.map_err(of_client)?;
        }
        End::Store(name) => {
            store.set_reference(&super::store_name(name)?.to_string(), &Ref::new(descriptor.clone()))?
        }
        End::Layout(path, name) => export_layout(store, path, &export(name), cancel)?,
        End::OciArchive(path, name) => {
            whole(path, &mut |file| Ok(export_layout_archive(store, file, &export(name), cancel).map(drop)?))?;
        }
        End::DockerArchive(path, name) => {
            let platform = platform.cloned().unwrap_or_else(Platform::host);
            whole(path, &mut |file| {
                Ok(export_docker_archive(store, file, &export(name), &platform, cancel).map(drop)?)
            })?;
        }
    }
    Ok(())
}
