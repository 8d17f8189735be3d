//! `ctk-runtime monitor DIRECTORY`: looks after one container that outlives its maker.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use ctk_monitor::{Config, Container, Networking};
use rustix::fs::FileType;
use serde_json::Value;

/// Standard input is the socket to who wants the container started; without one, a container that runs is taken over.
pub fn main(directory: Option<&OsString>) -> ExitCode {
    let Some(directory) = directory else { return ExitCode::from(1) };
    // Whoever waits for the end of a pipe that our maker held does not wait for us.
    let _ = ctk_sys::close_files_from(3);
    // What a container could reach of us while it is made is a view that nobody can write.
    if super::seal().is_err() {
        return ExitCode::from(1);
    }
    let input = std::io::stdin();
    let stat = rustix::fs::fstat(&input);
    let is_socket = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    let channel = is_socket.then(|| input.as_fd().try_clone_to_owned().ok()).flatten();
    if let Some(channel) = &channel {
        let null = ctk_bundle::container::null_file();
        let moved = null.is_ok_and(|null| rustix::stdio::dup2_stdin(null).is_ok());
        if !moved || rustix::io::ioctl_fionbio(channel, true).is_err() {
            return ExitCode::from(1);
        }
    }
    ExitCode::from(ctk_monitor::monitor(Path::new(directory), channel, &mut Networks))
}

/// Networks of containers.
struct Networks;

impl Networking for Networks {
    fn attach(&mut self, _: &Container, _: &Config, _: i32) -> Result<Value, String> {
        Err("networks are not there yet".into())
    }

    fn detach(&mut self, _: &Container, _: &Config) {}

    fn change(&mut self, _: &Container, _: &Config, _: i32, _: &Value) -> Result<Value, String> {
        Err("networks are not there yet".into())
    }

    fn removed(&mut self, _: &Container, _: &Config) {}
}
