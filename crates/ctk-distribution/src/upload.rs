//! A blob upload, seen from the client, as a machine: [`Upload::poll`] says what to send next, [`Upload::handle`]
//! takes the answer, [`Upload::handle_cut`] takes the news that there was none.
//!
//! ```text
//! Fresh ──POST──▶ Open ──PUT rest──▶ Done            monolithic
//!   │ 201 mounted   │ └─PATCH chunk─▶ Open            after the whole was refused as too large
//!   ▼               │ cut or 416
//!  Done             ▼
//!                 Unsure ──GET──▶ Open at the offset that the registry holds, or Fresh when it forgot
//! ```

use ctk_oci::{Algorithm, Digest};

use crate::range::upload_offset;

/// One blob on its way to a registry.
#[derive(Clone, Debug)]
pub struct Upload {
    digest: Digest,
    size: u64,
    mount: Mount,
    chunk_bytes: Option<u64>,
    state: State,
}

/// Where a registry may take the blob from, before it is sent.
#[derive(Clone, Debug)]
enum Mount {
    /// This repository.
    From(String),
    /// Whichever has it, if the registry does that: who does not opens an upload, as if nothing had been asked.
    Anywhere,
    /// It has been asked, and did not.
    Nowhere,
}

#[derive(Clone, Debug)]
enum State {
    Fresh,
    Open { location: String, offset: u64 },
    Unsure { location: String },
    Done { mounted: bool },
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// `POST /v2/<name>/blobs/uploads/` with this query (without `?`, may be empty) and no body.
    Start {
        /// `mount=…&from=…`, `mount=…`, `digest-algorithm=…`, or nothing.
        query: String,
    },
    /// `PUT` to the location with `digest=…` added to its query; body: bytes `from..size`.
    Finish {
        /// Where.
        location: String,
        /// First byte of the body.
        from: u64,
    },
    /// `PATCH` to the location, `Content-Range: from-(to-1)`; body: bytes `from..to`.
    Chunk {
        /// Where.
        location: String,
        /// First byte of the body.
        from: u64,
        /// One past its last byte.
        to: u64,
    },
    /// `GET` the location, without a body.
    Ask {
        /// Where.
        location: String,
    },
    /// The registry holds the blob.
    Done {
        /// Whether it took it from another repository.
        mounted: bool,
    },
}

/// The parts of an answer that the machine reads.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// `Location`.
    pub location: Option<&'a str>,
    /// `Range`.
    pub range: Option<&'a str>,
    /// `OCI-Chunk-Min-Length`.
    pub chunk_min_length: Option<u64>,
}

/// The registry will not take the blob this way; the status tells why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadRefused {
    /// An answer that ends the upload.
    #[error("the registry refused the upload with status {0}")]
    Status(u16),
    /// 202 without saying where to go on.
    #[error("the registry opened an upload without a `Location`")]
    NoLocation,
}

/// Bytes in a chunk when a registry refuses the whole: what the large clouds take at most is 5 GiB, what small
/// proxies in front of registries take by default is from 10 MiB up.
const CHUNK_BYTES: u64 = 8 * 1024 * 1024;

impl Upload {
    /// An upload of `digest` and `size`; the registry is first asked to take it from `mount_from`, or from wherever it
    /// has it (distribution-spec 1.1, end-11 without `from`).
    pub fn new(digest: Digest, size: u64, mount_from: Option<String>) -> Upload {
        let mount = match (mount_from, digest.algorithm()) {
            (Some(from), _) => Mount::From(from),
            (None, Algorithm::Sha256) => Mount::Anywhere,
            // The upload that is opened instead has to know its algorithm.
            (None, _) => Mount::Nowhere,
        };
        Upload { digest, size, mount, chunk_bytes: None, state: State::Fresh }
    }

    /// What to send next. Asking twice gives the same.
    pub fn poll(&self) -> Next {
        match &self.state {
            State::Fresh => Next::Start {
                query: match (&self.mount, self.digest.algorithm()) {
                    (Mount::From(from), _) => format!("mount={}&from={from}", self.digest),
                    (Mount::Anywhere, _) => format!("mount={}", self.digest),
                    (Mount::Nowhere, Algorithm::Sha256) => String::new(),
                    // Registries that know the 1.2 drafts hash as they receive (end-4c); others take no notice.
                    (Mount::Nowhere, algorithm) => format!("digest-algorithm={}", algorithm.name()),
                },
            },
            State::Open { location, offset } => match self.chunk_bytes {
                Some(chunk) if *offset < self.size => {
                    Next::Chunk { location: location.clone(), from: *offset, to: self.size.min(offset + chunk) }
                }
                _ => Next::Finish { location: location.clone(), from: *offset },
            },
            State::Unsure { location } => Next::Ask { location: location.clone() },
            State::Done { mounted } => Next::Done { mounted: *mounted },
        }
    }

    /// Takes the answer to what [`poll`](Upload::poll) said.
    pub fn handle(&mut self, answer: &Answer<'_>) -> Result<(), UploadRefused> {
        if let (Some(least), Some(chunk)) = (answer.chunk_min_length, self.chunk_bytes) {
            self.chunk_bytes = Some(chunk.max(least));
        }
        let refused = Err(UploadRefused::Status(answer.status));
        let moved = |old: &str| answer.location.unwrap_or(old).to_owned();
        let next = match (self.poll(), answer.status) {
            (Next::Start { .. }, 201) => State::Done { mounted: true },
            (Next::Start { .. }, 202) => {
                let location = answer.location.ok_or(UploadRefused::NoLocation)?.to_owned();
                // A mount is asked for once: the next start would get the same answer.
                self.mount = Mount::Nowhere;
                if let (Some(least), Some(_)) = (answer.chunk_min_length, self.chunk_bytes) {
                    self.chunk_bytes = Some(CHUNK_BYTES.max(least));
                }
                State::Open { location, offset: 0 }
            }
            // Some registries answer a mount that they cannot do, or that is not allowed, with an error instead of 202.
            (Next::Start { .. }, 400..=499) if self.mounts() && !matches!(answer.status, 401 | 429) => {
                self.mount = Mount::Nowhere;
                State::Fresh
            }
            (Next::Finish { .. }, 201 | 204) => State::Done { mounted: false },
            (Next::Finish { location, .. } | Next::Chunk { location, .. }, 416) => State::Unsure { location },
            (Next::Finish { from, .. }, 413) if from < self.size && self.chunk_bytes.is_none() => {
                self.chunk_bytes = Some(CHUNK_BYTES);
                State::Fresh
            }
            (Next::Chunk { location, to, .. }, 202 | 204) => {
                let offset = answer.range.and_then(upload_offset).filter(|held| *held > 0).unwrap_or(to);
                State::Open { location: moved(&location), offset: offset.min(self.size) }
            }
            (Next::Finish { .. } | Next::Chunk { .. } | Next::Ask { .. }, 404) => State::Fresh,
            (Next::Ask { location }, 200 | 202 | 204) => match answer.range.and_then(upload_offset) {
                Some(offset) if offset <= self.size => State::Open { location: moved(&location), offset },
                _ => State::Fresh,
            },
            // distribution 2.8 forgets an upload whose last request was cut, and says 400 or 416 to the question.
            (Next::Ask { .. }, 400..=499) if !matches!(answer.status, 401 | 403 | 429) => State::Fresh,
            _ => return refused,
        };
        self.state = next;
        Ok(())
    }

    /// Takes the news that the blob is not there although the registry said that it has taken it from elsewhere.
    pub fn handle_lost(&mut self) {
        self.mount = Mount::Nowhere;
        self.state = State::Fresh;
    }

    fn mounts(&self) -> bool {
        !matches!(self.mount, Mount::Nowhere)
    }

    /// Takes the news that the last request had no answer, or one that says nothing about the upload (5xx).
    pub fn handle_cut(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Fresh) {
            State::Open { location, .. } => State::Unsure { location },
            State::Fresh => {
                // Perhaps it was the question.
                if matches!(self.mount, Mount::Anywhere) {
                    self.mount = Mount::Nowhere;
                }
                State::Fresh
            }
            State::Unsure { .. } => State::Fresh,
            done => done,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(mount: Option<&str>) -> Upload {
        Upload::new(Digest::of(b""), 20 * 1024 * 1024, mount.map(Into::into))
    }

    fn answer(status: u16) -> Answer<'static> {
        Answer { status, location: Some("/u/1"), ..Answer::default() }
    }

    fn finish(from: u64) -> Next {
        Next::Finish { location: "/u/1".into(), from }
    }

    #[test]
    fn monolithic() {
        let mut machine = upload(None);
        assert!(
            matches!(machine.poll(), Next::Start { query } if query.starts_with("mount=sha256:") && !query.contains("from"))
        );
        machine.handle(&answer(202)).unwrap();
        assert_eq!(machine.poll(), finish(0));
        machine.handle(&answer(201)).unwrap();
        assert_eq!(machine.poll(), Next::Done { mounted: false });
    }

    #[test]
    fn mounts_once() {
        let mut machine = upload(Some("a/b"));
        assert!(
            matches!(machine.poll(), Next::Start { query } if query.starts_with("mount=sha256:") && query.ends_with("&from=a/b"))
        );
        machine.handle(&answer(404)).unwrap();
        assert_eq!(machine.poll(), Next::Start { query: String::new() });
        let mut machine = upload(Some("a/b"));
        machine.handle(&answer(201)).unwrap();
        assert_eq!(machine.poll(), Next::Done { mounted: true });
    }

    #[test]
    fn whoever_stumbles_over_a_mount_is_asked_without() {
        for stumble in [|m: &mut Upload| m.handle_cut(), |m: &mut Upload| m.handle(&answer(422)).unwrap()] {
            let mut machine = upload(None);
            stumble(&mut machine);
            assert_eq!(machine.poll(), Next::Start { query: String::new() });
        }
    }

    #[test]
    fn a_mount_that_was_none_is_sent() {
        let mut machine = upload(None);
        machine.handle(&answer(201)).unwrap();
        assert_eq!(machine.poll(), Next::Done { mounted: true });
        machine.handle_lost();
        assert_eq!(machine.poll(), Next::Start { query: String::new() });
    }

    #[test]
    fn a_cut_goes_on_where_the_registry_is() {
        let mut machine = upload(None);
        machine.handle(&answer(202)).unwrap();
        machine.handle_cut();
        assert_eq!(machine.poll(), Next::Ask { location: "/u/1".into() });
        machine.handle(&Answer { range: Some("0-99"), ..answer(204) }).unwrap();
        assert_eq!(machine.poll(), finish(100));
    }

    #[test]
    fn a_forgotten_upload_starts_over() {
        let mut machine = upload(None);
        machine.handle(&answer(202)).unwrap();
        machine.handle_cut();
        machine.handle(&answer(404)).unwrap();
        assert_eq!(machine.poll(), Next::Start { query: String::new() });
    }

    #[test]
    fn too_large_a_whole_goes_in_chunks() {
        let mut machine = upload(None);
        machine.handle(&answer(202)).unwrap();
        machine.handle(&answer(413)).unwrap();
        machine.handle(&answer(202)).unwrap();
        let mut seen = Vec::new();
        while let Next::Chunk { from, to, .. } = machine.poll() {
            seen.push((from, to));
            machine.handle(&Answer { range: None, ..answer(202) }).unwrap();
        }
        let mib = 1024 * 1024;
        assert_eq!(seen, [(0, 8 * mib), (8 * mib, 16 * mib), (16 * mib, 20 * mib)]);
        assert_eq!(machine.poll(), finish(20 * mib));
    }

    #[test]
    fn refusals_end_it() {
        let mut machine = upload(None);
        // The first may have been about the mount.
        machine.handle(&answer(403)).unwrap();
        assert_eq!(machine.handle(&answer(403)), Err(UploadRefused::Status(403)));
        assert_eq!(machine.handle(&Answer { status: 202, ..Answer::default() }), Err(UploadRefused::NoLocation));
    }

    proptest::proptest! {
        /// Whatever a registry answers, the machine never asks for bytes outside of the blob.
        #[test]
        fn stays_within_the_blob(answers in proptest::collection::vec((0usize..12, 0u64..40_000_000), 0..40)) {
            let statuses = [200, 201, 202, 204, 400, 401, 403, 404, 413, 416, 429, 500];
            let mut machine = upload(Some("a"));
            for (status, held) in answers {
                let range = format!("0-{held}");
                let _ = machine.handle(&Answer { range: Some(&range), ..answer(statuses[status]) });
                if status == 11 {
                    machine.handle_cut();
                }
                match machine.poll() {
                    Next::Finish { from, .. } => proptest::prop_assert!(from <= 20 * 1024 * 1024),
                    Next::Chunk { from, to, .. } => proptest::prop_assert!(from < to && to <= 20 * 1024 * 1024),
                    _ => {}
                }
            }
        }
    }
}
