//! Image and overrides in, running process out.
