//! `ctk` as a library, as an `xtask` would use it: open a project file, plan, apply, read the events.
//!
//! ```sh
//! cargo run --package example-xtask -- examples/hello-c/containers.kdl
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use ctk_apply::{Options, Request, Session};
use ctk_plan::{Cancel, Event, Sink};

/// Counts steps and prints what ended.
struct Story;

impl Sink for Story {
    fn emit(&self, event: Event) {
        match event {
            Event::StepFinished { outcome, seconds, .. } => {
                eprintln!("  a step ended: {outcome:?} after {seconds:.2} s")
            }
            Event::UnitFinished { address, outcome, .. } => eprintln!("{address}: {outcome:?}"),
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "containers.kdl".into());
    let is_root = std::env::var("USER").is_ok_and(|user| user == "root");
    let session = Session::open(Path::new(&file), Options::from_environment(std::env::vars(), is_root))?;

    let request = Request::default();
    let plan = session.plan(&request)?;
    print!("{plan}");
    if plan.has_changes() {
        let applied = session.apply(&request, Arc::new(Story), &Cancel::new())?;
        for unit in &applied.plan.units {
            println!("{} {}", unit.address, unit.fingerprint);
        }
    }
    Ok(())
}
