//! Many images at once, registry to registry: from a file that lists them, only what the target lacks, going on after
//! an error.
//!
//! ```text
//! file.rs      the file → entries            select.rs, version.rs   which tags are meant
//! mod.rs       entries → images → copies, several at a time → a report
//! ```

mod file;
mod select;
mod version;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ctk_client::{Client, ClientError, CopyFrom, CopyOptions, CopyTo, Pushed};
use ctk_oci::{Descriptor, Digest, Platform, Reference};
use ctk_plan::{Address, Cancel, Kind, Reporter, Sink};

pub use file::{Entry, Host, SyncFile, SyncSyntax};
pub use select::Selection;
pub use version::{Requirement, Version, by_age};

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct SyncOptions {
    /// Only say what would be copied.
    pub dry_run: bool,
    /// Images on their way at once.
    pub jobs: usize,
}

/// What became of one image.
#[derive(Clone, Debug)]
pub struct SyncItem {
    /// Where from; the repository, if its tags could not be told.
    pub from: String,
    /// Where to.
    pub to: Option<String>,
    /// Where the file names it.
    pub place: String,
    /// What it is.
    pub digest: Option<Digest>,
    /// What was done.
    pub outcome: SyncOutcome,
}

/// What was done with an image.
#[derive(Clone, Debug)]
pub enum SyncOutcome {
    /// The target had it.
    Present,
    /// It was copied.
    Copied(Pushed),
    /// It would be copied.
    Missing,
    /// It could not be.
    Failed {
        /// Why, with its causes.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// One image to copy.
struct Job {
    from: Reference,
    to: Reference,
    platform: Option<Platform>,
    referrers: bool,
    place: String,
}

/// Copies what the entries of `file` name and their targets lack; `told` hears of each as it ends. Gives all, in the
/// order of the file. An error ends only what it is about. Safe to repeat and to interrupt: what is there is not copied
/// again, and found by asking for heads alone.
pub fn sync(
    client: &Client,
    file: &SyncFile,
    options: SyncOptions,
    sink: &Arc<dyn Sink>,
    told: &(dyn Fn(&SyncItem) + Sync),
    cancel: &Cancel,
) -> Result<Vec<SyncItem>, ClientError> {
    let expanded = side_by_side(options.jobs, &file.entries, cancel, |entry| expand(client, file, entry, cancel));
    let mut items: Vec<SyncItem> = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    for (entry, found) in file.entries.iter().zip(expanded) {
        match found {
            Some(Ok(found)) => jobs.extend(found),
            Some(Err(Failed::Client(ClientError::Cancelled))) | None => return Err(ClientError::Cancelled),
            Some(Err(failed)) => {
                let item = failed.item(entry.from.to_string(), None, &entry.place);
                told(&item);
                items.push(item);
            }
        }
    }
    let (jobs, clashes) = apart(jobs);
    clashes.iter().for_each(told);
    items.extend(clashes);
    let done = side_by_side(options.jobs, &jobs, cancel, |job| {
        let done = one(client, job, options, sink, cancel);
        if matches!(&done, Err(Failed::Client(ClientError::Cancelled))) {
            return None;
        }
        let (from, to) = (job.from.to_string(), job.to.to_string());
        let item = match done {
            Ok((digest, outcome)) => {
                SyncItem { from, to: Some(to), place: job.place.clone(), digest: Some(digest), outcome }
            }
            Err(failed) => failed.item(from, Some(to), &job.place),
        };
        told(&item);
        Some(item)
    });
    let done: Option<Vec<SyncItem>> = done.into_iter().map(Option::flatten).collect();
    items.extend(done.ok_or(ClientError::Cancelled)?);
    Ok(items)
}

/// Why something was not copied.
enum Failed {
    Client(ClientError),
    Words(String),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Failed {
        Failed::Client(error)
    }
}

impl Failed {
    fn item(self, from: String, to: Option<String>, place: &str) -> SyncItem {
        let outcome = match self {
            Failed::Words(reason) => SyncOutcome::Failed { reason, hint: None },
            Failed::Client(error) => {
                let hint = error.hint();
                let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
                let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
                SyncOutcome::Failed { reason, hint }
            }
        };
        SyncItem { from, to, place: place.to_owned(), digest: None, outcome }
    }
}

/// Does `work` for each of `all`, `jobs` at a time, in order. `None` for what was not begun before a cancellation.
fn side_by_side<T: Sync, R: Send>(
    jobs: usize,
    all: &[T],
    cancel: &Cancel,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<Option<R>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<R>>> = Mutex::new(all.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, all.len().max(1)) {
            scope.spawn(|| {
                while !cancel.is_cancelled() {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(place) else { return };
                    let result = work(one);
                    done.lock().expect("no holder panics")[place] = Some(result);
                }
            });
        }
    });
    done.into_inner().expect("no holder panics")
}

/// The images of an entry.
fn expand(client: &Client, file: &SyncFile, entry: &Entry, cancel: &Cancel) -> Result<Vec<Job>, Failed> {
    let tags = match &entry.selection {
        None => None,
        Some(selection) => Some(match selection.named() {
            Some(named) => named.to_vec(),
            None => selection.select(&client.tags(&entry.from, cancel)?).map_err(Failed::Words)?,
        }),
    };
    let words = |error: ctk_oci::ReferenceError| Failed::Words(error.to_string());
    let sources = match &tags {
        None => vec![entry.from.clone().or_latest()],
        Some(tags) => tags.iter().map(|tag| entry.from.with_tag(tag)).collect::<Result<_, _>>().map_err(words)?,
    };
    let base: Reference = match &entry.to {
        Some(to) => to.parse().map_err(words)?,
        None => {
            let Some(to) = &file.to else {
                let reason = "where it goes is not said: neither by it nor by `to` (--to)";
                return Err(Failed::Words(reason.into()));
            };
            let host =
                if file.scoped { format!("{}/", entry.from.registry().replace(':', "-")) } else { String::new() };
            format!("{to}/{host}{}", entry.from.repository()).parse().map_err(words)?
        }
    };
    if tags.is_some() && base.tag().is_some() {
        return Err(Failed::Words(format!("its target `{base}` has a tag, and several tags are meant")));
    }
    let job = |from: Reference| {
        let to = match (base.tag(), from.tag(), from.digest()) {
            (Some(_), _, _) => base.clone(),
            (None, Some(tag), _) => base.with_tag(tag).map_err(words)?,
            (None, None, Some(digest)) => base.with_digest(digest.clone()),
            (None, None, None) => base.clone().or_latest(),
        };
        let (platform, place) = (entry.platform.clone(), entry.place.clone());
        Ok(Job { from, to, platform, referrers: entry.referrers, place })
    };
    sources.into_iter().map(job).collect()
}

/// What several sources would put under one name is put there by the first.
fn apart(jobs: Vec<Job>) -> (Vec<Job>, Vec<SyncItem>) {
    let mut first: HashMap<Reference, String> = HashMap::new();
    let (mut kept, mut clashes) = (Vec::new(), Vec::new());
    for job in jobs {
        match first.get(&job.to) {
            // The same line twice is no contradiction.
            Some(from) if *from == job.from.to_string() => {}
            Some(from) => {
                let failed = Failed::Words(format!("`{from}` goes to the same place"));
                clashes.push(failed.item(job.from.to_string(), Some(job.to.to_string()), &job.place));
            }
            None => {
                first.insert(job.to.clone(), job.from.to_string());
                kept.push(job);
            }
        }
    }
    (kept, clashes)
}

fn one(
    client: &Client,
    job: &Job,
    options: SyncOptions,
    sink: &Arc<dyn Sink>,
    cancel: &Cancel,
) -> Result<(Digest, SyncOutcome), Failed> {
    let found = client.head(&job.from, cancel)?.ok_or_else(|| Failed::Words("it does not exist".into()))?;
    let wanted = wanted(client, job, found, cancel)?;
    let there = client.head_at_target(&job.to, cancel)?.is_some_and(|there| there.digest == wanted.digest);
    if there && !job.referrers {
        return Ok((wanted.digest, SyncOutcome::Present));
    }
    if options.dry_run {
        let outcome = if there { SyncOutcome::Present } else { SyncOutcome::Missing };
        return Ok((wanted.digest, outcome));
    }
    let reporter = Reporter::new(Address::new(Kind::Image, job.to.to_string()), sink.clone());
    let step = (!there).then(|| reporter.step(format!("copy from {}", job.from)));
    let what = CopyOptions { platform: job.platform.as_ref(), referrers: job.referrers };
    // By digest: the tag may have moved since we looked, and the report says what was copied.
    let from = job.from.with_digest(wanted.digest.clone());
    let copied = client.transfer(CopyFrom::Registry(&from), CopyTo::Registry(&job.to), what, step.as_ref(), cancel);
    let copied = match step {
        Some(step) => step.conclude(copied)?,
        None => copied?,
    };
    let outcome = match there && copied.blobs.uploaded + copied.blobs.mounted == 0 {
        true => SyncOutcome::Present,
        false => SyncOutcome::Copied(copied.blobs),
    };
    Ok((copied.root.digest, outcome))
}

/// What the target should have: of an index for one platform, its member.
fn wanted(client: &Client, job: &Job, found: Descriptor, cancel: &Cancel) -> Result<Descriptor, Failed> {
    match &job.platform {
        Some(platform) if ctk_oci::media_type::is_index(&found.media_type) => {
            let by_digest = job.from.with_digest(found.digest);
            Ok(client.manifest(&by_digest, Some(platform), cancel)?.0)
        }
        _ => Ok(found),
    }
}
