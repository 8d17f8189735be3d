//! Any patterns are read and matched without a panic.
#![no_main]

use ctk_dockerfile::Ignore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (patterns, path) = input;
    let Ok(ignore) = Ignore::parse(patterns) else { return };
    let _ = (ignore.matches(path.as_bytes()), ignore.prunes(path.as_bytes()));
});
