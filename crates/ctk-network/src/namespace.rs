//! Work inside a network namespace, on a thread that goes there and ends there.

use std::io;
use std::os::fd::BorrowedFd;

const NETWORK: u32 = 0x4000_0000; // CLONE_NEWNET

/// Does something on a thread of its own inside a network namespace. Its sockets stay of that namespace.
pub(crate) fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    job: impl FnOnce() -> Result<T, crate::Error> + Send,
) -> Result<T, crate::Error> {
    let enter = || {
        ctk_sys::set_controlling_namespace(namespace, NETWORK).map_err(|error| crate::Error::Kernel {
            attempt: "enter the container's network namespace".into(),
            source: error.into(),
        })?;
        job()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ctk-network".into()).spawn_scoped(scope, enter);
        let failed = |source| crate::Error::Kernel { attempt: "start a thread".into(), source };
        let thread = thread.map_err(failed)?;
        thread.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread failed"))))
    })
}
