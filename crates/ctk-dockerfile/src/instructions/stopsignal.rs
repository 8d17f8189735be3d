//! `STOPSIGNAL signal`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let signal = line.some_rest("a signal")?.to_owned();
    done(Instruction::Stopsignal(signal))
}
