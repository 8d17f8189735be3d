//! `ctk fmt`.

use ctk_syntax::{Diagnostics, SourceId, Sources, format_kdl};

/// The text of a project file in the common layout (four spaces, KDL 2, comments kept), or what keeps it from being
/// KDL. Doing it twice changes nothing more.
pub fn format(sources: &mut Sources, id: SourceId) -> Result<String, Diagnostics> {
    format_kdl(sources, id)
}
