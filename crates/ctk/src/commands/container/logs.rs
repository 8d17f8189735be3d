//! `ctk logs`: what containers wrote.

use std::io::Write;

use clap::Args;
use ctk_monitor::log::{Filter, Stream, read};
use ctk_monitor::time;

use super::Desk;
use crate::context::Context;
use crate::failure::Failure;

/// Show what a container wrote
#[derive(Args)]
pub struct Logs {
    /// Wait for more, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Not before this: a time as `2026-01-02T03:04:05Z`, seconds since 1970, or how long ago, as `10m`
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Not after this
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// So many lines at the end; `all` for all
    #[arg(short = 'n', long, value_name = "N", value_parser = lines)]
    tail: Option<Lines>,
    /// Each line begins with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Which: names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// A number of lines; none for all.
#[derive(Clone, Copy)]
struct Lines(Option<u64>);

fn lines(text: &str) -> Result<Lines, String> {
    match text {
        "all" | "-1" => Ok(Lines(None)),
        text => text.parse().map(|n| Lines(Some(n))).map_err(|_| "expected a number of lines, or `all`".into()),
    }
}

/// Nanoseconds since 1970.
pub fn moment(text: &str) -> Result<u64, String> {
    if let Some(age) = ctk_syntax::parse_duration(text) {
        return Ok(time::now().saturating_sub(age.as_nanos() as u64));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds.max(0.0) * 1e9) as u64);
    }
    let wrong = || "expected a time as `2026-01-02T03:04:05Z`, or how long ago, as `10m`".to_owned();
    let whole = if text.len() == "2026-01-02".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let whole = if whole.ends_with('Z') || whole.get(10..).is_some_and(|t| t.contains(['+', '-'])) {
        whole
    } else {
        whole + "Z"
    };
    let stamp: Option<jiff::Timestamp> = whole.parse().ok();
    stamp.and_then(|stamp| u64::try_from(stamp.as_nanosecond()).ok()).ok_or_else(wrong)
}

impl Logs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let filter = Filter {
            since: self.since,
            until: self.until,
            tail: self.tail.and_then(|lines| lines.0),
            timestamps: self.timestamps,
            stream: None,
        };
        for name in &self.containers {
            let container = desk.find(name)?;
            if !container.config()?.log.kept {
                let what = format!("container {name} keeps no log");
                return Err(Failure::sentence(what, Some("it was made with `--log-driver none`")));
            }
            let mut goes_on = || self.follow && desk.settle(&container).is_ok_and(|state| state.status.is_alive());
            let mut failed = None;
            let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
            read(&container.log(), &filter, &mut goes_on, &mut |stream, bytes| {
                let written = match stream {
                    Stream::Out => out.write_all(bytes).and_then(|()| out.flush()),
                    Stream::Err => err.write_all(bytes),
                };
                match written {
                    Ok(()) => true,
                    // Whoever closed it no longer wants it.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => false,
                    Err(error) => {
                        failed = Some(error);
                        false
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(Failure::sentence(format!("cannot write the log: {error}"), None));
            }
        }
        Ok(())
    }
}
