//! Blobs: HEAD, GET with ranges, DELETE.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use ctk_distribution::{ByteRange, Code, RangeRequest, parse_range};
use ctk_oci::Digest;
use futures_util::{StreamExt, stream};
use http::{Method, Response, header};

use super::answer::{CONTENT_DIGEST, Failure, empty, set};
use super::{App, Asked};
use crate::PIECE_BYTES;

/// Pieces read ahead of the socket.
const READ_AHEAD: usize = 2;

impl App {
    pub(super) async fn blob(&self, asked: &Asked, name: String, digest: Digest) -> Result<Response<Body>, Failure> {
        let wanted = digest.clone();
        let found = self.stored(move |storage| storage.blob(&name, &wanted)).await?;
        let (file, size) = found.ok_or_else(|| Failure::of(Code::BlobUnknown).detail(digest.to_string()))?;
        let etag = format!("\"{digest}\"");
        // Content never changes: a client that knows the digest's tag needs nothing.
        if asked.header(header::IF_NONE_MATCH).is_some_and(|tags| tags.contains(&etag)) {
            let mut response = empty(304);
            set(&mut response, header::ETAG, &etag);
            return Ok(response);
        }
        let same = asked.header(header::IF_RANGE).is_none_or(|tag| tag == etag);
        let range = match asked.header(header::RANGE) {
            Some(value) if same => parse_range(value, size),
            _ => RangeRequest::Whole,
        };
        let (mut response, range) = match range {
            RangeRequest::Whole => (empty(200), ByteRange { start: 0, end: size }),
            RangeRequest::Part(range) => {
                let mut response = empty(206);
                let content = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                set(&mut response, header::CONTENT_RANGE, &content);
                (response, range)
            }
            RangeRequest::Unsatisfiable => {
                let failure = Failure::of(Code::SizeInvalid).status(416);
                return Err(failure.with(header::CONTENT_RANGE, format!("bytes */{size}")));
            }
        };
        set(&mut response, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
        set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        set(&mut response, header::ETAG, &etag);
        set(&mut response, header::CACHE_CONTROL, "max-age=31536000, immutable");
        set(&mut response, CONTENT_DIGEST, &digest.to_string());
        if asked.method != Method::HEAD {
            *response.body_mut() = stream_file(file, range);
        }
        Ok(response)
    }

    pub(super) async fn delete_blob(&self, name: String, digest: Digest) -> Result<Response<Body>, Failure> {
        let wanted = digest.clone();
        match self.stored(move |storage| storage.delete_blob(&name, &wanted)).await? {
            true => Ok(empty(202)),
            false => Err(Failure::of(Code::BlobUnknown).detail(digest.to_string())),
        }
    }
}

/// Reads by positioned reads on blocking threads, a thread only while a read lasts: slow clients hold memory for two
/// pieces and no thread.
fn stream_file(file: File, range: ByteRange) -> Body {
    let file = Arc::new(file);
    let starts = stream::iter((range.start..range.end).step_by(PIECE_BYTES));
    let pieces = starts.map(move |start| {
        let file = file.clone();
        let length = (range.end - start).min(PIECE_BYTES as u64) as usize;
        async move {
            let read = move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, start).map(|()| Bytes::from(piece))
            };
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        }
    });
    Body::from_stream(pieces.buffered(READ_AHEAD))
}
