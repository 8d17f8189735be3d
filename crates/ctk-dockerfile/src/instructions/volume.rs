//! `VOLUME path…` or `VOLUME ["path"]`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::codes;
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let words = line.json_or_words("a path")?;
    let paths: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
    if paths.iter().any(String::is_empty) {
        line.error(codes::BAD_ARGUMENT, "a volume's path is empty", line.rest_range(), "expected a path");
    }
    done(Instruction::Volume(paths))
}
