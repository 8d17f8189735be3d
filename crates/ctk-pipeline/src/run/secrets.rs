//! Values of secrets, and keeping them out of everything that is written.

use std::collections::BTreeMap;

use super::RunError;
use super::job::SecretSource;
use super::limits::{REDACTED_BYTES_MIN, SECRET_BYTES};

/// What is written in place of a secret.
pub const MASK: &str = "***";

/// What secrets are made of.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Stand-ins of this machine, by the secret's variable, its name in the cloud, or the last word of that.
    pub stand_ins: &'a BTreeMap<String, SecretSource>,
    /// Our environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Asks Vault for `/v1/PATH`, and gives the answer's body.
    pub vault: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
}

/// The value of each secret. All are got before any step runs.
pub fn values(
    secrets: &BTreeMap<String, SecretSource>,
    given: &Given<'_>,
) -> Result<BTreeMap<String, String>, RunError> {
    secrets.iter().map(|(env, source)| Ok((env.clone(), value(env, source, given)?))).collect()
}

fn value(env: &str, source: &SecretSource, given: &Given<'_>) -> Result<String, RunError> {
    let failed = |from: String, why: String| RunError::Secret { env: env.into(), from, why };
    let own = |bytes: Vec<u8>, from: &str| {
        if bytes.len() > SECRET_BYTES {
            return Err(failed(from.into(), format!("it has more than {SECRET_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| failed(from.into(), "it is no UTF-8".into()))?;
        Ok(text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text).to_owned())
    };
    // What the command line says of a secret counts more than what the file does.
    if let (Some(own), false) = (given.stand_ins.get(env), matches!(source, SecretSource::Cloud { .. })) {
        return value(env, own, &Given { stand_ins: &BTreeMap::new(), ..*given });
    }
    match source {
        SecretSource::Cloud { name } => match stand_in(env, name, given.stand_ins) {
            Some(source) => value(env, source, given),
            None => Err(RunError::NoSecret { env: env.into(), name: name.clone() }),
        },
        SecretSource::Env { name } => {
            (given.environment)(name).ok_or_else(|| failed(format!("the environment's {name}"), "it is not set".into()))
        }
        SecretSource::File { path } => {
            let bytes = ctk_store::read_given(std::path::Path::new(path));
            own(bytes.map_err(|error| failed(path.clone(), error.to_string()))?, path)
        }
        SecretSource::Command { line } => {
            let from = format!("`{line}`");
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", line])
                .stdin(std::process::Stdio::null())
                .stderr(std::process::Stdio::inherit())
                .output();
            let output = output.map_err(|error| failed(from.clone(), error.to_string()))?;
            match output.status.success() {
                true => own(output.stdout, &from),
                // What it printed may be a part of the secret.
                false => Err(failed(from, format!("it ended with {}", output.status))),
            }
        }
        SecretSource::Vault { path, field } => {
            let from = format!("Vault's {path}");
            let answer = (given.vault)(path).map_err(|why| failed(from.clone(), why))?;
            let json: serde_json::Value =
                serde_json::from_slice(&answer).map_err(|_| failed(from.clone(), "the answer is no JSON".into()))?;
            // The second version of its key-value store has one level more.
            let found = json["data"]["data"].get(field).or_else(|| json["data"].get(field));
            let found = found.ok_or_else(|| failed(from.clone(), format!("it has no field `{field}`")))?;
            Ok(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
        }
    }
}

/// A stand-in is for a variable, `projects/p/secrets/token/versions/1`, `projects/p/secrets/token`, or `token`.
fn stand_in<'a>(env: &str, name: &str, stand_ins: &'a BTreeMap<String, SecretSource>) -> Option<&'a SecretSource> {
    let secret = name.split_once("/versions/").map_or(name, |(secret, _)| secret);
    let last = secret.rsplit('/').next().unwrap_or(secret);
    [env, name, secret, last].into_iter().find_map(|key| stand_ins.get(key))
}

/// `env:NAME`, `file:PATH`, `command:LINE`, `vault:PATH#FIELD`.
pub fn parse_source(text: &str) -> Result<SecretSource, String> {
    let expected = "expected env:NAME, file:PATH, command:LINE or vault:PATH#FIELD";
    match text.split_once(':') {
        Some((_, "")) | None => Err(expected.into()),
        Some(("env", name)) => Ok(SecretSource::Env { name: name.into() }),
        Some(("file", path)) => Ok(SecretSource::File { path: path.into() }),
        Some(("command", line)) => Ok(SecretSource::Command { line: line.into() }),
        Some(("vault", place)) => match place.split_once('#') {
            Some((path, field)) if !path.is_empty() && !field.is_empty() => {
                Ok(SecretSource::Vault { path: path.trim_matches('/').into(), field: field.into() })
            }
            _ => Err("expected vault:PATH#FIELD".into()),
        },
        Some(_) => Err(expected.into()),
    }
}

/// Takes secrets out of lines.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    /// The longest first: one may be a part of another.
    texts: Vec<String>,
}

impl Redactor {
    /// For these values. Each line of one counts by itself, as lines are what steps print.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a String>) -> Redactor {
        let mut texts: Vec<String> = Vec::new();
        for value in values {
            let lines = value.lines().map(str::trim).chain([value.as_str()]);
            texts.extend(lines.filter(|line| line.len() >= REDACTED_BYTES_MIN).map(str::to_owned));
        }
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        Redactor { texts }
    }

    /// The line without them.
    pub fn clean<'a>(&self, line: &'a str) -> std::borrow::Cow<'a, str> {
        let mut out = std::borrow::Cow::Borrowed(line);
        for text in self.texts.iter().filter(|text| !text.is_empty()) {
            if out.contains(text.as_str()) {
                out = std::borrow::Cow::Owned(out.replace(text.as_str(), MASK));
            }
        }
        out
    }
}

/// Takes secrets out of lines that come in pieces of at most so many bytes: one that begins in a piece and ends in the
/// next is found, too.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The end of the last piece, which may be the beginning of a secret.
    rest: String,
}

impl Pieces {
    /// The next piece without secrets. What may belong to a secret of the next one is kept back, if the line goes on.
    pub fn next<'a>(&mut self, redactor: &Redactor, piece: &'a str, goes_on: bool) -> std::borrow::Cow<'a, str> {
        if self.rest.is_empty() && !goes_on {
            return redactor.clean(piece);
        }
        let mut text = std::mem::take(&mut self.rest);
        text.push_str(piece);
        if goes_on {
            self.rest = text.split_off(redactor.safe_end(&text));
        }
        std::borrow::Cow::Owned(redactor.clean(&text).into_owned())
    }
}

impl Redactor {
    /// Up to where no secret can begin that ends later.
    fn safe_end(&self, text: &str) -> usize {
        let longest = self.texts.first().map_or(0, String::len);
        let mut end = text.floor_char_boundary(text.len().saturating_sub(longest.saturating_sub(1)));
        // One that is whole in the text must not be cut either.
        while let Some(begin) = self.texts.iter().find_map(|secret| {
            let from = text.floor_char_boundary(end.saturating_sub(secret.len()));
            text[from..]
                .match_indices(secret.as_str())
                .map(|(at, _)| from + at)
                .find(|at| *at < end && at + secret.len() > end)
        }) {
            end = begin;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given<'a>(stand_ins: &'a BTreeMap<String, SecretSource>) -> Given<'a> {
        Given {
            stand_ins,
            environment: &|name| (name == "HERE").then(|| "value".to_owned()),
            vault: &|path| match path {
                "kv/data/app" => Ok(br#"{"data": {"data": {"token": "new"}}}"#.to_vec()),
                _ => Ok(br#"{"data": {"token": "old"}}"#.to_vec()),
            },
        }
    }

    #[track_caller]
    fn check(source: SecretSource, stand_ins: &[(&str, &str)], expected: Result<&str, &str>) {
        let parsed = |(name, text): &(&str, &str)| ((*name).to_owned(), parse_source(text).unwrap());
        let stand_ins = stand_ins.iter().map(parsed).collect();
        let secrets = BTreeMap::from([("TOKEN".to_owned(), source)]);
        let found = values(&secrets, &given(&stand_ins)).map(|mut values| values.remove("TOKEN").unwrap());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn secrets_of_a_cloud_have_stand_ins() {
        let cloud = || SecretSource::Cloud { name: "projects/p/secrets/token/versions/latest".into() };
        for name in ["TOKEN", "token", "projects/p/secrets/token", "projects/p/secrets/token/versions/latest"] {
            check(cloud(), &[(name, "env:HERE")], Ok("value"));
        }
        check(cloud(), &[("other", "env:HERE")], Err("secret `TOKEN` has no value here"));
        check(cloud(), &[("token", "env:GONE")], Err("it is not set"));
        check(cloud(), &[("token", "command:printf 'a\\nb\\n'")], Ok("a\nb"));
        check(cloud(), &[("token", "command:exit 3")], Err("exit status: 3"));
        check(cloud(), &[("token", "vault:kv/data/app#token")], Ok("new"));
        check(cloud(), &[("token", "vault:kv/app#token")], Ok("old"));
        check(cloud(), &[("token", "vault:kv/app#other")], Err("no field `other`"));
    }

    #[test]
    fn pieces_lose_what_lies_between_them() {
        let redactor = Redactor::new(&["geheim".to_owned(), "ähnlich".to_owned()]);
        for text in ["xxgeheimyy", "geheim", "geheimgeheim", "gegeheim", "xähnlichä", "geheiähnlichm", "ää"] {
            let expected = redactor.clean(text).into_owned();
            for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                let mut pieces = Pieces::default();
                let first = pieces.next(&redactor, &text[..cut], true).into_owned();
                let found = first.clone() + &pieces.next(&redactor, &text[cut..], false);
                assert_eq!(found, expected, "{text} at {cut}");
            }
        }
    }

    #[test]
    fn lines_lose_their_secrets() {
        let values = ["hunter2".to_owned(), "hunter2-and-more".to_owned(), "first\nsecond".to_owned(), "x".to_owned()];
        let redactor = Redactor::new(&values);
        let check = |line: &str, expected: &str| assert_eq!(redactor.clean(line), expected);
        check("pw=hunter2!", "pw=***!");
        check("hunter2-and-more", "***");
        check("the second of them", "the *** of them");
        check("x is too short", "x is too short");
    }
}
