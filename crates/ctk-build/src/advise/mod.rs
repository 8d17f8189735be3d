//! What a person who knows builders would say of an image: what costs bytes or seconds without need, and where.

mod context;
mod layers;
mod order;

use std::fmt;

use ctk_oci::Platform;
use serde::Serialize;

use crate::explain::{Noted, noted, past, see};
use crate::limits::ADVICE_MIN_BYTES;
use crate::recipe::Loaded;
use crate::remote::Given;
use crate::solve::{Job, Tree, known};
use crate::{BuildError, BuildRequest};

/// Bytes that cost a user about as much as a second: what a fast line carries and a disk unpacks in that time.
const BYTES_PER_SECOND: f64 = 20e6;

/// What is said of one image for one platform.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advised {
    /// The image.
    pub image: String,
    /// For which platform.
    pub platform: String,
    /// What has to be done before anything can be said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// The dearest first.
    pub advice: Vec<Advice>,
}

/// One thing that could be better.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Which kind of flaw.
    pub rule: Flaw,
    /// What is the matter: one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// `Dockerfile:7:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Bytes, uncompressed, that it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds that it costs whenever it happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// A kind of flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// What changes often stands before what takes long and does not need it.
    Order,
    /// Files that a later layer removes.
    Deleted,
    /// Files that a later layer has again.
    Duplicate,
    /// A package manager's leavings.
    PackageCache,
    /// Compilers and headers in the final image.
    BuildTools,
    /// What an ignore file should keep out.
    MissingIgnore,
    /// A copy of everything where a few paths would do.
    CopyAll,
}

impl Advice {
    fn cost(&self) -> f64 {
        self.seconds.unwrap_or(0.0) + self.bytes.unwrap_or(0) as f64 / BYTES_PER_SECOND
    }
}

/// What could be better about the image that was built last with the same request. Changes nothing and asks nobody.
pub fn advise(request: &BuildRequest<'_>) -> Result<Vec<Advised>, BuildError> {
    let given = Given::new(request.decl, &request.world);
    let advised = |platform: &Platform, waits, advice| Advised {
        image: request.decl.address.to_string(),
        platform: platform.to_string(),
        waits,
        advice,
    };
    let loaded = match Loaded::look(request.decl, &given)? {
        Ok(loaded) => loaded,
        Err(what) => {
            let waits = vec![format!("{what} is fetched")];
            return Ok(request.platforms.iter().map(|p| advised(p, waits.clone(), Vec::new())).collect());
        }
    };
    let mut all = Vec::new();
    for platform in request.platforms {
        all.push(match see(request, &loaded, platform, of_job)? {
            Ok(Some(advice)) => advised(platform, Vec::new(), advice),
            Ok(None) => advised(platform, vec!["it is built".into()], Vec::new()),
            Err(waits) => advised(platform, waits, Vec::new()),
        });
    }
    Ok(all)
}

/// All that the rules look at.
struct Scene<'a> {
    job: &'a Job<'a>,
    /// The target's operations, inputs first.
    steps: Noted,
    /// Earlier builds, the last first.
    past: Vec<Noted>,
    tree: Tree,
}

fn of_job(job: &Job<'_>) -> Result<Option<Vec<Advice>>, BuildError> {
    let graph = &job.plan.lowered.graph;
    let target = job.plan.lowered.image.vertex;
    let keys = graph.definition_keys(job.digests);
    let Some(tree) = known(job, &graph.get(target).op, &keys[target.index()])? else { return Ok(None) };
    let scene = Scene { job, steps: noted(job, &keys), past: past(job)?, tree };
    let mut advice = Vec::new();
    layers::look(&scene, &mut advice)?;
    context::look(&scene, &mut advice)?;
    order::look(&scene, &mut advice);
    let small = |one: &Advice| one.seconds.is_none() && one.bytes.is_some_and(|bytes| bytes < ADVICE_MIN_BYTES);
    advice.retain(|one| !small(one));
    advice.sort_by(|one, other| other.cost().total_cmp(&one.cost()));
    Ok(Some(advice))
}

/// `12.3 MB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {}:", self.image, self.platform)?;
        for what in &self.waits {
            writeln!(f, "  not known before {what}")?;
        }
        if self.waits.is_empty() && self.advice.is_empty() {
            writeln!(f, "  nothing to advise")?;
        }
        for advice in &self.advice {
            let seconds = advice.seconds.map(|seconds| format!("{seconds:.1} s"));
            let cost: Vec<String> = seconds.into_iter().chain(advice.bytes.map(size)).collect();
            let place = advice.place.as_ref().map(|place| format!("  {place}")).unwrap_or_default();
            writeln!(f, "  {:>9}  {}{place}", cost.join(", "), advice.message)?;
            writeln!(f, "  {:>9}  {}", "", advice.hint)?;
        }
        Ok(())
    }
}
