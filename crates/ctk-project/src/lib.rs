//! containers.kdl: text in, resources out.
