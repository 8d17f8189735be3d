//! The spine's vocabulary and its one decision: desired and observed units in, a plan with reasons out.

mod address;
mod cancel;
mod event;
mod plan;
mod unit;

pub use address::{Address, AddressError, Kind};
pub use cancel::Cancel;
pub use event::{Event, Outcome, ProgressUnit, Reporter, Silent, Sink, Step, StepId, Stream};
pub use plan::{Action, InputChange, Last, Observed, Plan, PlanOptions, PlannedUnit, Produced, Reason, plan};
pub use unit::{Fingerprint, Input, InputError, Unit, hash_text};
