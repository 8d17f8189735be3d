//! What registries warn of, kept until somebody tells it.

use std::sync::{Arc, Mutex};

use ctk_distribution::parse_warnings;
use reqwest::header::{HeaderMap, WARNING};

use crate::WARNINGS_LIMIT;

/// The warnings of every client that was made with the same options. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    all: Vec<Warning>,
    taken: usize,
}

/// What a registry wants its users to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The registry, as in references.
    pub host: String,
    /// Its words, without control characters.
    pub text: String,
}

impl Warnings {
    /// Those that nobody took yet, each once however often a registry repeats it.
    pub fn take(&self) -> Vec<Warning> {
        let mut heard = self.0.lock().expect("no holder panics");
        let fresh = heard.all[heard.taken..].to_vec();
        heard.taken = heard.all.len();
        fresh
    }

    pub(crate) fn note(&self, host: &str, headers: &HeaderMap) {
        for value in headers.get_all(WARNING) {
            for text in parse_warnings(&String::from_utf8_lossy(value.as_bytes())) {
                let warning = Warning { host: host.into(), text };
                let mut heard = self.0.lock().expect("no holder panics");
                if heard.all.len() < WARNINGS_LIMIT && !heard.all.contains(&warning) {
                    heard.all.push(warning);
                }
            }
        }
    }
}
