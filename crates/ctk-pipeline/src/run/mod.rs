//! Running a pipeline: steps in containers and by our own programs, as soon as what they need has ended.
//!
//! ```text
//! Plan ──Job──▶ Scheduler ──▶ a thread a step ──▶ container | child of our own binary
//!                   ▲                │ Events
//!                   └── how it ended ┘ └──▶ Journal (the record), Watch (the user)
//! ```
//! A run is a record ([`record`]) from its first moment; [`run`] writes an event down before it does anything else with
//! it. Whoever goes on with a run that was killed keeps what the record says has succeeded.

mod artifacts;
mod cache;
mod container;
mod course;
pub mod error;
pub mod event;
mod execute;
mod html;
mod ignore;
mod images;
pub mod job;
mod junit;
pub mod limits;
pub mod native;
mod packages;
mod paths;
mod places;
pub mod record;
pub mod secrets;
mod stop;
pub mod storage;
mod workspace;

pub use error::RunError;
pub use event::{Ending, Event, Watch};
pub use execute::{Outcome, Request, Settings, run};
pub use html::html;
pub use job::{Job, SecretSource, Task, TaskWork};
pub use junit::{Summary, collect as collect_junit};
pub use places::{Place, enter};
pub use record::{Journal, Record, Records};
pub use workspace::{fill, places};
