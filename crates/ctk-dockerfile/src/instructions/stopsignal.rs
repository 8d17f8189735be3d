//! `STOPSIGNAL signal`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let signal = line.one_word("a signal")?;
    done(Instruction::Stopsignal(signal))
}
