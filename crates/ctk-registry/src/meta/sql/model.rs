//! Every interleaving of an upload, the same upload again, a mount, deletions, a sweep and the removal of bytes, each a
//! program whose steps are the real transactions; bytes are a set. After each step of each order: what a manifest names
//! is there, and whoever is killed now leaves nothing that a collection does not find.
//!
//! The search is depth first over a database in memory: a step is taken within a savepoint and taken back. A state that
//! was seen is not looked at again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ctk_oci::{Algorithm, Descriptor, Digest, media_type};

use super::{Sql, blobs, keep, manifests, values};
use crate::meta::{ManifestPut, Name, Place, Upload, any_change};

const NOW: u64 = 10;
const ALL_IS_OLD: u64 = 11;

/// A rule that is broken, so that it is seen that the search would find it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Nothing,
    /// The sweep decides in one transaction what it takes in another.
    SweepDecidesBefore,
    /// Trash is forgotten before its bytes are removed.
    ForgottenFirst,
    /// A mount looks for the blob in one transaction and holds it in another.
    MountLooksBefore,
    /// Bytes come before the upload is written down.
    BytesFirst,
}

/// Those who act at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Actor {
    /// Pushes content and a manifest to `a`.
    Push,
    /// Pushes the same to `a` again.
    Again,
    /// Mounts it from `a` to `b`, or else pushes it there, and a manifest.
    Mount,
    /// Deletes the manifest and then the blob from `a`.
    Delete,
    /// Takes what nobody names.
    Sweep,
    /// Gives uploads up.
    Expire,
    /// Removes bytes that were thrown away.
    Tidy,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// Steps done by each actor; `u8::MAX` when it is through.
    steps: BTreeMap<Actor, u8>,
    /// Places that hold bytes.
    bytes: BTreeSet<String>,
    /// What actors remember between steps.
    chosen: Vec<(i64, i64)>,
    trash: Vec<String>,
    looked: Option<i64>,
    /// Whether somebody deleted the blob from `a` by its name.
    deleted: bool,
}

struct Model<'a> {
    sql: &'a dyn Sql,
    broken: Broken,
    seen: HashSet<(State, Vec<String>)>,
    order: Vec<(Actor, u8)>,
    found: Option<String>,
}

const DONE: u8 = u8::MAX;

fn content() -> Digest {
    Digest::of(b"content")
}

fn manifest(repository: &str) -> ManifestPut {
    ManifestPut {
        repository: repository.into(),
        descriptor: Descriptor::of(media_type::MANIFEST, b"manifest"),
        bytes: b"manifest".to_vec(),
        blobs: vec![Descriptor::of("x/y", b"content")],
        manifests: Vec::new(),
        sparse: false,
        subject: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
        tags: vec!["t".into()],
        rule: any_change(),
        quota_bytes: None,
        now: NOW,
    }
}

fn upload(place: &str, repository: &str) -> Upload {
    let (algorithm, parts) = (Algorithm::Sha256, String::new());
    let (place, repository) = (Place(place.into()), repository.into());
    Upload { place, repository, algorithm, size: 0, state: vec![1], parts }
}

impl Model<'_> {
    fn texts(&self, query: &'static str) -> Vec<String> {
        self.sql.rows(query, &[]).unwrap().into_iter().map(|mut row| row.text(0).unwrap()).collect()
    }

    /// All that the metadata says, without the numbers of rows.
    fn dump(&self) -> Vec<String> {
        let mut all = Vec::new();
        for query in [
            "SELECT 'upload ' || place || ' ' || repository FROM uploads ORDER BY 1",
            "SELECT 'blob ' || place FROM blobs ORDER BY 1",
            "SELECT 'hold ' || r.name FROM holdings h JOIN repositories r ON r.id = h.repository ORDER BY 1",
            "SELECT 'manifest ' || r.name FROM manifests m JOIN repositories r ON r.id = m.repository ORDER BY 1",
            "SELECT 'tag ' || r.name FROM tags t JOIN repositories r ON r.id = t.repository ORDER BY 1",
            "SELECT 'trash ' || place FROM trash ORDER BY 1",
        ] {
            all.extend(self.texts(query));
        }
        all
    }

    /// Pushes content to a repository in four steps, from `step` 0.
    fn push(&self, state: &mut State, repository: &str, place: &str, step: u8) -> u8 {
        let start = || blobs::start_upload(self.sql, &upload(place, repository), 100, NOW).unwrap();
        let step = if self.broken == Broken::BytesFirst && step < 2 { 1 - step } else { step };
        let next = match step {
            0 => {
                start();
                Some(1)
            }
            1 => {
                // An upload that was given up takes no more bytes: the writer looks again when it has the place.
                let open = blobs::upload(self.sql, repository, &Place(place.into())).unwrap().is_some();
                if open || self.broken == Broken::BytesFirst {
                    state.bytes.insert(place.into());
                }
                Some(2)
            }
            2 => {
                let place = Place(place.into());
                let done = blobs::finish_upload(self.sql, repository, &place, &content(), 7, None, NOW).unwrap();
                done.then_some(3)
            }
            _ => {
                self.put(repository);
                None
            }
        };
        match next {
            Some(1) if self.broken == Broken::BytesFirst => 2,
            Some(2) if self.broken == Broken::BytesFirst => 1,
            next => next.unwrap_or(DONE),
        }
    }

    /// Like the server: what is refused is undone.
    fn put(&self, repository: &str) {
        self.sql.batch("SAVEPOINT put").unwrap();
        let put = manifests::put(self.sql, &manifest(repository));
        self.sql.batch(if put.is_ok() { "RELEASE put" } else { "ROLLBACK TO put; RELEASE put" }).unwrap();
    }

    /// One step of an actor; gives the next one.
    fn step(&self, state: &mut State, actor: Actor, step: u8) -> u8 {
        let digest = content();
        match actor {
            Actor::Push => self.push(state, "a", "1", step),
            Actor::Again => self.push(state, "a", "2", step),
            Actor::Mount => match step {
                0 if self.broken == Broken::MountLooksBefore => {
                    let query = "SELECT b.id FROM blobs b JOIN holdings h ON h.blob = b.id";
                    state.looked = self.sql.id(query, &[]).unwrap();
                    if state.looked.is_some() { 1 } else { 10 }
                }
                1 => {
                    let repository = super::make_repository(self.sql, "b").unwrap();
                    let insert = "INSERT INTO holdings (repository, blob, touched) VALUES (?1, ?2, 0) \
                                  ON CONFLICT DO NOTHING";
                    self.sql.run(insert, values![repository, state.looked.take()]).unwrap();
                    13
                }
                0 if blobs::mount(self.sql, "b", "a", &digest, NOW).unwrap() => 13,
                0 => 10,
                step => match self.push(state, "b", "3", step - 10) {
                    DONE => DONE,
                    next => next + 10,
                },
            },
            Actor::Delete if step == 0 => {
                manifests::delete(self.sql, "a", &Name::Tag("t".into()), &any_change(), NOW).unwrap();
                let whole = Name::Digest(Digest::of(b"manifest"));
                manifests::delete(self.sql, "a", &whole, &any_change(), NOW).unwrap();
                1
            }
            Actor::Delete => {
                state.deleted |= blobs::delete_blob(self.sql, "a", &digest, NOW).unwrap();
                DONE
            }
            Actor::Sweep if self.broken == Broken::SweepDecidesBefore => {
                if step == 0 {
                    let query = "SELECT h.repository, h.blob FROM holdings h JOIN blobs b ON b.id = h.blob \
                                 WHERE NOT EXISTS (SELECT 1 FROM edges e \
                                 WHERE e.repository = h.repository AND e.digest = b.digest)";
                    let rows = self.sql.rows(query, &[]).unwrap();
                    state.chosen = rows.into_iter().map(|mut row| (row.int(0).unwrap(), row.int(1).unwrap())).collect();
                    return 1;
                }
                for (repository, blob) in std::mem::take(&mut state.chosen) {
                    blobs::let_go(self.sql, repository, blob, NOW).unwrap();
                }
                DONE
            }
            Actor::Sweep => {
                keep::sweep(self.sql, None, ALL_IS_OLD, 100, NOW).unwrap();
                DONE
            }
            Actor::Expire => {
                blobs::expire_uploads(self.sql, ALL_IS_OLD, NOW).unwrap();
                DONE
            }
            Actor::Tidy => {
                let forget = |state: &State| {
                    for place in &state.trash {
                        self.sql.run("DELETE FROM trash WHERE place = ?1", values![place]).unwrap();
                    }
                };
                let remove = |state: &mut State| {
                    let State { trash, bytes, .. } = state;
                    bytes.retain(|place| !trash.contains(place));
                };
                match (step, self.broken == Broken::ForgottenFirst) {
                    (0, _) => state.trash = self.texts("SELECT place FROM trash ORDER BY place"),
                    (1, false) | (2, true) => remove(state),
                    _ => forget(state),
                }
                if step < 2 { step + 1 } else { DONE }
            }
        }
    }

    /// What is wrong now, if anything is.
    fn fault(&self, state: &State) -> Option<String> {
        let lost = "SELECT r.name FROM manifests m JOIN repositories r ON r.id = m.repository \
                    WHERE EXISTS (SELECT 1 FROM edges e WHERE e.manifest = m.id AND NOT EXISTS \
                    (SELECT 1 FROM holdings h JOIN blobs b ON b.id = h.blob \
                    WHERE h.repository = m.repository AND b.digest = e.digest))";
        for repository in self.texts(lost) {
            if repository != "a" || !state.deleted {
                return Some(format!("a manifest of `{repository}` names what is not there"));
            }
        }
        if let Some(place) = self.texts("SELECT place FROM blobs").iter().find(|place| !state.bytes.contains(*place)) {
            return Some(format!("the bytes of a blob at {place} are gone"));
        }
        let held = "SELECT 'x' FROM holdings h WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.id = h.blob)";
        if !self.texts(held).is_empty() {
            return Some("a repository holds a blob that is gone".into());
        }
        let named = "SELECT place FROM blobs UNION ALL SELECT place FROM uploads UNION ALL SELECT place FROM trash";
        let named = self.texts(named);
        let different: BTreeSet<&String> = named.iter().collect();
        if different.len() != named.len() {
            return Some("a place is named twice".into());
        }
        state
            .bytes
            .iter()
            .find(|place| !different.contains(place))
            .map(|place| format!("nothing names the bytes at {place}"))
    }

    fn search(&mut self, state: &State) {
        if self.found.is_some() || !self.seen.insert((state.clone(), self.dump())) {
            return;
        }
        self.found = self.fault(state).map(|fault| format!("{fault} after {:?}", self.order));
        for (&actor, &step) in &state.steps {
            if step == DONE || self.found.is_some() {
                continue;
            }
            self.sql.batch("SAVEPOINT step").unwrap();
            let mut next = state.clone();
            let after = self.step(&mut next, actor, step);
            next.steps.insert(actor, after);
            if after == DONE && actor == Actor::Tidy {
                next.trash.clear();
            }
            self.order.push((actor, step));
            self.search(&next);
            self.order.pop();
            self.sql.batch("ROLLBACK TO step; RELEASE step").unwrap();
        }
    }
}

/// The number of states, and what is wrong in the first that is.
fn search(broken: Broken, actors: &[Actor]) -> (usize, Option<String>) {
    let sql = crate::meta::sqlite::in_memory();
    let state = State { steps: actors.iter().map(|actor| (*actor, 0)).collect(), ..State::default() };
    let mut model = Model { sql: &*sql, broken, seen: HashSet::new(), order: Vec::new(), found: None };
    model.search(&state);
    (model.seen.len(), model.found)
}

#[test]
fn nothing_is_lost_in_any_order() {
    use Actor::*;
    let mut states = 0;
    for actors in [
        &[Push, Mount, Delete, Sweep, Tidy][..],
        &[Push, Again, Delete, Sweep, Tidy],
        &[Push, Again, Mount, Sweep, Tidy],
        &[Push, Mount, Sweep, Expire, Tidy],
    ] {
        let (seen, found) = search(Broken::Nothing, actors);
        assert_eq!(found, None);
        states += seen;
    }
    assert!(states > 2000, "{states} states are too few to mean anything");
}

#[test]
fn every_broken_rule_is_found() {
    use Actor::*;
    for (broken, actors, fault) in [
        (Broken::SweepDecidesBefore, &[Push, Sweep, Tidy][..], "names what is not there"),
        (Broken::ForgottenFirst, &[Push, Again, Tidy], "nothing names the bytes"),
        (Broken::MountLooksBefore, &[Push, Mount, Delete, Tidy], "holds a blob that is gone"),
        (Broken::BytesFirst, &[Push], "nothing names the bytes"),
    ] {
        assert_eq!(search(Broken::Nothing, actors).1, None, "{actors:?}");
        let found = search(broken, actors).1.unwrap_or_default();
        assert!(found.contains(fault), "{broken:?}: {found}");
    }
}
