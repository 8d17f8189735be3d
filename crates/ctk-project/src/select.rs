//! What the command line means: `--target`.

use ctk_plan::Address;
use ctk_syntax::{matches_glob, nearest};

use crate::model::Project;

/// A word on the command line that selects nothing, or not one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing has this name.
    #[error("`{pattern}` names nothing of this project{}", .near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The word.
        pattern: String,
        /// Something near it.
        near: Option<String>,
    },
    /// Several have this name.
    #[error("`{pattern}` may be {}", .candidates.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(" or "))]
    Ambiguous {
        /// The word.
        pattern: String,
        /// What it may be.
        candidates: Vec<Address>,
    },
}

impl Project {
    /// The resources that words of a command line name, each once, in the project's order: a group, an address, a
    /// pattern of addresses (`push:*`), or a name that only one resource has. What they need is not added: see
    /// [`Project::dag`].
    pub fn select<S: AsRef<str>>(&self, words: &[S]) -> Result<Vec<Address>, SelectError> {
        let mut chosen: Vec<&Address> = Vec::new();
        for word in words {
            let word = word.as_ref();
            if let Some(group) = self.groups.get(word) {
                chosen.extend(group);
                continue;
            }
            let all = || self.resources.iter().map(|r| &r.address);
            let exact: Vec<&Address> = all().filter(|a| a.to_string() == word).collect();
            let glob = word.replace('[', "[[]");
            let found: Vec<&Address> = match (exact.is_empty(), word.contains(['*', '?'])) {
                (false, _) => exact,
                (true, true) => all().filter(|a| matches_glob(&glob, &a.to_string())).collect(),
                (true, false) => {
                    let named: Vec<&Address> = all().filter(|a| a.name == word).collect();
                    if named.len() > 1 {
                        let candidates = named.into_iter().cloned().collect();
                        return Err(SelectError::Ambiguous { pattern: word.to_string(), candidates });
                    }
                    named
                }
            };
            if found.is_empty() {
                let names: Vec<String> =
                    all().flat_map(|a| [a.to_string(), a.name.clone()]).chain(self.groups.keys().cloned()).collect();
                let near = nearest(word, names.iter().map(String::as_str)).map(String::from);
                return Err(SelectError::Unknown { pattern: word.to_string(), near });
            }
            chosen.extend(found);
        }
        Ok(self.resources.iter().map(|r| &r.address).filter(|a| chosen.contains(a)).cloned().collect())
    }
}
