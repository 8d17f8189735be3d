//! `ONBUILD instruction`

use ctk_buildgraph::Instruction;

use super::{Parsed, done};
use crate::line::Line;
use crate::{codes, nearest_keyword, parse_trigger};

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let (range, word) = line.some_words("an instruction")?.into_iter().next()?;
    let keyword = word.to_ascii_uppercase();
    if ["FROM", "MAINTAINER", "ONBUILD"].contains(&keyword.as_str()) {
        line.error(
            codes::BAD_ARGUMENT,
            format!("{keyword} cannot be triggered"),
            range,
            "ONBUILD takes any other instruction",
        );
        return None;
    }
    if !super::KEYWORDS.contains(&keyword.as_str()) {
        let span = line.logical.span_of(range);
        let diagnostic =
            ctk_syntax::Diagnostic::error(codes::UNKNOWN_INSTRUCTION, format!("unknown instruction `{keyword}`"));
        line.diagnostics.push(diagnostic.at_or_nearest(span, nearest_keyword(&keyword), "expected an instruction"));
        return None;
    }
    let mut text = line.rest().to_owned();
    for document in &line.logical.heredocs {
        text.push('\n');
        text.push_str(&document.raw);
        text.push_str(&document.document.name);
    }
    if let Err(error) = parse_trigger(&text) {
        let range = line.rest_range();
        line.error(codes::BAD_ARGUMENT, format!("this trigger cannot be read: {error}"), range, "");
        return None;
    }
    done(Instruction::Onbuild(text))
}
