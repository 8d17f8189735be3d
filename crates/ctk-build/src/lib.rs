//! Solves the build graph.
