//! Comparisons with the peers of the package archive.
