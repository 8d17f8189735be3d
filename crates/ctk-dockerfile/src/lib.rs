//! Dockerfile in, build graph out.
