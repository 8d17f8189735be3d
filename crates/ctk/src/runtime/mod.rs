//! `ctk-runtime`: the OCI runtime that podman, docker and containerd call. `ctk` under another name, recognized before
//! anything else is made, and a program of its own, so that a container's start costs only what the container needs.

pub mod arguments;
mod checkpoint;
pub mod joining;
mod log;
mod monitor;
mod process;
mod verbs;

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use arguments::Arguments;
use log::Log;

/// Something went wrong; 1 as runc has it, 255 for `exec`.
struct Failure {
    message: String,
    code: u8,
}

impl From<ctk_bundle::Error> for Failure {
    fn from(error: ctk_bundle::Error) -> Failure {
        Failure { message: error.line(), code: 1 }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure { message, code: 1 }
    }
}

/// Does what the words say.
pub fn main(words: Vec<OsString>) -> ExitCode {
    // Not for people: no options, and no time to read any.
    if words.first().is_some_and(|word| word == "monitor") {
        return monitor::main(words.get(1));
    }
    let words = words.into_iter().map(|word| word.to_string_lossy().into_owned());
    let arguments = match Arguments::read(words) {
        Ok(arguments) => arguments,
        Err(message) => {
            Log::to_stderr().error(&message);
            return ExitCode::from(1);
        }
    };
    if arguments.version {
        let version = env!("CARGO_PKG_VERSION");
        return print(&format!("ctk-runtime version {version}\nspec: {}\n", ctk_bundle::spec::VERSION));
    }
    let Some(verb) = arguments.verb.filter(|_| !arguments.is_on("help")) else {
        return print(&arguments::help(arguments.verb));
    };
    let value = |name| arguments.value(name);
    let log = match Log::open(value("log"), value("log-format"), value("log-level"), arguments.is_on("debug")) {
        Ok(log) => log,
        Err(message) => {
            Log::to_stderr().error(&message);
            return ExitCode::from(1);
        }
    };
    let view = match verb.name {
        "create" | "run" | "exec" | "restore" => match seal() {
            Ok(view) => view,
            Err(error) => {
                log.error(&error.line());
                return ExitCode::from(1);
            }
        },
        _ => None,
    };
    match verbs::run(verb.name, &arguments, &log, view) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Goes on from a program that containers cannot write: the view of it, to let go of.
fn seal() -> Result<Option<OwnedFd>, ctk_bundle::Error> {
    let words = |list: Vec<Vec<u8>>| list.into_iter().filter_map(|word| CString::new(word).ok()).collect::<Vec<_>>();
    let arguments = words(std::env::args_os().map(OsString::into_vec).collect());
    let entry = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    ctk_bundle::seal::seal(&arguments, &words(std::env::vars_os().map(entry).collect()))
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
