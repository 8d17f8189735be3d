//! Builds images: `image` nodes and Dockerfiles in, manifests in the store out.
//!
//! ```text
//! decode   node → ImageDecl                        pure
//! resolve  moving names → lock file                asks registries and mirrors, once
//! observe  what the image reads → inputs           stats files; what apply's fingerprints are made of
//! build    recipe → graph → layers → manifest      runs what no earlier result covers
//! ```
//!
//! A vertex whose definition was built before is not looked at again; one whose inputs turned out the same is not run
//! again. Independent vertices run side by side; the same work in two processes is done once.

mod advise;
mod base;
mod build;
mod cache;
pub mod codes;
mod context;
mod debug;
mod decl;
mod decode;
mod earlier;
mod emulation;
mod epoch;
mod error;
mod explain;
mod finish;
mod index;
pub mod limits;
mod mounts;
mod observe;
mod ops;
mod outline;
mod recipe;
mod remote;
mod request;
mod run_settings;
mod settle;
mod slots;
mod solve;
mod verify;
mod workers;

pub use advise::{Advice, Advised, Flaw, advise};
pub use build::build;
pub use cache::Caches;
pub use codes::CODES;
pub use debug::{Debugger, Shell};
pub use decl::{ContextDecl, ImageDecl, RecipeSource, SecretSource, SshDecl};
pub use decode::decode;
pub use epoch::{KnownEpoch, epoch};
pub use error::{BuildError, Place};
pub use explain::{Cause, Change, Explained, Explanations, FileChange, StepOutlook, explain};
pub use index::{ContentDigest, StatIndex};
pub use observe::{Observed, observe, resolve};
pub use outline::{Line, LineRange, Location, Outline, OutlineArg, Target, Targets, Wanted, outline, targets};
pub use recipe::{Linted, Looked, lint};
pub use remote::{StdinInput, read_stdin};
pub use request::{BuildRequest, Built, LockView, Secrets, World};
pub use run_settings::{Entitlements, HostAddress, Resources, RunSettings, SshSource, Ulimit};
pub use slots::Slots;
pub use verify::{Difference, verify};
