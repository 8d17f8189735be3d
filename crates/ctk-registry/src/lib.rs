//! The artifact registry server.
