//! `file "/usr/bin/api" mode="0755" owner="0:0" type="file"`: something is at the path, and is like this.
//!
//! `mode` (octal), `owner` (`uid:gid`, or names of the image's own users and groups), `type` (`file`, `directory`,
//! `symlink`), `target` (of a symlink), `size` (exact), `equals`, `contains`, `matches` (the content). The path itself
//! is looked at: a link is not followed, unless the content is asked for.

use ctk_syntax::Reader;

use super::Assertion;
use crate::codes;
use crate::error::CheckError;
use crate::limits;
use crate::report::{AssertionOutcome, Mismatch};
use crate::text::TextMatch;
use crate::tree::{FileKind, Tree};
use crate::words;
use crate::world::World;

#[derive(Debug)]
struct File {
    path: String,
    mode: Option<u32>,
    owner: Option<String>,
    kind: Option<FileKind>,
    target: Option<String>,
    size: Option<u64>,
    content: TextMatch,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let path = reader.arg_str("a path").and_then(|path| words::absolute(reader, &path));
    let mode = reader.opt_prop_text("mode").and_then(|text| {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        if mode.is_none() {
            let message = format!("`{}` is no file mode", text.value);
            reader.error(codes::BAD_VALUE, text.span, message, "expected octal digits, e.g. `\"0755\"`");
        }
        mode
    });
    let owner = reader.opt_prop_text("owner").map(|o| o.value);
    let kinds = [("file", FileKind::File), ("directory", FileKind::Directory), ("symlink", FileKind::Symlink)];
    let kind = reader.opt_prop_one_of("type", &kinds).map(|k| k.value);
    let target = reader.opt_prop_str("target").map(|t| t.value);
    let size = reader.opt_prop_size("size").map(|s| s.value);
    let content = words::text_match(reader);
    Some(Box::new(File { path: path?, mode, owner, kind, target, size, content }))
}

impl Assertion for File {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        Ok(AssertionOutcome::of(self.compare(world.tree())?))
    }
}

impl File {
    fn compare(&self, tree: &Tree) -> Result<Vec<Mismatch>, CheckError> {
        let Some(seen) = tree.stat(&self.path)? else {
            let wanted = self.kind.map_or("something there".to_string(), |kind| format!("a {kind}"));
            return Ok(vec![Mismatch::new(format!("`{}`", self.path), wanted, "nothing there")]);
        };
        let mut mismatches = Vec::new();
        let mut differ = |subject: &str, expected: String, seen: String| {
            mismatches.push(Mismatch::new(subject, expected, seen));
        };
        if let Some(kind) = self.kind
            && kind != seen.kind
        {
            differ("type", kind.to_string(), seen.kind.to_string());
        }
        if let Some(mode) = self.mode
            && mode != seen.mode
        {
            differ("mode", format!("{mode:04o}"), format!("{:04o}", seen.mode));
        }
        if let Some(owner) = &self.owner {
            match tree.owner(owner)? {
                Ok((uid, gid)) if uid != seen.uid || gid.is_some_and(|gid| gid != seen.gid) => {
                    let numbers =
                        if gid.is_some() { format!("{}:{}", seen.uid, seen.gid) } else { seen.uid.to_string() };
                    differ("owner", owner.clone(), numbers);
                }
                Ok(_) => {}
                Err(unknown) => differ("owner", owner.clone(), format!("no {unknown} in the image")),
            }
        }
        if let Some(target) = &self.target {
            match tree.read_link(&self.path)? {
                Some(found) if found == *target => {}
                Some(found) => differ("target", target.clone(), found),
                None => differ("target", target.clone(), format!("a {}, no link", seen.kind)),
            }
        }
        if let Some(size) = self.size
            && size != seen.size
        {
            differ("size", format!("{size} bytes"), format!("{} bytes", seen.size));
        }
        if !self.content.is_empty() {
            match tree.read(&self.path, limits::FILE_CONTENT_BYTES)? {
                Some(bytes) => self.content.check("content", &String::from_utf8_lossy(&bytes), &mut mismatches),
                None => differ("content", "a file to read".into(), format!("a {}", seen.kind)),
            }
        }
        Ok(mismatches)
    }
}
