//! `VOLUME path…` or `VOLUME ["path"]`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let paths = line.json_or_words("a path")?;
    done(Instruction::Volume(paths))
}
