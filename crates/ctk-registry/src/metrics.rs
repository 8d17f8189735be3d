//! What happened, as numbers that Prometheus reads (text format 0.0.4), and a line of a log about each request.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use ctk_distribution::Route;
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::Serialize;

use crate::Collected;
use crate::meta::{Seconds, Totals};

/// Upper ends of the histogram's classes, in seconds: from a head that memory answers to a layer of gigabytes.
const CLASSES: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];
/// Methods with a name of their own; whatever else clients invent is `other`, so that they cannot make series.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// One request, for a log. It has no header and no query: those hold secrets.
#[derive(Clone, Debug, Serialize)]
pub struct RequestLog {
    /// When it came, in seconds since 1970.
    pub time: Seconds,
    /// Where from.
    pub address: Option<IpAddr>,
    /// The user, `cert:NAME`, `anonymous`, or empty when nobody proved to be anybody.
    pub who: String,
    /// The method.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// Until the answer's head was ready, in seconds.
    pub seconds: f64,
}

impl fmt::Display for RequestLog {
    /// For people: a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RequestLog { time, who, method, path, status, seconds, .. } = self;
        let address = self.address.map_or_else(|| "-".into(), |address| address.to_string());
        let who = if who.is_empty() { "-" } else { who };
        write!(f, "{time} {address} {who} {method} {path} {status} {seconds:.6}")
    }
}

/// Who is told of each request. It must be quick, and must not panic.
#[derive(Clone)]
pub struct Log(pub Arc<dyn Fn(&RequestLog) + Send + Sync>);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

#[derive(Debug, Default)]
struct Series {
    classes: [u64; CLASSES.len()],
    count: u64,
    seconds: f64,
}

type Key = (&'static str, &'static str, u16);

/// Counters of one server since it started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Key, Series>>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    active: Arc<AtomicI64>,
    sweeps: AtomicU64,
    failed_sweeps: AtomicU64,
    sweep_micros: AtomicU64,
    swept_blobs: AtomicU64,
    swept_uploads: AtomicU64,
    removed_places: AtomicU64,
}

/// A request under way, until it is dropped.
pub(crate) struct Active(Arc<AtomicI64>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The route of a path as a word; of few.
fn route(path: &str) -> &'static str {
    match Route::parse(path) {
        Ok(Route::Version) => "version",
        Ok(Route::Catalog) => "catalog",
        Ok(Route::Tags { .. }) => "tags",
        Ok(Route::Referrers { .. }) => "referrers",
        Ok(Route::Manifest { .. }) => "manifest",
        Ok(Route::Blob { .. }) => "blob",
        Ok(Route::Uploads { .. }) => "uploads",
        Ok(Route::Upload { .. }) => "upload",
        Err(_) if path == crate::gate::TOKEN_PATH => "token",
        Err(_) => "other",
    }
}

impl Metrics {
    pub(crate) fn begin(&self) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self.active.clone())
    }

    pub(crate) fn request(&self, method: &str, path: &str, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let mut requests = self.requests.lock().expect("no holder panics");
        let series = requests.entry((method, route(path), status)).or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.seconds += seconds;
        if let Some(class) = CLASSES.iter().position(|end| seconds <= *end) {
            series.classes[class] += 1;
        }
    }

    /// Counts what is read of a request's body.
    pub(crate) fn received(&self, body: Body) -> Body {
        counted(body, &self.received, None)
    }

    /// Counts what is sent of an answer's body; the request is under way until its end.
    pub(crate) fn sent(&self, body: Body, active: Active) -> Body {
        counted(body, &self.sent, Some(active))
    }

    pub(crate) fn swept(&self, result: Option<&Collected>, took: Duration) {
        let add = |counter: &AtomicU64, number: usize| counter.fetch_add(number as u64, Ordering::Relaxed);
        add(&self.sweeps, 1);
        self.sweep_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        match result {
            None => {
                add(&self.failed_sweeps, 1);
            }
            Some(done) => {
                add(&self.swept_blobs, done.blobs);
                add(&self.swept_uploads, done.uploads);
                add(&self.removed_places, done.places);
            }
        }
    }

    pub(crate) fn removed(&self, places: usize) {
        self.removed_places.fetch_add(places as u64, Ordering::Relaxed);
    }

    /// Everything in Prometheus' text format; `totals` are asked of the metadata, and left out when it does not answer.
    pub(crate) fn text(&self, totals: Option<Totals>) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(text, "# HELP ctk_registry_{name} {help}\n# TYPE ctk_registry_{name} {kind}");
            let _ = writeln!(text, "ctk_registry_{name} {value}");
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        one("received_bytes_total", "counter", "Bytes of request bodies.", read(&self.received));
        one("sent_bytes_total", "counter", "Bytes of answers.", read(&self.sent));
        let active = self.active.load(Ordering::Relaxed).to_string();
        one("requests_active", "gauge", "Requests under way.", active);
        one("sweeps_total", "counter", "Collections that ended.", read(&self.sweeps));
        one("sweeps_failed_total", "counter", "Collections that failed.", read(&self.failed_sweeps));
        let seconds = self.sweep_micros.load(Ordering::Relaxed) as f64 / 1e6;
        one("sweep_seconds_total", "counter", "Time of collections.", seconds.to_string());
        one("swept_blobs_total", "counter", "Blobs taken from repositories.", read(&self.swept_blobs));
        one("swept_uploads_total", "counter", "Uploads given up.", read(&self.swept_uploads));
        one("removed_places_total", "counter", "Places whose bytes were removed.", read(&self.removed_places));
        one("up", "gauge", "Whether the metadata answers.", u8::from(totals.is_some()).to_string());
        if let Some(totals) = totals {
            let Totals { uploads, repositories, blobs, blob_bytes, manifests, tags, trash } = totals;
            one("uploads_open", "gauge", "Uploads that are open.", uploads.to_string());
            one("repositories", "gauge", "Repositories.", repositories.to_string());
            one("blobs", "gauge", "Different blobs.", blobs.to_string());
            one("blob_bytes", "gauge", "Bytes of different blobs.", blob_bytes.to_string());
            one("manifests", "gauge", "Manifests.", manifests.to_string());
            one("tags", "gauge", "Tags.", tags.to_string());
            one("trash", "gauge", "Places that wait to be removed.", trash.to_string());
        }
        let name = "ctk_registry_request_seconds";
        let _ = writeln!(text, "# HELP {name} Time until an answer's head.\n# TYPE {name} histogram");
        for ((method, route, status), series) in &*self.requests.lock().expect("no holder panics") {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            let mut below = 0;
            for (end, count) in CLASSES.iter().zip(series.classes) {
                below += count;
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{end}\"}} {below}");
            }
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}", series.seconds);
            let _ = writeln!(text, "{name}_count{{{labels}}} {}", series.count);
        }
        text
    }
}

fn counted(body: Body, counter: &Arc<AtomicU64>, active: Option<Active>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let counter = counter.clone();
    Body::new(body.map_frame(move |frame| {
        let _under_way = &active;
        let bytes = frame.data_ref().map_or(0, |data| data.len());
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        frame
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_make_no_series() {
        let metrics = Metrics::default();
        for method in ["GET", "BREW", "X\"}"] {
            for path in ["/v2/", "/v2/a/tags/list", "/v2/b/tags/list", "/x", "/y\"}"] {
                metrics.request(method, path, 200, Duration::from_millis(3));
            }
        }
        assert_eq!(metrics.requests.lock().unwrap().len(), 2 * 3);
        let text = metrics.text(None);
        let tags = "ctk_registry_request_seconds_bucket{method=\"GET\",route=\"tags\",status=\"200\",le=";
        for (end, count) in [("0.0025", 0), ("0.005", 2), ("600", 2), ("+Inf", 2)] {
            assert!(text.contains(&format!("{tags}\"{end}\"}} {count}\n")), "{text}");
        }
        assert!(text.contains("ctk_registry_up 0\n") && !text.contains('X'));
    }
}
