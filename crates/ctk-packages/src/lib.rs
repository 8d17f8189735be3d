//! OS package repositories: verify, resolve, download, unpack, configure.
