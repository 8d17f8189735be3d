//! `COPY [flags] source… destination`

use ctk_buildgraph::{Copy, CopySource, From, Instruction};

use super::{Parsed, done};
use crate::line::Line;
use crate::logical::introduction;
use crate::{codes, from_text};

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let from = from_text(line.flag_text("from"));
    let mut copy = operands(line, from)?;
    copy.parents = line.flag_bool("parents").unwrap_or(false);
    done(Instruction::Copy(copy))
}

/// What `COPY` and `ADD` share.
pub(super) fn operands(line: &mut Line<'_>, from: From) -> Option<Copy> {
    let mut words = line.json_or_words("sources and a destination")?;
    let dest = words.pop()?;
    if words.is_empty() {
        line.missing("at least one source and a destination");
        return None;
    }
    if introduction(&dest).is_some() {
        line.error(codes::BAD_HEREDOC, "the destination cannot be a here-document", line.rest_range(), "");
        return None;
    }
    let mut documents = line.logical.heredocs.iter();
    let sources = words.into_iter().map(|word| match introduction(&word).and_then(|_| documents.next()) {
        Some(document) => CopySource::Inline(document.document.clone()),
        None => CopySource::Path(word),
    });
    let mut copy = Copy::new(from, sources.collect(), dest);
    copy.chown = line.flag_text("chown");
    copy.chmod = line.flag_text("chmod");
    copy.link = line.flag_bool("link").unwrap_or(false);
    copy.exclude = line.flag_all("exclude").into_iter().map(|(value, _)| value).collect();
    Some(copy)
}
