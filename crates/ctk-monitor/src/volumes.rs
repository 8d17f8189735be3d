//! The volumes of containers: who has which, and what goes with a container.

use ctk_volume::Volumes;

use crate::containers::{Containers, Locked};
use crate::{Config, Error};

impl Containers {
    /// The volumes of the same store.
    pub fn volumes(&self) -> Volumes {
        Volumes::new(self.root().with_file_name("volumes"))
    }

    /// The names of the containers that have this volume, whatever they do.
    pub fn users_of_volume(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut users = Vec::new();
        for container in self.list()? {
            // One that goes away meanwhile has none.
            let Ok(config) = container.config() else { continue };
            if config.anonymous_volumes.iter().chain(&config.volumes).any(|volume| volume == name) {
                users.push(config.name);
            }
        }
        users.sort_unstable();
        Ok(users)
    }

    /// Removes a container that does not run, and its anonymous volumes with it.
    pub fn remove_with_volumes(&self, locked: Locked, config: &Config) -> Result<(), Error> {
        self.remove(locked)?;
        self.remove_volumes(config)
    }

    /// Removes the anonymous volumes of a container that is gone, but for those that others have by now.
    pub fn remove_volumes(&self, gone: &Config) -> Result<(), Error> {
        let volumes = self.volumes();
        for name in &gone.anonymous_volumes {
            let Some(volume) = volumes.get(name) else { continue };
            match volumes.remove(&volume, || self.users_of_volume(name)) {
                Err(Error::Volume(ctk_volume::Error::InUse { .. } | ctk_volume::Error::Missing { .. })) => {}
                other => other?,
            }
        }
        Ok(())
    }
}
