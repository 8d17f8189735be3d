//! The instructions: one file each, one line in this table.

mod add;
mod arg;
mod cmd;
mod copy;
mod entrypoint;
mod env;
mod expose;
mod from;
mod healthcheck;
mod label;
mod maintainer;
mod onbuild;
mod run;
mod shell;
mod stopsignal;
mod user;
mod volume;
mod workdir;

use ctk_buildgraph::{Instruction, RecipeStage};
use ctk_syntax::{Diagnostic, Severity, short};

use crate::line::Line;
use crate::{codes, nearest_keyword};

/// What a line became.
pub(crate) enum Parsed {
    /// `FROM`.
    Stage(RecipeStage),
    /// All others.
    Instruction(Instruction),
}

struct Entry {
    keyword: &'static str,
    flags: &'static [&'static str],
    parse: fn(&mut Line<'_>) -> Option<Parsed>,
}

macro_rules! table {
    ($($keyword:literal $parse:path [$($flag:literal)*];)*) => {
        const TABLE: &[Entry] = &[$(Entry { keyword: $keyword, flags: &[$($flag),*], parse: $parse }),*];
        /// Every instruction's keyword.
        pub const KEYWORDS: &[&str] = &[$($keyword),*];
    };
}

table! {
    "ADD" add::parse ["chown" "chmod" "link" "keep-git-dir" "checksum" "unpack" "exclude"];
    "ARG" arg::parse [];
    "CMD" cmd::parse [];
    "COPY" copy::parse ["from" "chown" "chmod" "link" "parents" "exclude"];
    "ENTRYPOINT" entrypoint::parse [];
    "ENV" env::parse [];
    "EXPOSE" expose::parse [];
    "FROM" from::parse ["platform"];
    "HEALTHCHECK" healthcheck::parse ["interval" "timeout" "start-period" "start-interval" "retries"];
    "LABEL" label::parse [];
    "MAINTAINER" maintainer::parse [];
    "ONBUILD" onbuild::parse [];
    "RUN" run::parse ["mount" "network" "security" "device"];
    "SHELL" shell::parse [];
    "STOPSIGNAL" stopsignal::parse [];
    "USER" user::parse [];
    "VOLUME" volume::parse [];
    "WORKDIR" workdir::parse [];
}

/// Reads one line; none if a mistake was reported.
pub(crate) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let keyword = line.keyword();
    let Some(entry) = TABLE.iter().find(|e| e.keyword == keyword) else {
        if let Some((at, blank)) = keyword.char_indices().find(|(_, char)| char.is_whitespace()) {
            let message = format!("U+{:04X} is no blank, and so a part of the word after it", blank as u32);
            // Upper case may have another length in front of it.
            let at = line.keyword_written().find(blank).unwrap_or(at);
            line.error(codes::UNKNOWN_INSTRUCTION, message, at..at + blank.len_utf8(), "write a space");
            return None;
        }
        let message = format!("unknown instruction `{}`", short(&keyword));
        let span = line.keyword_span();
        let diagnostic = Diagnostic::error(codes::UNKNOWN_INSTRUCTION, message);
        line.diagnostics.push(diagnostic.at_or_nearest(
            span,
            nearest_keyword(&keyword),
            "expected an instruction such as FROM, RUN, COPY",
        ));
        return None;
    };
    line.take_flags();
    // BuildKit does not look at the flags of these.
    let lenient =
        ["ARG", "STOPSIGNAL"].contains(&keyword.as_str()) || (keyword == "HEALTHCHECK" && healthcheck::is_none(line));
    line.check_flags(entry.flags, if lenient { Severity::Warning } else { Severity::Error });
    (entry.parse)(line)
}

fn done(instruction: Instruction) -> Option<Parsed> {
    Some(Parsed::Instruction(instruction))
}
