//! Events to standard error: a live view on a terminal, plain lines elsewhere, JSON lines on request.

mod json;
mod live;
pub mod pipeline;
mod plain;
mod rawjson;
mod tree;

use std::io::IsTerminal;
use std::sync::Arc;

use clap::ValueEnum;
use ctk_plan::Sink;

/// How the story of a command is told on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Live on a terminal, plain elsewhere.
    #[default]
    Auto,
    /// A view that is repainted in place.
    #[value(alias = "tty")]
    Live,
    /// One line for each thing that happened.
    Plain,
    /// One JSON object for each thing that happened.
    Json,
    /// The same as buildx writes it: vertexes, statuses, logs.
    Rawjson,
    /// Nothing but errors.
    #[value(alias = "none")]
    Quiet,
}

impl Progress {
    /// Whether it was asked for lines.
    pub fn is_plain(self) -> bool {
        self == Progress::Plain
    }

    /// Whether people read along.
    pub fn is_for_people(self) -> bool {
        matches!(self, Progress::Auto | Progress::Live | Progress::Plain)
    }

    /// The sink that tells it so.
    pub fn sink(self) -> Arc<dyn Sink> {
        let on_terminal = std::io::stderr().is_terminal();
        match self {
            Progress::Auto if on_terminal => Arc::new(live::Live::new()),
            Progress::Live => Arc::new(live::Live::new()),
            Progress::Auto | Progress::Plain => Arc::new(plain::Plain::new(std::io::stderr())),
            Progress::Json => Arc::new(json::Json),
            Progress::Rawjson => Arc::new(rawjson::RawJson::default()),
            Progress::Quiet => Arc::new(ctk_plan::Silent),
        }
    }
}

/// Plain lines into a file, which is emptied first.
pub fn to_file(path: &std::path::Path) -> std::io::Result<Arc<dyn Sink>> {
    Ok(Arc::new(plain::Plain::new(std::fs::File::create(path)?)))
}

/// `850 ms`, `12.4 s`, `3 min 20 s`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 100.0 => format!("{s:.1} s"),
        s => format!("{} min {:.0} s", s as u64 / 60, s % 60.0),
    }
}

/// `512 B`, `3.4 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(duration(0.0123), "12 ms");
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(size(512), "512 B");
        assert_eq!(size(3_565_158), "3.4 MiB");
    }
}
