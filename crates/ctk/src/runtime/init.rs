//! `ctk-runtime init -- PROGRAM …`: the first process of a container with `--init`. It starts the program, passes signals
//! on, collects processes that lost their parents, and ends as the program does.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// The words behind `init`.
pub fn main(words: &[OsString]) -> ExitCode {
    let words = match words.split_first() {
        Some((dashes, rest)) if dashes == "--" => rest,
        _ => words,
    };
    let Some((program, arguments)) = words.split_first() else { return ExitCode::from(127) };
    let Ok(signals) = ctk_bundle::attend::hold_signals() else { return ExitCode::from(126) };
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    let child = match command.spawn() {
        Ok(child) => child.id() as i32,
        Err(error) => {
            eprintln!("ctk-init: cannot run {}: {error}", program.to_string_lossy());
            return ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let Some(child) = Pid::from_raw(child) else { return ExitCode::from(126) };
    // At a terminal, the program is in front.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), child);
    loop {
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        let mut record = [0_u8; 128];
        while let Ok(128) = rustix::io::read(&signals, &mut record) {
            let number = record.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as i32);
            if let Some(signal) = Signal::from_named_raw(number).filter(|signal| *signal != Signal::CHILD) {
                let _ = kill_process(child, signal);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == child {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                return ExitCode::from(code.unwrap_or(1) as u8);
            }
        }
    }
}
