//! `USER name[:group]`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let user = line.some_rest("a user")?.to_owned();
    done(Instruction::User(user))
}
