//! `COPY [flags] source… destination`

use ctk_buildgraph::{Copy, CopySource, From, Heredoc, Instruction};

use super::{Parsed, done};
use crate::heredoc::Introduction;
use crate::line::Line;
use crate::{codes, from_text};

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let from = from_text(line.flag_text("from"));
    let mut copy = operands(line, from)?;
    copy.parents = line.flag_bool("parents").unwrap_or(false);
    done(Instruction::Copy(copy))
}

/// What `COPY` and `ADD` share.
pub(super) fn operands(line: &mut Line<'_>, from: From) -> Option<Copy> {
    let mut words = line.json_or_words("at least one source and a destination")?;
    let dest = words.pop()?;
    if words.is_empty() {
        line.missing("at least one source and a destination");
        return None;
    }
    if Introduction::parse(&dest).is_some() {
        line.error(codes::BAD_HEREDOC, "the destination cannot be a here-document", line.rest_range(), "");
        return None;
    }
    if words.iter().any(|word| word == "<<") && !line.logical.heredocs.is_empty() {
        let label = "write `<<NAME` without a blank";
        line.error(
            codes::BAD_HEREDOC,
            "a here-document of COPY or ADD has no blank after `<<`",
            line.rest_range(),
            label,
        );
        return None;
    }
    let documents = &line.logical.heredocs;
    let sources = words.into_iter().map(|word| match Introduction::parse(&word) {
        // The last one of a name counts; in a JSON array none can follow, so it is empty.
        Some(Introduction { name, expand, .. }) => {
            let found = documents.iter().rev().find(|document| document.document.name == name);
            let content = found.map(|document| document.document.content.clone()).unwrap_or_default();
            CopySource::Inline(Heredoc { name, content, expand })
        }
        None => CopySource::Path(word),
    });
    let mut copy = Copy::new(from, sources.collect(), dest);
    copy.chown = line.flag_text("chown");
    copy.chmod = line.flag_text("chmod");
    copy.link = line.flag_bool("link").unwrap_or(false);
    copy.exclude = line.flag_all("exclude").into_iter().map(|(value, _)| value).collect();
    Some(copy)
}
