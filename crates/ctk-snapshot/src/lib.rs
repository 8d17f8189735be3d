//! Layers to mounts and back.
