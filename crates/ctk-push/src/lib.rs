//! Copies images to where they go: registries, OCI layouts, archives.
//!
//! A push has three phases, so that an apply is all or nothing: [`observe`] only reads; [`upload`] brings everything
//! that has a digest as its name, which nobody sees yet; [`publish`] moves the tags, quickly and last. Every kind of
//! target is a file in `targets/` and a line in [`targets::TABLE`].

pub mod codes;
mod compression;
mod decl;
mod divide;
mod error;
pub mod export;
mod image_form;
mod layout;
pub mod limits;
mod packing;
mod phases;
mod scratch;
pub mod sync;
pub mod targets;

pub use codes::CODES;
pub use compression::Wanted;
pub use decl::{PushDecl, Target, decode};
pub use error::PushError;
pub use image_form::decode_form;
pub use packing::{Ground, Packing, PackingError};
pub use phases::{Observed, Published, PushRequest, Staged, observe, publish, upload};
pub use targets::{Found, LocalRegistry, Reach};
