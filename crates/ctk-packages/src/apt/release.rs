//! `Release`: what a suite consists of, and until when to believe it.

use std::collections::HashMap;

use jiff::fmt::rfc2822::DateTimeParser;

use crate::PackagesError;
use crate::apt::deb822;

/// A verified release file.
#[derive(Debug, Default)]
pub(crate) struct Release {
    pub(crate) suite: String,
    pub(crate) codename: String,
    pub(crate) components: Vec<String>,
    pub(crate) architectures: Vec<String>,
    pub(crate) epoch_seconds: i64,
    pub(crate) by_hash: bool,
    /// `NotAutomatic`: only for those who ask for it by version.
    pub(crate) not_automatic: bool,
    /// `No-Support-for-Architecture-all: Packages`: indexes of a port hold the `all` packages too.
    pub(crate) all_separate: bool,
    /// Path below the suite to SHA256 and size.
    pub(crate) files: HashMap<String, (String, u64)>,
}

impl Release {
    /// Reads a release file whose signature has been verified and checks that it is the one asked for, and not expired.
    pub(crate) fn parse(
        url: &str,
        text: &str,
        wanted_suite: &str,
        now_seconds: Option<i64>,
    ) -> Result<Release, PackagesError> {
        let bad = |what: String| PackagesError::Release { url: url.into(), what };
        let stanza = deb822::stanzas(text).next().ok_or_else(|| bad("the release file is empty".into()))?;
        let mut release = Release::default();
        let words = |value: &str| value.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let mut date = None;
        let mut valid_until = None;
        for (name, value) in stanza.fields() {
            match name.to_ascii_lowercase().as_str() {
                "suite" => release.suite = value.into(),
                "codename" => release.codename = value.into(),
                "components" => release.components = words(value),
                "architectures" => release.architectures = words(value),
                "date" => date = Some(value),
                "valid-until" => valid_until = Some(value),
                "acquire-by-hash" => release.by_hash = value.eq_ignore_ascii_case("yes"),
                "notautomatic" => release.not_automatic = value.eq_ignore_ascii_case("yes"),
                "no-support-for-architecture-all" => release.all_separate = !value.contains("Packages"),
                "sha256" => {
                    for line in value.lines().filter(|l| !l.trim().is_empty()) {
                        let mut parts = line.split_whitespace();
                        let (Some(hash), Some(size), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                            return Err(bad(format!("malformed SHA256 line `{}`", line.trim())));
                        };
                        let size = size.parse().map_err(|_| bad(format!("malformed SHA256 line `{}`", line.trim())))?;
                        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                            return Err(bad(format!("malformed SHA256 line `{}`", line.trim())));
                        }
                        release.files.insert(path.into(), (hash.to_ascii_lowercase(), size));
                    }
                }
                _ => {}
            }
        }
        if release.files.is_empty() {
            return Err(bad("the release file lists no SHA256 digests".into()));
        }
        let matches = |name: &str| {
            !name.is_empty()
                && (name == wanted_suite
                    || wanted_suite.strip_suffix(&format!("/{}", last(wanted_suite))) == Some(name))
        };
        if !matches(&release.suite) && !matches(&release.codename) {
            return Err(bad(format!(
                "expected the release file of `{wanted_suite}`, got that of suite `{}`, codename `{}`",
                release.suite, release.codename
            )));
        }
        let date = date.ok_or_else(|| bad("the release file has no Date".into()))?;
        release.epoch_seconds = seconds(date).ok_or_else(|| bad(format!("cannot read the Date `{date}`")))?;
        if let (Some(until), Some(now)) = (valid_until, now_seconds) {
            let until_seconds = seconds(until).ok_or_else(|| bad(format!("cannot read Valid-Until `{until}`")))?;
            if until_seconds < now {
                return Err(PackagesError::Expired { url: url.into(), valid_until: until.into() });
            }
        }
        Ok(release)
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Seconds since 1970 of `Sat, 11 Jul 2026 10:16:37 UTC`.
fn seconds(date: &str) -> Option<i64> {
    let date = date.trim();
    let fixed = match date.strip_suffix("UTC").or_else(|| date.strip_suffix('Z')) {
        Some(front) => format!("{}+0000", front),
        None => date.to_string(),
    };
    let parser = DateTimeParser::new().relaxed_weekday(true);
    Some(parser.parse_timestamp(&fixed).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Suite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nValid-Until: Sun, 12 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\nComponents: main\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/x\n";

    #[test]
    fn dates_suites_and_files() {
        let release = Release::parse("u", TEXT, "bookworm", None).unwrap();
        assert_eq!(release.epoch_seconds, 1783764997);
        assert!(release.by_hash && release.files.contains_key("main/x"));
        assert!(Release::parse("u", TEXT, "oldstable", Some(1783764997)).is_ok());
        assert!(Release::parse("u", TEXT, "bookworm/updates", None).is_ok());
        let message = Release::parse("u", TEXT, "trixie", None).unwrap_err().to_string();
        assert!(message.contains("`trixie`") && message.contains("`bookworm`"), "{message}");
        let expired = Release::parse("u", TEXT, "bookworm", Some(1893456000)).unwrap_err();
        assert!(matches!(expired, PackagesError::Expired { .. }));
    }
}
