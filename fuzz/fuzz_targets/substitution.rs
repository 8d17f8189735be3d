//! Any word is expanded or refused, without a panic.
#![no_main]

use ctk_syntax::{ShellSyntax, shell_word, shell_words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for escape in ['\\', '`'] {
        for quotes in [true, false] {
            let syntax = ShellSyntax { escape, quotes };
            let mut lookup = |name: &str| (name.len() % 2 == 1).then(|| format!("{name} /\\*'\"$"));
            let _ = shell_word(text, syntax, &mut lookup);
            let _ = shell_words(text, syntax, &mut lookup);
        }
    }
});
