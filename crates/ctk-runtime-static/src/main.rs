//! `ctk-runtime` as it is handed out: the source of the program of that name in `ctk`. It is a package of its own because
//! nothing that it needs is written in C, so that it is built with whichever C library starts soonest.

#[path = "../../ctk/src/runtime/mod.rs"]
mod runtime;

use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static MEMORY: ctk_sys::Arena<System> = ctk_sys::Arena(System);

fn main() -> ExitCode {
    runtime::main(std::env::args_os().skip(1).collect())
}
