//! The content store: blobs, refs, records, leases, collection.
