//! `ENV name=value…`, or `ENV name value` of old

use ctk_buildgraph::{Instruction, lint};

use super::{Parsed, done};
use crate::blank::is_blank;
use crate::codes;
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let pairs = pairs(line)?;
    done(Instruction::Env(pairs))
}

/// `name=value` words; without a `=` in the first one, that is the name and the rest of the line the value.
pub(super) fn pairs(line: &mut Line<'_>) -> Option<Vec<(String, String)>> {
    let words = line.some_words("a name and a value")?;
    if !words[0].1.contains('=') {
        let rest = line.rest();
        let Some((name, value)) = rest.split_once(is_blank) else {
            let label = "expected `NAME=value`";
            line.error(codes::MISSING_ARGUMENT, format!("`{rest}` has no value"), line.rest_range(), label);
            return None;
        };
        let (keyword, value) = (line.keyword(), value.trim_start_matches(is_blank));
        let message = format!("{keyword} without `=` is a form of old: its value is the rest of the line");
        let label = format!("use `{name}=…`");
        line.warning(lint::codes::LEGACY_KEY_VALUE_FORMAT, message, line.rest_range(), label);
        return Some(vec![(name.to_owned(), value.to_owned())]);
    }
    let mut pairs = Vec::new();
    for (range, word) in words {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => pairs.push((name.to_owned(), value.to_owned())),
            Some(_) => line.error(codes::BAD_ARGUMENT, format!("`{word}` has no name"), range, "expected `NAME=value`"),
            None => line.error(
                codes::BAD_ARGUMENT,
                format!("`{word}` is no `NAME=value`"),
                range,
                "quote a value that holds blanks",
            ),
        }
    }
    Some(pairs)
}
