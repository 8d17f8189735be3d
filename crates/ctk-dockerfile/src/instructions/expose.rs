//! `EXPOSE port[-port][/protocol]…`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let words = line.some_plain_words("a port")?;
    done(Instruction::Expose(words.into_iter().map(|(_, word)| word).collect()))
}
