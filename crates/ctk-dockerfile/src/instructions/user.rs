//! `USER name[:group]`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let user = line.one_word("a user")?;
    done(Instruction::User(user))
}
