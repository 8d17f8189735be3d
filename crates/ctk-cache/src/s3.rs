//! A cache in a bucket: objects named by digest, and one small object for each name of a cache.

use std::time::Duration;

use ctk_oci::{Descriptor, Digest, Index, media_type};
use ctk_plan::Cancel;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};

use crate::limits::{MANIFEST_MAX_BYTES, PART_BYTES, PARTS_PARALLEL};
use crate::transfer::{Backend, Env, Source};
use crate::{CacheError, S3};

/// How often a waiting transfer looks whether the user has had enough.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// Failures are tried again so often, and for so long.
const RETRIES: usize = 4;
const RETRY_TIME: Duration = Duration::from_secs(60);

pub(crate) struct Bucket {
    spec: S3,
    place: String,
    objects: AmazonS3,
}

/// Gives `object_store` the client that all of ctk uses.
#[derive(Debug)]
struct Ours(reqwest::Client);

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Bucket {
    pub fn open(spec: &S3, env: &Env<'_>) -> Result<Bucket, CacheError> {
        let place = crate::Place::S3(Box::new(spec.clone())).name();
        let format = |reason: String| CacheError::Format { place: place.clone(), reason };
        let client = ctk_http::client(env.http).map_err(|error| format(error.to_string()))?;
        let given = |own: &Option<String>, names: &[&str]| {
            let found = || names.iter().find_map(|name| env.environment.get(*name).filter(|v| !v.is_empty()).cloned());
            own.clone().or_else(found)
        };
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&spec.bucket)
            .with_region(given(&spec.region, &["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or("us-east-1".into()))
            .with_virtual_hosted_style_request(!spec.use_path_style)
            .with_retry(retry)
            .with_http_connector(Ours(client));
        if let Some(endpoint) = given(&spec.endpoint_url, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]) {
            let endpoint = match (spec.use_path_style, endpoint.split_once("://")) {
                // The bucket is a part of the host's name then.
                (false, Some((scheme, host))) => format!("{scheme}://{}.{host}", spec.bucket),
                _ => endpoint,
            };
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        if let Some(id) = given(&spec.access_key_id, &["AWS_ACCESS_KEY_ID"]) {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = given(&spec.secret_access_key, &["AWS_SECRET_ACCESS_KEY"]) {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(token) = given(&spec.session_token, &["AWS_SESSION_TOKEN"]) {
            builder = builder.with_token(token);
        }
        let objects = builder.build().map_err(|error| format(error.to_string()))?;
        Ok(Bucket { spec: spec.clone(), place, objects })
    }

    fn blob(&self, digest: &Digest) -> Path {
        Path::from(format!("{}{}{digest}", self.spec.prefix, self.spec.blobs_prefix))
    }

    fn name(&self, name: &str) -> Path {
        Path::from(format!("{}{}{name}", self.spec.prefix, self.spec.manifests_prefix))
    }

    fn failed(&self, error: object_store::Error) -> CacheError {
        CacheError::Bucket { place: self.place.clone(), error: Box::new(error) }
    }

    fn block<T>(
        &self,
        cancel: &Cancel,
        work: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, CacheError> {
        ctk_http::runtime().block_on(async {
            let cancelled = async {
                while !cancel.is_cancelled() {
                    tokio::time::sleep(CANCEL_POLL).await;
                }
            };
            tokio::select! {
                biased;
                result = work => result.map_err(|error| self.failed(error)),
                () = cancelled => Err(CacheError::Cancelled),
            }
        })
    }

    /// Whether it is there whole, by its size.
    async fn is_there(&self, blob: &Descriptor) -> Result<bool, object_store::Error> {
        match self.objects.head(&self.blob(&blob.digest)).await {
            Ok(found) => Ok(found.size == blob.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Those of `all` that are not there.
    fn missing<'b>(
        &self,
        all: impl Iterator<Item = &'b Descriptor>,
        cancel: &Cancel,
    ) -> Result<Vec<&'b Descriptor>, CacheError> {
        self.block(cancel, async {
            let asked = all
                .map(|blob| async move { Ok::<_, object_store::Error>((!self.is_there(blob).await?).then_some(blob)) });
            let parallel = self.spec.upload_parallelism;
            let found: Vec<Option<&Descriptor>> = stream::iter(asked).buffered(parallel).try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    /// Sends a blob in parts, read and verified on the way; an object appears only when all of them came.
    async fn put(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), object_store::Error> {
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "content store",
            source,
        };
        let path = self.blob(&blob.digest);
        let (store, descriptor) = (env.store.clone(), blob.clone());
        let (sender, mut pieces) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(2);
        tokio::task::spawn_blocking(move || {
            let read = || -> std::io::Result<()> {
                let mut reader = store.open_blob(&descriptor).map_err(std::io::Error::other)?;
                loop {
                    let mut piece = Vec::with_capacity(PART_BYTES);
                    let mut part = std::io::Read::take(&mut reader, PART_BYTES as u64);
                    if std::io::Read::read_to_end(&mut part, &mut piece)? == 0 {
                        return Ok(());
                    }
                    if sender.blocking_send(Ok(piece.into())).is_err() {
                        return Ok(());
                    }
                }
            };
            if let Err(error) = read() {
                // The receiver may be gone; then nobody wants to know.
                let _ = sender.blocking_send(Err(error));
            }
        });
        if blob.size <= PART_BYTES as u64 {
            let mut whole = Vec::new();
            while let Some(piece) = pieces.recv().await {
                whole.push(piece.map_err(|error| generic(error.into()))?);
            }
            self.objects.put(&path, whole.into_iter().collect::<PutPayload>()).await?;
            return Ok(());
        }
        let upload = self.objects.put_multipart(&path).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(piece) => {
                    upload.wait_for_capacity(PARTS_PARALLEL).await?;
                    upload.put(piece);
                }
                Err(error) => {
                    upload.abort().await?;
                    return Err(generic(error.into()));
                }
            }
        }
        upload.finish().await?;
        Ok(())
    }
}

impl Backend for Bucket {
    fn root(&self, env: &Env<'_>) -> Result<Option<Descriptor>, CacheError> {
        for name in &self.spec.names {
            let found = self.block(env.cancel, async {
                match self.objects.get(&self.name(name)).await {
                    Ok(found) if found.meta.size <= MANIFEST_MAX_BYTES => found.bytes().await.map(Some),
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })?;
            let Some(bytes) = found else { continue };
            #[derive(serde::Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Typed {
                media_type: String,
            }
            let format = |reason: String| CacheError::Format { place: self.place.clone(), reason };
            let Typed { media_type: kind } = serde_json::from_slice(&bytes).map_err(|e| format(e.to_string()))?;
            let root = env.store.put(&kind, &bytes)?;
            if media_type::is_index(&kind) {
                for member in env.store.document::<Index>("index", &root)?.into_value().manifests {
                    if !env.store.contains(&member.digest)? {
                        self.fetch(&member, env)?;
                    }
                }
            }
            return Ok(Some(root));
        }
        Ok(None)
    }

    fn fetch(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError> {
        let path = self.blob(&blob.digest);
        let mut ingest = env.store.ingest(Some(blob))?;
        let mut failed = None;
        let found = self.block(env.cancel, async {
            let found = match self.objects.get(&path).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                found => found?,
            };
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                if let Err(error) = ingest.write_bytes(&piece) {
                    failed = Some(error);
                    break;
                }
            }
            Ok(true)
        })?;
        if !found {
            return Err(CacheError::Gone { place: self.place.clone(), digest: blob.digest.clone() });
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(ingest.commit().map(drop)?),
        }
    }

    fn is_whole(&self, manifests: &[Descriptor], blobs: &[Descriptor], env: &Env<'_>) -> Result<bool, CacheError> {
        Ok(self.missing(blobs.iter().chain(manifests), env.cancel)?.is_empty())
    }

    fn send(
        &self,
        manifests: &[Descriptor],
        blobs: &[Descriptor],
        source: &Source<'_>,
        env: &Env<'_>,
    ) -> Result<usize, CacheError> {
        let (damaged, others): (Vec<_>, Vec<_>) =
            blobs.iter().chain(manifests).partition(|blob| (source.damaged)(&blob.digest));
        let missing = [damaged, self.missing(others.into_iter(), env.cancel)?].concat();
        for blob in &missing {
            source.bring(blob, env)?;
        }
        let parallel = self.spec.upload_parallelism;
        self.block(env.cancel, async {
            let sent = missing.iter().map(|blob| self.put(blob, env));
            stream::iter(sent).buffer_unordered(parallel).try_collect::<Vec<()>>().await
        })?;
        let root = manifests.last().expect("an export has a manifest");
        let bytes = env.store.read(root, MANIFEST_MAX_BYTES)?;
        for name in &self.spec.names {
            let (path, payload) = (self.name(name), PutPayload::from(bytes.clone()));
            self.block(env.cancel, async { self.objects.put(&path, payload).await.map(drop) })?;
        }
        Ok(missing.len())
    }
}
