//! `CMD ["program", "argument"]` or `CMD line`

use ctk_buildgraph::{Command, Instruction};

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    if line.rest().is_empty() {
        return done(Instruction::Cmd(Command::Exec(Vec::new())));
    }
    let command = line.command("a command")?;
    done(Instruction::Cmd(command))
}
