//! `CMD ["program", "argument"]` or `CMD line`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let command = line.command()?;
    done(Instruction::Cmd(command))
}
