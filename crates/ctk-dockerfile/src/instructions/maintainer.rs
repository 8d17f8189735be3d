//! `MAINTAINER name`: Docker gave it up for a label

use ctk_buildgraph::{Instruction, lint};
use ctk_syntax::Diagnostic;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let author = line.some_rest("a name")?.to_owned();
    let diagnostic = Diagnostic::warning(lint::codes::MAINTAINER_DEPRECATED, "MAINTAINER is deprecated");
    let span = line.keyword_span();
    line.diagnostics.push(diagnostic.at(span, "use `LABEL org.opencontainers.image.authors=…`"));
    done(Instruction::Maintainer(author))
}
