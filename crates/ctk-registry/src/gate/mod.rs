//! Who may do what. Every request passes [`Door::identify`], which says who asks, and then one [`Gate`], which says
//! whether they may: deny by default, also for routes that nobody thought of. What the gate allows a tag to become is
//! asked again inside the transaction that writes it, when it is known whether the tag is new.

mod certificates;
mod keys;
mod passwords;
mod rights;
mod tokens;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_distribution::{Code, Route, Scope};
use http::Method;

use crate::RegistryError;
use crate::meta::Seconds;
pub(crate) use certificates::names as certificate_names;
pub use keys::{SigningKey, new_key, retire_key, signing_keys};
use passwords::Passwords;
pub use passwords::add_password;
pub use rights::{Grant, Rights, Role, Who};
pub use tokens::TokenOptions;
pub(crate) use tokens::{Tokens, granted};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, `None` for anonymous.
    pub name: Option<String>,
    /// The names of the certificate that the connection proved to have.
    pub certificate: Arc<[String]>,
    /// What a token limits this to; `None` without one.
    pub scopes: Option<Arc<Vec<Scope>>>,
}

impl Identity {
    /// Whether this is somebody, by a name or by a certificate.
    pub fn is_known(&self) -> bool {
        self.name.is_some() || !self.certificate.is_empty()
    }

    /// Whether the token, if there is one, is for this. What its holder may is the gate's to say.
    pub fn covers(&self, action: Action, repository: &str) -> bool {
        let Some(scopes) = &self.scopes else { return true };
        let word = match action {
            Action::Overwrite => Action::Push.word(),
            action => action.word(),
        };
        scopes.iter().any(|scope| {
            scope.kind == "repository" && scope.name == repository && scope.actions.iter().any(|known| known == word)
        })
    }

    /// The same without a token's limits.
    pub(crate) fn unlimited(&self) -> Identity {
        Identity { scopes: None, ..self.clone() }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.certificate.first()) {
            (Some(name), _) => f.write_str(name),
            (None, Some(name)) => write!(f, "cert:{name}"),
            (None, None) => f.write_str("anonymous"),
        }
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
    /// The token server, where there is one.
    pub tokens: Option<Tokens>,
    /// Whether clients may prove who they are by certificates.
    certificates: bool,
}

/// Why and for what somebody is asked to say who they are.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Scheme and host that the client asked, e.g. `https://registry.example.com`.
    pub origin: String,
    /// What a token must allow.
    pub scopes: Vec<Scope>,
    /// `invalid_token` or `insufficient_scope`, when a token came with the request.
    pub error: Option<&'static str>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Challenged;

impl Door {
    pub(crate) fn load(
        access: &Access,
        tokens: Option<&TokenOptions>,
        certificates: bool,
        now: Seconds,
    ) -> Result<Door, RegistryError> {
        let passwords = match access {
            Access::Open => None,
            Access::Htpasswd(path) => Some(Passwords::load(path)?),
        };
        let tokens = tokens.map(|options| Tokens::load(options, now)).transpose()?;
        Ok(Door { passwords, tokens, certificates })
    }

    /// Whether there are users at all.
    pub(crate) fn has_users(&self) -> bool {
        self.passwords.is_some() || self.certificates
    }

    /// The file of users and the folder of keys.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let keys = self.tokens.as_ref().map(|tokens| tokens.keys.folder());
        self.passwords.as_ref().map(Passwords::path).into_iter().chain(keys).collect()
    }

    /// Reads them again. What cannot be read leaves everything as it was.
    pub(crate) fn reload(&self) -> Result<(), RegistryError> {
        self.passwords.as_ref().map_or(Ok(()), Passwords::reload)?;
        self.tokens.as_ref().map_or(Ok(()), |tokens| tokens.keys.reload())
    }

    /// What changes with the password of `user`; `None` when there is no such user.
    pub(crate) fn mark(&self, user: &str) -> Option<String> {
        self.passwords.as_ref().and_then(|passwords| passwords.mark(user))
    }

    /// Whether a token's user is still there, with the same password.
    pub(crate) fn honours(&self, user: Option<&str>, mark: &str) -> bool {
        user.is_none_or(|user| self.mark(user).is_some_and(|known| known == mark))
    }

    /// The user whose password this is.
    pub(crate) async fn user(&self, user: &str, password: &str) -> Option<String> {
        self.passwords.as_ref()?.admits_pair(user, password).await
    }

    /// Who sends this `Authorization` header over a connection whose client has this certificate. Without the header:
    /// nobody else. With a wrong one: nobody at all.
    pub(crate) async fn identify(
        &self,
        authorization: Option<&str>,
        certificate: &Arc<[String]>,
        now: Seconds,
    ) -> Result<Identity, Challenged> {
        let nobody = Identity { certificate: certificate.clone(), ..Identity::default() };
        let (Some(passwords), Some(value)) = (&self.passwords, authorization) else { return Ok(nobody) };
        if let Some(tokens) = &self.tokens
            && let Some(token) = bearer(value)
        {
            let verified = tokens.verify_access(token, now).ok_or(Challenged)?;
            if !self.honours(verified.user.as_deref(), &verified.mark) {
                return Err(Challenged);
            }
            return Ok(Identity { name: verified.user, scopes: Some(verified.scopes), ..nobody });
        }
        match passwords.admits(value).await {
            Some(name) => Ok(Identity { name: Some(name), ..nobody }),
            None => Err(Challenged),
        }
    }

    /// The `WWW-Authenticate` of a refusal.
    pub(crate) fn challenge(&self, wanted: &Wanted) -> String {
        let Some(tokens) = &self.tokens else { return "Basic realm=\"ctk registry\"".into() };
        let options = &tokens.options;
        let realm = options.realm.clone().unwrap_or_else(|| format!("{}{TOKEN_PATH}", wanted.origin));
        let mut text = format!("Bearer realm=\"{realm}\",service=\"{}\"", options.service);
        if !wanted.scopes.is_empty() {
            let scopes: Vec<String> = wanted.scopes.iter().map(Scope::to_string).collect();
            text.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
        }
        if let Some(error) = wanted.error {
            text.push_str(&format!(",error=\"{error}\""));
        }
        text
    }

    /// What somebody hears who may not: anonymous ones are asked who they are.
    pub(crate) fn refusal(&self, who: &Identity) -> Code {
        if !who.is_known() && self.has_users() { Code::Unauthorized } else { Code::Denied }
    }
}

/// Where the token server is.
pub(crate) const TOKEN_PATH: &str = "/token";

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
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
