//! Everything the binary takes from its environment, read once.

use std::ffi::OsString;

/// The environment variables at start.
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads the process's own.
    pub fn read() -> Environment {
        Environment { variables: std::env::vars_os().collect() }
    }

    /// The value of `name`, if it is set, not empty, and UTF-8.
    pub fn get(&self, name: &str) -> Option<String> {
        let found = self.variables.iter().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.to_str()).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// The value of `name`, if it is set and UTF-8.
    pub fn raw(&self, name: &str) -> Option<String> {
        let found = self.variables.iter().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.to_str()).map(str::to_owned)
    }

    /// Variables that were not read from a process.
    #[cfg(test)]
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Environment {
        Environment { variables: pairs.map(|(name, value)| (name.into(), value.into())).into() }
    }

    /// Every pair that is UTF-8.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.variables.iter().filter_map(|(k, v)| Some((k.to_str()?.to_owned(), v.to_str()?.to_owned())))
    }
}
