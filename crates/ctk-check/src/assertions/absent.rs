//! `absent "/usr/bin/gcc" "/src"`: nothing is at these paths, not even a broken link.

use ctk_syntax::Reader;

use super::Assertion;
use crate::error::CheckError;
use crate::report::{AssertionOutcome, Mismatch};
use crate::words;
use crate::world::World;

#[derive(Debug)]
struct Absent {
    paths: Vec<String>,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let given = reader.args_text_some("a path");
    let paths: Vec<String> = given.iter().filter_map(|path| words::absolute(reader, path)).collect();
    (paths.len() == given.len() && !paths.is_empty()).then(|| Box::new(Absent { paths }) as Box<dyn Assertion>)
}

impl Assertion for Absent {
    fn name(&self) -> String {
        self.paths.join(" ")
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        let mut mismatches = Vec::new();
        for path in &self.paths {
            if let Some(found) = world.tree().stat(path)? {
                mismatches.push(Mismatch::new(format!("`{path}`"), "nothing there", format!("a {}", found.kind)));
            }
        }
        Ok(AssertionOutcome::of(mismatches))
    }
}
