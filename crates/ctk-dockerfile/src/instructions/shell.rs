//! `SHELL ["program", "argument"]`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::codes;
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    line.some_rest("a JSON array")?;
    match line.json().ok()?.filter(|words| !words.is_empty()) {
        Some(words) => done(Instruction::Shell(words)),
        None => {
            let label = r#"expected `["program", "argument"]`"#;
            line.error(codes::BAD_ARGUMENT, "SHELL takes a JSON array of strings", line.rest_range(), label);
            None
        }
    }
}
