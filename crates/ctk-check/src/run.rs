//! Running a test: services, start, assertions, report.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use ctk_container::{ExecOptions, Network, RunOptions, Stdio, Switch};
use ctk_oci::{Descriptor, Platform, Reference};
use ctk_plan::{Cancel, Outcome, Reporter};
use ctk_snapshot::Snapshots;
use ctk_store::{Depth, Fetch, Store};

use crate::decl::{IMAGE_HOST, Launch, Probe, TestDecl};
use crate::error::CheckError;
use crate::http::{HttpError, Request, exchange};
use crate::image::{Image, Root};
use crate::limits;
use crate::output::TailBuffer;
use crate::report::{AssertionOutcome, AssertionResult, Mismatch, Report};
use crate::world::{Running, World, blames_the_image, pause};

/// What a test is run with.
pub struct TestRequest<'a> {
    /// The test.
    pub decl: &'a TestDecl,
    /// The tested image: a manifest in the store, or an index with one for `platform`.
    pub image: &'a Descriptor,
    /// The image of every service, by the service's name.
    pub services: &'a BTreeMap<String, ServiceImage>,
    /// What the containers run on.
    pub platform: &'a Platform,
    /// Where images are.
    pub store: &'a Store,
    /// Where they are unpacked.
    pub snapshots: &'a Snapshots,
    /// Brings services' images that are not in the store.
    pub fetch: &'a dyn Fetch,
    /// Where running containers are written down.
    pub state_dir: &'a Path,
    /// Hears of every assertion, and what the started containers write.
    pub reporter: &'a Reporter,
    /// Stops the test; its containers are gone when [`run`] returns.
    pub cancel: &'a Cancel,
}

/// The image of a service.
#[derive(Clone, Debug)]
pub enum ServiceImage {
    /// In the store.
    Stored(Descriptor),
    /// To be fetched if it isn't in the store; with the digest that the lock file says.
    Pinned(Reference),
}

/// Runs a test. Every assertion is asked, whatever failed before; `Err` only when the test itself could not be run.
/// Changes nothing but the cache of unpacked layers; safe to repeat.
pub fn run(request: &TestRequest<'_>) -> Result<Report, CheckError> {
    let began = Instant::now();
    let image = Image::open(request, request.image)?;
    let service_images = service_images(request)?;
    let files = image.files()?;
    let switch = match request.decl.has_network() {
        true => Some(Switch::new().map_err(CheckError::Network)?),
        false => None,
    };
    let mut stage =
        Stage { request, running: Vec::new(), roots: Vec::new(), results: Vec::new(), down: BTreeMap::new() };
    if let Some(switch) = &switch {
        stage.start_all(switch, &image, &service_images)?;
    }
    // Also on an error below the containers are dropped first: what is bound later goes earlier.
    let Stage { roots, running, mut results, down, .. } = stage;
    let world = World {
        image: &image,
        tree: &files.tree,
        switch: switch.as_ref(),
        running: &running,
        state_dir: request.state_dir,
        cancel: request.cancel,
        commands: AtomicU32::new(0),
    };
    for decl in &request.decl.assertions {
        if request.cancel.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        let started = Instant::now();
        let step = request.reporter.step(decl.name.clone());
        let outcome = match decl.assertion.host().and_then(|host| down.get(host)) {
            Some(reason) => AssertionOutcome::Skipped { reason: reason.clone() },
            None => decl.assertion.check(&world)?,
        };
        step.finish(outcome_of(&outcome));
        results.push(AssertionResult::new(decl.kind, decl.name.clone(), outcome, started.elapsed()));
    }
    blame_the_dead(&running, &mut results)?;
    // Kills the containers; only then their roots can go.
    let tails: Vec<TailBuffer> = running.iter().map(|running| running.tail.clone()).collect();
    drop(running);
    drop(roots);
    let mut report = Report {
        address: request.decl.address.clone(),
        assertions: results,
        output: Vec::new(),
        seconds: began.elapsed().as_secs_f64(),
    };
    if !report.passed() {
        report.output = tails.iter().filter_map(TailBuffer::tail).collect();
    }
    for tail in tails {
        tail.finish(Outcome::Done);
    }
    Ok(report)
}

fn outcome_of(outcome: &AssertionOutcome) -> Outcome {
    match outcome {
        AssertionOutcome::Passed => Outcome::Done,
        AssertionOutcome::Skipped { .. } => Outcome::Skipped,
        AssertionOutcome::Failed { mismatches } => {
            let first = mismatches.first().map(Mismatch::to_string).unwrap_or_default();
            Outcome::Failed(first.lines().next().unwrap_or_default().to_string())
        }
    }
}

/// A container that ended badly under the test fails what started it, unless that has failed already.
fn blame_the_dead(running: &[Running], results: &mut [AssertionResult]) -> Result<(), CheckError> {
    for running in running {
        let Some(status) = running.ended()?.filter(|status| !status.success()) else { continue };
        let name = start_name(&running.name);
        if let Some(result) = results.iter_mut().find(|result| result.name == name)
            && result.outcome == AssertionOutcome::Passed
        {
            let mismatch = Mismatch::new(format!("`{}`", running.name), "running until the end", status.to_string());
            result.outcome = AssertionOutcome::of(vec![mismatch]);
        }
    }
    Ok(())
}

fn start_name(container: &str) -> String {
    if container == IMAGE_HOST { "start".into() } else { format!("service {container}") }
}

/// The services' images, in the store and unpacked.
fn service_images(request: &TestRequest<'_>) -> Result<Vec<Image>, CheckError> {
    let mut images = Vec::new();
    for service in &request.decl.services {
        let missing =
            || CheckError::NotBuilt { test: request.decl.address.clone(), image: Box::new(service.image.clone()) };
        let descriptor = match request.services.get(&service.name).ok_or_else(missing)? {
            ServiceImage::Stored(descriptor) => descriptor.clone(),
            ServiceImage::Pinned(reference) => request
                .fetch
                .fetch(
                    reference,
                    Some(request.platform),
                    Depth::Layers,
                    request.store,
                    request.reporter,
                    request.cancel,
                )
                .map_err(|source| match source {
                    ctk_store::FetchError::Cancelled => CheckError::Cancelled,
                    source => CheckError::Fetch { service: service.name.clone(), source: Box::new(source) },
                })?,
        };
        images.push(Image::open(request, &descriptor)?);
    }
    Ok(images)
}

/// The containers of a test, coming up.
struct Stage<'a> {
    request: &'a TestRequest<'a>,
    running: Vec<Running>,
    /// Live as long as the containers over them.
    roots: Vec<Root>,
    results: Vec<AssertionResult>,
    /// Containers that are not up, and why what needs them is skipped.
    down: BTreeMap<String, String>,
}

impl Stage<'_> {
    /// Starts the services side by side, waits until all are healthy, then starts the image.
    fn start_all(&mut self, switch: &Switch, image: &Image, services: &[Image]) -> Result<(), CheckError> {
        let decl = self.request.decl;
        let mut times = Vec::new();
        for (service, image) in decl.services.iter().zip(services) {
            times.push((Instant::now(), self.launch(switch, &service.name, image, &service.launch)?));
        }
        for (service, (began, mismatch)) in decl.services.iter().zip(times) {
            let mismatch = match mismatch {
                None => self.await_health(switch, &service.name, &service.launch)?,
                failed => failed,
            };
            self.conclude(&service.name, mismatch, began.elapsed());
        }
        let Some(launch) = &decl.start else { return Ok(()) };
        if let Some(service) = self.down.keys().next() {
            let reason = format!("service `{service}` is not up");
            self.down.insert(IMAGE_HOST.into(), format!("the image was not started: {reason}"));
            self.results.push(AssertionResult::new(
                "start",
                "start",
                AssertionOutcome::Skipped { reason },
                Duration::ZERO,
            ));
            return Ok(());
        }
        let began = Instant::now();
        let mismatch = match self.launch(switch, IMAGE_HOST, image, launch)? {
            None => self.await_health(switch, IMAGE_HOST, launch)?,
            failed => failed,
        };
        self.conclude(IMAGE_HOST, mismatch, began.elapsed());
        Ok(())
    }

    fn conclude(&mut self, name: &str, mismatch: Option<Mismatch>, elapsed: Duration) {
        let kind = if name == IMAGE_HOST { "start" } else { "service" };
        if mismatch.is_some() {
            let reason = if name == IMAGE_HOST {
                "the image did not come up".to_string()
            } else {
                format!("service `{name}` did not come up")
            };
            self.down.insert(name.into(), reason);
            if let Some(running) = self.running.iter().find(|running| running.name == name) {
                running.tail.finish(Outcome::Failed("it did not come up".into()));
            }
        }
        let outcome = AssertionOutcome::of(mismatch.into_iter().collect());
        self.results.push(AssertionResult::new(kind, start_name(name), outcome, elapsed));
    }

    /// Starts a container; a mismatch says why it did not.
    fn launch(
        &mut self,
        switch: &Switch,
        name: &str,
        image: &Image,
        launch: &Launch,
    ) -> Result<Option<Mismatch>, CheckError> {
        let root = image.fresh_root()?;
        let tail = TailBuffer::new(name, self.request.reporter.step(start_name(name)));
        let mut options = RunOptions::new(root.mount(), &image.config.config, self.request.state_dir);
        options.env = launch.env.clone();
        options.args = launch.command.clone();
        options.entrypoint = launch.entrypoint.clone();
        if let (Some(entrypoint), Some(command)) = (&launch.entrypoint, &launch.command) {
            options.entrypoint = Some(entrypoint.iter().chain(command).cloned().collect());
            options.args = None;
        }
        options.user = launch.user.clone();
        options.workdir = launch.workdir.clone();
        options.hostname = Some(name.into());
        options.network = Network::Private { switch, names: vec![name.into()] };
        options.stdio = Stdio::Lines(tail.sink());
        match ctk_container::run(options) {
            Ok(container) => {
                self.running.push(Running { name: name.into(), container, tail });
                self.roots.push(root);
                Ok(None)
            }
            Err(source) if !blames_the_image(&source) => Err(CheckError::Start { what: start_name(name), source }),
            Err(error) => {
                let why = crate::chain(&error);
                tail.finish(Outcome::Failed(why.clone()));
                Ok(Some(Mismatch::new("start", "a running container", why)))
            }
        }
    }

    /// Waits until the container of that name is healthy; a mismatch says why it is not.
    fn await_health(&self, switch: &Switch, name: &str, launch: &Launch) -> Result<Option<Mismatch>, CheckError> {
        let Some(running) = self.running.iter().find(|running| running.name == name) else { return Ok(None) };
        let Some(health) = &launch.health else { return Ok(None) };
        let deadline = Instant::now() + health.within;
        let expected = format!("healthy within {}", crate::spell(health.within));
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(limits::RETRY_PAUSE);
            let why = match self.probe(switch, running, &health.probe, left.min(health.timeout))? {
                None => return Ok(None),
                Some(why) => why,
            };
            if let Some(status) = running.ended()? {
                return Ok(Some(Mismatch::new("health", expected, format!("the container ended: {status}"))));
            }
            if Instant::now() >= deadline {
                return Ok(Some(Mismatch::new("health", expected, why)));
            }
            pause(health.every.min(left), self.request.cancel)?;
        }
    }

    /// Asks once; `Some` says why it is not healthy.
    fn probe(
        &self,
        switch: &Switch,
        running: &Running,
        probe: &Probe,
        timeout: Duration,
    ) -> Result<Option<String>, CheckError> {
        let cancel = self.request.cancel;
        if cancel.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        match probe {
            Probe::Tcp(port) => {
                Ok(switch.connect(&running.name, *port, timeout).err().map(|error| crate::chain(&error)))
            }
            Probe::Http(url) => {
                let stream = match switch.connect(&url.host, url.port, timeout) {
                    Ok(stream) => stream,
                    Err(error) => return Ok(Some(crate::chain(&error))),
                };
                let request =
                    Request { method: http::Method::GET, url: url.clone(), headers: Vec::new(), body: String::new() };
                match exchange(stream, &request, timeout, cancel) {
                    Ok(answer) if answer.status < 400 => Ok(None),
                    Ok(answer) => Ok(Some(format!("status {} from {}", answer.status, url.path))),
                    Err(HttpError::Cancelled) => Err(CheckError::Cancelled),
                    Err(error) => Ok(Some(crate::chain(&error))),
                }
            }
            Probe::Exec(args) => {
                let mut options = ExecOptions::new(args.clone());
                options.stdio = Stdio::Null;
                options.timeout = Some(timeout);
                match running.container.exec(options, cancel) {
                    Ok(status) if status.success() => Ok(None),
                    Ok(ctk_container::ExitStatus::Cancelled) => Err(CheckError::Cancelled),
                    Ok(status) => Ok(Some(format!("`{}`: {status}", args.join(" ")))),
                    Err(error) => Ok(Some(crate::chain(&error))),
                }
            }
        }
    }
}
