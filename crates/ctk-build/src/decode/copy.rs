//! `copy "source"… to="dest" from="stage"` and `add`.

use ctk_buildgraph::{Copy, CopySource, FileMode, From, Instruction};
use ctk_syntax::{Node, Reader};

use super::Image;
use super::stage::said;
use crate::codes;

impl Image<'_> {
    pub(super) fn copy(&mut self, node: &Node, stages: &[&str], add: bool) -> Option<Instruction> {
        let mut reader = Reader::new(node, self.diagnostics);
        let sources = reader.args_text_some("a source");
        let dest = reader.prop_str("to");
        let chown = reader.opt_prop_text("chown");
        let chmod = reader.opt_prop_text("chmod");
        for source in &sources {
            said(&mut reader, Some(source), "a source");
        }
        said(&mut reader, dest.as_ref(), "a destination");
        if let Some(chmod) = &chmod
            && FileMode::parse(&chmod.value).is_none()
        {
            let message = format!("`{}` is no mode", chmod.value);
            reader.error(
                codes::BAD_MODE,
                chmod.span,
                message,
                "expected octal digits, such as `755`, or `u=rwX,go=rX`",
            );
        }
        let link = reader.opt_prop_bool("link").is_some_and(|b| b.value);
        let mut exclude: Vec<String> = reader.opt_prop_str("exclude").map(|e| e.value).into_iter().collect();
        for child in reader.every("exclude") {
            let mut patterns = reader.child(child);
            exclude.extend(patterns.args_text_some("a pattern").into_iter().map(|p| p.value));
            patterns.finish();
        }
        let (mut from, mut parents, mut checksum, mut unpack, mut keep_git_dir) = (None, false, None, None, false);
        if add {
            checksum = reader.opt_prop_str("checksum").map(|c| c.value);
            unpack = reader.opt_prop_bool("unpack").map(|b| b.value);
            keep_git_dir = reader.opt_prop_bool("keep-git-dir").is_some_and(|b| b.value);
        } else {
            from = reader.opt_prop_str("from");
            parents = reader.opt_prop_bool("parents").is_some_and(|b| b.value);
        }
        reader.finish();
        let from = match from {
            Some(text) => self.from(&text, stages)?,
            None => From::Context,
        };
        let sources: Vec<CopySource> = sources.into_iter().map(|s| CopySource::Path(s.value)).collect();
        let dest = dest?;
        if sources.is_empty() {
            return None;
        }
        let copy = Copy {
            chown: chown.map(|c| c.value),
            chmod: chmod.map(|c| c.value),
            link,
            parents,
            exclude,
            checksum,
            unpack,
            keep_git_dir,
            ..Copy::new(from, sources, dest.value)
        };
        Some(if add { Instruction::Add(copy) } else { Instruction::Copy(copy) })
    }
}
