//! The thread that starts containers. A container dies with the thread that started it (`PR_SET_PDEATHSIG` means the
//! thread, not the process), so that thread must live as long as the process.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

type Job = Box<dyn FnOnce() + Send>;

static LAUNCHER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();

/// Runs `job` on the launcher thread and gives back what it gave; `None` if the thread could not be started.
pub(crate) fn on_launcher<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        let _ = std::thread::Builder::new().name("ctk-launcher".into()).spawn(move || {
            // Endless: the sender is never dropped.
            for job in receiver {
                job();
            }
        });
        Mutex::new(sender)
    });
    let (answer, result) = channel();
    let job: Job = Box::new(move || {
        let _ = answer.send(job());
    });
    launcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner).send(job).ok()?;
    result.recv().ok()
}
