//! One module an area.

mod examples;
mod failures;
mod packages;
mod registry;
mod runs;
