//! Scopes: what a token allows, `repository:name:pull,push` (distribution `docs/spec/auth/scope.md`).

use std::fmt;
use std::str::FromStr;

/// Actions on one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// `repository` or `registry`.
    pub kind: String,
    /// The repository, or `catalog`. May hold one `:`.
    pub name: String,
    /// Sorted, without repetition.
    pub actions: Vec<String>,
}

/// What an operation needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Actions {
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// Read and delete.
    Delete,
}

impl Scope {
    /// A scope on a repository.
    pub fn repository(name: &str, actions: Actions) -> Scope {
        let actions: &[&str] = match actions {
            Actions::Pull => &["pull"],
            Actions::Push => &["pull", "push"],
            Actions::Delete => &["delete", "pull"],
        };
        let actions = actions.iter().map(|a| (*a).to_owned()).collect();
        Scope { kind: "repository".into(), name: name.into(), actions }
    }

    /// Whether everything that `other` allows is allowed by this one.
    pub fn covers(&self, other: &Scope) -> bool {
        self.kind == other.kind
            && self.name == other.name
            && other.actions.iter().all(|a| self.actions.contains(a) || self.actions.iter().any(|own| own == "*"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Scope, ()> {
        let (kind, rest) = text.split_once(':').ok_or(())?;
        let (name, actions) = rest.rsplit_once(':').ok_or(())?;
        if kind.is_empty() || name.is_empty() {
            return Err(());
        }
        let mut actions: Vec<String> = actions.split(',').filter(|a| !a.is_empty()).map(Into::into).collect();
        actions.sort();
        actions.dedup();
        Ok(Scope { kind: kind.into(), name: name.into(), actions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_round_trip() {
        for text in ["repository:a/b:pull,push", "registry:catalog:*", "repository:host:5000/a:pull"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        assert_eq!("repository:a:push,pull,push".parse::<Scope>().unwrap(), Scope::repository("a", Actions::Push));
        assert!("repository".parse::<Scope>().is_err());
    }

    #[test]
    fn push_covers_pull() {
        let (pull, push) = (Scope::repository("a", Actions::Pull), Scope::repository("a", Actions::Push));
        assert!(push.covers(&pull) && !pull.covers(&push));
        assert!(!push.covers(&Scope::repository("b", Actions::Pull)));
    }
}
