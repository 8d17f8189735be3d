//! `LABEL name=value…`

use ctk_buildgraph::Instruction;

use super::{Parsed, done, env};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let pairs = env::pairs(line)?;
    done(Instruction::Label(pairs))
}
