//! `ctk-runtime` as a program of its own: the same source as `ctk` under that name, without what `ctk` has beside it.
//! Its file is a tenth, so a container starts sooner and in less memory.

#[path = "../runtime/mod.rs"]
mod runtime;

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main(std::env::args_os().skip(1).collect())
}
