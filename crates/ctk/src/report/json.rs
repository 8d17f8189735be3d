//! One JSON object a line, for programs.

use std::io::Write;

use ctk_plan::{Event, Sink};

/// Writes each event as it comes.
pub struct Json;

impl Sink for Json {
    fn emit(&self, event: Event) {
        let line = serde_json::to_string(&event).expect("events are plain data");
        // Whoever closed the stream no longer listens.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}
