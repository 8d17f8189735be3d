//! The OCI runtime: launch plans, namespaces, cgroups, seccomp.
