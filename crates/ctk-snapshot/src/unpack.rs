//! Images onto disk: layers side by side; in each, threads that verify and decompress, one that hashes and reads
//! entries, and some that write files.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ctk_layer::{TarReader, decode_ahead};
use ctk_oci::{Algorithm, Descriptor, DiffId, Digester, Document, ImageConfig, Manifest};
use ctk_plan::{Cancel, ProgressUnit, Step};
use ctk_store::{Links, StoreError};

use crate::error::Context;
use crate::extract::{Extractor, Heard, Overrides, Style, open_directory};
use crate::limits::{UNPACK_PARALLEL, WRITERS_MAX};
use crate::pack::{Packed, RECORDS, cancelled, packed_record};
use crate::snapshots::{Info, RootAttributes};
use crate::writers::Writers;
use crate::{LayerKey, Made, SnapshotError, Snapshots};

impl Snapshots {
    /// Unpacks the layers of `manifest` that are not here yet and gives all their keys, base first. Blobs of layers
    /// that are unpacked already need not be in the store. `step` hears the bytes written.
    pub fn unpack_image(
        &self,
        manifest: &Manifest,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Vec<LayerKey>, SnapshotError> {
        let config: Document<ImageConfig> = self.store().document("image config", &manifest.config)?;
        let diff_ids = &config.value().rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), diff_ids.len());
            return Err(SnapshotError::LayerCount { layers, diff_ids });
        }
        let keys: Vec<LayerKey> = diff_ids.iter().map(LayerKey::diff).collect();
        let mut missing: HashMap<&DiffId, &Descriptor> = HashMap::new();
        for (diff_id, layer) in diff_ids.iter().zip(&manifest.layers) {
            if !self.has(&LayerKey::diff(diff_id))? {
                missing.insert(diff_id, layer);
            }
        }
        // The largest first: it decides when everything is done.
        let mut missing: Vec<(&DiffId, &Descriptor)> = missing.into_iter().collect();
        missing.sort_by(|a, b| b.1.size.cmp(&a.1.size).then_with(|| a.0.cmp(b.0)));
        let (next, written) = (AtomicUsize::new(0), AtomicU64::new(0));
        let failure: Mutex<Option<SnapshotError>> = Mutex::new(None);
        // Stops the other layers when one fails; the caller's own word is asked as well.
        let stop = Cancel::new();
        std::thread::scope(|scope| {
            for _ in 0..missing.len().min(UNPACK_PARALLEL) {
                scope.spawn(|| {
                    while let Some((diff_id, layer)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut last = 0;
                        let mut progress = |bytes: u64| {
                            let total = written.fetch_add(bytes - last, Ordering::Relaxed) + bytes - last;
                            // A report a mebibyte is as much as anybody reads.
                            if let Some(step) = step
                                && bytes >> 20 != last >> 20
                            {
                                step.progress(total, None, ProgressUnit::Bytes);
                            }
                            last = bytes;
                        };
                        let stopped = || cancel.is_cancelled() || stop.is_cancelled();
                        if let Err(error) = self.unpack_layer(layer, diff_id, &mut progress, &stopped, cancel) {
                            let mut failure = failure.lock().expect("no panic while locked");
                            if failure.is_none() {
                                *failure = Some(error);
                            }
                            stop.cancel();
                        }
                    }
                });
            }
        });
        match failure.into_inner().expect("no panic while locked") {
            Some(_) if cancel.is_cancelled() => Err(SnapshotError::Cancelled),
            Some(error) => Err(error),
            None => Ok(keys),
        }
    }

    /// Unpacks one layer whose blob is in the store, if it is not here yet: as soon as it arrived, while others are still
    /// on their way.
    pub fn unpack_arrived(&self, layer: &Descriptor, diff_id: &DiffId, cancel: &Cancel) -> Result<(), SnapshotError> {
        if self.has(&LayerKey::diff(diff_id))? {
            return Ok(());
        }
        self.unpack_layer(layer, diff_id, &mut |_| {}, &|| cancel.is_cancelled(), cancel)
    }

    fn unpack_layer(
        &self,
        layer: &Descriptor,
        diff_id: &DiffId,
        progress: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
        cancel: &Cancel,
    ) -> Result<(), SnapshotError> {
        let key = LayerKey::diff(diff_id);
        let how = (Overrides::default(), Made::default(), None);
        self.unpack_as(&key, layer, diff_id, how, progress, stopped, cancel).map_err(|error| {
            // Bytes that make no sense may be the disk's fault: a damaged blob goes, and is named.
            let damaged = (!stopped()).then(|| self.store().examine(&layer.digest));
            damaged.and_then(Result::err).map_or(error, SnapshotError::Store)
        })
    }

    /// Unpacks the built layer `key` from what [`Snapshots::pack`] with the date `epoch` made of it elsewhere. Times
    /// that are `epoch` were cut there: they become the [stamp](Made::stamp) of `now` (both in seconds since 1970), as if it had been built just
    /// now, so that it gives the same tar again for this date and the right one for any other; with `cut` ([`Packed::cut`])
    /// for no later one.
    pub fn unpack_built(
        &self,
        key: &LayerKey,
        layer: &Descriptor,
        diff_id: &DiffId,
        (epoch, now, cut): (i64, i64, bool),
        cancel: &Cancel,
    ) -> Result<(), SnapshotError> {
        let renewed = Some((ctk_layer::Time::seconds(epoch), Made::stamp(now)));
        let overrides = Overrides { renewed, ..Overrides::default() };
        let mut made = Made::default();
        made.add_stamp(now);
        let cut = cut.then_some(epoch);
        self.unpack_as(key, layer, diff_id, (overrides, made, cut), &mut |_| {}, &|| cancel.is_cancelled(), cancel)
    }

    /// Remembers a packed form of the built layer `key` that came from elsewhere, as if it had been packed here. Its
    /// blob must be in the store.
    pub fn remember_packed(
        &self,
        key: &LayerKey,
        compression: ctk_layer::Compression,
        epoch: i64,
        packed: &Packed,
    ) -> Result<(), SnapshotError> {
        let record = packed_record(key, compression, Some(epoch));
        let links = Links { blobs: vec![packed.descriptor.digest.clone()], layers: Vec::new(), root: false };
        Ok(self.store().put_record(RECORDS, &record, packed, &links)?)
    }

    #[expect(clippy::too_many_arguments, reason = "one layer in all its parts, called twice")]
    fn unpack_as(
        &self,
        key: &LayerKey,
        layer: &Descriptor,
        diff_id: &DiffId,
        (overrides, made, cut): (Overrides, Made, Option<i64>),
        progress: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
        cancel: &Cancel,
    ) -> Result<(), SnapshotError> {
        if stopped() {
            return Err(SnapshotError::Cancelled);
        }
        let _lock = self.store().lock(&format!("unpack {key}"), cancel).map_err(cancelled)?;
        if self.has(key)? {
            return Ok(());
        }
        let scratch = self.store().scratch()?;
        let tree = scratch.path().join("fs");
        std::fs::create_dir(&tree).map_err(|source| StoreError::Io {
            action: "create directory",
            path: tree.clone(),
            source,
        })?;
        let info = self.extract(layer, diff_id, &open_directory(&tree)?, overrides, progress, stopped)?;
        self.adopt(&scratch, key, &Info { made, cut, ..info })
    }

    /// Fills the empty `directory` with what [`Snapshots::pack_directory`] made elsewhere.
    pub fn unpack_directory(
        &self,
        packed: &Descriptor,
        diff_id: &DiffId,
        directory: &std::path::Path,
        cancel: &Cancel,
    ) -> Result<(), SnapshotError> {
        let root = open_directory(directory)?;
        let stopped = || cancel.is_cancelled();
        let info = self.extract(packed, diff_id, &root, Overrides::default(), &mut |_| {}, &stopped)?;
        let attributes = info.root.unwrap_or_default();
        attributes.apply(&root).context("set owner, mode and time of", directory.as_os_str().as_encoded_bytes())
    }

    /// Writes the files of a layer below `root`, verified to its end.
    fn extract(
        &self,
        layer: &Descriptor,
        diff_id: &DiffId,
        root: &OwnedFd,
        overrides: Overrides,
        progress: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
    ) -> Result<Info, SnapshotError> {
        let name = layer.digest.to_string();
        let unpack = |error: io::Error| {
            let source = ctk_layer::LayerError::Read(error);
            SnapshotError::Unpack { layer: name.clone(), source }
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (_, stream) = decode_ahead(self.store().open_blob(layer)?, cores).map_err(unpack)?;
        let hashed = Hashed { inner: stream, digester: Some(diff_id.0.algorithm().digester()) };
        let mut tar = TarReader::new(Heard { stream: hashed, stopped });
        let writers = Writers::new(cores.min(WRITERS_MAX)).context("start a thread for", b"/")?;
        let mut extractor = Extractor::new(root.as_fd(), b"", Style::Layer, overrides).with_writers(writers);
        let run = extractor.run(&name, &mut tar, progress, stopped);
        let rest =
            run.and_then(|()| tar.finish().map_err(|source| SnapshotError::Unpack { layer: name.clone(), source }));
        let mut heard = rest.map_err(|error| if stopped() { SnapshotError::Cancelled } else { error })?;
        let digester = heard.stream.digester.take().unwrap_or_else(|| Algorithm::Sha256.digester());
        let found = DiffId(digester.finish());
        if found != *diff_id {
            return Err(SnapshotError::DiffId { layer: name, expected: diff_id.clone(), found });
        }
        let attributes = extractor.root_entry.map(|entry| RootAttributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: (entry.mtime.seconds, entry.mtime.nanos),
            xattrs: entry.xattrs.into_iter().collect(),
        });
        Ok(Info { bytes: extractor.bytes, empty: extractor.entries == 0, root: attributes, ..Info::default() })
    }
}

/// Hashes what passes through.
struct Hashed<R> {
    inner: R,
    digester: Option<Digester>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(digester) = &mut self.digester {
            digester.update(&buffer[..n]);
        }
        Ok(n)
    }
}
