//! The spine's vocabulary and its one decision: desired and observed units in, a plan with reasons out.

mod address;
mod cancel;
mod event;

pub use address::{Address, AddressError, Kind};
pub use cancel::Cancel;
pub use event::{Event, Outcome, ProgressUnit, Reporter, Silent, Sink, Step, StepId, Stream};
