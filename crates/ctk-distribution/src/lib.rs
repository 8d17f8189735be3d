//! The registry protocol without sockets.
