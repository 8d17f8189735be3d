//! `ENTRYPOINT ["program", "argument"]` or `ENTRYPOINT line`

use ctk_buildgraph::{Command, Instruction};

use super::{Parsed, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    if line.rest().is_empty() {
        return done(Instruction::Entrypoint(Command::Exec(Vec::new())));
    }
    let command = line.command("a command")?;
    done(Instruction::Entrypoint(command))
}
