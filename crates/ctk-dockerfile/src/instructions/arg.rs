//! `ARG name[=default]…`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;
use crate::{codes, lint, name_and_default};

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let mut args = Vec::new();
    for (range, word) in line.some_words("a name")? {
        let span = line.logical.span_of(range.clone());
        let mut arg = name_and_default(&word, Some(span));
        arg.description = line.logical.description(&arg.name);
        if arg.name.is_empty() {
            line.error(
                codes::BAD_ARGUMENT,
                format!("`{word}` has no name"),
                range,
                "expected `NAME` or `NAME=default`",
            );
            continue;
        }
        args.push(arg);
    }
    let names: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
    lint::description(line, &names);
    done(Instruction::Arg(args))
}
