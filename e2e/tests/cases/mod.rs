//! One module an area.

mod build;
mod caches;
mod contexts;
mod corpus;
mod damage;
mod differential;
mod epochs;
mod examples;
mod explain;
mod exports;
mod failures;
mod image_form;
mod interrupt;
mod layers;
mod lints;
mod network;
mod packages;
mod plan;
mod platforms;
mod project_caches;
mod random;
mod registry;
mod runs;
mod solver;
mod ssh;
mod store;
