//! `ONBUILD instruction`
//!
//! As BuildKit does, a trigger is looked at closely only when it is pulled, by whoever builds on this image. What would
//! fail then is a warning here.

use ctk_buildgraph::Instruction;
use ctk_buildgraph::lint::Rule;
use ctk_syntax::{Diagnostic, Diagnostics, Severity};

use super::{Parsed, done};
use crate::blank::is_blank;
use crate::codes;
use crate::line::Line;

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let rest = line.some_rest("an instruction")?;
    let keyword = rest.split(is_blank).next().unwrap_or_default().to_ascii_uppercase();
    let start = line.rest_range().start;
    if ["FROM", "MAINTAINER", "ONBUILD"].contains(&keyword.as_str()) {
        let message = format!("{keyword} cannot be triggered");
        line.error(codes::BAD_ARGUMENT, message, start..start + keyword.len(), "ONBUILD takes any other instruction");
        return None;
    }
    let mut found = Diagnostics::new();
    super::parse(&mut Line::new(&line.logical.rest(start), line.escape, &mut found));
    let at_once = |d: &Diagnostic| d.code == codes::BAD_JSON || ["ENV", "LABEL"].contains(&keyword.as_str());
    let mut fails = false;
    for mut diagnostic in found.into_iter().filter(|d| Rule::of(d).is_none()) {
        if diagnostic.severity == Severity::Error {
            match at_once(&diagnostic) {
                true => fails = true,
                false => {
                    diagnostic.severity = Severity::Warning;
                    diagnostic.hint = Some("a build on this image will fail here".into());
                }
            }
        }
        line.diagnostics.push(diagnostic);
    }
    if fails {
        return None;
    }
    let mut text = format!("{rest}{}", line.logical.trailing);
    for document in &line.logical.heredocs {
        text.push('\n');
        text.push_str(&document.raw);
        text.push_str(&document.document.name);
    }
    done(Instruction::Onbuild(text))
}
