//! The one decision: desired and observed in, a plan with reasons out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ctk_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{Address, Fingerprint, Input, Kind, Unit};

/// What an earlier apply left about one address: only for reasons, never for correctness.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Last {
    /// The unit's fingerprint then.
    pub fingerprint: Fingerprint,
    /// Its inputs then.
    pub inputs: BTreeMap<Input, String>,
    /// The fingerprints of its needs then.
    pub needs: BTreeMap<Address, Fingerprint>,
    /// For a push: what it wrote.
    #[serde(default)]
    pub published: BTreeMap<String, Digest>,
}

/// What a finished unit produced; found again by its fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produced {
    /// For an image: its manifest or index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ctk_oci::Descriptor>,
    /// For a push: what it wrote.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<String, Digest>,
}

/// What the world looks like. Collected by reads only.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Earlier applies, by address.
    pub last: BTreeMap<Address, Last>,
    /// Results that are still there, by fingerprint.
    pub results: BTreeMap<Fingerprint, Produced>,
    /// What push targets show now; a place that shows nothing is missing here.
    pub targets: BTreeMap<String, Digest>,
    /// What push targets should show, as far as the image's digest is known already.
    pub wanted: BTreeMap<String, Digest>,
    /// Push targets that could not be asked, with the reason.
    pub unreachable: BTreeMap<String, String>,
    /// Lock entries that units wait for, by address: they are resolved before anything runs.
    pub unresolved: BTreeMap<Address, Vec<String>>,
}

/// What a caller wants differently.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Only these and what they need; everything if empty.
    pub only: BTreeSet<Address>,
    /// Run these even if nothing changed.
    pub force: BTreeSet<Address>,
}

/// Why a unit runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// Never applied from here.
    New,
    /// Inputs differ from the last apply.
    InputChanged {
        /// Which, with the digest then and now.
        changes: Vec<InputChange>,
    },
    /// A base image moved.
    BaseMoved {
        /// Its reference.
        base: String,
        /// Digest then.
        from: String,
        /// Digest now.
        to: String,
    },
    /// The lock file has no entry yet.
    Unresolved {
        /// What is to be resolved.
        entry: String,
    },
    /// A place shows something else than it should, as the last apply left it.
    TargetDiffers {
        /// The place.
        target: String,
        /// What it shows.
        found: Option<Digest>,
        /// What it should show.
        want: Option<Digest>,
    },
    /// A place was moved by somebody else since the last apply.
    Drifted {
        /// The place.
        target: String,
        /// What the last apply wrote.
        recorded: Digest,
        /// What it shows.
        found: Option<Digest>,
    },
    /// A place could not be asked.
    Unreachable {
        /// The place.
        target: String,
        /// What was tried and what happened.
        cause: String,
    },
    /// Something it needs runs or changed.
    Upstream {
        /// What.
        address: Address,
    },
    /// The same was applied before, but its result is gone.
    ResultMissing,
    /// The user wants it.
    Forced,
}

/// An input that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputChange {
    /// Which.
    pub input: Input,
    /// Digest then; `None` if it is new.
    pub from: Option<String>,
    /// Digest now; `None` if it is gone.
    pub to: Option<String>,
}

/// What is done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It runs.
    Run,
    /// Its result is there.
    Keep,
}

/// One unit of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedUnit {
    /// Its name.
    pub address: Address,
    /// What is done.
    pub action: Action,
    /// Why; empty if nothing is done.
    pub reasons: Vec<Reason>,
    /// What its result will be found by. Not final while lock entries are unresolved.
    pub fingerprint: Fingerprint,
    /// Units that must have succeeded before.
    pub needs: Vec<Address>,
    /// The result that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Produced>,
}

/// What an apply would do, in an order that respects the needs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// The units.
    pub units: Vec<PlannedUnit>,
}

impl Plan {
    /// Whether there is anything to do.
    pub fn has_changes(&self) -> bool {
        self.units.iter().any(|unit| unit.action == Action::Run)
    }

    /// The unit of `address`, if the plan has it.
    pub fn unit(&self, address: &Address) -> Option<&PlannedUnit> {
        self.units.iter().find(|unit| unit.address == *address)
    }
}

/// Decides. `desired` is in an order that respects the needs; needs outside `desired` are an error of the caller.
pub fn plan(desired: &[Unit], seen: &Observed, options: &PlanOptions) -> Plan {
    let wanted = closure(desired, &options.only);
    let mut planned: Vec<PlannedUnit> = Vec::with_capacity(desired.len());
    for unit in desired.iter().filter(|unit| wanted.contains(&unit.address)) {
        let needs: Vec<&PlannedUnit> = planned.iter().filter(|earlier| unit.needs.contains(&earlier.address)).collect();
        let fingerprints = needs.iter().map(|need| (&need.address, &need.fingerprint)).collect();
        let fingerprint = unit.fingerprint(&fingerprints);
        let reasons = reasons(unit, &fingerprint, &needs, seen, options);
        let action = if reasons.is_empty() { Action::Keep } else { Action::Run };
        let result = seen.results.get(&fingerprint).filter(|_| action == Action::Keep).cloned();
        let needs = unit.needs.clone();
        planned.push(PlannedUnit { address: unit.address.clone(), action, reasons, fingerprint, needs, result });
    }
    Plan { units: planned }
}

/// `only` and everything below it; all addresses if `only` is empty.
fn closure<'a>(desired: &'a [Unit], only: &'a BTreeSet<Address>) -> BTreeSet<&'a Address> {
    if only.is_empty() {
        return desired.iter().map(|unit| &unit.address).collect();
    }
    let mut wanted: BTreeSet<&Address> = only.iter().collect();
    for unit in desired.iter().rev() {
        if wanted.contains(&unit.address) {
            wanted.extend(&unit.needs);
        }
    }
    wanted
}

fn reasons(
    unit: &Unit,
    fingerprint: &Fingerprint,
    needs: &[&PlannedUnit],
    seen: &Observed,
    options: &PlanOptions,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if options.force.contains(&unit.address) {
        reasons.push(Reason::Forced);
    }
    for entry in seen.unresolved.get(&unit.address).into_iter().flatten() {
        reasons.push(Reason::Unresolved { entry: entry.clone() });
    }
    let result = seen.results.get(fingerprint);
    if result.is_none() || !reasons.is_empty() {
        match seen.last.get(&unit.address) {
            None => reasons.insert(0, Reason::New),
            Some(last) => changes(unit, last, needs, &mut reasons),
        }
        if result.is_none() && reasons.is_empty() {
            reasons.push(Reason::ResultMissing);
        }
    }
    for need in needs.iter().filter(|need| need.action == Action::Run && is_input(&need.address)) {
        // A kept result stays right when what it needs only has to be made again with the same inputs.
        let rebuilt_alike = need.reasons.iter().all(|r| matches!(r, Reason::ResultMissing | Reason::Forced));
        let said = reasons.iter().any(|r| matches!(r, Reason::Upstream { address } if *address == need.address));
        if !said && (result.is_none() || !rebuilt_alike) {
            reasons.push(Reason::Upstream { address: need.address.clone() });
        }
    }
    targets(unit, result, seen, &mut reasons);
    reasons
}

/// Whether what is needed is part of the result. A service only has to run: whoever talks to it stays as he is when it is
/// started again.
pub(crate) fn is_input(need: &Address) -> bool {
    need.kind != Kind::Service
}

fn changes(unit: &Unit, last: &Last, needs: &[&PlannedUnit], reasons: &mut Vec<Reason>) {
    let mut changed = Vec::new();
    let names: BTreeSet<&Input> = unit.inputs.keys().chain(last.inputs.keys()).collect();
    for input in names {
        let (from, to) = (last.inputs.get(input), unit.inputs.get(input));
        match (input, from, to) {
            (_, from, to) if from == to => {}
            (Input::Base(base), Some(from), Some(to)) => {
                reasons.push(Reason::BaseMoved { base: base.clone(), from: from.clone(), to: to.clone() });
            }
            _ => changed.push(InputChange { input: input.clone(), from: from.cloned(), to: to.cloned() }),
        }
    }
    if !changed.is_empty() {
        reasons.push(Reason::InputChanged { changes: changed });
    }
    for need in needs.iter().filter(|need| is_input(&need.address)) {
        if last.needs.get(&need.address) != Some(&need.fingerprint) {
            reasons.push(Reason::Upstream { address: need.address.clone() });
        }
    }
}

/// Compares what the targets show with what they should show: what the same unit wrote before, else what is wanted.
fn targets(unit: &Unit, result: Option<&Produced>, seen: &Observed, reasons: &mut Vec<Reason>) {
    let last = seen.last.get(&unit.address);
    for target in &unit.targets {
        if let Some(cause) = seen.unreachable.get(target) {
            reasons.push(Reason::Unreachable { target: target.clone(), cause: cause.clone() });
            continue;
        }
        let found = seen.targets.get(target);
        let written = result.and_then(|result| result.published.get(target));
        let recorded = last.and_then(|last| last.published.get(target));
        let want = written.or(seen.wanted.get(target));
        if want.is_some() && found == want {
            continue;
        }
        match recorded {
            Some(recorded) if found != Some(recorded) => {
                let (recorded, found) = (recorded.clone(), found.cloned());
                reasons.push(Reason::Drifted { target: target.clone(), recorded, found });
            }
            _ => {
                let (found, want) = (found.cloned(), want.cloned());
                reasons.push(Reason::TargetDiffers { target: target.clone(), found, want });
            }
        }
    }
}

impl fmt::Display for Plan {
    /// One line for each unit, further reasons beneath it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.units.iter().map(|unit| unit.address.to_string().len()).max().unwrap_or(0);
        for unit in &self.units {
            let address = unit.address.to_string();
            let mut reasons = unit.reasons.iter();
            match reasons.next() {
                None => writeln!(f, "  = {address:width$}  {}", unit.kept())?,
                Some(first) => writeln!(f, "  {} {address:width$}  {:6}  {first}", unit.mark(), unit.verb())?,
            }
            for reason in reasons {
                writeln!(f, "    {:width$}  {:6}  {reason}", "", "")?;
            }
        }
        Ok(())
    }
}

impl PlannedUnit {
    /// `+` new, `~` changed, `!` moved by somebody else, `=` nothing to do.
    pub fn mark(&self) -> char {
        match self.reasons.as_slice() {
            [] => '=',
            reasons if reasons.iter().any(|r| matches!(r, Reason::Drifted { .. })) => '!',
            reasons if reasons.contains(&Reason::New) => '+',
            _ => '~',
        }
    }

    fn verb(&self) -> &'static str {
        match self.address.kind {
            Kind::Image => "build",
            Kind::Test => "test",
            Kind::Push => "push",
            Kind::Service => "start",
            Kind::Registry => "serve",
            Kind::Pipeline => "run",
        }
    }

    fn kept(&self) -> &'static str {
        match self.address.kind {
            Kind::Image => "unchanged",
            Kind::Test => "passed against the same image",
            Kind::Push => "every target is as it should be",
            Kind::Service => "runs",
            Kind::Registry | Kind::Pipeline => "unchanged",
        }
    }
}

/// Whether a place is a service's container.
fn is_container(target: &str) -> bool {
    target.starts_with("container ")
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new"),
            Reason::InputChanged { changes } => {
                write!(f, "{}", changes[0])?;
                match changes.len() {
                    1 => Ok(()),
                    2 => write!(f, ", {}", changes[1]),
                    more => write!(f, ", {}, and {} more", changes[1], more - 2),
                }
            }
            Reason::BaseMoved { base, from, to } => write!(f, "base {base} moved ({} → {})", short(from), short(to)),
            Reason::Unresolved { entry } => write!(f, "{entry} is not in the lock file yet"),
            Reason::TargetDiffers { target, found: None, .. } => write!(f, "{target} is not there"),
            Reason::TargetDiffers { target, found: Some(_), .. } if is_container(target) => {
                write!(f, "{target} runs as it was declared before")
            }
            Reason::TargetDiffers { target, found: Some(found), want: Some(want) } => {
                write!(f, "{target} is {}, will be {}", brief(found), brief(want))
            }
            Reason::TargetDiffers { target, found: Some(found), want: None } => {
                write!(f, "{target} is {}, will be replaced", brief(found))
            }
            Reason::Drifted { target, found: None, .. } if is_container(target) => {
                write!(f, "{target} does not run any more")
            }
            Reason::Drifted { target, .. } if is_container(target) => {
                write!(f, "{target} is not the one that was started last")
            }
            Reason::Drifted { target, recorded, found } => {
                let found = found.as_ref().map_or("nothing".into(), brief);
                write!(f, "{target} moved outside this project: {} → {found}", brief(recorded))
            }
            Reason::Unreachable { target, cause } => write!(f, "{target} could not be asked: {cause}"),
            Reason::Upstream { address } => write!(f, "{address} changes"),
            Reason::ResultMissing => f.write_str("its result is no longer in the store"),
            Reason::Forced => f.write_str("forced"),
        }
    }
}

impl fmt::Display for InputChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.input {
            Input::File(path) | Input::Named(path) => path.clone(),
            Input::Declaration => "its declaration".into(),
            Input::Semantics => "what ctk makes of it".into(),
            other => other.to_string(),
        };
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => match (from.split_once(':'), to.split_once(':')) {
                // The word of a file is `mode:digest`.
                (Some((mode, digest)), Some((new, same))) if digest == same => {
                    write!(f, "{name} changed its mode ({mode} → {new})")
                }
                _ => write!(f, "{name} changed ({} → {})", short(from), short(to)),
            },
            (None, _) => write!(f, "{name} is new"),
            (Some(_), None) => write!(f, "{name} is gone"),
        }
    }
}

fn brief(digest: &Digest) -> String {
    format!("{}:{}…", digest.algorithm().name(), digest.short())
}

/// A digest's first digits; anything else as it is.
fn short(word: &str) -> String {
    let hex = word.rsplit(':').next().unwrap_or(word);
    match hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => hex.chars().take(8).chain(['…']).collect(),
        false => word.to_owned(),
    }
}
