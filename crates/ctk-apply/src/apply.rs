//! Resolve, plan, execute, publish, record.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ctk_build::{
    BuildError, BuildRequest, Built, Caches, ImageDecl, LockView, RunSettings, SecretSource, Secrets, Slots, SshDecl,
    SshSource, World,
};
use ctk_buildgraph::BaseName;
use ctk_cache::Export;
use ctk_check::{CheckError, ImageName, Report, ServiceImage, TestRequest};
use ctk_dag::{Graph, Scheduler};
use ctk_oci::Descriptor;
use ctk_packages::{HostSources, PackagesError};
use ctk_plan::{
    Action, Address, Cancel, Event, Kind, Last, Outcome, Plan, PlannedUnit, Produced, Reporter, Sink, Unit,
};
use ctk_push::export::{ExportError, Form, Image};
use ctk_push::{PushError, PushRequest, Reach, Staged};
use ctk_registry::{RegistryError, Server};
use ctk_store::{Depth, Fetch, Ref};
use ctk_syntax::Sources;

use crate::besides::verified;
use crate::ground::{Ground, host_packages};
use crate::lock::LockBook;
use crate::observe::{Outlook, Request, test_references};
use crate::records::Records;
use crate::secrets::DeclaredSecrets;
use crate::services::service_references;
use crate::{ApplyError, Session, UnitFailure, codes, explain, local_name};

/// Requests to the embedded registry that are under way at the end have so long to finish.
const SERVE_GRACE: Duration = Duration::from_secs(5);

/// What an apply did.
#[derive(Debug)]
pub struct Applied {
    /// The plan that was carried out.
    pub plan: Plan,
    /// What the tests that ran said.
    pub reports: Vec<Report>,
    /// What was pushed, by place.
    pub published: BTreeMap<String, ctk_oci::Digest>,
}

impl Applied {
    /// An apply of a plan without changes.
    pub fn nothing(plan: Plan) -> Applied {
        Applied { plan, reports: Vec::new(), published: BTreeMap::new() }
    }
}

/// What a finished unit leaves to the others and to the end.
enum Finished {
    Image(Box<Descriptor>),
    Test(Report),
    Push(Box<Staged>),
    /// What its container shows, by the target's name.
    Service(BTreeMap<String, ctk_oci::Digest>),
}

impl Session {
    /// Makes what the project declares so. Events go to `sink` from several threads. Safe to repeat, also after an
    /// interrupt anywhere: what was finished is not done again, and no tag moves unless everything succeeded.
    pub fn apply(&self, request: &Request, sink: Arc<dyn Sink>, cancel: &Cancel) -> Result<Applied, ApplyError> {
        let ground = Ground::open(&self.options, self.registries.values())?;
        ctk_container::cleanup_stale(&self.options.state).map_err(ApplyError::CleanUp)?;
        // Two applies of one project take turns; everything else in the store is shared.
        let _turn = ground.store.lock(&Records::new(&ground.store, &self.directory).lock_name(), cancel)?;
        let _caches = ground.store.use_caches()?;
        let outlook = self.look(&ground, request, cancel)?;
        let outlook = self.resolved(&ground, outlook, request, &sink, cancel)?;
        if !outlook.plan.has_changes() {
            ground.index.save();
            self.restore_names(&outlook.plan)?;
            return Ok(Applied::nothing(outlook.plan));
        }
        let servers = self.serve(&outlook.plan)?;
        let applied = self.carry_out(&ground, outlook, request, &sink, cancel);
        ground.index.save();
        for server in servers {
            server.shutdown(SERVE_GRACE);
        }
        applied
    }

    /// Images that `plan` keeps get their names in the store again, should somebody have taken them, or should the
    /// process that built them have been killed just before it gave them.
    pub fn restore_names(&self, plan: &Plan) -> Result<(), ApplyError> {
        let store = ctk_store::Store::open(&self.options.store)?;
        let mut changes = Vec::new();
        for unit in plan.units.iter().filter(|unit| unit.action == Action::Keep) {
            let Some(Produced { image: Some(image), .. }) = &unit.result else { continue };
            let name = local_name(&self.project.name, &unit.address);
            if store.reference(&name)?.is_none_or(|found| found.descriptor != *image) {
                changes.push((name, Some(Ref::new(image.clone()))));
            }
        }
        if !changes.is_empty() {
            store.update_references(&changes)?;
        }
        Ok(())
    }

    /// What the tests said that `plan` keeps because they passed before; those whose words are not kept are missing.
    pub fn kept_reports(&self, plan: &Plan) -> Result<Vec<Report>, ApplyError> {
        let store = ctk_store::Store::open(&self.options.store)?;
        let records = Records::new(&store, &self.directory);
        let kept = |unit: &&PlannedUnit| unit.action == Action::Keep && unit.address.kind == Kind::Test;
        let reports = plan.units.iter().filter(kept).map(|unit| records.report(&unit.fingerprint));
        Ok(reports.filter_map(Result::transpose).collect::<Result<_, _>>()?)
    }

    /// Fills the lock file with what the plan still lacks, and looks again.
    fn resolved(
        &self,
        ground: &Ground,
        outlook: Outlook,
        request: &Request,
        sink: &Arc<dyn Sink>,
        cancel: &Cancel,
    ) -> Result<Outlook, ApplyError> {
        if outlook.unresolved.is_empty() {
            return Ok(outlook);
        }
        let mut failures = Vec::new();
        for address in outlook.unresolved.keys() {
            let reporter = Reporter::new(address.clone(), sink.clone());
            if let Err(failure) = self.resolve(ground, &self.lock, address, &reporter, cancel) {
                failures.push(failure);
            }
        }
        // What was found stays found, whatever failed beside it.
        self.lock.write()?;
        if cancel.is_cancelled() {
            return Err(ApplyError::Cancelled);
        }
        if !failures.is_empty() {
            return Err(ApplyError::Failed { failures, reports: Vec::new() });
        }
        self.look(ground, request, cancel)
    }

    /// Adds what the lock file lacks about one unit to `book`.
    pub(crate) fn resolve(
        &self,
        ground: &Ground,
        book: &LockBook,
        address: &Address,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<(), UnitFailure> {
        if let Some(decl) = self.images.get(address) {
            let host = host_packages(&self.options);
            let world = self.world(ground, book, &host, reporter, cancel);
            let resolved = ctk_build::resolve(decl, &world, &BTreeMap::new());
            let resolved = resolved.and_then(|()| self.epoch(decl, &world, true));
            resolved.map_err(|error| self.build_failure(address, &error))?;
        }
        let tested = self.tests.get(address).map(test_references);
        let served = self.services.get(address).map(service_references);
        if let Some(references) = tested.or(served) {
            for reference in references {
                if book.image(&reference, &ground.platform).is_some() {
                    continue;
                }
                book.may_add().map_err(|reason| locked(address, &reason))?;
                let failed = |error: &(dyn std::error::Error + 'static)| {
                    failure(address, codes::TEST_BROKEN, "cannot resolve an image of", error, None)
                };
                let found = ground.fetch.resolve(&reference, cancel).map_err(|error| failed(&error))?;
                book.set_image(&reference, &ground.platform, &found.digest)
                    .map_err(|reason| locked(address, &reason))?;
            }
        }
        Ok(())
    }

    /// What the builder may use of the world.
    pub(crate) fn world<'a>(
        &'a self,
        ground: &'a Ground,
        book: &'a LockBook,
        host_packages: &'a (dyn Fn() -> Result<HostSources, PackagesError> + Sync),
        reporter: &'a Reporter,
        cancel: &'a Cancel,
    ) -> World<'a> {
        World {
            project_directory: &self.directory,
            sources: &self.sources,
            lock: book,
            store: &ground.store,
            snapshots: &ground.snapshots,
            index: &ground.index,
            fetch: &ground.fetch,
            host_packages,
            reporter,
            cancel,
            now_seconds: self.options.now_seconds,
            http: &self.options.client.http,
            secrets: self,
            environment: &self.options.environment,
        }
    }

    /// Serves the registries that pushes and caches of the plan are in, unless somebody serves them already.
    fn serve(&self, plan: &Plan) -> Result<Vec<Server>, ApplyError> {
        let mut locations: Vec<String> = Vec::new();
        for unit in plan.units.iter().filter(|unit| unit.action == Action::Run) {
            let pushes = self.pushes.get(&unit.address).into_iter().flat_map(|push| &push.targets);
            locations.extend(pushes.map(|target| target.location.clone()));
            let caches = self.images.get(&unit.address).into_iter().flat_map(ImageDecl::caches);
            locations.extend(caches.map(|place| place.name()));
        }
        let mut servers = Vec::new();
        for (address, decl) in &self.registries {
            let host = format!("{}/", decl.listen);
            if !locations.iter().any(|location| location.starts_with(&host)) {
                continue;
            }
            match ctk_registry::serve(decl.serve_options()) {
                Ok(server) => servers.push(server),
                // `ctk registry serve`, or another apply, serves it: pushes go there.
                Err(RegistryError::Listen { cause, .. }) if cause.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    let failure = failure(address, codes::SERVE_FAILED, "cannot serve", &error, None);
                    return Err(ApplyError::Failed { failures: vec![failure], reports: Vec::new() });
                }
            }
        }
        Ok(servers)
    }

    fn carry_out(
        &self,
        ground: &Ground,
        outlook: Outlook,
        request: &Request,
        sink: &Arc<dyn Sink>,
        cancel: &Cancel,
    ) -> Result<Applied, ApplyError> {
        let Outlook { plan, units, .. } = outlook;
        let records = Records::new(&ground.store, &self.directory);
        let results: Mutex<BTreeMap<Address, Descriptor>> = Mutex::default();
        let mut graph = Graph::new();
        for unit in &plan.units {
            match (unit.action, &unit.result) {
                (Action::Run, _) => graph.insert(unit.address.clone()),
                (Action::Keep, Some(Produced { image: Some(image), .. })) => {
                    results.lock().expect("no holder panics").insert(unit.address.clone(), image.clone());
                }
                (Action::Keep, _) => {}
            }
            if unit.action == Action::Keep {
                sink.emit(Event::UnitFinished {
                    address: unit.address.clone(),
                    outcome: Outcome::Cached,
                    seconds: 0.0,
                });
            }
        }
        for unit in plan.units.iter().filter(|unit| unit.action == Action::Run) {
            for need in unit.needs.iter().filter(|need| graph.contains(need)).cloned().collect::<Vec<_>>() {
                graph.need(unit.address.clone(), need);
            }
        }

        let slots = Slots::new(self.options.jobs);
        let work = Work { session: self, ground, request, sink, cancel, results: &results, slots: &slots };
        let mut scheduler = Scheduler::new(&graph).expect("the project's graph has no cycle");
        let mut failures = Vec::new();
        let mut reports = Vec::new();
        let mut staged = Vec::new();
        let mut last = BTreeMap::new();
        std::thread::scope(|scope| -> Result<(), ApplyError> {
            let (done, finished) = channel();
            loop {
                while scheduler.running() < self.options.jobs && !cancel.is_cancelled() {
                    let Some(address) = scheduler.next_ready() else { break };
                    let planned = plan.unit(&address).expect("only planned units are scheduled");
                    let (done, work) = (done.clone(), &work);
                    scope.spawn(move || {
                        let result = work.run(planned);
                        let _ = done.send((planned, result));
                    });
                }
                if scheduler.running() == 0 {
                    return Ok(());
                }
                let (planned, result) = finished.recv().expect("a running unit answers");
                let address = &planned.address;
                let skipped = scheduler.finished(address, result.is_ok());
                for address in skipped {
                    sink.emit(Event::UnitFinished { address, outcome: Outcome::Skipped, seconds: 0.0 });
                }
                let produced = match result {
                    Ok(Finished::Image(image)) => {
                        let image = *image;
                        results.lock().expect("no holder panics").insert(address.clone(), image.clone());
                        Produced { image: Some(image), ..Produced::default() }
                    }
                    Ok(Finished::Test(report)) => {
                        records.set_report(&planned.fingerprint, &report)?;
                        reports.push(report);
                        Produced::default()
                    }
                    Ok(Finished::Service(published)) => Produced { published, ..Produced::default() },
                    Ok(Finished::Push(upload)) => {
                        staged.push((planned, upload));
                        continue;
                    }
                    Err(Failed::Cancelled) => {
                        cancel.cancel();
                        continue;
                    }
                    Err(Failed::Unit(failure, report)) => {
                        failures.push(*failure);
                        reports.extend(report.map(|report| *report));
                        continue;
                    }
                };
                records.set_result(&planned.fingerprint, &produced)?;
                last.insert(address.clone(), remember(planned, &units, &plan, &produced));
            }
        })?;

        let mut published = BTreeMap::new();
        let whole = failures.is_empty() && !cancel.is_cancelled();
        if whole {
            // Everything succeeded: now, and only now, names move.
            let refs: Vec<(String, Option<Ref>)> = results
                .lock()
                .expect("no holder panics")
                .iter()
                .map(|(address, image)| (local_name(&self.project.name, address), Some(Ref::new(image.clone()))))
                .collect();
            ground.store.update_references(&refs)?;
            for (planned, upload) in staged {
                match work.publish(planned, *upload) {
                    Ok(produced) => {
                        records.set_result(&planned.fingerprint, &produced)?;
                        last.insert(planned.address.clone(), remember(planned, &units, &plan, &produced));
                        published.extend(produced.published);
                    }
                    Err(Failed::Cancelled) => cancel.cancel(),
                    Err(Failed::Unit(failure, _)) => failures.push(*failure),
                }
            }
        } else {
            for (planned, _) in staged {
                sink.emit(Event::UnitFinished {
                    address: planned.address.clone(),
                    outcome: Outcome::Skipped,
                    seconds: 0.0,
                });
            }
        }
        records.set_last(last)?;
        if !failures.is_empty() {
            return Err(ApplyError::Failed { failures, reports });
        }
        if cancel.is_cancelled() {
            return Err(ApplyError::Cancelled);
        }
        Ok(Applied { plan, reports, published })
    }

    pub(crate) fn build_failure(&self, address: &Address, error: &BuildError) -> UnitFailure {
        build_failure(address, error, &self.sources, &format!("`ctk build {address} --debug`"))
    }
}

/// What standard error gets: the mistakes with their places, or the causes, the instruction, its last lines, and `again`,
/// which opens a shell there.
pub(crate) fn build_failure(address: &Address, error: &BuildError, sources: &Sources, again: &str) -> UnitFailure {
    let code = codes::BUILD_FAILED;
    let mut failed = match innermost(error) {
        BuildError::Invalid { diagnostics, sources: own } => {
            let text = diagnostics.render(own.as_deref().unwrap_or(sources), false);
            let text = format!("{text}error[{code}]: failed to build `{address}`\n");
            return UnitFailure { address: address.clone(), code, text };
        }
        BuildError::Locked { .. } => failure(address, codes::LOCKED, "failed to build", error, None),
        _ => failure(address, code, "failed to build", error, None),
    };
    if let BuildError::Command { last_lines, .. } = innermost(error)
        && !last_lines.is_empty()
    {
        let lines: String = last_lines.iter().map(|line| format!("  │ {line}\n")).collect();
        failed.text += &format!("  its last lines:\n{lines}");
    }
    if error.has_shell() {
        failed.text += &format!("  hint: {again} opens a shell in the state before it\n");
    }
    if let Some(place) = error.place()
        && let Some((head, causes)) = failed.text.split_once('\n')
    {
        failed.text = format!("{head}\n{}{causes}", place.excerpt);
    }
    failed
}

/// The error that the steps around it wrap.
pub(crate) fn innermost(error: &BuildError) -> &BuildError {
    match error {
        BuildError::Step { source, .. } => innermost(source),
        other => other,
    }
}

pub(crate) fn locked(address: &Address, reason: &str) -> UnitFailure {
    let text = format!("error[{}]: `{address}`: {reason}\n", codes::LOCKED);
    UnitFailure { address: address.clone(), code: codes::LOCKED, text }
}

/// `error[code]: failed to build \`image:x\``, the error, its causes.
pub(crate) fn failure(
    address: &Address,
    code: &'static str,
    attempt: &str,
    error: &(dyn std::error::Error + 'static),
    hint: Option<&str>,
) -> UnitFailure {
    let inner = explain(None, error, hint);
    let causes = inner.strip_prefix("error: ").unwrap_or(&inner);
    let text = format!("error[{code}]: {attempt} `{address}`\n  caused by: {causes}");
    UnitFailure { address: address.clone(), code, text }
}

/// What the next plan compares with.
fn remember(planned: &PlannedUnit, units: &[Unit], plan: &Plan, produced: &Produced) -> Last {
    let unit = units.iter().find(|unit| unit.address == planned.address);
    let needs = planned.needs.iter().filter_map(|need| Some((need.clone(), plan.unit(need)?.fingerprint.clone())));
    Last {
        fingerprint: planned.fingerprint.clone(),
        inputs: unit.map(|unit| unit.inputs.clone()).unwrap_or_default(),
        needs: needs.collect(),
        published: produced.published.clone(),
    }
}

/// Why there is no image.
enum Unbuilt {
    Failed(BuildError),
    /// It could not be brought into its form.
    Unformed(ExportError),
    /// It is not the same when it is built again.
    Unlike(Box<UnitFailure>),
}

impl From<ExportError> for Unbuilt {
    fn from(error: ExportError) -> Unbuilt {
        Unbuilt::Unformed(error)
    }
}

impl From<BuildError> for Unbuilt {
    fn from(error: BuildError) -> Unbuilt {
        Unbuilt::Failed(error)
    }
}

pub(crate) enum Failed {
    Cancelled,
    Unit(Box<UnitFailure>, Option<Box<Report>>),
}

/// What every running unit is given.
pub(crate) struct Work<'a> {
    pub(crate) session: &'a Session,
    pub(crate) ground: &'a Ground,
    request: &'a Request,
    pub(crate) sink: &'a Arc<dyn Sink>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) results: &'a Mutex<BTreeMap<Address, Descriptor>>,
    slots: &'a Slots,
}

impl Work<'_> {
    /// Runs one unit and tells its story.
    fn run(&self, planned: &PlannedUnit) -> Result<Finished, Failed> {
        let address = &planned.address;
        self.sink.emit(Event::UnitStarted { address: address.clone() });
        let started = Instant::now();
        let result = match address.kind {
            Kind::Image => self.build(address).map(|image| Finished::Image(Box::new(image))),
            Kind::Test => self.test(address).map(Finished::Test),
            Kind::Push => self.upload(address).map(|staged| Finished::Push(Box::new(staged))),
            Kind::Service => self.start_service(planned).map(Finished::Service),
            Kind::Registry | Kind::Pipeline => unreachable!("no apply makes them so"),
        };
        // A push has ended when its tags have moved.
        if result.is_err() || address.kind != Kind::Push {
            self.finished(address, result.as_ref().err(), started);
        }
        result
    }

    fn finished(&self, address: &Address, failed: Option<&Failed>, started: Instant) {
        let outcome = match failed {
            None => Outcome::Done,
            Some(Failed::Cancelled) => Outcome::Cancelled,
            Some(Failed::Unit(failure, _)) => Outcome::Failed(failure.summary().to_owned()),
        };
        let seconds = started.elapsed().as_secs_f64();
        self.sink.emit(Event::UnitFinished { address: address.clone(), outcome, seconds });
    }

    fn build(&self, address: &Address) -> Result<Descriptor, Failed> {
        let reporter = Reporter::new(address.clone(), self.sink.clone());
        match self.build_target(address, None, &reporter) {
            Ok(descriptor) => Ok(descriptor),
            Err(Unbuilt::Unlike(failure)) => Err(Failed::Unit(failure, None)),
            Err(Unbuilt::Failed(error)) if error.is_cancelled() || self.cancel.is_cancelled() => Err(Failed::Cancelled),
            Err(Unbuilt::Unformed(error)) if matches!(error, ExportError::Cancelled) || self.cancel.is_cancelled() => {
                Err(Failed::Cancelled)
            }
            Err(Unbuilt::Unformed(error)) => {
                let failure = failure(address, codes::BUILD_FAILED, "failed to build", &error, None);
                Err(Failed::Unit(Box::new(failure), None))
            }
            Err(Unbuilt::Failed(error)) => {
                Err(Failed::Unit(Box::new(self.session.build_failure(address, &error)), None))
            }
        }
    }

    /// Builds an image, or only up to a stage of it, with the stages of other images that it is built on.
    fn build_target(&self, address: &Address, stage: Option<&str>, reporter: &Reporter) -> Result<Descriptor, Unbuilt> {
        let session = self.session;
        let decl = &session.images[address];
        let host = host_packages(&session.options);
        let world = session.world(self.ground, &session.lock, &host, reporter, self.cancel);
        let results = self.results.lock().expect("no holder panics").clone();
        let mut images: BTreeMap<BaseName, Descriptor> =
            results.into_iter().map(|(address, image)| (BaseName::Project(address), image)).collect();
        for base in ctk_build::observe(decl, &world, &BTreeMap::new())?.images {
            if let BaseName::ProjectStage(other, stage) = &base {
                let descriptor = self.build_target(other, Some(stage), reporter)?;
                images.insert(base, descriptor);
            }
        }
        let epoch_seconds = session.epoch(decl, &world, true)?.and_then(Result::ok);
        // A stage that another image asks for is no result of its own.
        let caches_to: Vec<Export> = match stage {
            None => decl.cache_to.iter().map(|cache| cache.value.clone()).collect(),
            Some(_) => Vec::new(),
        };
        let caches = Caches { from: &decl.cache_from, to: &caches_to, client: &self.ground.client };
        let request = BuildRequest {
            decl,
            world,
            platforms: &decl.platforms,
            images: &images,
            args: &BTreeMap::new(),
            target: stage.or(decl.target.as_deref()),
            slots: self.slots,
            no_cache: self.request.no_cache && self.request.force.contains(address),
            apart: false,
            no_cache_stages: &[],
            caches: Some(caches),
            run: &RunSettings { ssh: agents(session, decl), ..RunSettings::default() },
            labels: &BTreeMap::new(),
            epoch_seconds,
            state_directory: session.options.state.clone(),
            debugger: self.request.besides.debugger(),
            explain: self.request.explain.as_ref(),
        };
        let built = ctk_build::build(&request)?;
        if self.request.besides.verify && stage.is_none() && self.request.force.contains(address) {
            let differences = ctk_build::verify(&request, &built)?;
            verified(address, &differences).map_err(|failure| Unbuilt::Unlike(Box::new(failure)))?;
        }
        match self.session.forms.get(address).filter(|_| stage.is_none()) {
            Some(form) => Ok(self.formed(form, &built, reporter)?),
            None => Ok(built.descriptor),
        }
    }

    /// The built image with its own compression and annotations.
    fn formed(&self, form: &Form, built: &Built, reporter: &Reporter) -> Result<Descriptor, ExportError> {
        let step = reporter.step(form.title());
        let image =
            Image { descriptor: &built.descriptor, manifests: &built.manifests, base_layers: &built.base_layers };
        let ground = ctk_push::Ground { store: &self.ground.store, reporter, cancel: self.cancel };
        step.conclude(form.apply(&image, &[], ground))
    }

    fn test(&self, address: &Address) -> Result<Report, Failed> {
        let decl = &self.session.tests[address];
        let reporter = Reporter::new(address.clone(), self.sink.clone());
        let broken = |error: &(dyn std::error::Error + 'static)| {
            Failed::Unit(Box::new(failure(address, codes::TEST_BROKEN, "failed to run", error, None)), None)
        };
        let image = match self.image_of(&decl.image) {
            ServiceImage::Stored(image) => image,
            ServiceImage::Pinned(reference) => {
                let (platform, store) = (Some(&self.ground.platform), &self.ground.store);
                let fetched =
                    self.ground.fetch.fetch(&reference, platform, Depth::Layers, store, &reporter, self.cancel);
                fetched.map_err(|error| broken(&error))?
            }
        };
        let services: BTreeMap<String, ServiceImage> =
            decl.services.iter().map(|service| (service.name.clone(), self.image_of(&service.image))).collect();
        let request = TestRequest {
            decl,
            image: &image,
            services: &services,
            platform: &self.ground.platform,
            store: &self.ground.store,
            snapshots: &self.ground.snapshots,
            fetch: &self.ground.fetch,
            state_dir: &self.session.options.state,
            reporter: &reporter,
            cancel: self.cancel,
        };
        match ctk_check::run(&request) {
            Ok(report) if report.passed() => Ok(report),
            Ok(report) => {
                let code = codes::TEST_FAILED;
                let place =
                    self.session.project.get(address).map(|r| self.session.sources.place(r.span)).unwrap_or_default();
                let details: String = report.failures().lines().map(|line| format!("  {line}\n")).collect();
                let text = format!("error[{code}]: `{address}`: {} ({place})\n{details}", report.summary());
                Err(Failed::Unit(
                    Box::new(UnitFailure { address: address.clone(), code, text }),
                    Some(Box::new(report)),
                ))
            }
            Err(CheckError::Cancelled) => Err(Failed::Cancelled),
            Err(_) if self.cancel.is_cancelled() => Err(Failed::Cancelled),
            Err(error) => Err(broken(&error)),
        }
    }

    fn image_of(&self, name: &ImageName) -> ServiceImage {
        match name {
            ImageName::Project(address) => {
                let results = self.results.lock().expect("no holder panics");
                ServiceImage::Stored(results.get(address).expect("needs come first").clone())
            }
            ImageName::Reference(reference) => match self.session.lock.image(reference, &self.ground.platform) {
                Some(digest) => ServiceImage::Pinned(reference.with_digest(digest)),
                None => ServiceImage::Pinned(reference.clone()),
            },
        }
    }

    fn upload(&self, address: &Address) -> Result<Staged, Failed> {
        let decl = &self.session.pushes[address];
        let reporter = Reporter::new(address.clone(), self.sink.clone());
        let image = self.results.lock().expect("no holder panics").get(&decl.image).expect("needs come first").clone();
        let local = self.ground.local();
        let reach = self.reach(&local);
        let request =
            PushRequest { decl, image: &image, store: &self.ground.store, reach: &reach, reporter: &reporter };
        ctk_push::upload(&request).map_err(|error| self.push_failure(address, &error))
    }

    fn publish(&self, planned: &PlannedUnit, staged: Staged) -> Result<Produced, Failed> {
        let started = Instant::now();
        let reporter = Reporter::new(planned.address.clone(), self.sink.clone());
        let local = self.ground.local();
        let reach = self.reach(&local);
        let result = ctk_push::publish(staged, &self.ground.store, &reach, &reporter)
            .map_err(|error| self.push_failure(&planned.address, &error));
        self.finished(&planned.address, result.as_ref().err(), started);
        let published = result?.into_iter().map(|one| (one.name, one.digest)).collect();
        Ok(Produced { published, ..Produced::default() })
    }

    fn reach<'b>(&'b self, local: &'b [&'b dyn ctk_push::LocalRegistry]) -> Reach<'b> {
        Reach {
            client: &self.ground.client,
            local,
            project: &self.session.directory,
            platform: &self.ground.platform,
            cancel: self.cancel,
        }
    }

    fn push_failure(&self, address: &Address, error: &PushError) -> Failed {
        match error {
            PushError::Cancelled => Failed::Cancelled,
            _ if self.cancel.is_cancelled() => Failed::Cancelled,
            error => Failed::Unit(
                Box::new(failure(address, codes::PUSH_FAILED, "failed to push", error, error.hint().as_deref())),
                None,
            ),
        }
    }
}

/// As images declare them.
impl Secrets for Session {
    fn secret(&self, id: &str, declared: Option<&SecretSource>) -> Option<Vec<u8>> {
        DeclaredSecrets::new(&self.options, &self.directory).secret(id, declared)
    }
}

/// Where the image's agents listen; one whose variable is not set is none.
fn agents(session: &Session, decl: &ctk_build::ImageDecl) -> BTreeMap<String, SshSource> {
    let source = |source: &SshDecl| source.source(&session.options.environment, &session.directory);
    decl.ssh.iter().filter_map(|(id, declared)| Some((id.clone(), source(declared)?))).collect()
}
