//! `WORKDIR path`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let path = line.some_rest("a path")?.to_owned();
    done(Instruction::Workdir(path))
}
