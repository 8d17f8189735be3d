//! `size max="80MiB"`: how big the image is on a disk: the bytes of the files of all its layers, unpacked. A file that
//! a later layer deletes or replaces counts, because it is stored.

use ctk_syntax::Reader;

use super::Assertion;
use crate::codes;
use crate::error::CheckError;
use crate::report::{AssertionOutcome, Mismatch};
use crate::words;
use crate::world::World;

#[derive(Debug)]
struct Size {
    min: Option<u64>,
    max: Option<u64>,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let (min, max) = (reader.opt_prop_size("min"), reader.opt_prop_size("max"));
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value > max.value
    {
        reader.error(codes::BAD_VALUE, min.span, "`min` is more than `max`", "no size is both");
    }
    let any = reader.node().props.iter().any(|p| p.name.value == "min" || p.name.value == "max");
    words::asks_something(reader, any, "`max=` or `min=`");
    Some(Box::new(Size { min: min.map(|s| s.value), max: max.map(|s| s.value) }))
}

impl Assertion for Size {
    fn name(&self) -> String {
        String::new()
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        let seen = world.unpacked_bytes()?;
        let mut mismatches = Vec::new();
        if let Some(max) = self.max.filter(|max| seen > *max) {
            mismatches.push(Mismatch::new("size", format!("at most {}", bytes(max)), bytes(seen)));
        }
        if let Some(min) = self.min.filter(|min| seen < *min) {
            mismatches.push(Mismatch::new("size", format!("at least {}", bytes(min)), bytes(seen)));
        }
        Ok(AssertionOutcome::of(mismatches))
    }
}

/// `2.5 MiB (2621440 bytes)`.
fn bytes(count: u64) -> String {
    for (unit, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if count >= factor {
            return format!("{:.1} {unit} ({count} bytes)", count as f64 / factor as f64);
        }
    }
    format!("{count} bytes")
}
