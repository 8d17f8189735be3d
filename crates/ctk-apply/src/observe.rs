//! Desired units and the observed world. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_build::{
    Advised, BuildError, BuildRequest, Explained, Explanations, ImageDecl, KnownEpoch, LockView, RunSettings, Slots,
    World,
};
use ctk_buildgraph::BaseName;
use ctk_check::ImageName;
use ctk_oci::Reference;
use ctk_plan::{Address, Cancel, Fingerprint, Input, Observed, Plan, PlanOptions, Reporter, Silent, Unit, hash_text};
use ctk_push::{Found, Reach};

use crate::ground::Ground;
use crate::records::Records;
use crate::{ApplyError, Besides, Session, apply};

/// Pushes whose targets are asked at once: as many as cost a registry nothing.
const PUSHES_AT_ONCE: usize = 16;

/// What is asked of a plan or an apply.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Only these and what they need; everything if empty.
    pub only: BTreeSet<Address>,
    /// These run even if nothing changed.
    pub force: BTreeSet<Address>,
    /// Builds use no earlier result of an operation.
    pub no_cache: bool,
    /// What builds do besides; images are verified that are forced, too.
    pub besides: Besides,
    /// Hears why operations of builds have to run.
    pub explain: Option<Explanations>,
}

impl Session {
    /// What [`Session::apply`] would do with the same request, and why. Changes nothing.
    pub fn plan(&self, request: &Request) -> Result<Plan, ApplyError> {
        Ok(self.explain(request)?.0)
    }

    /// The plan, and the units with every input behind it.
    pub fn explain(&self, request: &Request) -> Result<(Plan, Vec<Unit>), ApplyError> {
        let ground = Ground::open(&self.options, self.registries.values())?;
        let outlook = self.look(&ground, request, &Cancel::new())?;
        ground.index.save();
        self.all_locked(&outlook)?;
        Ok((outlook.plan, outlook.units))
    }

    /// An error for each entry that the lock file lacks, if none may be added.
    fn all_locked(&self, outlook: &Outlook) -> Result<(), ApplyError> {
        let Err(reason) = self.lock.may_add() else { return Ok(()) };
        let failure = |(address, what): &(Address, String)| apply::locked(address, &format!("{what}: {reason}"));
        let failures: Vec<_> = outlook.unlocked.iter().map(failure).collect();
        if failures.is_empty() { Ok(()) } else { Err(ApplyError::Failed { failures, reports: Vec::new() }) }
    }

    /// What the builds of these images would run, and why, as far as `plan` and the store know it. Changes nothing.
    pub fn explain_builds(&self, plan: &Plan, images: &BTreeSet<Address>) -> Result<Vec<Explained>, ApplyError> {
        self.ask_builds(plan, images, ctk_build::explain)
    }

    /// What could be better about these images, as they were built last. Changes nothing.
    pub fn advise(&self, plan: &Plan, images: &BTreeSet<Address>) -> Result<Vec<Advised>, ApplyError> {
        self.ask_builds(plan, images, ctk_build::advise)
    }

    fn ask_builds<T>(
        &self,
        plan: &Plan,
        images: &BTreeSet<Address>,
        ask: impl Fn(&BuildRequest<'_>) -> Result<Vec<T>, BuildError>,
    ) -> Result<Vec<T>, ApplyError> {
        let ground = Ground::open(&self.options, self.registries.values())?;
        let cancel = Cancel::new();
        let host_packages = crate::ground::host_packages(&self.options);
        let kept = plan.units.iter().filter_map(|unit| Some((&unit.address, unit.result.as_ref()?.image.clone()?)));
        let kept: BTreeMap<BaseName, _> =
            kept.map(|(address, image)| (BaseName::Project(address.clone()), image)).collect();
        let mut all = Vec::new();
        for (address, decl) in plan.units.iter().filter_map(|unit| self.images.get_key_value(&unit.address)) {
            if !images.contains(address) {
                continue;
            }
            let silent = Reporter::new(address.clone(), std::sync::Arc::new(Silent));
            let world = self.world(&ground, &self.lock, &host_packages, &silent, &cancel);
            let failed =
                |error| ApplyError::Failed { failures: vec![self.build_failure(address, &error)], reports: Vec::new() };
            let request = BuildRequest {
                decl,
                world,
                platforms: &decl.platforms,
                images: &kept,
                args: &BTreeMap::new(),
                target: decl.target.as_deref(),
                slots: &Slots::new(1),
                no_cache: false,
                apart: false,
                no_cache_stages: &[],
                caches: None,
                run: &RunSettings::default(),
                labels: &BTreeMap::new(),
                epoch_seconds: self.epoch(decl, &world, false).map_err(failed)?.and_then(Result::ok),
                state_directory: self.options.state.clone(),
                debugger: None,
                explain: None,
            };
            all.extend(ask(&request).map_err(failed)?);
        }
        ground.index.save();
        Ok(all)
    }

    /// Observes and plans.
    pub(crate) fn look(&self, ground: &Ground, request: &Request, cancel: &Cancel) -> Result<Outlook, ApplyError> {
        let wanted = self.wanted(&request.only);
        let local = ground.local();
        let reach = Reach {
            client: &ground.client,
            local: &local,
            project: &self.directory,
            platform: &ground.platform,
            cancel,
        };
        let pushes: Vec<_> = wanted.iter().filter_map(|address| Some((address, self.pushes.get(address)?))).collect();
        // Registries take their time to answer; contexts are walked meanwhile.
        let (shown, observed) = std::thread::scope(|scope| {
            let ask = || side_by_side(&pushes, PUSHES_AT_ONCE, |(_, decl)| ctk_push::observe(decl, &reach));
            let asked = (!pushes.is_empty()).then(|| scope.spawn(ask));
            let observed = side_by_side(&wanted, self.options.jobs, |address| self.unit(ground, address, cancel));
            (asked.map(joined).unwrap_or_default(), observed)
        });
        let shown: BTreeMap<&Address, _> = pushes.iter().map(|(address, _)| *address).zip(shown).collect();
        let mut seen = Observed::default();
        let (mut units, mut unlocked) = (Vec::new(), Vec::new());
        let mut broken = BTreeMap::new();
        for (address, observed) in wanted.iter().zip(observed) {
            match observed {
                Ok(mut observed) => {
                    let names = shown.get(address).into_iter().flatten().map(|one| one.name.clone());
                    observed.unit.targets.extend(names);
                    let lacking = observed.unresolved.iter().map(|what| (address.clone(), what.clone()));
                    unlocked.extend(lacking);
                    let unknown = [observed.unresolved, observed.undated].concat();
                    if !unknown.is_empty() {
                        seen.unresolved.insert(address.clone(), unknown);
                    }
                    units.push(observed.unit);
                }
                Err(failure) => {
                    broken.insert(address.clone(), failure);
                }
            }
        }
        if !broken.is_empty() {
            let failures = wanted.iter().filter_map(|address| broken.remove(address)).collect();
            return Err(ApplyError::Failed { failures, reports: Vec::new() });
        }

        let records = Records::new(&ground.store, &self.directory);
        seen.last = records.last()?;
        let mut fingerprints: BTreeMap<&Address, Fingerprint> = BTreeMap::new();
        for unit in &units {
            let needs = unit.needs.iter().filter_map(|need| fingerprints.get_key_value(need));
            let needs: BTreeMap<&Address, &Fingerprint> = needs.map(|(address, found)| (*address, found)).collect();
            let fingerprint = unit.fingerprint(&needs);
            if let Some(result) = records.result(&fingerprint)? {
                seen.results.insert(fingerprint.clone(), result);
            }
            fingerprints.insert(&unit.address, fingerprint);
        }
        for (address, observed) in shown {
            let decl = &self.pushes[address];
            let image = fingerprints.get(&decl.image).and_then(|found| seen.results.get(found)?.image.clone());
            if let Some(image) = image {
                // What cannot be known yet is known after the upload.
                if let Ok(Some(digests)) = decl.wanted(&ground.store, &image, &reach) {
                    let names = observed.iter().map(|one| one.name.clone());
                    seen.wanted.extend(names.zip(digests));
                }
            }
            for one in observed {
                match one.found {
                    Found::Digest { digest } => drop(seen.targets.insert(one.name, digest)),
                    Found::Absent => {}
                    Found::Unreachable { reason } => drop(seen.unreachable.insert(one.name, reason)),
                }
            }
        }
        self.look_at_services(&wanted, &mut seen);
        let options = PlanOptions { only: request.only.clone(), force: request.force.clone() };
        let plan = ctk_plan::plan(&units, &seen, &options);
        Ok(Outlook { plan, units, unresolved: seen.unresolved, unlocked })
    }

    /// `only` and what it needs, needs first; registries are no units.
    fn wanted(&self, only: &BTreeSet<Address>) -> Vec<Address> {
        let graph = self.project.dag();
        let closure: BTreeSet<Address> = match only.is_empty() {
            true => self.order.iter().cloned().collect(),
            false => graph.closure(only).into_iter().collect(),
        };
        self.order.iter().filter(|a| closure.contains(a) && a.kind.is_applied()).cloned().collect()
    }

    pub(crate) fn unit(
        &self,
        ground: &Ground,
        address: &Address,
        cancel: &Cancel,
    ) -> Result<ObservedUnit, crate::UnitFailure> {
        let resource = self.project.get(address).expect("the order holds the project's addresses");
        let needs = resource.needs.iter().filter(|need| need.kind.is_applied()).cloned().collect();
        let mut inputs = BTreeMap::from([(Input::Declaration, hash_text(&resource.node.canonical()))]);
        let (mut unresolved, mut undated) = (Vec::new(), Vec::new());
        let (mut repositories, mut urls) = (BTreeSet::new(), BTreeSet::new());
        if let Some(decl) = self.images.get(address) {
            let silent = Reporter::new(address.clone(), std::sync::Arc::new(Silent));
            let host_packages = crate::ground::host_packages(&self.options);
            let world = self.world(ground, &self.lock, &host_packages, &silent, cancel);
            let observation = ctk_build::observe(decl, &world, &BTreeMap::new())
                .map_err(|error| self.build_failure(address, &error))?;
            inputs.extend(observation.inputs);
            (unresolved, undated) = (observation.unresolved, observation.undated);
            (repositories, urls) = (observation.repositories, observation.urls);
            let epoch = self.epoch(decl, &world, false).map_err(|error| self.build_failure(address, &error))?;
            if let Some(epoch) = epoch {
                let word = epoch.map(|seconds| seconds.to_string()).unwrap_or_else(|what| {
                    undated.push(format!("the date of {what}"));
                    "unresolved".into()
                });
                inputs.insert(Input::Named("SOURCE_DATE_EPOCH".into()), word);
            }
        }
        if let Some(decl) = self.tests.get(address) {
            let reads = decl.fingerprint_inputs();
            inputs.insert(Input::Semantics, format!("{:?}", reads.semantics));
            for reference in test_references(decl) {
                match self.lock.image(&reference, &ground.platform) {
                    Some(digest) => drop(inputs.insert(Input::Base(reference.to_string()), digest.to_string())),
                    None => unresolved.push(format!("image {reference}")),
                }
            }
        }
        if let Some(decl) = self.services.get(address) {
            for reference in crate::services::service_references(decl) {
                match self.lock.image(&reference, &ground.platform) {
                    Some(digest) => drop(inputs.insert(Input::Base(reference.to_string()), digest.to_string())),
                    None => unresolved.push(format!("image {reference}")),
                }
            }
        }
        if let Some(decl) = self.pushes.get(address) {
            inputs.insert(Input::Semantics, format!("{:?}", decl.semantics()));
        }
        let targets = self.services.get(address).map(crate::services::target).into_iter().collect();
        let unit = Unit { address: address.clone(), needs, inputs, targets };
        Ok(ObservedUnit { unit, unresolved, undated, repositories, urls })
    }

    /// What `SOURCE_DATE_EPOCH` says of `decl`, if the environment sets it. With `fetch` what is not here is fetched.
    pub(crate) fn epoch(
        &self,
        decl: &ImageDecl,
        world: &World<'_>,
        fetch: bool,
    ) -> Result<Option<KnownEpoch>, BuildError> {
        let text = self.options.environment.get("SOURCE_DATE_EPOCH").map(String::as_str);
        ctk_build::epoch(text.unwrap_or_default(), decl, world, fetch)
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `work` of each item, in their order, by at most so many threads.
fn side_by_side<I: Sync, T: Send>(items: &[I], threads: usize, work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < items.len());
        std::iter::from_fn(take).map(|index| (index, work(&items[index]))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            done.extend(joined(other));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// References that a test's containers run.
pub(crate) fn test_references(decl: &ctk_check::TestDecl) -> Vec<Reference> {
    let names = std::iter::once(&decl.image).chain(decl.services.iter().map(|service| &service.image));
    let references = names.filter_map(|name| match name {
        ImageName::Reference(reference) => Some(reference.clone()),
        ImageName::Project(_) => None,
    });
    references.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A unit, and what its lock entries lack.
pub(crate) struct ObservedUnit {
    pub unit: Unit,
    pub unresolved: Vec<String>,
    /// What is to be fetched before its date is known.
    pub undated: Vec<String>,
    /// Repositories, and refs in them, of its lock entries.
    pub repositories: BTreeSet<(String, String)>,
    /// URLs, likewise.
    pub urls: BTreeSet<String>,
}

/// A plan with what it was made of.
pub(crate) struct Outlook {
    pub plan: Plan,
    pub units: Vec<Unit>,
    pub unresolved: BTreeMap<Address, Vec<String>>,
    /// The entries among these that the lock file lacks.
    pub unlocked: Vec<(Address, String)>,
}
