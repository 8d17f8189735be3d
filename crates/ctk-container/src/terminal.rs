//! Our terminal and the container's, connected.

use std::os::fd::{AsFd, BorrowedFd};

use ctk_plan::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::limits::{POLL_MS, RELAY_BYTES};
use crate::options::ExitStatus;
use crate::{Container, Error};

/// Connects a terminal with the container's until the container ends: raw mode while it lasts, window size, input and
/// output. `input` and `output` need not be terminals; then there is nothing to put into raw mode. Cancelled, kills the
/// container. Changes of the window are seen within [`crate::limits::POLL_MS`].
pub fn relay_terminal(
    container: &Container,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    cancel: &Cancel,
) -> Result<ExitStatus, Error> {
    let terminal = container.terminal().ok_or(Error::NoTerminal)?.as_fd();
    let _raw = RawMode::enter(input)?;
    let relayed = relay(container, terminal, input, output, cancel);
    let status = container.wait(cancel)?;
    relayed.map(|()| status)
}

fn relay(
    container: &Container,
    terminal: BorrowedFd<'_>,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::RelayTerminal(errno.into());
    let mut buffer = vec![0; RELAY_BYTES];
    let mut open = true;
    let mut size: Option<Winsize> = None;
    let mut ended = false;
    loop {
        let now = tcgetwinsize(input).ok();
        let changed = now
            .as_ref()
            .is_some_and(|now| size.as_ref().is_none_or(|old| (old.ws_row, old.ws_col) != (now.ws_row, now.ws_col)));
        if let (true, Some(now)) = (changed, now) {
            tcsetwinsize(terminal, now).map_err(failed)?;
            size = Some(now);
        }
        if cancel.is_cancelled() {
            return Ok(());
        }
        let watch_input = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut files = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)].to_vec();
        if open {
            files.push(PollFd::from_borrowed_fd(input, watch_input));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_MS * 1_000_000 };
        let count = match poll(&mut files, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            other => other.map_err(failed)?,
        };
        // All processes may be gone while nobody closed the other end yet; what is buffered still comes first.
        if count == 0 && ended {
            return Ok(());
        }
        if count == 0 {
            ended = container.try_wait()?.is_some();
        }
        let ready = |index: usize| files.get(index).is_some_and(|file| !file.revents().is_empty());
        let (from_terminal, from_input) = (ready(0), ready(1));
        if from_terminal {
            match rustix::io::read(terminal, &mut buffer) {
                // The last process closed its end.
                Ok(0) | Err(Errno::IO) => return Ok(()),
                Ok(count) => write_all(output, buffer.get(..count).unwrap_or(&[])).map_err(failed)?,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        if from_input {
            match rustix::io::read(input, &mut buffer) {
                Ok(0) => {
                    open = false;
                    // End of file, as a terminal says it.
                    write_all(terminal, &[4]).map_err(failed)?;
                }
                Ok(count) => match write_all(terminal, buffer.get(..count).unwrap_or(&[])) {
                    Ok(()) | Err(Errno::IO) => {}
                    Err(errno) => return Err(failed(errno)),
                },
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::IO) => open = false,
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_MS * 1_000_000 };
                let _ = poll(&mut [PollFd::from_borrowed_fd(file, PollFlags::OUT)], Some(&timeout));
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A terminal in raw mode; dropping it puts it back.
struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Option<Termios>,
}

impl<'a> RawMode<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> Result<RawMode<'a>, Error> {
        let before = match tcgetattr(terminal) {
            Ok(before) => before,
            Err(_) => return Ok(RawMode { terminal, before: None }),
        };
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw).map_err(|errno| Error::RelayTerminal(errno.into()))?;
        Ok(RawMode { terminal, before: Some(before) })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(self.terminal, OptionalActions::Flush, before);
        }
    }
}
