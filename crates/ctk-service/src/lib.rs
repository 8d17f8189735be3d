//! Services: containers that a project file declares. What is missing is started, what changed is started again, and
//! what is as it should be is left alone.
//!
//! [`decode`] reads a `service` node; [`Engine`] is who makes containers, which this crate does not know; [`start`] is
//! what an apply does. A container says by a label of which declaration it is: nothing else has to be remembered.

mod codes;
mod decl;
mod engine;

pub use codes::CODES;
pub use decl::{ImageName, ServiceDecl, When, decode};
pub use engine::{DIGEST_LABEL, Engine, Order, PROJECT_LABEL, Seen, ServiceError, observe, start};
