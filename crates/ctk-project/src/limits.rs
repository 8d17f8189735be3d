//! The ends of what a project may hold.

/// Files of one project, includes counted: more means a glob went astray.
pub const FILES: usize = 2_000;

/// Resources of one project, after matrices and templates.
pub const RESOURCES: usize = 10_000;

/// Resources that one matrix may give.
pub const MATRIX_COMBINATIONS: usize = 256;

/// `use` inside `template` inside `use`…; deeper means it never ends.
pub const TEMPLATE_DEPTH_LEVELS: usize = 16;

/// `extends` of something that extends…
pub const EXTENDS_DEPTH_LEVELS: usize = 16;

/// Bytes of a lock file that is read.
pub const LOCK_BYTES: usize = 64 << 20;
