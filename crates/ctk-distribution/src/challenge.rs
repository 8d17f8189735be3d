//! `WWW-Authenticate` (RFC 9110 §11.6.1): which proof of identity a registry wants.

use std::collections::BTreeMap;

/// What a 401 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password in every request.
    Basic {
        /// The name of the protected space.
        realm: String,
    },
    /// A token from a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
        /// What the token should allow.
        scope: Option<String>,
        /// Why the present token was refused, e.g. `invalid_token`, `insufficient_scope`.
        error: Option<String>,
    },
    /// A scheme that this crate does not speak.
    Unknown {
        /// The scheme in lower case.
        scheme: String,
    },
}

/// Reads one header value, which may hold several challenges. Never fails: what makes no sense is left out.
pub fn parse_challenges(value: &str) -> Vec<Challenge> {
    let mut scanner = Scanner { text: value };
    let mut found = Vec::new();
    scanner.skip_separators();
    while let Some(scheme) = scanner.token() {
        let mut parameters = BTreeMap::new();
        loop {
            let before = scanner.text;
            scanner.skip_separators();
            match scanner.parameter() {
                Some((name, value)) => parameters.insert(name, value),
                None => {
                    scanner.text = before;
                    break;
                }
            };
        }
        found.push(challenge(&scheme.to_ascii_lowercase(), parameters));
        let before = scanner.text.len();
        scanner.skip_separators();
        if scanner.text.len() == before && !scanner.text.is_empty() {
            // Something that is neither a parameter nor a scheme: skip a character and look again.
            let mut rest = scanner.text.chars();
            rest.next();
            scanner.text = rest.as_str();
            scanner.skip_separators();
        }
    }
    found
}

fn challenge(scheme: &str, mut parameters: BTreeMap<String, String>) -> Challenge {
    match (scheme, parameters.remove("realm")) {
        ("basic", realm) => Challenge::Basic { realm: realm.unwrap_or_default() },
        ("bearer", Some(realm)) => Challenge::Bearer {
            realm,
            service: parameters.remove("service"),
            scope: parameters.remove("scope").filter(|s| !s.is_empty()),
            error: parameters.remove("error"),
        },
        _ => Challenge::Unknown { scheme: scheme.into() },
    }
}

struct Scanner<'a> {
    text: &'a str,
}

impl<'a> Scanner<'a> {
    fn skip_separators(&mut self) {
        self.text = self.text.trim_start_matches([' ', '\t', ',']);
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.text.find(|c: char| !is_token(c)).unwrap_or(self.text.len());
        let (token, rest) = self.text.split_at(end);
        self.text = rest;
        (!token.is_empty()).then_some(token)
    }

    /// `name = token` or `name = "quoted"`.
    fn parameter(&mut self) -> Option<(String, String)> {
        let name = self.token()?.to_ascii_lowercase();
        self.text = self.text.trim_start();
        self.text = self.text.strip_prefix('=')?.trim_start();
        let value = match self.text.strip_prefix('"') {
            None => self.token()?.to_owned(),
            Some(rest) => {
                let mut value = String::new();
                let mut chars = rest.chars();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => value.push(chars.next()?),
                        c => value.push(c),
                    }
                }
                self.text = chars.as_str();
                value
            }
        };
        Some((name, value))
    }
}

/// RFC 9110 §5.6.2, and `:` and `/`, which some servers leave unquoted in values.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: &[Challenge]) {
        assert_eq!(parse_challenges(value), expected, "{value}");
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let (service, scope) = (service.map(Into::into), scope.map(Into::into));
        Challenge::Bearer { realm: realm.into(), service, scope, error: None }
    }

    #[test]
    fn real_headers() {
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            &[bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"))],
        );
        check(r#"Basic realm="Registry Realm""#, &[Challenge::Basic { realm: "Registry Realm".into() }]);
        check("basic realm=plain", &[Challenge::Basic { realm: "plain".into() }]);
        check(r#"bearer realm="https://x/t" , service=s"#, &[bearer("https://x/t", Some("s"), None)]);
    }

    #[test]
    fn several_in_one_header() {
        check(
            r#"Negotiate, Bearer realm="https://x/t", Basic realm="a \"b\"""#,
            &[
                Challenge::Unknown { scheme: "negotiate".into() },
                bearer("https://x/t", None, None),
                Challenge::Basic { realm: "a \"b\"".into() },
            ],
        );
    }

    #[test]
    fn nonsense_is_left_out() {
        check("", &[]);
        check("=,\"", &[]);
        check("Bearer service=\"x\"", &[Challenge::Unknown { scheme: "bearer".into() }]);
        assert!(!parse_challenges("Bearer realm=\"unterminated").iter().any(|c| matches!(c, Challenge::Bearer { .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in ".{0,200}") {
            parse_challenges(&text);
        }
    }
}
