//! What commands share: the environment, the store, the words "stop" and "this happened".

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use ctk_apply::{ApplyError, Options, Session};
use ctk_client::Client;
use ctk_oci::{Descriptor, Reference};
use ctk_plan::{Address, Cancel, Kind, Reporter, Sink};
use ctk_snapshot::LayerForm;
use ctk_store::Store;

use crate::commands::project::ProjectArgs;
use crate::commands::{Global, Trees, store_name};
use crate::env::Environment;
use crate::failure::{Failure, of_client};
use crate::rootless::Standing;
use crate::signals;

/// What every command is given.
pub struct Context {
    environment: Environment,
    progress: crate::report::Progress,
    options: Options,
    sink: RefCell<Option<Arc<dyn Sink>>>,
}

impl Context {
    /// After the global options and the environment; `is_root` is whether the machine's root started us.
    pub fn new(global: &Global, environment: Environment, is_root: bool) -> Context {
        let mut options = Options::from_environment(environment.pairs(), is_root);
        if let Some(root) = &global.root {
            // Mounts and containers' files name it: it must mean the same wherever they look from.
            let root = global.directory.as_ref().map_or_else(|| root.clone(), |directory| directory.join(root));
            let root = std::path::absolute(&root).unwrap_or(root);
            options.state = root.join("run");
            options.store = root;
        }
        if let Some(file) = &global.registries {
            options.client.registries = vec![file.clone()];
        }
        let services = crate::commands::container::services::Services::new(options.store.clone(), is_root);
        options.services = Some(Arc::new(services));
        let buildkit = || {
            let word = environment.get("BUILDKIT_PROGRESS")?;
            clap::ValueEnum::from_str(&word, true).ok()
        };
        let progress = global.progress.or_else(buildkit).unwrap_or_default();
        Context { environment, progress, options, sink: RefCell::new(None) }
    }

    /// Says as what the command runs, where its user would look.
    pub fn tell(&self, standing: &Standing, trees: Trees) {
        let plain = self.progress.is_plain();
        let story = standing.story().filter(|_| plain && trees == Trees::Made);
        let note = standing.note().filter(|_| self.progress.is_for_people() && trees == Trees::Made);
        eprint!("{}{}", story.unwrap_or_default(), note.unwrap_or_default());
    }

    /// The options of a session, to be changed by the command's own.
    pub fn options(&self) -> Options {
        self.options.clone()
    }

    /// The environment.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Where running containers are written down.
    pub fn state_directory(&self) -> PathBuf {
        self.options.state.clone()
    }

    /// The store.
    pub fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.options.store)?)
    }

    /// The registry client. Connects nothing yet.
    pub fn client(&self) -> Client {
        Client::new(self.options.client.clone())
    }

    /// What the user calls `name` in a registry: with aliases and registries to search as registries.conf has them.
    pub fn full_name(&self, name: &str, cancel: &Cancel) -> Result<Reference, Failure> {
        let name = name.strip_prefix("docker://").unwrap_or(name);
        self.client().full_name(name, cancel).map_err(of_client)
    }

    /// Tells what registries warned of: to people a line each, to programs as events.
    pub fn tell_registry_warnings(&self) {
        for warning in self.options.client.warnings.take() {
            if self.progress.is_for_people() {
                eprintln!("warning: {} says: {}", warning.host, warning.text);
            } else {
                Reporter::new(Address::new(Kind::Registry, warning.host), self.sink()).warn(warning.text);
            }
        }
        self.end_story();
    }

    /// From now on an interrupt cancels.
    pub fn cancel_on_interrupt(&self) -> Cancel {
        let cancel = Cancel::new();
        signals::cancel_on_interrupt(&cancel);
        cancel
    }

    /// How progress is told.
    pub fn progress(&self) -> crate::report::Progress {
        self.progress
    }

    /// Nobody hears events of this command but errors, whatever else was said.
    pub fn be_quiet(&self) {
        self.sink.replace(Some(crate::report::Progress::Quiet.sink()));
    }

    /// Who hears events; one for the whole command.
    pub fn sink(&self) -> Arc<dyn Sink> {
        self.sink.borrow_mut().get_or_insert_with(|| self.progress.sink()).clone()
    }

    /// Waits until everything that happened is told.
    pub fn end_story(&self) {
        self.sink.borrow_mut().take();
    }

    /// In what form containers mount the layers of their images: `CTK_LAYERS`.
    pub fn layers(&self) -> Result<LayerForm, Failure> {
        match self.environment.get("CTK_LAYERS").as_deref() {
            None | Some("tree") => Ok(LayerForm::Tree),
            Some("erofs") => {
                let kernel = rustix::system::uname();
                let release = kernel.release().to_string_lossy();
                if !mounts_files(&release) {
                    let what = format!("CTK_LAYERS is `erofs`, and linux {release} mounts no images from files");
                    let hint = "linux 6.12 does, and later ones; without CTK_LAYERS layers are mounted as trees";
                    return Err(Failure::sentence(what, Some(hint)));
                }
                Ok(LayerForm::Image)
            }
            Some(other) => Err(Failure::sentence(format!("CTK_LAYERS is `{other}`"), Some("it is `tree` or `erofs`"))),
        }
    }

    /// Whether errors may be coloured. Nothing relies on it.
    pub fn color(&self) -> bool {
        use std::io::IsTerminal;
        std::io::stderr().is_terminal() && self.environment.get("NO_COLOR").is_none()
    }

    /// An opened session, after what its author should know; or what a user reads.
    pub fn opened(&self, result: Result<Session, ApplyError>) -> Result<Session, Failure> {
        let session = self.explain(result)?;
        eprint!("{}", session.warnings(self.color()));
        Ok(session)
    }

    /// Turns what a session says into what a user reads.
    pub fn explain<T>(&self, result: Result<T, ApplyError>) -> Result<T, Failure> {
        self.end_story();
        result.map_err(|error| match error {
            ApplyError::Cancelled => Failure::Interrupted,
            error => Failure::Explained(error.explain(self.color())),
        })
    }

    /// The image that the user calls `name`: `image:x` of the project, else a name in the store.
    pub fn find(&self, store: &Store, name: &str) -> Result<Option<(String, Descriptor)>, Failure> {
        let name = match name.strip_prefix("image:") {
            Some(image) => {
                let session = ProjectArgs::default().open(self)?;
                ctk_apply::local_name(&session.project().name, &Address::new(Kind::Image, image))
            }
            None => name.to_owned(),
        };
        for candidate in candidates(name) {
            if let Some(found) = store.reference(&candidate)? {
                return Ok(Some((candidate, found.descriptor)));
            }
        }
        Ok(None)
    }

    /// Removes what the store knows under `name`, if it cannot be read any more.
    pub fn remove_damaged(&self, store: &Store, name: &str) -> Result<bool, Failure> {
        for candidate in candidates(name.to_owned()) {
            if store.remove_damaged_reference(&candidate)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same, and an error that says what to do if it is not there.
    pub fn require(&self, store: &Store, name: &str) -> Result<(String, Descriptor), Failure> {
        let found = self.find(store, name)?;
        found.ok_or_else(|| match name.strip_prefix("image:") {
            Some(_) => Failure::sentence(format!("`{name}` is not built yet"), Some(&format!("`ctk build {name}`"))),
            None => Failure::sentence(
                format!("the store has no image `{name}`"),
                Some("`ctk images` lists the names; `ctk pull` fetches one"),
            ),
        })
    }
}

/// The names under which the store may keep what the user calls `name`, the likeliest first.
fn candidates(name: String) -> Vec<String> {
    let local = store_name(&name).map(|reference| reference.to_string()).ok();
    let public = name.parse::<ctk_oci::Reference>().map(|reference| reference.or_latest().to_string()).ok();
    [Some(name), local, public].into_iter().flatten().collect()
}

/// Whether a kernel of this release mounts EROFS images from files (linux 6.12).
fn mounts_files(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        for (release, expected) in [
            ("6.12.0", true),
            ("6.11.9-generic", false),
            ("5.15.0", false),
            ("7.0-rc1", true),
            ("6.18.44+deb", true),
            ("", false),
        ] {
            assert_eq!(mounts_files(release), expected, "{release}");
        }
    }
}
