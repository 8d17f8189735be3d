//! Blobs: HEAD, GET with ranges, DELETE.

use axum::body::Body;
use ctk_distribution::{ByteRange, Code, RangeRequest, parse_range};
use ctk_oci::Digest;
use http::{Method, Response, header};

use super::answer::{CONTENT_DIGEST, Failure, empty, set};
use super::{App, Asked};
use crate::meta::Seen;

impl App {
    pub(super) async fn blob(&self, asked: &Asked, name: String, digest: Digest) -> Result<Response<Body>, Failure> {
        let unknown = || Failure::of(Code::BlobUnknown).detail(digest.to_string());
        let (repository, wanted) = (name.clone(), digest.clone());
        let held = self.stored(move |storage| storage.blob(&repository, &wanted)).await?.ok_or_else(unknown)?;
        let size = held.size;
        if asked.method == Method::HEAD {
            let (looked, held) = (self.storage.clone(), held.clone());
            // Who hears that it is not there pushes it again, and so mends what a disk lost.
            if !self.stored(move |_| looked.is_there(&held)).await? {
                return Err(unknown());
            }
            // Who asks will count on it: it stays for a while, also when nothing names it.
            self.storage.note(Seen::Blob(name, digest.clone()));
        }
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
            let reading = self.stored(move |storage| storage.read(&held, range)).await?.ok_or_else(unknown)?;
            *response.body_mut() = Body::from_stream(reading);
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
