//! One module an area.

mod examples;
mod failures;
mod registry;
mod runs;
