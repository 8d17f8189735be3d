//! Who may do what. Every request passes [`Door::identify`], which says who asks, and then one [`Gate`], which says
//! whether they may: deny by default, also for routes that nobody thought of. What the gate allows a tag to become is
//! asked again inside the transaction that writes it, when it is known whether the tag is new.

mod passwords;
mod rights;

use std::fmt;
use std::path::PathBuf;

use ctk_distribution::{Code, Route};
use http::Method;

use crate::RegistryError;
use passwords::Passwords;
pub use passwords::add_password;
pub use rights::{Grant, Rights, Role, Who};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, `None` for anonymous.
    pub name: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("anonymous"))
    }
}

/// What somebody wants to do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read blobs, manifests, tags, referrers; see the repository in the catalogue; mount from it.
    Pull,
    /// Add blobs, manifests and new tags.
    Push,
    /// Let a tag that exists name something else.
    Overwrite,
    /// Remove blobs, manifests, tags.
    Delete,
}

impl Action {
    /// Each of them.
    pub const ALL: [Action; 4] = [Action::Pull, Action::Push, Action::Overwrite, Action::Delete];

    /// A word for logs and messages.
    pub fn word(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Overwrite => "overwrite",
            Action::Delete => "delete",
        }
    }
}

/// Decides. It must be quick: it is asked for every request, and for every entry of a catalogue.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Whether `who` may do this.
    fn allows(&self, who: &Identity, action: Action, repository: &str) -> bool;
}

/// What a request needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To say who one is, where anybody has to.
    Identity,
    /// This action on the route's repository.
    Action(Action),
}

/// What a route needs; `None` for methods that it does not have. The only table of its kind.
pub fn need(route: &Route, method: &Method) -> Option<Need> {
    let reads = method == Method::GET || method == Method::HEAD;
    let pull = Need::Action(Action::Pull);
    let push = Need::Action(Action::Push);
    let delete = Need::Action(Action::Delete);
    match route {
        // Entries of the catalogue are asked for one by one.
        Route::Version => reads.then_some(Need::Identity),
        Route::Catalog => (method == Method::GET).then_some(Need::Identity),
        Route::Tags { .. } | Route::Referrers { .. } => (method == Method::GET).then_some(pull),
        Route::Manifest { .. } if method == Method::PUT => Some(push),
        Route::Manifest { .. } | Route::Blob { .. } if method == Method::DELETE => Some(delete),
        Route::Manifest { .. } | Route::Blob { .. } => reads.then_some(pull),
        Route::Uploads { .. } => (method == Method::POST).then_some(push),
        Route::Upload { .. } => {
            let known = [Method::PATCH, Method::PUT, Method::GET, Method::DELETE].contains(method);
            known.then_some(push)
        }
    }
}

/// The methods that a route has, for `Allow`.
pub(crate) fn methods(route: &Route) -> String {
    let all = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let known: Vec<String> = all.iter().filter(|method| need(route, method).is_some()).map(Method::to_string).collect();
    known.join(", ")
}

/// How users prove who they are.
#[derive(Clone, Debug)]
pub enum Access {
    /// Not at all: everybody is anonymous.
    Open,
    /// By Basic authentication as one of the users of this file of `user:bcrypt-hash` lines (`htpasswd -B`).
    Htpasswd(PathBuf),
}

/// [`Access`], loaded.
#[derive(Debug)]
pub(crate) struct Door {
    passwords: Option<Passwords>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Challenged;

impl Door {
    pub(crate) fn load(access: &Access) -> Result<Door, RegistryError> {
        let passwords = match access {
            Access::Open => None,
            Access::Htpasswd(path) => Some(Passwords::load(path)?),
        };
        Ok(Door { passwords })
    }

    /// Whether there are users at all.
    pub(crate) fn has_users(&self) -> bool {
        self.passwords.is_some()
    }

    /// The file of users.
    pub(crate) fn file(&self) -> Option<&std::path::Path> {
        self.passwords.as_ref().map(Passwords::path)
    }

    /// Reads the files of users again. What cannot be read leaves everything as it was.
    pub(crate) fn reload(&self) -> Result<(), RegistryError> {
        self.passwords.as_ref().map_or(Ok(()), Passwords::reload)
    }

    /// Who sends this `Authorization` header. Without one: nobody in particular. With a wrong one: nobody at all.
    pub(crate) async fn identify(&self, authorization: Option<&str>) -> Result<Identity, Challenged> {
        match (&self.passwords, authorization) {
            (None, _) | (_, None) => Ok(Identity::default()),
            (Some(passwords), Some(value)) => match passwords.admits(value).await {
                Some(name) => Ok(Identity { name: Some(name) }),
                None => Err(Challenged),
            },
        }
    }

    /// The `WWW-Authenticate` of a refusal.
    pub(crate) fn challenge(&self) -> String {
        "Basic realm=\"ctk registry\"".into()
    }

    /// What somebody hears who may not: anonymous ones are asked who they are.
    pub(crate) fn refusal(&self, who: &Identity) -> Code {
        if who.name.is_none() && self.has_users() { Code::Unauthorized } else { Code::Denied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every route of every method, once: nothing is open by omission.
    #[test]
    fn the_table_of_routes() {
        let digest = ctk_oci::Digest::of(b"");
        let paths = [
            ("/v2/".to_owned(), "GET HEAD"),
            ("/v2/_catalog".into(), "GET"),
            ("/v2/a/tags/list".into(), "GET"),
            (format!("/v2/a/referrers/{digest}"), "GET"),
            ("/v2/a/manifests/v1".into(), "GET HEAD PUT DELETE"),
            (format!("/v2/a/manifests/{digest}"), "GET HEAD PUT DELETE"),
            (format!("/v2/a/blobs/{digest}"), "GET HEAD DELETE"),
            ("/v2/a/blobs/uploads/".into(), "POST"),
            ("/v2/a/blobs/uploads/x".into(), "GET PUT PATCH DELETE"),
        ];
        for (path, expected) in paths {
            let route = Route::parse(&path).unwrap();
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "LINK"] {
                let found = need(&route, &method.parse().unwrap());
                assert_eq!(found.is_some(), expected.split(' ').any(|known| known == method), "{method} {path}");
                let open = matches!(found, Some(Need::Identity));
                assert!(!open || route.name().is_none(), "{method} {path} needs no right");
                let writes = matches!(found, Some(Need::Action(action)) if action != Action::Pull);
                let is_upload = matches!(route, Route::Upload { .. });
                assert_eq!(
                    writes,
                    found.is_some() && (is_upload || !["GET", "HEAD"].contains(&method)),
                    "{method} {path}"
                );
            }
        }
    }
}
