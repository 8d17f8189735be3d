//! `ENV name=value…`, or `ENV name value` of old

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::codes;
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let pairs = pairs(line)?;
    done(Instruction::Env(pairs))
}

/// `name=value` words; without a `=` in the first one, that is the name and the rest of the line the value.
pub(super) fn pairs(line: &mut Line<'_>) -> Option<Vec<(String, String)>> {
    let words = line.some_words("a name and a value")?;
    let (first_range, first) = words[0].clone();
    if !first.contains('=') {
        line.advance(&first_range);
        let value = line.rest().to_owned();
        if value.is_empty() {
            let label = "expected `NAME=value`";
            line.error(codes::MISSING_ARGUMENT, format!("`{first}` has no value"), first_range, label);
            return None;
        }
        return Some(vec![(first, value)]);
    }
    let mut pairs = Vec::new();
    for (range, word) in words {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => pairs.push((name.to_owned(), value.to_owned())),
            _ => line.error(
                codes::BAD_ARGUMENT,
                format!("`{word}` is no `NAME=value`"),
                range,
                "quote a value that holds blanks",
            ),
        }
    }
    Some(pairs)
}
