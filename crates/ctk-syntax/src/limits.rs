//! The ends of things that people write.

/// Bytes of one KDL file. The parser reads 1.5 MB/s: a larger file is a mistake, not a project.
pub const KDL_FILE_BYTES: usize = 1 << 20;

/// Levels of `{ }` and of nested `/* */` in one KDL file. The parser recurses, and overflows a 2 MB stack at about
/// 290 levels; real files stay below 8.
pub const KDL_DEPTH_LEVELS: usize = 32;

/// Levels of `${a:-${b:-…}}` in one text; expansion recurses.
pub const EXPANSION_DEPTH_LEVELS: usize = 32;

/// Bytes that one expansion may give. `${a}${a}` chains of variables would otherwise double without end.
pub const EXPANSION_BYTES: usize = 1 << 20;

/// Bytes of a value that a pattern operator (`#`, `%`, `/`) works on; matching is quadratic.
pub const PATTERN_VALUE_BYTES: usize = 16 << 10;

/// Characters of a Dockerfile's pattern times bytes of the value it works on: matching takes four bytes for each.
pub const PATTERN_STEPS: usize = 4 << 20;

/// Columns of a source line shown in a diagnostic; a longer line is cut around the place.
pub const SHOWN_LINE_COLUMNS: usize = 160;

/// Characters of a quoted word in a message; more only hides the sentence around it.
pub const QUOTED_WORD_CHARACTERS: usize = 60;

/// Diagnostics kept per collection; a file with more has one cause that hides the rest.
pub const DIAGNOSTICS: usize = 500;
