//! `ctk gc`: free what no name, no running process and no fresh cache needs.

use std::time::Duration;

use clap::Args;
use ctk_store::GcOptions;

use super::output;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::size;

/// Free what nothing needs any more
#[derive(Args)]
pub struct Gc {
    /// Keep caches used within this time, e.g. `7d`
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "14d")]
    keep_age: Duration,
    /// Keep at most so many bytes of caches, e.g. `10GiB`
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    keep_bytes: Option<u64>,
    /// Keep no caches at all
    #[arg(long, conflicts_with_all = ["keep_age", "keep_bytes"])]
    all: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let store = context.store()?;
        ctk_container::cleanup_stale(&context.state_directory())?;
        let age = if self.all { Duration::ZERO } else { self.keep_age };
        let runs = ctk_pipeline::run::Records::of_store(&context.options().store).prune(age, self.dry_run)?;
        if !self.dry_run {
            super::pipeline::remove_containers(context, &runs)?;
        }
        let options = GcOptions {
            cache_age: (!self.all).then_some(self.keep_age),
            cache_bytes: if self.all { Some(0) } else { self.keep_bytes },
            dry_run: self.dry_run,
        };
        let report = store.gc(&options, &cancel)?;
        let verb = if self.dry_run { "would free" } else { "freed" };
        output(&format!(
            "{verb} {}: {} blobs, {} layers, {} records, {} partial downloads, {} package files and cache mounts, {} pipeline runs\n",
            size(report.bytes),
            report.blobs,
            report.layers,
            report.records,
            report.partials,
            report.caches,
            runs.len()
        ))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    ctk_syntax::parse_duration(text).ok_or_else(|| "expected a duration such as `12h` or `7d`".into())
}

fn bytes(text: &str) -> Result<u64, String> {
    ctk_syntax::parse_size(text).ok_or_else(|| "expected a size such as `500MiB` or `10GiB`".into())
}
