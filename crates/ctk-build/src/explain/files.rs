//! What files a step read, kept in parts: of any number of files only the parts are looked at again that differ.
//!
//! A selection's record has a digest for each part, a part's record the words of its files ([`visit_words`]). Which part
//! a file belongs to, its path says. A build that changes one file writes one part, and reads one to say which it was.

use std::collections::BTreeMap;

use ctk_buildgraph::{KeyHasher, Selection};
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::context::{Context, Found, same_content, visit_words};
use crate::limits::NOTED_PART_FILES;
use crate::solve::Job;

/// Parts of what a step read, by the digest of its selection.
const FILES: &str = "build-files";
/// Words of files, by the digest of all of a part's.
const PARTS: &str = "build-file-parts";

/// Ends a file's word and begins its attributes: no path and no name has it.
pub(super) const ATTRIBUTES: char = '\0';

/// Words of files by their paths.
pub(crate) type Words = BTreeMap<String, String>;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Digests; their number is a power of two.
    parts: Vec<String>,
}

/// Keeps what a selection gives. Files that changed while the build ran are not kept.
pub(super) fn keep(job: &Job<'_>, selection: &Selection) -> Result<(), BuildError> {
    let store = job.request.world.store;
    let digest = &job.digests.0[selection];
    if store.record::<Kept>(FILES, digest)?.is_some() {
        return Ok(());
    }
    let Ok(found) = job.contexts.find_all(selection) else { return Ok(()) };
    let context = job.contexts.get(&selection.context)?;
    let count: usize = found.iter().map(|source| source.count).sum();
    let parts = digests(&found, (count / NOTED_PART_FILES).next_power_of_two());
    let mut missing: Vec<Option<Words>> = Vec::with_capacity(parts.len());
    for part in &parts {
        missing.push(store.record::<Words>(PARTS, part)?.is_none().then(Words::new));
    }
    visit_words(&found, |path, mut word| {
        let Some(words) = &mut missing[part_of(&path, parts.len())] else { return };
        if is_file(&word) {
            let attributes = context.attributes(path.as_bytes());
            if !attributes.is_empty() {
                word.push(ATTRIBUTES);
                word.push_str(&attributes);
            }
        }
        words.insert(path, word);
    });
    for (part, words) in parts.iter().zip(missing) {
        if let Some(words) = words {
            store.put_record(PARTS, part, &words, &Links::default())?;
        }
    }
    Ok(store.put_record(FILES, digest, &Kept { parts }, &Links::default())?)
}

/// Words of the files that were read under the digest `before` and of those that are read now, where they differ; nothing
/// if what was read is not known any more. `selections` are those of now.
pub(super) fn differing(
    job: &Job<'_>,
    selections: &BTreeMap<String, Selection>,
    before: &str,
    now: &str,
) -> Result<Option<(Words, Words)>, BuildError> {
    let store = job.request.world.store;
    let Some(selection) = selections.get(now) else { return Ok(None) };
    let found = job.contexts.find_all(selection)?;
    let Some(kept) = store.record::<Kept>(FILES, before)?.filter(|kept| kept.parts.len().is_power_of_two()) else {
        // Another instruction may read now what this one did.
        let Some(other) = selections.get(before) else { return Ok(None) };
        return Ok(Some((words(&job.contexts.find_all(other)?, |_| true), words(&found, |_| true))));
    };
    let count = kept.parts.len();
    let differ: Vec<bool> = kept.parts.iter().zip(digests(&found, count)).map(|(old, new)| *old != new).collect();
    let mut old = Words::new();
    for part in kept.parts.iter().zip(&differ).filter(|(_, differs)| **differs).map(|(part, _)| part) {
        let Some(words) = store.record::<Words>(PARTS, part)? else { return Ok(None) };
        old.extend(words);
    }
    let mut new = words(&found, |path| differ[part_of(path, count)]);
    let context = job.contexts.get(&selection.context)?;
    for (path, new) in &mut new {
        if let Some(old) = old.get_mut(path) {
            with_attributes(&context, path, old, new);
        }
    }
    Ok(Some((old, new)))
}

/// Gives a file's word of now its attributes. Where only these differ, both words get the same digest.
fn with_attributes(context: &Context, path: &str, old: &mut String, new: &mut String) {
    let (bare, attributes) = match old.split_once(ATTRIBUTES) {
        Some((bare, attributes)) => (bare.to_owned(), attributes.to_owned()),
        None => (old.clone(), String::new()),
    };
    if bare == *new {
        // A digest is one of content and attributes.
        new.clone_from(old);
        return;
    }
    let (Some((mode, digest)), Some((_, now))) = (bare.split_once(':'), new.split_once(':')) else { return };
    let (digest, now) = (digest.split('=').next().unwrap_or_default(), now.split('=').next().unwrap_or_default());
    if !is_file(&bare) || !is_file(new) || digest == now {
        return;
    }
    let present = context.attributes(path.as_bytes());
    if present == attributes {
        return;
    }
    let file = context.open_file(path.as_bytes());
    if file.is_some_and(|file| same_content(file, &attributes, digest)) {
        *old = format!("{mode}:{now}{ATTRIBUTES}{attributes}");
        *new = format!("{new}{ATTRIBUTES}{present}");
    }
}

/// The word of a file begins with its mode.
fn is_file(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

fn words(found: &[Found], wanted: impl Fn(&str) -> bool) -> Words {
    let mut words = Words::new();
    visit_words(found, |path, word| {
        if wanted(&path) {
            words.insert(path, word);
        }
    });
    words
}

/// The part of `count` that a path belongs to.
fn part_of(path: &str, count: usize) -> usize {
    let hash = blake3::hash(path.as_bytes());
    let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes"));
    number as usize & (count - 1)
}

/// Digests of `count` parts.
fn digests(found: &[Found], count: usize) -> Vec<String> {
    let mut hashers: Vec<KeyHasher> = std::iter::repeat_with(|| KeyHasher::new("part")).take(count).collect();
    visit_words(found, |path, word| {
        hashers[part_of(&path, count)].part(path.as_bytes()).part(word.as_bytes());
    });
    hashers.into_iter().map(|hasher| hasher.finish().to_string()).collect()
}
