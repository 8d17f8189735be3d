//! Token requests and replies (distribution `docs/spec/auth/token.md` and `oauth.md`).

use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::Scope;

/// A token without a stated life lives this long (token.md, `expires_in`).
const DEFAULT_LIFE_SECONDS: u64 = 60;

/// What to ask a token server for.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// URL of the token server, from the challenge.
    pub realm: &'a str,
    /// The registry's name, from the challenge.
    pub service: Option<&'a str>,
    /// What the token should allow.
    pub scopes: &'a [Scope],
    /// Who asks, a fixed word.
    pub client_id: &'a str,
}

/// Why a token request or reply is useless.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A realm that is no URL.
    #[error("the registry names a token server `{realm}` that is no http or https URL")]
    Realm {
        /// What the registry said.
        realm: String,
    },
    /// Not the JSON it should be.
    #[error("the token server's reply is no token")]
    Parse(#[source] serde_json::Error),
    /// Neither `token` nor `access_token`.
    #[error("the token server's reply holds no token")]
    Missing,
}

impl TokenRequest<'_> {
    /// The token server's URL without a query of ours.
    pub fn url(&self) -> Result<Url, TokenError> {
        let bad = || TokenError::Realm { realm: self.realm.into() };
        let url = Url::parse(self.realm).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(bad());
        }
        Ok(url)
    }

    /// The URL of the GET form; `account` is the user that the request will prove to be.
    pub fn get_url(&self, account: Option<&str>) -> Result<Url, TokenError> {
        let mut url = self.url()?;
        let mut query = url.query_pairs_mut();
        for (name, value) in [("service", self.service), ("account", account)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        for scope in self.scopes {
            query.append_pair("scope", &scope.to_string());
        }
        if account.is_some() {
            query.append_pair("client_id", self.client_id);
        }
        drop(query);
        Ok(url)
    }

    /// The body of the POST form with a refresh (identity) token; content type `application/x-www-form-urlencoded`.
    pub fn refresh_form(&self, refresh_token: &str) -> String {
        self.form(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)])
    }

    /// The body of the POST form with user and password.
    pub fn password_form(&self, user: &str, password: &str) -> String {
        self.form(&[("grant_type", "password"), ("username", user), ("password", password)])
    }

    fn form(&self, grant: &[(&str, &str)]) -> String {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(grant);
        if let Some(service) = self.service {
            form.append_pair("service", service);
        }
        form.append_pair("client_id", self.client_id);
        let scopes: Vec<String> = self.scopes.iter().map(ToString::to_string).collect();
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes.join(" "));
        }
        form.finish()
    }
}

/// A token and its life. Does not implement `Debug`: the token is a secret.
pub struct TokenReply {
    /// What goes after `Bearer `.
    pub token: String,
    /// Seconds that it lives from now on, at least 60 as the specification wants.
    pub life_seconds: u64,
}

#[derive(Deserialize)]
struct Raw {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

impl TokenReply {
    /// Reads the reply of either form.
    pub fn parse(body: &[u8]) -> Result<TokenReply, TokenError> {
        let raw: Raw = serde_json::from_slice(body).map_err(TokenError::Parse)?;
        let token = [raw.token, raw.access_token].into_iter().flatten().find(|t| !t.is_empty());
        let token = token.ok_or(TokenError::Missing)?;
        let life = raw.expires_in.filter(|s| s.is_finite()).map_or(DEFAULT_LIFE_SECONDS, |s| s as u64);
        Ok(TokenReply { token, life_seconds: life.max(DEFAULT_LIFE_SECONDS) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Actions;

    fn reply(body: &str) -> Result<(String, u64), TokenError> {
        TokenReply::parse(body.as_bytes()).map(|r| (r.token, r.life_seconds))
    }

    #[test]
    fn replies() {
        assert_eq!(reply(r#"{"token":"a","expires_in":300}"#).unwrap(), ("a".into(), 300));
        assert_eq!(reply(r#"{"access_token":"b"}"#).unwrap(), ("b".into(), 60));
        assert_eq!(reply(r#"{"token":"","access_token":"b","expires_in":1}"#).unwrap(), ("b".into(), 60));
        assert!(matches!(reply("{}"), Err(TokenError::Missing)));
        assert!(matches!(reply("<html>"), Err(TokenError::Parse(_))));
    }

    #[test]
    fn the_url_repeats_the_scope() {
        let scopes = [Scope::repository("a/b", Actions::Push), Scope::repository("c", Actions::Pull)];
        let request =
            TokenRequest { realm: "https://x/t?k=v", service: Some("s s"), scopes: &scopes, client_id: "ctk" };
        assert_eq!(
            request.get_url(Some("me")).unwrap().as_str(),
            "https://x/t?k=v&service=s+s&account=me&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull&client_id=ctk"
        );
        assert_eq!(
            request.refresh_form("r&"),
            "grant_type=refresh_token&refresh_token=r%26&service=s+s&client_id=ctk&scope=repository%3Aa%2Fb%3Apull%2Cpush+repository%3Ac%3Apull"
        );
        let request = TokenRequest { realm: "file:///etc/passwd", ..request };
        assert!(matches!(request.url(), Err(TokenError::Realm { .. })));
    }
}
