//! What a caller decides about a session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ctk_client::ClientOptions;

/// How a session works. [`Options::from_environment`] gives the usual values; change the fields that should differ.
#[derive(Clone)]
pub struct Options {
    /// The store's folder.
    pub store: PathBuf,
    /// Where running containers are written down.
    pub state: PathBuf,
    /// Values of the project's variables, as `--var name=value` gives them.
    pub variables: BTreeMap<String, String>,
    /// The environment, for `var … env=` and for secrets.
    pub environment: BTreeMap<String, String>,
    /// Add nothing to the lock file; a missing entry is an error.
    pub locked: bool,
    /// Things done at once; at least 1.
    pub jobs: usize,
    /// How registries are spoken to.
    pub client: ClientOptions,
    /// Seconds since 1970, for validity checks of package repositories. No date in an image comes from it.
    pub now_seconds: i64,
    /// Where the host keeps its package sources, usually `/etc/apt`.
    pub etc_apt: PathBuf,
    /// Where the host keeps archive keys, usually `/usr/share/keyrings`.
    pub keyrings: PathBuf,
    /// Who makes the containers of services; without one, a project with services cannot be applied.
    pub services: Option<Arc<dyn ctk_service::Engine>>,
}

impl Options {
    /// Options after environment variables, as `std::env::vars()` gives them: `CTK_ROOT`, `XDG_DATA_HOME`, `HOME`,
    /// `DOCKER_CONFIG` and so on. `is_root` decides where the store is without `CTK_ROOT`.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>, is_root: bool) -> Options {
        let environment: BTreeMap<String, String> = variables.into_iter().collect();
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let store = store_folder(get("CTK_ROOT"), get("XDG_DATA_HOME"), get("HOME"), is_root);
        let client = ClientOptions::from_environment(get);
        let now_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64);
        Options {
            state: store.join("run"),
            store,
            variables: BTreeMap::new(),
            locked: false,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            client,
            now_seconds,
            etc_apt: "/etc/apt".into(),
            keyrings: "/usr/share/keyrings".into(),
            services: None,
            environment,
        }
    }
}

/// `/var/lib/ctk` for root, below the user's data folder for others.
fn store_folder(own: Option<String>, data: Option<String>, home: Option<String>, is_root: bool) -> PathBuf {
    match (own, data, home) {
        (Some(own), ..) => own.into(),
        _ if is_root => "/var/lib/ctk".into(),
        (_, Some(data), _) => Path::new(&data).join("ctk"),
        (_, _, Some(home)) => Path::new(&home).join(".local/share/ctk"),
        _ => "/var/tmp/ctk".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_where_its_user_may_write() {
        let some = |text: &str| Some(text.to_owned());
        let check = |own, data, home, root, expected: &str| {
            assert_eq!(store_folder(own, data, home, root), Path::new(expected));
        };
        check(some("/s"), some("/d"), some("/h"), true, "/s");
        check(None, some("/d"), some("/h"), true, "/var/lib/ctk");
        check(None, some("/d"), some("/h"), false, "/d/ctk");
        check(None, None, some("/h"), false, "/h/.local/share/ctk");
    }
}
