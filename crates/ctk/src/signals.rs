//! Signals as words to others: the first interrupt cancels, the second ends the process.

use std::sync::Arc;

use ctk_plan::Cancel;
use tokio::signal::unix::{SignalKind, signal};

/// What an interrupted process exits with when it does not wait for its work to end.
const EXIT_INTERRUPTED: i32 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP cancel; a second one ends the process at once. What that leaves behind is
/// found and cleaned by the next start.
pub fn cancel_on_interrupt(cancel: &Cancel) {
    let cancel = cancel.clone();
    listen(&[libc_signal::INT, libc_signal::TERM, libc_signal::HUP], move |_| {
        if cancel.is_cancelled() {
            std::process::exit(EXIT_INTERRUPTED);
        }
        cancel.cancel();
    });
}

/// A thread that waits for `signals` as long as the process lives.
fn listen(signals: &[i32], hear: impl Fn(i32) + Send + Sync + 'static) {
    let signals = signals.to_vec();
    let hear = Arc::new(hear);
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            let mut tasks = Vec::new();
            for number in signals {
                let Ok(mut stream) = signal(SignalKind::from_raw(number)) else { continue };
                let hear = hear.clone();
                tasks.push(tokio::spawn(async move {
                    while stream.recv().await.is_some() {
                        hear(number);
                    }
                }));
            }
            drop(ready);
            for task in tasks {
                let _ = task.await;
            }
        });
    });
    // Ends when the thread has installed its handlers, or died.
    let _ = is_ready.recv();
}

/// Numbers that are the same on every Linux architecture (`signal(7)`).
pub mod libc_signal {
    /// Hang up.
    pub const HUP: i32 = 1;
    /// Interrupt.
    pub const INT: i32 = 2;
    /// Terminate.
    pub const TERM: i32 = 15;
}
