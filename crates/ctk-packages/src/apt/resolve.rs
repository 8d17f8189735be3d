//! From a request to a closed set of packages: the same offers give the same set, always.
//!
//! Roots go in first; needs are then met one by one in order, by what is already there, else by the first alternative
//! that can be had, real packages before providers. A contradiction goes back to the latest choice that had another
//! option; when none is left, the first contradiction found is the error.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::apt::index::{Offer, Offers};
use crate::apt::relation::{self, Relation};
use crate::{PackagesError, Request, Variant, limits};

/// Choices undone before giving up: distributions are consistent, so a handful is normal.
const BACKTRACKS: usize = 2_000;

/// The package managers that `minbase` brings, if the archive has them.
const MANAGER: &str = "apt";

/// Says that `/bin` and its like are links into `/usr`, which is how roots are made here.
const MERGED: &str = "usr-is-merged";

/// Numbers of offers, needs first.
pub(crate) fn resolve(offers: &Offers<'_>, request: &Request, suites: &str) -> Result<Vec<u32>, PackagesError> {
    let solver = Solver { offers, request, suites };
    let chosen = solver.solve()?;
    Ok(solver.order(&chosen))
}

struct Solver<'a> {
    offers: &'a Offers<'a>,
    request: &'a Request,
    suites: &'a str,
}

/// Why an offer was taken.
#[derive(Clone, Copy, Debug)]
enum Cause<'a> {
    Asked,
    Base,
    Need { by: u32, relation: Relation<'a> },
}

/// A need that is not met yet: who has it, its alternatives.
#[derive(Clone, Debug)]
struct Need<'a> {
    by: u32,
    group: Vec<Relation<'a>>,
    optional: bool,
}

/// A way out of a contradiction: the state before a choice, the need it was about, the options it left.
type Choice<'a> = (State<'a>, Need<'a>, Vec<(u32, Relation<'a>)>);

#[derive(Clone, Debug, Default)]
struct State<'a> {
    /// By name and architecture (`all` counts as the native one).
    chosen: BTreeMap<(&'a str, &'a str), u32>,
    causes: HashMap<u32, Cause<'a>>,
    needs: VecDeque<Need<'a>>,
}

impl<'a> Solver<'a> {
    fn solve(&self) -> Result<BTreeMap<u32, ()>, PackagesError> {
        let mut state = State::default();
        let mut roots: Vec<(u32, Cause<'a>)> = Vec::new();
        for word in &self.request.install {
            roots.push((self.asked(word)?, Cause::Asked));
        }
        let asked: HashSet<&str> = roots.iter().map(|(n, _)| self.offer(*n).name).collect();
        let mut names: Vec<&str> = self.offers.all.iter().filter(|o| self.is_base(o)).map(|o| o.name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if asked.contains(name) {
                continue;
            }
            // The newest version decides whether it is part of the base.
            let best = self.offers.named(name).find(|(_, o)| self.native(o));
            if let Some((number, _)) = best.filter(|(_, o)| self.is_base(o)) {
                roots.push((number, Cause::Base));
            }
        }
        for (number, cause) in roots {
            self.take(&mut state, number, cause)?;
        }
        let mut choices: Vec<Choice<'a>> = Vec::new();
        let mut first_error = None;
        let mut backtracks = 0;
        loop {
            let Some(need) = state.needs.pop_front() else {
                return Ok(state.chosen.values().map(|n| (*n, ())).collect());
            };
            let step = self.meet(&mut state, need, None, &mut choices);
            let Err(error) = step else { continue };
            first_error.get_or_insert(error);
            loop {
                let Some((before, need, options)) = choices.pop() else {
                    return Err(first_error.unwrap_or(PackagesError::Cancelled));
                };
                backtracks += 1;
                if backtracks > BACKTRACKS {
                    return Err(first_error.unwrap_or(PackagesError::Cancelled));
                }
                state = before;
                if self.meet(&mut state, need, Some(options), &mut choices).is_ok() {
                    break;
                }
            }
        }
    }

    /// Meets one need; `options` are what earlier tries have left over.
    fn meet(
        &self,
        state: &mut State<'a>,
        need: Need<'a>,
        options: Option<Vec<(u32, Relation<'a>)>>,
        choices: &mut Vec<Choice<'a>>,
    ) -> Result<(), PackagesError> {
        let architecture = self.architecture(need.by);
        if need.group.iter().any(|r| self.is_met(state, r, architecture)) {
            return Ok(());
        }
        let mut options = options.unwrap_or_else(|| self.options(&need.group, architecture));
        let mut first_error = None;
        while !options.is_empty() {
            let (number, relation) = options.remove(0);
            let before = if options.is_empty() { None } else { Some(state.clone()) };
            match self.take(state, number, Cause::Need { by: need.by, relation }) {
                Ok(()) => {
                    if let Some(before) = before {
                        choices.push((before, need, options));
                    }
                    return Ok(());
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                    if let Some(before) = before {
                        *state = before;
                    }
                }
            }
        }
        if need.optional {
            return Ok(());
        }
        Err(first_error.unwrap_or_else(|| self.unsatisfiable(state, &need)))
    }

    /// Offers that meet one of the alternatives, in order of preference.
    fn options(&self, group: &[Relation<'a>], architecture: &str) -> Vec<(u32, Relation<'a>)> {
        let mut options = Vec::new();
        // The root is merged-/usr from its first file on: the package that merges an old one, and perl with it, is not
        // needed (debootstrap and the installer choose the same).
        let merged = group.iter().find(|r| r.name == MERGED);
        for relation in merged.into_iter().chain(group.iter().filter(|r| r.name != MERGED)) {
            let real = self.offers.named(relation.name);
            let mut real: Vec<u32> = real
                .filter(|(_, o)| relation.accepts(o.version) && self.fits(o, relation, architecture))
                .map(|(n, _)| n)
                .collect();
            // An older version of the same package is no sensible way out of a contradiction, but the only one to meet `=`.
            real.truncate(2);
            let mut providers: Vec<(u8, &str, u32)> = self
                .offers
                .providers(relation.name)
                .filter(|(_, o, v)| self.provides(relation, *v) && self.fits(o, relation, architecture))
                .filter(|(n, o, _)| {
                    self.offers
                        .named(o.name)
                        .find(|(_, x)| self.native(x) || x.architecture == o.architecture)
                        .is_some_and(|(best, _)| best == *n)
                })
                .map(|(n, o, _)| (o.priority, o.name, n))
                .collect();
            providers.sort_unstable();
            let found = real.into_iter().chain(providers.into_iter().map(|(_, _, n)| n));
            for number in found {
                if !options.iter().any(|(n, _)| *n == number) {
                    options.push((number, *relation));
                }
            }
        }
        options
    }

    /// Puts an offer into the set, checks it against the others and queues what it needs.
    fn take(&self, state: &mut State<'a>, number: u32, cause: Cause<'a>) -> Result<(), PackagesError> {
        let offer = *self.offer(number);
        let key = (offer.name, self.architecture_of(&offer));
        if let Some(other) = state.chosen.get(&key) {
            if *other == number {
                return Ok(());
            }
            let wanted = match cause {
                Cause::Need { by, relation } => format!("{} needs {relation}", self.offer(by).name),
                _ => format!("{} {} is asked for", offer.name, offer.version),
            };
            let why = format!(
                "{} {} is selected already ({})",
                offer.name,
                self.offer(*other).version,
                self.chain(state, *other)
            );
            return Err(PackagesError::Unsatisfiable { chain: wanted, why });
        }
        state.causes.insert(number, cause);
        self.check_conflicts(state, number)?;
        if state.chosen.len() >= limits::SELECTED_PACKAGES {
            let why = format!("more than {} packages would be needed", limits::SELECTED_PACKAGES);
            return Err(PackagesError::Unsatisfiable { chain: self.chain(state, number), why });
        }
        state.chosen.insert(key, number);
        let fields: &[(&str, bool)] = match self.request.recommends {
            true => &[("Pre-Depends", false), ("Depends", false), ("Recommends", true)],
            false => &[("Pre-Depends", false), ("Depends", false)],
        };
        for (field, optional) in fields {
            for group in offer.stanza.get(field).into_iter().flat_map(relation::groups) {
                state.needs.push_back(Need { by: number, group, optional: *optional });
            }
        }
        Ok(())
    }

    fn check_conflicts(&self, state: &State<'a>, number: u32) -> Result<(), PackagesError> {
        let new = *self.offer(number);
        for (field, relation_word) in [("Conflicts", "conflicts with"), ("Breaks", "breaks")] {
            for relation in new.stanza.get(field).into_iter().flat_map(relation::list) {
                if let Some(other) = state.chosen.values().find(|n| self.hits(&relation, **n, &new)) {
                    return Err(self.conflict(state, number, relation_word, *other));
                }
            }
            for other in state.chosen.values() {
                let offer = self.offer(*other);
                let Some(text) = offer.stanza.get(field) else { continue };
                if relation::list(text).any(|r| self.hits(&r, number, offer)) {
                    return Err(self.conflict(state, *other, relation_word, number));
                }
            }
        }
        Ok(())
    }

    fn conflict(&self, state: &State<'a>, package: u32, relation: &'static str, other: u32) -> PackagesError {
        let named = |n: u32| format!("{} {}", self.offer(n).name, self.offer(n).version);
        PackagesError::Conflict {
            package: named(package),
            relation,
            other: named(other),
            chain: format!("{}; {}", self.chain(state, package), self.chain(state, other)),
        }
    }

    /// Whether a Conflicts or Breaks of `owner` is about that offer; a package never hits itself.
    fn hits(&self, relation: &Relation<'_>, number: u32, owner: &Offer<'_>) -> bool {
        let offer = self.offer(number);
        if offer.name == owner.name {
            return false;
        }
        if offer.name == relation.name {
            return relation.accepts(offer.version);
        }
        let provides = offer.stanza.get("Provides").into_iter().flat_map(relation::list);
        provides.filter(|p| p.name == relation.name).any(|p| self.provides(relation, p.version.map(|(_, v)| v)))
    }

    fn is_met(&self, state: &State<'a>, relation: &Relation<'a>, architecture: &str) -> bool {
        let named = state.chosen.range((relation.name, "")..).take_while(|((name, _), _)| *name == relation.name);
        for (_, number) in named {
            let offer = self.offer(*number);
            if relation.accepts(offer.version) && self.fits(offer, relation, architecture) {
                return true;
            }
        }
        self.offers.providers(relation.name).any(|(number, offer, version)| {
            state.chosen.get(&(offer.name, self.architecture_of(offer))) == Some(&number)
                && self.provides(relation, version)
                && self.fits(offer, relation, architecture)
        })
    }

    /// A provided name without a version meets only conditions without one.
    fn provides(&self, relation: &Relation<'_>, version: Option<&str>) -> bool {
        match (relation.version, version) {
            (None, _) => true,
            (Some(_), Some(version)) => relation.accepts(version),
            (Some(_), None) => false,
        }
    }

    /// Whether the offer's architecture serves a need of a package of `architecture`.
    fn fits(&self, offer: &Offer<'a>, relation: &Relation<'_>, architecture: &str) -> bool {
        let own = self.architecture_of(offer);
        match relation.qualifier {
            Some("any") => own == architecture || offer.stanza.get("Multi-Arch") == Some("allowed"),
            Some("native") => own == self.request.architecture,
            Some(named) => own == named,
            None => own == architecture || offer.stanza.get("Multi-Arch") == Some("foreign"),
        }
    }

    fn offer(&self, number: u32) -> &'a Offer<'a> {
        &self.offers.all[number as usize]
    }

    fn architecture(&self, number: u32) -> &'a str {
        self.architecture_of(self.offer(number))
    }

    fn architecture_of(&self, offer: &Offer<'a>) -> &'a str {
        if offer.architecture == "all" { &self.request.architecture } else { offer.architecture }
    }

    fn native(&self, offer: &Offer<'_>) -> bool {
        offer.architecture == "all" || offer.architecture == self.request.architecture
    }

    fn is_base(&self, offer: &Offer<'_>) -> bool {
        self.native(offer)
            && match self.request.variant {
                Variant::Minbase => offer.essential || offer.priority == 0 || offer.name == MANAGER,
                Variant::Essential => offer.essential,
                Variant::Custom => false,
            }
    }

    /// The offer for `name`, `name:arch`, `name=version`.
    fn asked(&self, word: &str) -> Result<u32, PackagesError> {
        let (head, version) = match word.split_once('=') {
            Some((head, version)) => (head.trim(), Some(version.trim())),
            None => (word.trim(), None),
        };
        let (name, architecture) = match head.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (head, None),
        };
        let fits = |o: &Offer<'_>| match architecture {
            Some(a) => o.architecture == a || (o.architecture == "all" && a == self.request.architecture),
            None => self.native(o),
        };
        let found: Vec<(u32, &str)> =
            self.offers.named(name).filter(|(_, o)| fits(o)).map(|(n, o)| (n, o.version)).collect();
        if found.is_empty() {
            // A name that only one package provides means that package, as with apt.
            let mut providers: Vec<&str> =
                self.offers.providers(name).filter(|(_, o, _)| fits(o)).map(|(_, o, _)| o.name).collect();
            providers.sort_unstable();
            providers.dedup();
            return match providers.as_slice() {
                [only] if version.is_none() => self.asked(only),
                [] => Err(PackagesError::UnknownPackage {
                    name: head.into(),
                    suite: self.suites.into(),
                    nearest: self.offers.nearest(name),
                }),
                several => Err(PackagesError::Unsatisfiable {
                    chain: format!("{name} is asked for"),
                    why: format!("it is a virtual package; name one of its providers: {}", several.join(", ")),
                }),
            };
        }
        match version {
            None => Ok(found[0].0),
            Some(version) => found.iter().find(|(_, v)| *v == version).map(|(n, _)| *n).ok_or_else(|| {
                let all: Vec<&str> = found.iter().map(|(_, v)| *v).collect();
                PackagesError::UnknownVersion { name: name.into(), version: version.into(), available: all.join(", ") }
            }),
        }
    }

    /// `a needs b, b needs c (>= 2)`.
    fn chain(&self, state: &State<'a>, number: u32) -> String {
        let mut links = Vec::new();
        let mut at = number;
        while links.len() < 32 {
            match state.causes.get(&at) {
                Some(Cause::Need { by, relation }) => {
                    links.push(format!("{} needs {relation}", self.offer(*by).name));
                    at = *by;
                }
                Some(Cause::Base) => {
                    links.push(format!("{} is part of the base system", self.offer(at).name));
                    break;
                }
                _ => {
                    links.push(format!("{} is asked for", self.offer(at).name));
                    break;
                }
            }
        }
        links.reverse();
        links.join(", ")
    }

    fn unsatisfiable(&self, state: &State<'a>, need: &Need<'a>) -> PackagesError {
        let group: Vec<String> = need.group.iter().map(ToString::to_string).collect();
        let chain = format!("{}, {} needs {}", self.chain(state, need.by), self.offer(need.by).name, group.join(" | "));
        let mut reasons = Vec::new();
        for relation in &need.group {
            let versions: Vec<&str> = self.offers.named(relation.name).map(|(_, o)| o.version).collect();
            let providers: Vec<&str> = self.offers.providers(relation.name).map(|(_, o, _)| o.name).take(3).collect();
            reasons.push(match (versions.as_slice(), providers.as_slice()) {
                ([], []) => match self.offers.nearest(relation.name) {
                    Some(near) => {
                        format!("{} has no package {} (the nearest name is {near})", self.suites, relation.name)
                    }
                    None => format!("{} has no package {}", self.suites, relation.name),
                },
                ([], providers) => format!("{} provides {} in no fitting version", providers.join(", "), relation.name),
                (versions, _) => format!("{} has {} {}", self.suites, relation.name, versions.join(", ")),
            });
        }
        PackagesError::Unsatisfiable { chain, why: reasons.join("; ") }
    }

    /// Needs first; in a circle, the one that was reached first comes last. Essential packages before all others.
    fn order(&self, chosen: &BTreeMap<u32, ()>) -> Vec<u32> {
        let mut state = State::default();
        for number in chosen.keys() {
            let offer = self.offer(*number);
            state.chosen.insert((offer.name, self.architecture_of(offer)), *number);
        }
        // Users and groups must be there before any script asks for them.
        let rank = |o: &Offer<'_>| match o.name {
            "base-passwd" => 0,
            "base-files" => 1,
            _ if o.essential => 2,
            _ if o.priority == 0 => 3,
            _ => 4,
        };
        let mut roots: Vec<u32> = chosen.keys().copied().collect();
        roots.sort_by_key(|n| {
            let o = self.offer(*n);
            (rank(o), o.name, o.architecture)
        });
        let mut ordered = Vec::with_capacity(roots.len());
        let mut seen = HashSet::new();
        for root in roots {
            self.visit(&state, root, &mut seen, &mut ordered);
        }
        ordered
    }

    fn visit(&self, state: &State<'a>, root: u32, seen: &mut HashSet<u32>, ordered: &mut Vec<u32>) {
        // An explicit stack: chains of needs may be long.
        let mut stack = vec![(root, None::<std::vec::IntoIter<u32>>)];
        while let Some((number, pending)) = stack.last_mut() {
            let number = *number;
            let pending = match pending {
                Some(pending) => pending,
                None => {
                    if !seen.insert(number) {
                        stack.pop();
                        continue;
                    }
                    pending.insert(self.needed(state, number).into_iter())
                }
            };
            match pending.next() {
                Some(next) => {
                    if !seen.contains(&next) {
                        stack.push((next, None));
                    }
                }
                None => {
                    ordered.push(number);
                    stack.pop();
                }
            }
        }
    }

    /// The chosen offers that meet the needs of one.
    fn needed(&self, state: &State<'a>, number: u32) -> Vec<u32> {
        let offer = self.offer(number);
        let architecture = self.architecture(number);
        let mut found = Vec::new();
        for field in ["Pre-Depends", "Depends"] {
            for group in offer.stanza.get(field).into_iter().flat_map(relation::groups) {
                let meets = group.iter().find_map(|relation| {
                    let mut all: Vec<(&str, u32)> = state
                        .chosen
                        .values()
                        .map(|n| (self.offer(*n), *n))
                        .filter(|(o, _)| self.fits(o, relation, architecture))
                        .filter(|(o, _)| {
                            let named = o.name == relation.name && relation.accepts(o.version);
                            let mut provided = o.stanza.get("Provides").into_iter().flat_map(relation::list);
                            named
                                || provided.any(|p| {
                                    p.name == relation.name && self.provides(relation, p.version.map(|(_, v)| v))
                                })
                        })
                        .map(|(o, n)| (o.name, n))
                        .collect();
                    all.sort_unstable();
                    all.first().map(|(_, n)| *n)
                });
                found.extend(meets);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::index::IndexText;

    fn check(index: &str, install: &[&str]) -> Result<String, String> {
        let text = index
            .split("\n\n")
            .map(|s| {
                format!("{}\nArchitecture: {}\n", s.trim(), if s.contains("arch-i386") { "i386" } else { "amd64" })
            })
            .collect::<Vec<_>>()
            .join("\n");
        let texts = [IndexText { url: "u".into(), suite: "s".into(), not_automatic: false, epoch_seconds: 0, text }];
        let offers = Offers::read(&texts).map_err(|e| e.to_string())?;
        let request = Request {
            architecture: "amd64".into(),
            install: install.iter().map(ToString::to_string).collect(),
            ..Request::default()
        };
        let found = resolve(&offers, &request, "s").map_err(|e| e.to_string())?;
        let names: Vec<String> = found
            .iter()
            .map(|n| format!("{}_{}", offers.all[*n as usize].name, offers.all[*n as usize].version))
            .collect();
        Ok(names.join(" "))
    }

    #[test]
    fn alternatives_providers_and_versions() {
        let index = "Package: a\nVersion: 1\nDepends: x (>= 2) | y, mail\n\nPackage: x\nVersion: 1\n\nPackage: y\nVersion: 1\n\nPackage: exim\nVersion: 4\nPriority: optional\nProvides: mail\n\nPackage: bulky\nVersion: 1\nPriority: extra\nProvides: mail";
        assert_eq!(check(index, &["a"]).unwrap(), "exim_4 y_1 a_1".replace("exim_4 y_1", "y_1 exim_4"));
        assert_eq!(check(index, &["a", "bulky"]).unwrap(), "y_1 bulky_1 a_1");
    }

    #[test]
    fn a_conflict_takes_the_other_alternative() {
        let index = "Package: a\nVersion: 1\nDepends: x | y\n\nPackage: x\nVersion: 1\nDepends: z\n\nPackage: y\nVersion: 1\n\nPackage: z\nVersion: 1\nConflicts: k\n\nPackage: k\nVersion: 1";
        assert_eq!(check(index, &["a", "k"]).unwrap(), "y_1 a_1 k_1");
        let message = check(&index.replace("x | y", "x"), &["a", "k"]).unwrap_err();
        assert_eq!(
            message,
            "z 1 conflicts with k 1, but both are needed: a is asked for, a needs x, x needs z; k is asked for"
        );
    }

    #[test]
    fn circles_and_base() {
        let index = "Package: libc\nVersion: 2\nPriority: required\nDepends: gcc\n\nPackage: gcc\nVersion: 1\nDepends: libc (>= 2)\n\nPackage: base-passwd\nVersion: 1\nEssential: yes\nPre-Depends: libc\n\nPackage: apt\nVersion: 1\n\nPackage: extra\nVersion: 1";
        assert_eq!(check(index, &[]).unwrap(), "gcc_1 libc_2 base-passwd_1 apt_1");
    }

    #[test]
    fn what_cannot_be_met_is_explained() {
        let index = "Package: a\nVersion: 1\nDepends: b\n\nPackage: b\nVersion: 1\nDepends: openssl (>= 3)\n\nPackage: openssl\nVersion: 1.1";
        assert_eq!(
            check(index, &["a"]).unwrap_err(),
            "a is asked for, a needs b, b needs openssl (>= 3), but s has openssl 1.1"
        );
        assert_eq!(check(index, &["opensl"]).unwrap_err(), "no package `opensl` in s; did you mean `openssl`?");
        assert_eq!(check(index, &["openssl=2"]).unwrap_err(), "no version `2` of package `openssl`; there is 1.1");
    }

    #[test]
    fn foreign_architectures() {
        let index = "Package: a\nVersion: 1\nDepends: lib, tool, py:any\nDescription: arch-i386\n\nPackage: lib\nVersion: 1\n\nPackage: lib\nVersion: 1\nDescription: arch-i386\n\nPackage: tool\nVersion: 1\nMulti-Arch: foreign\n\nPackage: py\nVersion: 1\nMulti-Arch: allowed";
        assert_eq!(check(index, &["a:i386"]).unwrap(), "lib_1 tool_1 py_1 a_1");
    }
}
