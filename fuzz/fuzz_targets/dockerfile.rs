//! Any text is read without a panic, and what it means survives being printed and read again.
#![no_main]

use ctk_dockerfile::{parse, print};
use ctk_syntax::Sources;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut sources = Sources::new();
    let id = sources.add("Dockerfile", text);
    let (file, diagnostics) = parse(&sources, id);
    let _ = diagnostics.render(&sources, false);
    if diagnostics.has_errors() {
        return;
    }
    let Some(printed) = print(&file.recipe) else { return };
    let id = sources.add("again", printed.clone());
    let (again, diagnostics) = parse(&sources, id);
    assert!(!diagnostics.has_errors(), "{printed}\n{}", diagnostics.render(&sources, false));
    assert_eq!(print(&again.recipe).as_ref(), Some(&printed));
});
