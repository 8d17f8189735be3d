//! Copies images to where they go.
