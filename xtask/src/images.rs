//! The project's own images, through the library API: what any `xtask` may do.

use std::path::Path;
use std::sync::Arc;

use ctk_apply::{Options, Session};
use ctk_plan::{Event, Sink};

struct Lines;

impl Sink for Lines {
    fn emit(&self, event: Event) {
        match event {
            Event::UnitFinished { address, outcome, seconds } => eprintln!("{address}: {outcome:?} in {seconds:.1} s"),
            Event::Warning { message, .. } => eprintln!("warning: {message}"),
            _ => {}
        }
    }
}

/// Plans, and unless `only_plan` applies, `containers.kdl` of the workspace.
pub fn images(root: &Path, only_plan: bool) -> Result<(), String> {
    let session = Session::open(&root.join("containers.kdl"), Options::from_environment()).map_err(|e| e.to_string())?;
    let plan = session.plan().map_err(|e| e.to_string())?;
    print!("{plan}");
    if !only_plan {
        session.apply(&plan, Arc::new(Lines)).map_err(|e| e.to_string())?;
    }
    Ok(())
}
