//! Layers as tar changesets: entries, whiteouts, deterministic tar, compression.
