//! Scopes: what a token allows, `repository:name:pull,push` (distribution `docs/spec/auth/scope.md`).

use std::fmt;
use std::str::FromStr;

use crate::{SCOPE_ACTIONS_LIMIT, SCOPES_LIMIT, SCOPES_LIMIT_BYTES};

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

/// Why the scopes of a token request are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Too long, or too many.
    #[error("a token request has at most {SCOPES_LIMIT} scopes of {SCOPES_LIMIT_BYTES} bytes together")]
    Limit,
    /// Not of the shape `TYPE:NAME:ACTION,ACTION`.
    #[error("`{0}` is no scope; expected TYPE:NAME:ACTION, e.g. `repository:team/app:pull,push`")]
    Malformed(String),
}

impl Scope {
    /// The scopes of a token request: the values of its `scope` parameters, each a list with spaces between. Every
    /// character is one of the printable ASCII ones, so that a scope can stand in a header and in a log.
    pub fn parse_list<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<Scope>, ScopeError> {
        let (mut scopes, mut bytes) = (Vec::new(), 0);
        for value in values {
            bytes += value.len();
            if bytes > SCOPES_LIMIT_BYTES {
                return Err(ScopeError::Limit);
            }
            for text in value.split(' ').filter(|text| !text.is_empty()) {
                if scopes.len() == SCOPES_LIMIT {
                    return Err(ScopeError::Limit);
                }
                let malformed = || ScopeError::Malformed(text.escape_default().take(80).collect());
                let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
                let few = text.matches(',').count() < SCOPE_ACTIONS_LIMIT;
                let scope = text.parse::<Scope>().ok().filter(|_| printable && few);
                scopes.push(scope.ok_or_else(malformed)?);
            }
        }
        Ok(scopes)
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
    fn lists_of_scopes_have_limits() {
        let parse = |text: &str| Scope::parse_list([text]);
        let two = Scope::parse_list(["repository:a:pull  repository:b:pull", ""]).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(parse("").unwrap(), []);
        for wrong in ["repository", "repository:a", ":a:pull", "repository::pull", "repository:a\"b:pull", "r:\u{e9}:x"]
        {
            assert!(matches!(parse(wrong), Err(ScopeError::Malformed(_))), "{wrong}");
        }
        assert!(matches!(parse(&format!("repository:a:{}", "x,".repeat(99))), Err(ScopeError::Malformed(_))));
        assert_eq!(parse(&"repository:a:pull ".repeat(65)), Err(ScopeError::Limit));
        assert_eq!(parse(&format!("repository:{}:pull", "a".repeat(20_000))), Err(ScopeError::Limit));
    }

    #[test]
    fn push_covers_pull() {
        let (pull, push) = (Scope::repository("a", Actions::Pull), Scope::repository("a", Actions::Push));
        assert!(push.covers(&pull) && !pull.covers(&push));
        assert!(!push.covers(&Scope::repository("b", Actions::Pull)));
    }
}
