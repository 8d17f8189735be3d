//! `ADD [flags] source… destination`

use ctk_buildgraph::{From, Instruction};

use super::{Parsed, copy, done};
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let mut add = copy::operands(line, From::Context)?;
    add.checksum = line.flag_text("checksum");
    add.keep_git_dir = line.flag_bool("keep-git-dir").unwrap_or(false);
    add.unpack = line.flag_bool("unpack");
    done(Instruction::Add(add))
}
