//! `ctk`, the container toolkit: a thin skin over the libraries. Only this crate reads the environment, prints, exits.

mod commands;
mod context;
mod env;
mod failure;
mod report;
mod rootless;
mod runtime;
mod signals;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use context::Context;
use env::Environment;
use failure::{Failure, code};

fn main() -> ExitCode {
    // First of all: the start of a container waits for nothing else.
    if let Some(words) = runtime_words(std::env::args_os()) {
        return runtime::main(words);
    }
    let arguments = match commands::Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => {
            match commands::advice(&error) {
                Some(text) => drop(std::io::stderr().lock().write_all(text.as_bytes())),
                None => drop(error.print()),
            }
            return ExitCode::from(if error.use_stderr() { code::USAGE } else { 0 });
        }
    };
    let environment = Environment::read();
    let is_root = rustix::process::geteuid().is_root();
    let standing = match rootless::enter(&arguments.command, &environment) {
        Ok(standing) => standing,
        Err(failure) => {
            let _ = std::io::stderr().lock().write_all(failure.text().as_bytes());
            return ExitCode::from(failure.exit_code());
        }
    };
    let context = Context::new(&arguments.global, environment, is_root);
    context.tell(&standing, arguments.command.trees());
    let done = enter(arguments.global.directory.as_deref()).and_then(|()| arguments.command.run(&context));
    context.end_story();
    context.tell_registry_warnings();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The live view is repainted until its sink is gone; what follows must come after it.
            drop(context);
            let _ = std::io::stderr().lock().write_all(failure.text().as_bytes());
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The words for the runtime, if it is meant: the program is called `ctk-runtime`, or the first word is `runtime`.
fn runtime_words(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let name = arguments.next()?;
    if Path::new(&name).file_name().is_some_and(|name| name.as_bytes() == b"ctk-runtime") {
        return Some(arguments.collect());
    }
    (arguments.next()? == "runtime").then(|| arguments.collect())
}

/// Goes where `--directory` says.
fn enter(directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else { return Ok(()) };
    std::env::set_current_dir(directory).map_err(Failure::during(format!("cannot enter {}", directory.display())))
}
