//! Blobs in a bucket: `<prefix>/<2 digits>/<32 digits>/data`, written by multipart uploads as the bytes arrive.
//!
//! Parts have one size, which the protocol asks of all but the last. What does not fill a part yet is kept in memory
//! and, when an upload is saved, in an object beside it, `t<number of parts before it>`: one that is written anew for
//! the same number only grows, so what was saved earlier can always be gone on with.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use ctk_distribution::ByteRange;
use ctk_oci::Descriptor;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::multipart::{MultipartStore, PartId};
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use serde::{Deserialize, Serialize};

use super::{Blobs, Reading, Writing};
use crate::meta::Place;
use crate::{OBJECT_PART_BYTES, OBJECT_RETRIES, OBJECT_RETRY_TIME, PIECE_BYTES, RegistryError};

/// A bucket of an S3-compatible store.
#[derive(Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Before the names of its objects, without a slash at the end; may be empty.
    pub prefix: String,
    /// Its region.
    pub region: String,
    /// The store's address, e.g. `https://minio.example:9000`; `None` for Amazon's. The bucket is part of the path.
    pub endpoint: Option<String>,
    /// Access key and its secret.
    pub key: Option<(String, String)>,
    /// Token of a session.
    pub token: Option<String>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.name, self.prefix)
    }
}

/// What a bucket has to do.
pub trait Store: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Store for T {}

/// Blobs in an object store.
#[derive(Debug)]
pub struct Objects {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Box<dyn Store>,
    prefix: String,
    /// Places that are written to by this process. Another one that writes to the same upload spoils it, which its
    /// digest tells.
    busy: Mutex<HashSet<Place>>,
}

/// Gives `object_store` the client that all of ctk uses.
#[derive(Debug)]
struct Ours(reqwest::Client);

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Objects {
    /// Blobs in a bucket, which must exist. Nothing is asked of it yet.
    pub fn open(bucket: &Bucket) -> Result<Objects, RegistryError> {
        let unusable = |reason: String| RegistryError::Bucket { bucket: bucket.name.clone(), reason };
        let client = ctk_http::client(&ctk_http::Options::default()).map_err(|error| unusable(error.to_string()))?;
        let retry =
            RetryConfig { max_retries: OBJECT_RETRIES, retry_timeout: OBJECT_RETRY_TIME, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&bucket.name)
            .with_region(&bucket.region)
            .with_virtual_hosted_style_request(false)
            .with_retry(retry)
            .with_http_connector(Ours(client));
        if let Some(endpoint) = &bucket.endpoint {
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        if let Some((id, secret)) = &bucket.key {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = &bucket.token {
            builder = builder.with_token(token);
        }
        let store = builder.build().map_err(|error| unusable(error.to_string()))?;
        Ok(Objects::new(Box::new(store), &bucket.prefix))
    }

    /// Blobs in any store, below `prefix`.
    pub fn new(store: Box<dyn Store>, prefix: &str) -> Objects {
        let prefix = prefix.trim_matches('/').to_owned();
        Objects { shared: Arc::new(Shared { store, prefix, busy: Mutex::default() }) }
    }
}

impl Shared {
    fn folder(&self, place: &Place) -> object_store::path::Path {
        let fan = place.0.get(..2).unwrap_or("xx");
        object_store::path::Path::from(format!("{}/{fan}/{place}", self.prefix))
    }

    fn object(&self, place: &Place, name: &str) -> object_store::path::Path {
        self.folder(place).join(name)
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    ctk_http::runtime().handle().block_on(work)
}

fn failed(action: &'static str, place: &Place) -> impl FnOnce(object_store::Error) -> RegistryError {
    let place = place.clone();
    move |cause| RegistryError::Object { action, place: place.0, cause: Box::new(cause) }
}

/// An object that is not there is no error.
fn optional<T>(found: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What [`Writing::save`] gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Saved {
    upload: Option<String>,
    parts: Vec<String>,
    /// Bytes in `t<parts>`.
    tail: usize,
}

impl Saved {
    fn parse(text: &str) -> Result<Saved, RegistryError> {
        if text.is_empty() {
            return Ok(Saved::default());
        }
        serde_json::from_str(text).map_err(|_| RegistryError::MetadataDamaged { what: "parts", text: text.into() })
    }
}

impl Blobs for Objects {
    fn append(&self, place: &Place, parts: &str) -> Result<Box<dyn Writing>, RegistryError> {
        if !self.shared.busy.lock().expect("no holder panics").insert(place.clone()) {
            return Err(RegistryError::UploadBusy);
        }
        let free = Free { shared: self.shared.clone(), place: place.clone() };
        let saved = Saved::parse(parts)?;
        let mut tail = BytesMut::new();
        if saved.tail > 0 {
            let object = self.shared.object(place, &format!("t{}", saved.parts.len()));
            let range = 0..saved.tail as u64;
            tail.extend_from_slice(&wait(self.shared.store.get_range(&object, range)).map_err(failed("read", place))?);
        }
        Ok(Box::new(Growing { free, saved, tail }))
    }

    fn read(&self, place: &Place, range: ByteRange) -> Result<Option<Reading>, RegistryError> {
        let object = self.shared.object(place, "data");
        if range.start >= range.end {
            // An empty range is none in this protocol.
            return Ok(self.size(place)?.map(|_| stream::empty().boxed()));
        }
        let options = object_store::GetOptions { range: Some((range.start..range.end).into()), ..Default::default() };
        let found = optional(wait(self.shared.store.get_opts(&object, options))).map_err(failed("read", place))?;
        Ok(found.map(|found| found.into_stream().map_err(std::io::Error::other).boxed()))
    }

    fn size(&self, place: &Place) -> Result<Option<u64>, RegistryError> {
        let found = optional(wait(self.shared.store.head(&self.shared.object(place, "data"))));
        Ok(found.map_err(failed("look at", place))?.map(|found| found.size))
    }

    fn remove(&self, place: &Place, parts: &str) -> Result<(), RegistryError> {
        let store = &self.shared.store;
        wait(async {
            if let Some(upload) = Saved::parse(parts).unwrap_or_default().upload {
                let data = self.shared.object(place, "data");
                // One that was finished or given up already is fine.
                let _ = store.abort_multipart(&data, &upload).await;
            }
            let folder = self.shared.folder(place);
            let objects: Vec<_> = store.list(Some(&folder)).map_ok(|found| found.location).try_collect().await?;
            for object in objects {
                optional(store.delete(&object).await)?;
            }
            Ok(())
        })
        .map_err(failed("remove", place))
    }

    fn adopt(&self, place: &Place, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError> {
        use std::io::Read;
        let mut file = std::fs::File::open(path).map_err(RegistryError::storage("open", path))?;
        let mut writing = self.append(place, "")?;
        let mut digester = descriptor.digest.algorithm().digester();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let length = file.read(&mut piece).map_err(RegistryError::storage("read", path))?;
            if length == 0 {
                break;
            }
            piece.truncate(length);
            digester.update(&piece);
            writing.write(&[Bytes::from(piece)])?;
        }
        let (found, found_size) = (digester.finish(), writing.held());
        if found != descriptor.digest || found_size != descriptor.size {
            let (expected, expected_size) = (descriptor.digest.clone(), descriptor.size);
            return Err(RegistryError::Mismatch { expected, expected_size, found, found_size });
        }
        writing.finish()
    }

    fn places(&self, visit: &mut dyn FnMut(Place) -> Result<(), RegistryError>) -> Result<(), RegistryError> {
        let prefix = object_store::path::Path::from(self.shared.prefix.as_str());
        let mut objects = self.shared.store.list(Some(&prefix));
        while let Some(object) = wait(objects.next()) {
            let object = object.map_err(failed("list", &Place(self.shared.prefix.clone())))?;
            // `…/<place>/<object>`
            let mut parts = object.location.parts().rev();
            if let (Some(_), Some(place)) = (parts.next(), parts.next()) {
                visit(Place(place.as_ref().to_owned()))?;
            }
        }
        Ok(())
    }
}

/// Frees a place when its writer goes.
struct Free {
    shared: Arc<Shared>,
    place: Place,
}

impl Drop for Free {
    fn drop(&mut self) {
        self.shared.busy.lock().expect("no holder panics").remove(&self.place);
    }
}

/// An object that grows: whole parts in the store, the rest here.
struct Growing {
    free: Free,
    saved: Saved,
    tail: BytesMut,
}

impl Growing {
    /// Sends the first `length` bytes of the rest as the next part.
    fn send(&mut self, length: usize) -> Result<(), RegistryError> {
        let Free { shared, place } = &self.free;
        let object = shared.object(place, "data");
        let bytes: Bytes = self.tail[..length].to_vec().into();
        let (number, known) = (self.saved.parts.len(), self.saved.upload.clone());
        let sent = wait(async {
            let upload = match known {
                Some(upload) => upload,
                None => shared.store.create_multipart(&object).await?,
            };
            let part = shared.store.put_part(&object, &upload, number, PutPayload::from_bytes(bytes)).await?;
            Ok((upload, part))
        });
        let (upload, part) = sent.map_err(failed("write", place))?;
        self.saved.upload = Some(upload);
        self.saved.parts.push(part.content_id);
        let _ = self.tail.split_to(length);
        Ok(())
    }
}

impl Writing for Growing {
    fn held(&self) -> u64 {
        (self.saved.parts.len() * OBJECT_PART_BYTES + self.tail.len()) as u64
    }

    fn unsaved(&mut self, from: u64, _each: &mut dyn FnMut(&[u8])) -> Result<(), RegistryError> {
        match from == self.held() {
            true => Ok(()),
            false => Err(RegistryError::MetadataDamaged { what: "the size of an upload", text: from.to_string() }),
        }
    }

    fn write(&mut self, pieces: &[Bytes]) -> Result<(), RegistryError> {
        for piece in pieces {
            let before = self.tail.len();
            self.tail.extend_from_slice(piece);
            while self.tail.len() >= OBJECT_PART_BYTES {
                if let Err(error) = self.send(OBJECT_PART_BYTES) {
                    // The piece is smaller than a part: none of it was sent.
                    self.tail.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<String, RegistryError> {
        self.saved.tail = self.tail.len();
        if !self.tail.is_empty() {
            let Free { shared, place } = &self.free;
            let object = shared.object(place, &format!("t{}", self.saved.parts.len()));
            let bytes = PutPayload::from_bytes(self.tail.to_vec().into());
            wait(shared.store.put(&object, bytes)).map_err(failed("write", place))?;
        }
        Ok(serde_json::to_string(&self.saved).expect("plain data serialises"))
    }

    fn finish(&mut self) -> Result<(), RegistryError> {
        if self.saved.upload.is_some() && !self.tail.is_empty() {
            self.send(self.tail.len())?;
        }
        let Free { shared, place } = &self.free;
        let object = shared.object(place, "data");
        let parts = self.saved.parts.iter().map(|id| PartId { content_id: id.clone() }).collect();
        let tail = self.tail.split().freeze();
        let folder = shared.folder(place);
        wait(async {
            match &self.saved.upload {
                Some(upload) => shared.store.complete_multipart(&object, upload, parts).await?,
                None => shared.store.put(&object, PutPayload::from_bytes(tail)).await?,
            };
            let others =
                shared.store.list(Some(&folder)).map_ok(|found| found.location).try_collect::<Vec<_>>().await?;
            for other in others.iter().filter(|other| **other != object) {
                optional(shared.store.delete(other).await)?;
            }
            Ok(())
        })
        .map_err(failed("finish", place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_exam_in_memory() {
        super::super::conformance::run(&Objects::new(Box::new(object_store::memory::InMemory::new()), "some/prefix"));
    }

    #[test]
    fn passes_the_exam_in_a_bucket() {
        let Some(server) = super::super::testing::Bucketeer::start() else { return };
        let bucket = Bucket {
            name: "blobs".into(),
            prefix: "registry".into(),
            region: "us-east-1".into(),
            endpoint: Some(format!("http://{}", server.address)),
            key: Some(("id".into(), "secret".into())),
            token: None,
        };
        super::super::conformance::run(&Objects::open(&bucket).unwrap());
    }
}
