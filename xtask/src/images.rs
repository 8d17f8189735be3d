//! The project's own images, through the library API: what any `xtask` may do.

use std::path::Path;
use std::sync::Arc;

use ctk_apply::{ApplyError, Options, Request, Session};
use ctk_plan::{Cancel, Event, Sink};

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
    let said = |error: ApplyError| error.explain(false);
    let is_root = std::env::var("HOME").is_ok_and(|home| home == "/root");
    let options = Options::from_environment(std::env::vars(), is_root);
    let session = Session::open(&root.join("containers.kdl"), options).map_err(said)?;
    let request = Request::default();
    print!("{}", session.plan(&request).map_err(said)?);
    if !only_plan {
        session.apply(&request, Arc::new(Lines), &Cancel::new()).map_err(said)?;
    }
    Ok(())
}
