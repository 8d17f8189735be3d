//! `ctk`, the container toolkit: a thin skin over the libraries. Only this crate reads the environment, prints, exits.

mod commands;
mod context;
mod env;
mod failure;
mod report;
mod signals;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use context::Context;
use env::Environment;
use failure::code;

fn main() -> ExitCode {
    let arguments = match commands::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { code::USAGE } else { 0 });
        }
    };
    let context = Context::new(&arguments.global, Environment::read());
    match arguments.command.run(&context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The live view is repainted until its sink is gone; what follows must come after it.
            drop(context);
            let _ = std::io::stderr().lock().write_all(failure.text().as_bytes());
            ExitCode::from(failure.exit_code())
        }
    }
}
