//! Source files, spans, diagnostics, the KDL tree and its cursor, expansion of `${…}`.
//!
//! Everything that reads text written by a person goes through here, so that every mistake is told the same way: a
//! code, the place, what was expected, the nearest right thing. Nothing here touches a file, a clock or the
//! environment.
//!
//! ```
//! use ctk_syntax::{Diagnostics, Reader, Sources, parse_kdl};
//!
//! let mut sources = Sources::new();
//! let id = sources.add("containers.kdl", "image \"api\" {\n    timeot \"5m\"\n}\n");
//! let nodes = parse_kdl(&sources, id).unwrap();
//! let mut diagnostics = Diagnostics::new();
//! let mut image = Reader::new(&nodes[0], &mut diagnostics);
//! assert_eq!(image.arg_str("name").unwrap().value, "api");
//! assert!(image.opt_child("timeout").is_none());
//! image.finish();
//! assert!(diagnostics.render(&sources, false).contains("did you mean `timeout`?"));
//! ```

pub mod codes;
mod diagnostic;
mod expand;
mod format;
mod kdl;
mod lexer;
pub mod limits;
mod mistakes;
mod nearest;
mod node;
mod pattern;
mod quantity;
mod reader;
mod render;
mod shell;
mod shell_pattern;
mod source;

pub use codes::CODES;
pub use diagnostic::{Diagnostic, Diagnostics, Label, Report, ReportLabel, Severity, short};
pub use expand::{ExpandError, ExpandErrorKind, Expanded, Found, expand, names_in};
pub use format::format_kdl;
pub use kdl::parse_kdl;
pub use nearest::nearest;
pub use node::{Data, Node, Prop, Value};
pub use pattern::matches_glob;
pub use quantity::{parse_duration, parse_size};
pub use reader::Reader;
pub use shell::{ShellSyntax, shell_word, shell_words};
pub use source::{Location, SourceId, Sources, Span, Spanned};
