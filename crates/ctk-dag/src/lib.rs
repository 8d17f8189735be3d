//! A graph of needs: cycle report, closures, ready-set scheduler. No I/O, no clock.
//!
//! ```
//! use ctk_dag::{Graph, Scheduler};
//!
//! let mut graph = Graph::new();
//! graph.need("push", "image");
//! graph.need("image", "base");
//! let mut scheduler = Scheduler::new(&graph).unwrap();
//! assert_eq!(scheduler.ready(), ["base"]);
//! assert_eq!(scheduler.finished(&"base", false), ["push", "image"]);
//! assert!(scheduler.is_done());
//! ```

mod graph;
mod scheduler;

pub use graph::{Cycle, Graph};
pub use scheduler::Scheduler;
