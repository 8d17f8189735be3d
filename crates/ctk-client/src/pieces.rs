//! The bytes of a blob from an offset on, in order: by one request, or by several side by side when the blob is large
//! and nobody else is doing so. What arrives before its turn is held, so that readers see one stream.

use bytes::Bytes;
use ctk_oci::Descriptor;
use futures_util::stream::LocalBoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Method, Response};
use tokio::sync::SemaphorePermit;

use crate::call::Sent;
use crate::host::Repository;
use crate::{Client, ClientError, RANGE_BYTES, RANGES_AT_ONCE, RANGES_FROM_BYTES};

/// Bytes on their way.
pub(crate) struct Pieces<'a> {
    /// Where they begin: what was asked for, or 0 when the registry knows no ranges.
    pub start: u64,
    bytes: LocalBoxStream<'a, Result<Bytes, ClientError>>,
    _alone: Option<SemaphorePermit<'a>>,
}

impl Pieces<'_> {
    /// The next of them, `None` at the end. An end before the blob's is no error here.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.bytes.try_next().await
    }
}

impl Client {
    /// Asks a repository for a blob from `offset` on, which is below its size.
    pub(crate) async fn pieces<'a>(
        &'a self,
        from: &'a Repository,
        blob: &'a Descriptor,
        offset: u64,
    ) -> Result<Pieces<'a>, ClientError> {
        let large = blob.size - offset > RANGES_FROM_BYTES;
        let alone = if large { self.inner.ranges.try_acquire().ok() } else { None };
        let first_end = if alone.is_some() { offset + RANGE_BYTES } else { blob.size };
        let sent = self.get_blob(from, blob, offset, first_end).await?;
        match sent.status() {
            206 | 200 => {}
            _ => return Err(self.complain(from, &Method::GET, sent).await),
        }
        if sent.status() == 200 {
            // All of it: that was asked for, or the registry knows no ranges.
            return Ok(Pieces { start: 0, bytes: body(from, sent), _alone: None });
        }
        if alone.is_none() {
            return Ok(Pieces { start: offset, bytes: body(from, sent), _alone: None });
        }
        let starts = (offset..blob.size).step_by(RANGE_BYTES as usize);
        let mut first = Some(sent);
        let ranges = starts.map(move |start| (start, first.take()));
        let fetched = stream::iter(ranges).map(move |(start, sent)| self.range(from, blob, start, sent));
        let bytes = fetched.buffered(RANGES_AT_ONCE).map_ok(|pieces| stream::iter(pieces).map(Ok)).try_flatten();
        Ok(Pieces { start: offset, bytes: bytes.boxed_local(), _alone: alone })
    }

    /// One range, whole; `sent` is the answer if it was asked for already.
    async fn range(
        &self,
        from: &Repository,
        blob: &Descriptor,
        start: u64,
        sent: Option<Sent>,
    ) -> Result<Vec<Bytes>, ClientError> {
        let end = blob.size.min(start + RANGE_BYTES);
        let (mut pieces, mut at, mut answered) = (Vec::new(), start, sent);
        // A registry may give less at a time than it is asked for.
        while at < end {
            let sent = match answered.take() {
                Some(sent) => sent,
                None => self.get_blob(from, blob, at, end).await?,
            };
            if sent.status() != 206 {
                return Err(self.complain(from, &Method::GET, sent).await);
            }
            let before = at;
            let mut body = body(from, sent);
            while let Some(piece) = body.try_next().await? {
                at += piece.len() as u64;
                pieces.push(piece);
            }
            if at == before || at > end {
                let (host, digest) = (from.host.name.clone(), blob.digest.clone());
                return Err(ClientError::Short { host, digest, received: at, expected: end });
            }
        }
        Ok(pieces)
    }
}

/// The pieces of one answer.
fn body<'a>(from: &'a Repository, sent: Sent) -> LocalBoxStream<'a, Result<Bytes, ClientError>> {
    let state = (sent.response, sent.path);
    let next = move |(mut response, path): (Response, String)| async move {
        match response.chunk().await {
            Ok(Some(piece)) => Ok(Some((piece, (response, path)))),
            Ok(None) => Ok(None),
            Err(cause) => {
                let (host, cause) = (from.host.name.clone(), cause.without_url());
                Err(ClientError::NoAnswer { host, method: "GET", path, cause })
            }
        }
    };
    stream::try_unfold(state, next).boxed_local()
}
