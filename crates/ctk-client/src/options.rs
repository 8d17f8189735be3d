//! What the caller decides.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Credentials, PARALLEL_BLOBS, Warnings};

/// How a [`Client`](crate::Client) finds its way. All paths may be absent on disk.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Files in the format of containers-registries.conf(5): mirrors, insecure hosts, other locations, short names. The
    /// longest prefix of all counts, of equal ones that of the first file. A directory stands for its `*.conf` files.
    pub registries: Vec<PathBuf>,
    /// Directories of containerd's `<host>/hosts.toml`, for registries that the files above say nothing about.
    pub hosts: Vec<PathBuf>,
    /// Directories in the layout of containers-certs.d(5): `<host:port>/*.crt`, `*.cert` with `*.key`.
    pub certificates: Vec<PathBuf>,
    /// Credential files as `docker login` and `podman login` write them; the first that knows a host wins. `login`
    /// writes to the first one.
    pub auth_files: Vec<PathBuf>,
    /// Directories to look for `docker-credential-*` in.
    pub helper_path: Vec<PathBuf>,
    /// Credentials by host, before those of files and helpers.
    pub credentials: BTreeMap<String, Credentials>,
    /// Hosts (`host` or `host:port`) whose certificates are not checked and that may be spoken to without TLS.
    pub insecure: Vec<String>,
    /// Blobs on their way at once.
    pub parallel: usize,
    /// How failures that may pass are tried again.
    pub retry: Retry,
    /// Proxy and authorities for every host.
    pub http: ctk_http::Options,
    /// Where warnings of registries are gathered.
    pub warnings: Warnings,
}

/// When a request that failed is sent again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Tries in all; progress (bytes received or sent) starts the count anew.
    pub attempts: u32,
    /// Wait before the second try; doubles with each. A registry's `Retry-After` goes before.
    pub first_delay: Duration,
    /// Longest wait that doubling leads to.
    pub longest_delay: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        let (first_delay, longest_delay) = (Duration::from_millis(250), Duration::from_secs(15));
        Retry { attempts: 6, first_delay, longest_delay }
    }
}

impl Default for ClientOptions {
    /// No files, no credentials: loopback hosts and public registries work.
    fn default() -> ClientOptions {
        ClientOptions {
            registries: Vec::new(),
            hosts: Vec::new(),
            certificates: Vec::new(),
            auth_files: Vec::new(),
            helper_path: Vec::new(),
            credentials: BTreeMap::new(),
            insecure: Vec::new(),
            parallel: PARALLEL_BLOBS,
            retry: Retry::default(),
            http: ctk_http::Options::default(),
            warnings: Warnings::default(),
        }
    }
}

impl ClientOptions {
    /// The places where docker and podman keep things, and ctk's own, as the environment says; `variable` looks one
    /// up. `REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, `CONTAINERS_REGISTRIES_CONF`, `XDG_CONFIG_HOME`,
    /// `XDG_RUNTIME_DIR`, `HOME` and `PATH` are read.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> ClientOptions {
        let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let docker = path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let mut options = ClientOptions::default();

        options.registries.extend(config.as_ref().map(|c| c.join("ctk/registries.conf")));
        options.registries.push("/etc/ctk/registries.conf".into());
        match path("CONTAINERS_REGISTRIES_CONF") {
            Some(file) => options.registries.push(file),
            None => {
                let own = config.as_ref().map(|c| c.join("containers"));
                // Drop-ins go before the file; the user's file stands in the place of the system's.
                options.registries.extend(own.as_ref().map(|own| own.join("registries.conf.d")));
                options.registries.push("/etc/containers/registries.conf.d".into());
                let file = own.map(|own| own.join("registries.conf")).filter(|file| file.exists());
                options.registries.push(file.unwrap_or_else(|| "/etc/containers/registries.conf".into()));
            }
        }
        options.hosts.extend(config.as_ref().map(|c| c.join("containerd/certs.d")));
        options.hosts.push("/etc/containerd/certs.d".into());
        options.certificates.extend(config.as_ref().map(|c| c.join("containers/certs.d")));
        options.certificates.extend(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]);

        let runtime = path("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json"));
        let own = config.map(|c| c.join("containers/auth.json"));
        let docker = docker.map(|d| d.join("config.json"));
        // `login` writes to the first: the file that outlives a reboot, unless the user named one.
        options.auth_files.extend([path("REGISTRY_AUTH_FILE"), docker, runtime, own].into_iter().flatten());
        if let Some(path) = variable("PATH") {
            options.helper_path = std::env::split_paths(&path).collect();
        }
        options
    }
}
