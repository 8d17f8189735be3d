//! Bytes of a Dockerfile that are no text.

use ctk_dockerfile::parse;
use ctk_syntax::Sources;

/// What is said of a file: each message with its place; nothing if it can be built.
#[track_caller]
fn check(bytes: &[u8], expected: &[&str]) {
    let mut sources = Sources::new();
    let id = sources.add_bytes("Dockerfile", bytes);
    let (_, diagnostics) = parse(&sources, id);
    let shown = diagnostics.iter().map(|one| format!("{} {}", sources.place(one.labels[0].span), one.message));
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_utf_8_has_a_place() {
    check(b"FROM scratch\nENV a=\xe4 b=\xfc\n", &["Dockerfile:2:7 this Dockerfile is not UTF-8 text"]);
    check(b"FROM scratch\nENV a=\xc3\xa4\n", &[]);
    check("FROM scratch\nENV a=\u{fffd}\n".as_bytes(), &[]);
    check(b"FROM scratch\nENV a=\xc3\xa4\xe4\n", &["Dockerfile:2:8 this Dockerfile is not UTF-8 text"]);
    check(b"FROM scratch\nRUN a \\\n  b\xff\n", &["Dockerfile:3:4 this Dockerfile is not UTF-8 text"]);
}

#[test]
fn in_comments_it_does_not_matter() {
    check(b"# Gr\xf6\xdfe\nFROM scratch\n  # \xe4\nENV a=b \\\n# \xe4\0\n c=d\n", &[]);
    check(b"# syntax=docker/dockerfile:1\n# \xe4\nFROM scratch\n", &[]);
}

#[test]
fn lines_of_here_documents_are_no_comments() {
    let text = b"FROM scratch\nCOPY <<E /a\n# \xe4\nE\n";
    check(text, &["Dockerfile:3:3 this Dockerfile is not UTF-8 text"]);
    check(b"FROM scratch\nRUN <<E\na\0\nE\n", &["Dockerfile:3:2 a NUL byte in this Dockerfile"]);
}

#[test]
fn nul_bytes_are_refused() {
    check(b"FROM scratch\nENV a\0b=c\n", &["Dockerfile:2:6 a NUL byte in this Dockerfile"]);
    check(b"# a\0b\nFROM scratch\n", &[]);
}

#[test]
fn utf_16_is_one_mistake() {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let message = "this Dockerfile is not UTF-8 text";
    check(&wide("\u{feff}FROM scratch\nENV a=b\n"), &[&format!("Dockerfile:1:1 {message}")]);
    check(&wide("FROM scratch\nENV a=b\n"), &[&format!("Dockerfile:1:2 {message}")]);
}
