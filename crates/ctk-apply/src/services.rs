//! Services of an apply: what their containers show, and starting them.

use std::collections::BTreeMap;

use ctk_build::LockView;
use ctk_oci::{Descriptor, Digest, Reference};
use ctk_plan::{Address, Observed, PlannedUnit, Reporter};
use ctk_service::{Engine, ImageName, Order, ServiceDecl, ServiceError};
use ctk_store::{Depth, Fetch};

use crate::apply::{Failed, Work, failure};
use crate::{ApplyError, Session, codes, local_name};

/// What a service's container is called among the places that a plan compares.
pub(crate) fn target(decl: &ServiceDecl) -> String {
    format!("container {}", decl.container)
}

/// The references that a service's container runs.
pub(crate) fn service_references(decl: &ServiceDecl) -> Vec<Reference> {
    match &decl.image {
        ImageName::Reference(reference) => vec![reference.clone()],
        ImageName::Project(_) => Vec::new(),
    }
}

impl Session {
    /// Fills in what the containers of services show.
    pub(crate) fn look_at_services(&self, wanted: &[Address], seen: &mut Observed) {
        for decl in wanted.iter().filter_map(|address| self.services.get(address)) {
            let shown = match &self.options.services {
                Some(engine) => ctk_service::observe(decl, &**engine).map_err(|error| error.to_string()),
                None => Err("this program makes no containers".into()),
            };
            match shown {
                Ok(Some(digest)) => drop(seen.targets.insert(target(decl), digest)),
                Ok(None) => {}
                Err(reason) => drop(seen.unreachable.insert(target(decl), reason)),
            }
        }
    }

    /// Stops and removes the containers of these services, and of those that the file does not declare any more if
    /// `only` is empty. Gives back the names of those that were there.
    pub fn destroy(&self, only: &std::collections::BTreeSet<Address>) -> Result<Vec<String>, ApplyError> {
        let Some(engine) = &self.options.services else { return Ok(Vec::new()) };
        let chosen = self.services.iter().rev().filter(|(address, _)| only.is_empty() || only.contains(address));
        let mut containers: Vec<String> = Vec::new();
        // Those first that others need last.
        for address in self.order.iter().rev() {
            containers.extend(chosen.clone().filter(|(a, _)| *a == address).map(|(_, decl)| decl.container.clone()));
        }
        let failed = |reason: String| {
            let address = Address::new(ctk_plan::Kind::Service, self.project.name.clone());
            let code = codes::SERVICE_FAILED;
            let text = format!(
                "error[{code}]: failed to stop the services of `{}`\n  caused by: {reason}\n",
                self.project.name
            );
            ApplyError::Failed { failures: vec![crate::UnitFailure { address, code, text }], reports: Vec::new() }
        };
        if only.is_empty() {
            for left in engine.of_project(&self.project.name).map_err(failed)? {
                if !containers.contains(&left) {
                    containers.push(left);
                }
            }
        }
        let mut gone = Vec::new();
        for container in containers {
            if engine.remove(&container).map_err(failed)? {
                gone.push(container);
            }
        }
        Ok(gone)
    }
}

impl Work<'_> {
    /// Starts a service's container, in the place of the one before.
    pub(crate) fn start_service(&self, planned: &PlannedUnit) -> Result<BTreeMap<String, Digest>, Failed> {
        let address = &planned.address;
        let session = self.session;
        let decl = session.services.get(address).expect("the project's addresses are decoded");
        let broken = |error: &(dyn std::error::Error + 'static)| {
            let hint = format!("`ctk logs {}` shows what it wrote", decl.container);
            let hint = matches!(error.downcast_ref(), Some(ServiceError::Ended { .. })).then_some(hint);
            let failure = failure(address, codes::SERVICE_FAILED, "failed to start", error, hint.as_deref());
            Failed::Unit(Box::new(failure), None)
        };
        let engine: &dyn Engine = match &session.options.services {
            Some(engine) => &**engine,
            None => {
                let error = std::io::Error::other("this program makes no containers");
                return Err(broken(&error));
            }
        };
        let reporter = Reporter::new(address.clone(), self.sink.clone());
        let (image, image_name) = self.image_for(decl, &reporter).map_err(|error| match *error {
            ctk_store::FetchError::Cancelled => Failed::Cancelled,
            error => broken(&error),
        })?;
        let digest = Digest::of(planned.fingerprint.as_str().as_bytes());
        let order =
            Order { decl, project: &session.project.name, image: &image, image_name: &image_name, digest: &digest };
        let needed: Vec<_> =
            decl.after.iter().filter_map(|(address, when)| Some((session.services.get(address)?, *when))).collect();
        match ctk_service::start(&order, &needed, engine, self.cancel) {
            Ok(()) => Ok(BTreeMap::from([(target(decl), digest)])),
            Err(ServiceError::Cancelled) => Err(Failed::Cancelled),
            Err(error) => Err(broken(&error)),
        }
    }

    fn image_for(
        &self,
        decl: &ServiceDecl,
        reporter: &Reporter,
    ) -> Result<(Descriptor, String), Box<ctk_store::FetchError>> {
        match &decl.image {
            ImageName::Project(address) => {
                let results = self.results.lock().expect("no holder panics");
                let image = results.get(address).expect("needs come first").clone();
                Ok((image, local_name(&self.session.project.name, address)))
            }
            ImageName::Reference(reference) => {
                let ground = self.ground;
                let pinned = match self.session.lock.image(reference, &ground.platform) {
                    Some(digest) => reference.with_digest(digest),
                    None => reference.clone(),
                };
                let platform = Some(&ground.platform);
                let image =
                    ground.fetch.fetch(&pinned, platform, Depth::Layers, &ground.store, reporter, self.cancel)?;
                Ok((image, reference.to_string()))
            }
        }
    }
}
