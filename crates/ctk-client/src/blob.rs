//! One blob, into a store: from where an earlier try stopped, verified at its end.

use std::io::Write;

use bytes::Bytes;
use ctk_distribution::{Actions, Scope, blob_path, parse_content_range};
use ctk_oci::{Descriptor, Digester};
use ctk_plan::Cancel;
use ctk_store::{Partial, Resume, Store, StoreError};
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, RANGE};

use crate::call::{Call, Sent};
use crate::host::Repository;
use crate::progress::Progress;
use crate::pull::Sources;
use crate::retry::Patience;
use crate::{Client, ClientError, PIECE_BYTES, Retry};

/// A blob on its way to a store.
pub(crate) struct Download<'a> {
    pub descriptor: &'a Descriptor,
    pub store: &'a Store,
    pub progress: &'a Progress<'a>,
    pub cancel: &'a Cancel,
    /// Where it is written; `None` once it is in the store.
    partial: Option<Partial>,
}

impl<'a> Download<'a> {
    /// Looks what is there already; the blob itself, perhaps.
    pub(crate) async fn open(
        descriptor: &'a Descriptor,
        store: &'a Store,
        progress: &'a Progress<'a>,
        cancel: &'a Cancel,
    ) -> Result<Download<'a>, ClientError> {
        let mut download = Download { descriptor, store, progress, cancel, partial: None };
        download.reopen().await?;
        if let Some(partial) = &download.partial {
            progress.expect(descriptor.size);
            progress.add(partial.offset());
        }
        Ok(download)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.partial.is_none()
    }

    async fn reopen(&mut self) -> Result<(), ClientError> {
        let (store, descriptor, cancel) = (self.store.clone(), self.descriptor.clone(), self.cancel.clone());
        // May wait for another process that is fetching the same blob.
        let resumed = blocking(move || store.resume(&descriptor, &cancel)).await??;
        self.partial = match resumed {
            Resume::Present => None,
            Resume::Partial(partial) => Some(partial),
        };
        Ok(())
    }

    fn offset(&self) -> u64 {
        self.partial.as_ref().map_or(self.descriptor.size, Partial::offset)
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<(), ClientError> {
        if let Some(partial) = self.partial.take() {
            self.progress.back(partial.offset());
            self.partial = Some(partial.restart()?);
        }
        Ok(())
    }

    /// Starts writing a batch of bytes on another thread, which has the file meanwhile.
    fn write(&mut self, batch: Vec<Bytes>) -> tokio::task::JoinHandle<(Partial, std::io::Result<()>)> {
        let mut partial = self.partial.take().expect("not being written and not done");
        tokio::task::spawn_blocking(move || {
            let written = batch.iter().try_for_each(|piece| partial.write_all(piece));
            (partial, written)
        })
    }

    async fn written(
        &mut self,
        task: tokio::task::JoinHandle<(Partial, std::io::Result<()>)>,
    ) -> Result<(), ClientError> {
        let (partial, written) = task.await.map_err(|_| ClientError::Task)?;
        self.partial = Some(partial);
        written.map_err(|source| {
            let (action, path) = ("write", self.store.root().join("partial"));
            match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    StoreError::Full { action, path, source }
                }
                _ => StoreError::Io { action, path, source },
            }
        })?;
        Ok(())
    }
}

impl Client {
    /// Fetches the rest of a blob from one repository and commits it.
    pub(crate) async fn pull_blob(
        &self,
        from: &Repository,
        retry: Retry,
        download: &mut Download<'_>,
    ) -> Result<(), ClientError> {
        let mut patience = Patience::new(retry);
        let mut started_over = false;
        while !download.is_done() {
            let before = download.offset();
            if let Err(error) = self.receive(from, download).await {
                if download.partial.is_none() {
                    return Err(error);
                }
                if download.offset() > before {
                    patience.progressed();
                }
                patience.wait(error).await?;
                continue;
            }
            let partial = download.partial.take().expect("received into it");
            match blocking(move || partial.commit()).await? {
                Ok(_) => return Ok(()),
                // What an earlier try left may have been spoilt; what came from the first byte on now was not.
                Err(StoreError::Mismatch { .. }) if !started_over => {
                    started_over = true;
                    download.progress.back(download.descriptor.size);
                    download.reopen().await?;
                }
                Err(StoreError::Mismatch { expected, found, .. }) => {
                    let found = format!("it is {found}");
                    return Err(ClientError::Mismatch { host: from.host.name.clone(), expected, found });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives until the blob is whole, or as far as it goes.
    async fn receive(&self, from: &Repository, download: &mut Download<'_>) -> Result<(), ClientError> {
        let size = download.descriptor.size;
        let offset = download.offset();
        if offset >= size {
            return Ok(());
        }
        let mut pieces = self.pieces(from, download.descriptor, offset).await?;
        if pieces.start < offset {
            // The registry knows no ranges.
            download.restart()?;
        }
        let mut received = download.offset();
        let mut batch = Vec::new();
        let mut gathered = 0;
        let mut writing = None;
        let ended = loop {
            let piece = match pieces.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            received += piece.len() as u64;
            if received > size {
                break Err(ClientError::Mismatch {
                    host: from.host.name.clone(),
                    expected: download.descriptor.digest.clone(),
                    found: format!("it has more than {size} bytes"),
                });
            }
            download.progress.add(piece.len() as u64);
            gathered += piece.len();
            batch.push(piece);
            if gathered >= PIECE_BYTES {
                if let Some(task) = writing.take() {
                    download.written(task).await?;
                }
                writing = Some(download.write(std::mem::take(&mut batch)));
                gathered = 0;
            }
        };
        if let Some(task) = writing {
            download.written(task).await?;
        }
        let last = download.write(batch);
        download.written(last).await?;
        if let Err(ClientError::Mismatch { .. }) = &ended {
            download.restart()?;
        }
        ended?;
        match received == size {
            true => Ok(()),
            false => Err(ClientError::Short {
                host: from.host.name.clone(),
                digest: download.descriptor.digest.clone(),
                received,
                expected: size,
            }),
        }
    }

    /// Fetches a blob into `to`, whose bytes are verified before this succeeds, and taken up where they stopped when
    /// the connection breaks.
    pub(crate) async fn stream_blob(
        &self,
        sources: &Sources,
        blob: &Descriptor,
        to: &mut dyn Write,
        progress: &Progress<'_>,
    ) -> Result<(), ClientError> {
        progress.expect(blob.size);
        let mut digester = blob.digest.algorithm().digester();
        let mut received = 0;
        self.ask_any(sources, async |from, retry| {
            let mut patience = Patience::new(retry);
            while received < blob.size {
                let before = received;
                let Err(error) = self.stream_on(from, blob, &mut received, &mut digester, to, progress).await else {
                    continue;
                };
                if received > before {
                    patience.progressed();
                }
                patience.wait(error).await?;
            }
            let found = digester.clone().finish();
            match found == blob.digest {
                true => Ok(()),
                // What was given away cannot be taken back, so another place is no help.
                false => Err(ClientError::Mismatch {
                    host: from.host.name.clone(),
                    expected: blob.digest.clone(),
                    found: format!("it is {found}"),
                }),
            }
        })
        .await
    }

    async fn stream_on(
        &self,
        from: &Repository,
        blob: &Descriptor,
        received: &mut u64,
        digester: &mut Digester,
        to: &mut dyn Write,
        progress: &Progress<'_>,
    ) -> Result<(), ClientError> {
        let mut pieces = self.pieces(from, blob, *received).await?;
        let mut skip = *received - pieces.start;
        while let Some(piece) = pieces.next().await? {
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let piece = &piece[skipped as usize..];
            if *received + piece.len() as u64 > blob.size {
                return Err(ClientError::Mismatch {
                    host: from.host.name.clone(),
                    expected: blob.digest.clone(),
                    found: format!("it has more than {} bytes", blob.size),
                });
            }
            to.write_all(piece).map_err(ClientError::Write)?;
            digester.update(piece);
            *received += piece.len() as u64;
            progress.add(piece.len() as u64);
        }
        match *received == blob.size {
            true => Ok(()),
            false => Err(ClientError::Short {
                host: from.host.name.clone(),
                digest: blob.digest.clone(),
                received: *received,
                expected: blob.size,
            }),
        }
    }

    /// Asks for bytes `start..end` of a blob. The answer is 206 for exactly these, 200 for all of them, or an error.
    pub(crate) async fn get_blob(
        &self,
        from: &Repository,
        blob: &Descriptor,
        start: u64,
        end: u64,
    ) -> Result<Sent, ClientError> {
        let path = blob_path(&from.name, &blob.digest);
        let scopes = [Scope::repository(&from.name, Actions::Pull)];
        let mut call = Call::new(Method::GET, &path, &scopes);
        let part = start > 0 || end < blob.size;
        if part {
            call = call.header(RANGE, format!("bytes={start}-{}", end - 1));
        }
        let sent = self.send(from, call).await?;
        if sent.status() == 206 {
            let range = sent.header(CONTENT_RANGE).and_then(|value| parse_content_range(&value));
            if !part || range.is_none_or(|r| r.range.start != start || r.range.end > end) {
                return Err(ClientError::Mismatch {
                    host: from.host.name.clone(),
                    expected: blob.digest.clone(),
                    found: "other bytes than asked for".into(),
                });
            }
        }
        Ok(sent)
    }

    /// Whether a repository holds a blob.
    pub(crate) async fn has_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        scopes: &[Scope],
    ) -> Result<bool, ClientError> {
        let path = blob_path(&repository.name, &blob.digest);
        let sent = self.send(repository, Call::new(Method::HEAD, &path, scopes)).await?;
        match sent.status() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.complain(repository, &Method::HEAD, sent).await),
        }
    }
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ClientError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ClientError::Task)
}
