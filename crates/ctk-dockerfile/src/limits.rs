//! Limits of a Dockerfile.

/// Bytes of a file: BuildKit takes 2 MiB, far beyond any written by hand.
pub const FILE_BYTES: usize = 2 << 20;
/// Bytes of a line: BuildKit refuses longer ones.
pub const LINE_BYTES: usize = 65_535;
/// Stages of a file: lowering goes one call deeper for each in a chain.
pub const STAGES: usize = 500;
/// Patterns of a `.dockerignore`: each is tried on every path of the context.
pub const IGNORE_PATTERNS: usize = 10_000;
