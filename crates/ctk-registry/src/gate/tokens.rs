//! Tokens: who somebody is and which scopes they asked for, signed, for some minutes (distribution
//! `docs/spec/auth/jwt.md`). A token only narrows: what its holder may do is asked of the gate in every request, so a
//! grant that is taken away, a user who is removed and a password that is changed count at once.

use std::path::PathBuf;
use std::sync::Arc;

use ctk_distribution::Scope;
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::{Action, Gate, Identity};
use crate::meta::Seconds;
use crate::{REFRESH_LIFE_SECONDS, RegistryError, TOKEN_LIFE_SECONDS, TOKEN_LIMIT_BYTES, TOKEN_SKEW_SECONDS};

/// How the token server works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOptions {
    /// The folder of the keys; see [`new_key`](super::new_key). Servers that share it honour each other's tokens.
    pub keys: PathBuf,
    /// The URL of `/token` that clients are told; `None` for the host that they asked. Behind a proxy that ends TLS it
    /// must be given.
    pub realm: Option<String>,
    /// The registry's name in tokens.
    pub service: String,
}

/// What a token is for: one kind is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Use {
    Access,
    Refresh,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    /// The user; empty for nobody in particular.
    sub: String,
    aud: String,
    exp: Seconds,
    nbf: Seconds,
    iat: Seconds,
    #[serde(rename = "use")]
    used: Use,
    /// Changes with the user's password.
    #[serde(default)]
    mark: String,
    #[serde(default)]
    access: Vec<Claim>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub user: Option<String>,
    pub mark: String,
    pub scopes: Arc<Vec<Scope>>,
}

/// The token server's state.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub options: TokenOptions,
    pub keys: Keys,
}

impl Tokens {
    pub(crate) fn load(options: &TokenOptions, now: Seconds) -> Result<Tokens, RegistryError> {
        Ok(Tokens { options: options.clone(), keys: Keys::load(&options.keys, now)? })
    }

    fn claims(&self, user: Option<&str>, mark: &str, used: Use, life: Seconds, now: Seconds) -> Claims {
        let service = self.options.service.clone();
        let (iss, aud, sub) = (service.clone(), service, user.unwrap_or_default().to_owned());
        Claims { iss, sub, aud, exp: now + life, nbf: now, iat: now, used, mark: mark.into(), access: Vec::new() }
    }

    /// A token that allows `scopes` to `who`.
    pub(crate) fn access(
        &self,
        user: Option<&str>,
        mark: &str,
        scopes: Vec<Scope>,
        now: Seconds,
    ) -> Result<String, RegistryError> {
        let mut claims = self.claims(user, mark, Use::Access, TOKEN_LIFE_SECONDS, now);
        let claim = |Scope { kind, name, actions }| Claim { kind, name, actions };
        claims.access = scopes.into_iter().map(claim).collect();
        self.keys.sign(&claims, now)
    }

    /// A token that stands for the password of `user` until that is changed.
    pub(crate) fn refresh(&self, user: &str, mark: &str, now: Seconds) -> Result<String, RegistryError> {
        self.keys.sign(&self.claims(Some(user), mark, Use::Refresh, REFRESH_LIFE_SECONDS, now), now)
    }

    fn verify(&self, token: &str, used: Use, now: Seconds) -> Option<Verified> {
        if token.len() > TOKEN_LIMIT_BYTES {
            return None;
        }
        let claims: Claims = self.keys.verify(token, &self.options.service)?;
        let begun = claims.nbf <= now + TOKEN_SKEW_SECONDS && claims.iat <= now + TOKEN_SKEW_SECONDS;
        let ended = claims.exp.saturating_add(TOKEN_SKEW_SECONDS) <= now;
        if claims.used != used || !begun || ended {
            return None;
        }
        let scope = |Claim { kind, name, actions }| Scope { kind, name, actions };
        let scopes = Arc::new(claims.access.into_iter().map(scope).collect());
        Some(Verified { user: Some(claims.sub).filter(|user| !user.is_empty()), mark: claims.mark, scopes })
    }

    /// What a token of [`Tokens::access`] says, while it is valid.
    pub(crate) fn verify_access(&self, token: &str, now: Seconds) -> Option<Verified> {
        self.verify(token, Use::Access, now)
    }

    /// What a token of [`Tokens::refresh`] says, while it is valid.
    pub(crate) fn verify_refresh(&self, token: &str, now: Seconds) -> Option<Verified> {
        self.verify(token, Use::Refresh, now)
    }
}

/// Of the scopes that somebody asks for, what they may: kinds, names and actions that nobody knows are left out.
pub(crate) fn granted(asked: Vec<Scope>, who: &Identity, gate: &dyn Gate, lists: bool) -> Vec<Scope> {
    let mut granted = Vec::new();
    for scope in asked {
        let every = scope.actions.iter().any(|action| action == "*");
        let mut actions: Vec<String> = Vec::new();
        match scope.kind.as_str() {
            "registry" if scope.name == "catalog" && every && lists => actions.push("*".into()),
            "repository" if ctk_oci::Reference::new("localhost", &scope.name, None, None).is_ok() => {
                for action in [Action::Pull, Action::Push, Action::Delete] {
                    let wanted = every || scope.actions.iter().any(|asked| asked == action.word());
                    if wanted && gate.allows(who, action, &scope.name) {
                        actions.push(action.word().into());
                    }
                }
            }
            _ => {}
        }
        if !actions.is_empty() {
            granted.push(Scope { actions, ..scope });
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(folder: &std::path::Path, service: &str) -> Tokens {
        let options = TokenOptions { keys: folder.join("keys"), realm: None, service: service.into() };
        Tokens::load(&options, 1000).unwrap()
    }

    #[test]
    fn tokens_hold_for_a_while_and_for_one_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = tokens(folder.path(), "here");
        let scopes = Scope::parse_list(["repository:a:pull"]).unwrap();
        let access = tokens.access(Some("me"), "m", scopes.clone(), 10_000).unwrap();
        let verified = tokens.verify_access(&access, 10_000).unwrap();
        assert_eq!((verified.user.as_deref(), verified.mark.as_str(), &*verified.scopes), (Some("me"), "m", &scopes));
        assert!(tokens.verify_refresh(&access, 10_000).is_none(), "it is no password");
        let refresh = tokens.refresh("me", "m", 10_000).unwrap();
        assert!(tokens.verify_access(&refresh, 10_000).is_none() && tokens.verify_refresh(&refresh, 10_000).is_some());
        // Clocks differ by a little.
        let end = 10_000 + TOKEN_LIFE_SECONDS + TOKEN_SKEW_SECONDS;
        for (now, valid) in [
            (10_000 - TOKEN_SKEW_SECONDS - 1, false),
            (10_000 - TOKEN_SKEW_SECONDS, true),
            (end - 1, true),
            (end, false),
        ] {
            assert_eq!(tokens.verify_access(&access, now).is_some(), valid, "{now}");
        }
        let other = self::tokens(folder.path(), "elsewhere");
        assert!(other.verify_access(&access, 10_000).is_none(), "another service with the same keys");
        assert!(tokens.verify_access(&"x".repeat(TOKEN_LIMIT_BYTES + 1), 10_000).is_none());
    }

    /// CVE-2025-24976: nothing that a token carries chooses its key or its algorithm.
    #[test]
    fn cve_2025_24976_keys_come_from_the_folder() {
        use base64::Engine as _;
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, theirs) = (tokens(one.path(), "here"), tokens(two.path(), "here"));
        let forged = theirs.access(Some("root"), "", Vec::new(), 10_000).unwrap();
        assert!(ours.verify_access(&forged, 10_000).is_none());
        let real = ours.access(Some("me"), "", Vec::new(), 10_000).unwrap();
        let parts: Vec<&str> = real.split('.').collect();
        let encode = |text: &str| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text);
        let kid = super::super::signing_keys(&one.path().join("keys"), 0).unwrap()[0].kid.clone();
        let foreign: Vec<&str> = forged.split('.').collect();
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#.to_owned(),
            format!(r#"{{"alg":"none","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"ES256","kid":"{kid}","x5c":["AAAA"]}}"#),
            r#"{"alg":"ES256","kid":"../../etc/passwd"}"#.into(),
            r#"{"alg":"ES256"}"#.into(),
        ] {
            for signature in [parts[2], foreign[2], ""] {
                let token = format!("{}.{}.{signature}", encode(&header), parts[1]);
                assert!(ours.verify_access(&token, 10_000).is_none(), "{header}");
            }
        }
        let swapped = format!("{}.{}.{}", parts[0], foreign[1], parts[2]);
        assert!(ours.verify_access(&swapped, 10_000).is_none());
    }
}
