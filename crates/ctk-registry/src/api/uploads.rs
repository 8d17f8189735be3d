//! Uploads: POST opens (or mounts, or takes all at once), PATCH adds, PUT ends, GET asks, DELETE gives up.

use axum::body::Body;
use bytes::Bytes;
use ctk_distribution::{ByteRange, Code, blob_path, chunk_start, uploads_path};
use ctk_oci::{Algorithm, Digest};
use futures_util::StreamExt;
use http::{Response, header};

use super::answer::{CONTENT_DIGEST, Failure, UPLOAD_UUID, empty, set};
use super::{App, Asked};
use crate::gate::Action;
use crate::storage::{Append, Session};
use crate::{BODY_TIMEOUT, HOLDERS_LIMIT, PIECE_BYTES, RegistryError, UPLOAD_BUSY_TIMEOUT};

impl App {
    pub(super) async fn start_upload(
        &self,
        asked: &Asked,
        body: Body,
        name: String,
    ) -> Result<Response<Body>, Failure> {
        let mut algorithm = match asked.query.get("digest-algorithm") {
            None => Algorithm::Sha256,
            Some(name) => {
                let known = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
                known.ok_or_else(|| Failure::of(Code::DigestInvalid).detail(format!("unknown algorithm `{name}`")))?
            }
        };
        if let Some(digest) = asked.query.get("mount").filter(|d| !d.is_empty()) {
            let digest = parse_digest(digest)?;
            if self.mount(asked, &name, &digest).await? {
                return Ok(created(&name, &digest));
            }
            algorithm = digest.algorithm();
        }
        let whole = asked.query.get("digest").map(parse_digest).transpose()?;
        if let Some(digest) = &whole {
            algorithm = digest.algorithm();
        }
        let repository = name.clone();
        let session = self.stored(move |storage| storage.start_upload(&repository, algorithm)).await?;
        match whole {
            None => Ok(progress(202, &session, 0)),
            Some(digest) => match self.take(asked, body, &session).await {
                Ok(append) => self.finish(session, append, digest).await,
                Err(failure) => {
                    // Nobody knows this session: nobody can resume it.
                    let _ = self.stored(move |storage| storage.cancel_upload(&session)).await;
                    Err(failure)
                }
            },
        }
    }

    /// Takes a blob from a repository that the caller may read. Without `from`, from any such repository; who may read
    /// none that holds it hears what they would hear if nobody held it.
    async fn mount(&self, asked: &Asked, name: &str, digest: &Digest) -> Result<bool, Failure> {
        let sources = match asked.query.get("from").filter(|f| !f.is_empty()) {
            Some(from) => vec![from.to_owned()],
            None => {
                let digest = digest.clone();
                self.stored(move |storage| storage.meta().holders(&digest, HOLDERS_LIMIT)).await?
            }
        };
        for from in sources.into_iter().filter(|from| self.may(&asked.who, Action::Pull, from)) {
            let (name, digest) = (name.to_owned(), digest.clone());
            if self.stored(move |storage| storage.mount(&name, &from, &digest)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn patch_upload(
        &self,
        asked: &Asked,
        body: Body,
        name: String,
        id: String,
    ) -> Result<Response<Body>, Failure> {
        let session = Session { id, repository: name };
        let append = self.take(asked, body, &session).await?;
        let size = append.size();
        self.save(append).await?;
        Ok(progress(202, &session, size))
    }

    pub(super) async fn put_upload(
        &self,
        asked: &Asked,
        body: Body,
        name: String,
        id: String,
    ) -> Result<Response<Body>, Failure> {
        let digest = asked.query.get("digest").ok_or_else(|| Failure::of(Code::DigestInvalid).detail("no `digest`"))?;
        let digest = parse_digest(digest)?;
        let session = Session { id, repository: name };
        let append = self.take(asked, body, &session).await?;
        self.finish(session, append, digest).await
    }

    pub(super) async fn upload_status(&self, name: String, id: String) -> Result<Response<Body>, Failure> {
        let session = Session { id, repository: name };
        // Only once no other request writes is the size one that the client can go on from.
        let append = self.open(&session).await?;
        let size = append.size();
        self.save(append).await?;
        Ok(progress(204, &session, size))
    }

    pub(super) async fn cancel_upload(&self, name: String, id: String) -> Result<Response<Body>, Failure> {
        let session = Session { id, repository: name };
        self.stored(move |storage| storage.cancel_upload(&session)).await?;
        Ok(empty(204))
    }

    async fn finish(&self, session: Session, append: Append, digest: Digest) -> Result<Response<Body>, Failure> {
        let (name, wanted) = (session.repository.clone(), digest.clone());
        self.stored(move |storage| storage.finish_upload(&session, append, &wanted)).await?;
        Ok(created(&name, &digest))
    }

    async fn save(&self, mut append: Append) -> Result<(), Failure> {
        self.stored(move |storage| storage.save(&mut append)).await
    }

    /// Opens the session, waiting a little for another request that is just ending.
    async fn open(&self, session: &Session) -> Result<Append, Failure> {
        let deadline = tokio::time::Instant::now() + UPLOAD_BUSY_TIMEOUT;
        loop {
            let (storage, wanted) = (self.storage.clone(), session.clone());
            let opened = tokio::task::spawn_blocking(move || storage.append(&wanted)).await;
            match opened.map_err(|_| Failure::of(Code::Unknown))? {
                Err(RegistryError::UploadBusy) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                result => return result.map_err(Failure::from),
            }
        }
    }

    /// Adds the request's body to the session. Whatever arrived before a failure stays.
    async fn take(&self, asked: &Asked, body: Body, session: &Session) -> Result<Append, Failure> {
        let append = self.open(session).await?;
        let range = match asked.header(header::CONTENT_RANGE) {
            None => None,
            Some(value) => {
                let malformed = || Failure::of(Code::BlobUploadInvalid).status(416).detail("malformed Content-Range");
                Some(chunk_start(value).ok_or_else(malformed)?)
            }
        };
        if let Some(ByteRange { start, .. }) = range
            && start != append.size()
        {
            return Err(RegistryError::UploadOrder { expected: append.size(), found: start }.into());
        }
        let before = append.size();
        let limit = self.options.blob_limit_bytes;
        let mut body = body.into_data_stream();
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        // One write is under way while the next piece is gathered; hashing is part of it.
        let mut writing: Option<tokio::task::JoinHandle<(Append, Result<(), RegistryError>)>> = None;
        let mut idle = Some(append);
        loop {
            let next = tokio::time::timeout(BODY_TIMEOUT, body.next()).await;
            let (ended, cut) = match next {
                Ok(Some(Ok(piece))) => {
                    gathered += piece.len();
                    pieces.push(piece);
                    (false, false)
                }
                Ok(None) => (true, false),
                Ok(Some(Err(_))) | Err(_) => (true, true),
            };
            if gathered >= PIECE_BYTES || ended {
                if let Some(task) = writing.take() {
                    let (returned, written) = task.await.map_err(|_| Failure::of(Code::Unknown))?;
                    written?;
                    idle = Some(returned);
                }
                let mut append = idle.take().expect("either idle or writing");
                let batch = std::mem::take(&mut pieces);
                gathered = 0;
                let work = move || {
                    let written = append.write(&batch, limit);
                    (append, written)
                };
                let task = tokio::task::spawn_blocking(work);
                if !ended {
                    writing = Some(task);
                    continue;
                }
                let (append, written) = task.await.map_err(|_| Failure::of(Code::Unknown))?;
                written?;
                if cut {
                    // What arrived stays; whoever asks for the upload goes on from there.
                    let _ = self.save(append).await;
                    return Err(Failure::of(Code::BlobUploadInvalid).detail("the body ended early"));
                }
                if let Some(range) = range
                    && append.size() - before != range.end - range.start
                {
                    let _ = self.save(append).await;
                    return Err(Failure::of(Code::SizeInvalid).detail("the body is not as long as its Content-Range"));
                }
                return Ok(append);
            }
        }
    }
}

fn parse_digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|error: ctk_oci::DigestError| Failure::of(Code::DigestInvalid).detail(error.to_string()))
}

fn created(name: &str, digest: &Digest) -> Response<Body> {
    let mut response = empty(201);
    set(&mut response, header::LOCATION, &blob_path(name, digest));
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

fn progress(status: u16, session: &Session, size: u64) -> Response<Body> {
    let mut response = empty(status);
    set(&mut response, header::LOCATION, &format!("{}{}", uploads_path(&session.repository), session.id));
    set(&mut response, header::RANGE, &format!("0-{}", size.saturating_sub(1)));
    set(&mut response, UPLOAD_UUID, &session.id);
    response
}
