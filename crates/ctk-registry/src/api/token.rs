//! The token server (distribution `docs/spec/auth/token.md`, `oauth.md`): GET with Basic authentication or with none,
//! POST with a form of OAuth2, by password or by refresh token.

use axum::body::Body;
use ctk_distribution::{Code, Query, Scope, ScopeError};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use super::answer::{Failure, json as json_answer, set};
use super::{App, Peer};
use crate::audit::Record;
use crate::gate::{Challenged, Identity, Tokens, granted};
use crate::storage::now;
use crate::{BODY_TIMEOUT, TOKEN_FORM_LIMIT_BYTES, TOKEN_LIFE_SECONDS};

impl App {
    /// Answers a request for a token. What fails is written to the audit log; nothing that is secret is.
    pub(super) async fn token(
        &self,
        tokens: &Tokens,
        request: Request<Body>,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        // Until it is known who asks.
        record.action = "login";
        let answer = match parts.method {
            Method::GET => {
                let value = parts.headers.get(header::AUTHORIZATION);
                let value = value.map(|value| value.to_str().unwrap_or_default());
                // A token buys no other token.
                let value =
                    value.map(|value| if value.to_ascii_lowercase().starts_with("basic ") { value } else { "" });
                let who = self.door.identify(value, &peer.certificate, now()).await.map_err(|Challenged| {
                    let basic = format!("Basic realm=\"{}\"", tokens.options.service);
                    Failure::of(Code::Unauthorized).with(header::WWW_AUTHENTICATE, basic)
                })?;
                let query = Query::parse(parts.uri.query().unwrap_or_default());
                let offline = query.get("offline_token").is_some_and(|value| value == "true");
                record.who = who.to_string();
                self.reply(tokens, &query, &who, offline)
            }
            Method::POST => {
                let collected = Limited::new(body, TOKEN_FORM_LIMIT_BYTES).collect();
                let body = match tokio::time::timeout(BODY_TIMEOUT, collected).await {
                    Ok(Ok(collected)) => collected.to_bytes(),
                    _ => return Ok(refused("invalid_request", "the form is too long or ended early")),
                };
                let form = Query::parse(&String::from_utf8_lossy(&body));
                match self.by_form(tokens, &form, peer).await {
                    Ok(who) => {
                        record.who = who.to_string();
                        let offline = form.get("access_type").is_some_and(|value| value == "offline")
                            || form.get("grant_type").is_some_and(|value| value == "refresh_token");
                        self.reply(tokens, &form, &who, offline)
                    }
                    Err((error, reason)) => return Ok(refused(error, reason)),
                }
            }
            _ => return Err(Failure::of(Code::Unsupported).status(405).with(header::ALLOW, "GET, POST")),
        };
        if answer.as_ref().is_ok_and(|answer| answer.status() == 200) {
            record.action = "";
        }
        answer
    }

    async fn by_form(
        &self,
        tokens: &Tokens,
        form: &Query,
        peer: &Peer,
    ) -> Result<Identity, (&'static str, &'static str)> {
        let name = match form.get("grant_type") {
            Some("password") => {
                let (user, password) = (form.get("username").unwrap_or(""), form.get("password").unwrap_or(""));
                self.door.user(user, password).await.ok_or(("invalid_grant", "wrong user or password"))?
            }
            Some("refresh_token") => {
                let token = form.get("refresh_token").unwrap_or("");
                let verified = tokens.verify_refresh(token, now());
                let verified = verified.filter(|found| self.door.honours(found.user.as_deref(), &found.mark));
                let user = verified.and_then(|found| found.user);
                user.ok_or(("invalid_grant", "the refresh token is not valid any more; log in again"))?
            }
            _ => return Err(("unsupported_grant_type", "expected `password` or `refresh_token`")),
        };
        Ok(Identity { name: Some(name), certificate: peer.certificate.clone(), scopes: None })
    }

    fn reply(&self, tokens: &Tokens, query: &Query, who: &Identity, offline: bool) -> Result<Response<Body>, Failure> {
        if query.get("service").is_some_and(|service| service != tokens.options.service) {
            return Ok(refused("invalid_request", "another service's tokens are not made here"));
        }
        let asked = match Scope::parse_list(query.all("scope")) {
            Ok(asked) => asked,
            Err(error @ (ScopeError::Limit | ScopeError::Malformed(_))) => {
                return Ok(refused("invalid_scope", &error.to_string()));
            }
        };
        let lists = who.is_known() || !self.door.has_users();
        let scopes = granted(asked, who, &*self.gate, lists);
        let now = now();
        let user = who.name.as_deref();
        let mark = user.and_then(|user| self.door.mark(user)).unwrap_or_default();
        let text = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
        let token = tokens.access(user, &mark, scopes, now)?;
        let mut reply =
            json!({ "token": token, "access_token": token, "expires_in": TOKEN_LIFE_SECONDS, "scope": text });
        if let (Some(user), true) = (user, offline) {
            reply["refresh_token"] = tokens.refresh(user, &mark, now)?.into();
        }
        let mut response = json_answer(200, &reply);
        set(&mut response, header::CACHE_CONTROL, "no-store");
        Ok(response)
    }
}

/// A refusal as OAuth2 has it (RFC 6749, 5.2).
fn refused(error: &str, reason: &str) -> Response<Body> {
    json_answer(400, &json!({ "error": error, "error_description": reason }))
}
