//! What containers write: all of it for a command that is judged, the end of it for a container that serves.

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::{Arc, Mutex, MutexGuard};

use ctk_plan::{Outcome, Step};

use crate::limits;
use crate::report::Tail;

/// Reads a stream to its end and keeps its first [`limits::COMMAND_OUTPUT_BYTES`].
pub(crate) fn drain(mut pipe: PipeReader) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0u8; 16 << 10];
    // A read that fails ends the stream like its end does: the other side is gone.
    while let Ok(count) = pipe.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let room = limits::COMMAND_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    kept
}

/// The last lines that a container wrote, told to a step as they come. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct TailBuffer {
    container: String,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dropped: u64,
    lines: VecDeque<String>,
    /// Until it is finished.
    step: Option<Step>,
}

impl TailBuffer {
    /// An empty one, which tells `step`.
    pub fn new(container: &str, step: Step) -> TailBuffer {
        let inner = Inner { dropped: 0, lines: VecDeque::new(), step: Some(step) };
        TailBuffer { container: container.into(), inner: Arc::new(Mutex::new(inner)) }
    }

    /// What fills it.
    pub fn sink(&self) -> ctk_container::LineSink {
        let this = self.clone();
        Arc::new(move |stream, line| {
            let mut inner = this.lock();
            if let Some(step) = &inner.step {
                step.log(stream, line);
            }
            if inner.lines.len() == limits::TAIL_LINES {
                inner.lines.pop_front();
                inner.dropped += 1;
            }
            inner.lines.push_back(line.to_string());
        })
    }

    /// What is in it now; `None` when nothing was written.
    pub fn tail(&self) -> Option<Tail> {
        let inner = self.lock();
        (!inner.lines.is_empty()).then(|| Tail {
            container: self.container.clone(),
            dropped_lines: inner.dropped,
            lines: inner.lines.iter().cloned().collect(),
        })
    }

    /// Ends the step; the first word counts.
    pub fn finish(&self, outcome: Outcome) {
        if let Some(step) = self.lock().step.take() {
            step.finish(outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
