//! The host's own package sources: mirrors, keys, proxies, certificate authorities (sources.list(5), apt.conf(5)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::apt::conf::Conf;
use crate::apt::deb822;
use crate::{PackagesError, limits};

/// What the host knows about package archives. Reading it changes nothing.
#[derive(Clone, Debug, Default)]
pub struct HostSources {
    /// In the order of apt: `sources.list`, then `sources.list.d` by name.
    pub sources: Vec<Source>,
    /// `Acquire::http::Proxy` and its kin; the first rule that fits counts.
    pub proxies: Vec<ProxyRule>,
    /// `Acquire::https::CAInfo`: PEM files trusted besides the system's.
    pub authorities: Vec<PathBuf>,
    /// `Acquire::https::SslCert`: PEM file with certificate and key.
    pub identity: Option<PathBuf>,
    /// `Acquire::https::Verify-Peer "false"`.
    pub accept_invalid_certificates: bool,
    /// `Acquire::Check-Valid-Until`; apt's default is true.
    pub check_valid_until: bool,
    /// Keyrings that count for sources without `Signed-By`: `trusted.gpg.d`, else the distribution's archive keyring.
    pub keyrings: Vec<PathBuf>,
    /// What a container needs to use the same sources in a RUN step.
    pub mounts: Vec<HostMount>,
}

/// One archive with suites: a line of `sources.list` or a stanza of a `.sources` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Mirrors of the same archive, without a slash at the end. A `mirror+file:` list is expanded.
    pub uris: Vec<String>,
    /// Suites of the archive.
    pub suites: Vec<String>,
    /// Components to read.
    pub components: Vec<String>,
    /// Architectures to read; empty: any.
    pub architectures: Vec<String>,
    /// Whose signatures count.
    pub signed_by: SignedBy,
    /// `trusted=yes`: no signature is asked for.
    pub trusted: bool,
    /// `check-valid-until`, when it says so itself.
    pub check_valid_until: Option<bool>,
    /// File and line, for errors.
    pub origin: (PathBuf, usize),
}

/// Whose signatures count for a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SignedBy {
    /// The host's keyrings.
    #[default]
    Host,
    /// The keys in these files.
    Files(Vec<PathBuf>),
    /// These keys out of the host's keyrings, by fingerprint in upper-case hex.
    Fingerprints(Vec<String>),
    /// An ASCII-armored key in the source itself.
    Inline(String),
}

/// Which proxy to use for which host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRule {
    /// `http` or `https`.
    pub scheme: String,
    /// The one host it is about; none: all.
    pub host: Option<String>,
    /// The proxy's URL; none: direct.
    pub proxy: Option<String>,
}

/// A file or directory of the host that belongs at the same place in a container for apt to work there as here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub destination: PathBuf,
}

impl HostSources {
    /// Reads `etc_apt` (usually `/etc/apt`); `keyrings` (usually `/usr/share/keyrings`) is where to look for an archive
    /// keyring when nothing else names one. A directory that is not there gives no sources; a malformed file is an
    /// error with its line.
    pub fn read(etc_apt: &Path, keyrings: &Path) -> Result<HostSources, PackagesError> {
        let mut host = HostSources { check_valid_until: true, ..HostSources::default() };
        host.read_conf(etc_apt)?;
        let mut files = vec![etc_apt.join("sources.list")];
        files.extend(listed(&etc_apt.join("sources.list.d"), &["list", "sources"])?);
        for path in files {
            let Some(text) = read_text(&path)? else { continue };
            let found = match path.extension().is_some_and(|e| e == "sources") {
                true => deb822_sources(&path, &text)?,
                false => line_sources(&path, &text)?,
            };
            host.sources.extend(found);
        }
        for source in &mut host.sources {
            expand_mirror_lists(source)?;
        }
        host.keyrings = listed(&etc_apt.join("trusted.gpg.d"), &["gpg", "asc"])?;
        let legacy = etc_apt.join("trusted.gpg");
        if legacy.exists() {
            host.keyrings.push(legacy);
        }
        if host.keyrings.is_empty() {
            host.keyrings = listed(keyrings, &["gpg", "asc"])?;
            host.keyrings
                .retain(|k| k.file_name().is_some_and(|n| n.to_string_lossy().ends_with("-archive-keyring.gpg")));
        }
        host.mounts = host.collect_mounts(etc_apt);
        Ok(host)
    }

    /// One archive alone, without anything of the host but its proxies and authorities.
    pub fn only(&self, source: Source) -> HostSources {
        HostSources { sources: vec![source], ..self.clone() }
    }

    fn read_conf(&mut self, etc_apt: &Path) -> Result<(), PackagesError> {
        let mut conf = Conf::default();
        let mut files = listed(&etc_apt.join("apt.conf.d"), &["", "conf"])?;
        files.push(etc_apt.join("apt.conf"));
        for path in files {
            let Some(text) = read_text(&path)? else { continue };
            conf.add(&text).map_err(|(line, what)| PackagesError::ParseHostFile { path: path.clone(), line, what })?;
        }
        for scheme in ["http", "https"] {
            let key = format!("acquire::{scheme}::proxy");
            let proxy =
                |value: &str| (!value.eq_ignore_ascii_case("direct") && value != "false").then(|| value.to_string());
            let rule = |host: Option<&str>, value: &str| ProxyRule {
                scheme: scheme.into(),
                host: host.map(str::to_string),
                proxy: proxy(value),
            };
            self.proxies.extend(conf.below(&key).map(|(host, value)| rule(Some(host), value)));
            // apt uses the http proxy for https too, unless told otherwise.
            let general = conf.last(&key).or_else(|| conf.last("acquire::http::proxy"));
            self.proxies.extend(general.filter(|v| !v.is_empty()).map(|value| rule(None, value)));
        }
        let path = |key: &str| conf.last(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        self.authorities.extend(path("acquire::https::cainfo"));
        self.identity = path("acquire::https::sslcert");
        let no = |key: &str| conf.last(key).is_some_and(|v| matches!(v, "false" | "no" | "0" | "off"));
        self.accept_invalid_certificates = no("acquire::https::verify-peer");
        self.check_valid_until = !no("acquire::check-valid-until");
        Ok(())
    }

    fn collect_mounts(&self, etc_apt: &Path) -> Vec<HostMount> {
        let names =
            ["sources.list", "sources.list.d", "trusted.gpg", "trusted.gpg.d", "keyrings", "apt.conf.d", "apt.conf"];
        let mut mounts: Vec<HostMount> = names
            .iter()
            .map(|name| HostMount { source: etc_apt.join(name), destination: Path::new("/etc/apt").join(name) })
            .collect();
        let signed = self.sources.iter().filter_map(|s| match &s.signed_by {
            SignedBy::Files(files) => Some(files.clone()),
            _ => None,
        });
        let lists = self.sources.iter().flat_map(|s| &s.uris).filter_map(|u| local_path(u));
        for path in signed.flatten().chain(lists).chain(self.authorities.iter().cloned()).chain(self.identity.clone()) {
            mounts.push(HostMount { destination: path.clone(), source: path });
        }
        mounts
            .retain(|m| m.source.exists() && (!m.source.starts_with(etc_apt) || m.destination.starts_with("/etc/apt")));
        let mut seen = std::collections::HashSet::new();
        mounts.retain(|m| seen.insert(m.destination.clone()));
        mounts
    }
}

/// The path of a `file:` or `copy:` URL.
pub(crate) fn local_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file:").or_else(|| url.strip_prefix("copy:"))?;
    let rest = rest.strip_prefix("//localhost").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
    let decoded = percent_encoding::percent_decode_str(rest).decode_utf8_lossy().into_owned();
    Some(PathBuf::from(if decoded.starts_with('/') { decoded } else { format!("/{decoded}") }))
}

/// Files of a directory with one of the extensions, by name; names that apt would not read are left out.
fn listed(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, PackagesError> {
    let failed = |source| PackagesError::ReadHostFile { path: directory.into(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) && !name.starts_with('.');
        let extension = path.extension().map_or(String::new(), |e| e.to_string_lossy().into_owned());
        if plain && extensions.contains(&extension.as_str()) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

pub(crate) fn read_text(path: &Path) -> Result<Option<String>, PackagesError> {
    let failed = |source| PackagesError::ReadHostFile { path: path.into(), source };
    match fs::metadata(path) {
        Ok(meta) if meta.len() > limits::CONFIG_BYTES => Err(failed(io::Error::other("the file is too large"))),
        Ok(_) => fs::read(path).map(|b| Some(String::from_utf8_lossy(&b).into_owned())).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn line_sources(path: &Path, text: &str) -> Result<Vec<Source>, PackagesError> {
    let mut sources = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let bad = |what: String| PackagesError::ParseHostFile { path: path.into(), line: at + 1, what };
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once([' ', '\t']) else {
            if line.is_empty() {
                continue;
            }
            return Err(bad(format!("expected `deb [options] uri suite components`, found `{line}`")));
        };
        match kind {
            "deb" => {}
            "deb-src" => continue,
            _ => return Err(bad(format!("expected `deb` or `deb-src`, found `{kind}`"))),
        }
        let mut source = Source { origin: (path.into(), at + 1), ..Source::default() };
        let mut rest = rest.trim();
        if let Some(options) = rest.strip_prefix('[') {
            let (options, after) = options.split_once(']').ok_or_else(|| bad("`[` is never closed".into()))?;
            for option in options.split_whitespace() {
                let (name, value) =
                    option.split_once('=').ok_or_else(|| bad(format!("expected `name=value`, found `{option}`")))?;
                apply_option(&mut source, name, value);
            }
            rest = after.trim();
        }
        let mut words = rest.split_whitespace().map(str::to_string);
        let uri = words.next().ok_or_else(|| bad("expected a URI".into()))?;
        source.uris = vec![uri.trim_end_matches('/').to_string()];
        let suite = words.next().ok_or_else(|| bad("expected a suite after the URI".into()))?;
        source.suites = vec![suite];
        source.components = words.collect();
        if source.components.is_empty() && !source.suites[0].ends_with('/') {
            return Err(bad("expected a component after the suite".into()));
        }
        sources.push(source);
    }
    Ok(sources)
}

fn deb822_sources(path: &Path, text: &str) -> Result<Vec<Source>, PackagesError> {
    // Comments may stand inside a field; blank out their text, so that lines keep their numbers.
    let mut clean = String::with_capacity(text.len());
    let mut line_of = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if !line.starts_with('#') {
            line_of.push((clean.len(), at + 1));
            clean.push_str(line.trim_end());
            clean.push('\n');
        }
    }
    let mut sources = Vec::new();
    for stanza in deb822::stanzas(&clean) {
        let offset = stanza.0.as_ptr() as usize - clean.as_ptr() as usize;
        let line = line_of.iter().rev().find(|(start, _)| *start <= offset).map_or(1, |(_, line)| *line);
        let bad = |what: &str| PackagesError::ParseHostFile { path: path.into(), line, what: what.into() };
        if stanza.get("Enabled").is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "no" | "false" | "0")) {
            continue;
        }
        if stanza.0.trim().is_empty() {
            continue;
        }
        let list = |name: &str| -> Vec<String> {
            stanza.get(name).unwrap_or_default().split_whitespace().map(str::to_string).collect()
        };
        let types = list("Types");
        if types.is_empty() {
            return Err(bad("this stanza has no `Types`"));
        }
        if !types.iter().any(|t| t == "deb") {
            continue;
        }
        let mut source = Source { origin: (path.into(), line), ..Source::default() };
        source.uris = list("URIs").iter().map(|u| u.trim_end_matches('/').to_string()).collect();
        source.suites = list("Suites");
        source.components = list("Components");
        if source.uris.is_empty() {
            return Err(bad("this stanza has no `URIs`"));
        }
        if source.suites.is_empty() {
            return Err(bad("this stanza has no `Suites`"));
        }
        for (name, value) in stanza.fields() {
            apply_option(&mut source, &name.to_ascii_lowercase(), value);
        }
        sources.push(source);
    }
    Ok(sources)
}

fn apply_option(source: &mut Source, name: &str, value: &str) {
    let yes = matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "1" | "with" | "on" | "enable");
    match name.to_ascii_lowercase().as_str() {
        "arch" | "architectures" => {
            source.architectures =
                value.split([',', ' ', '\n']).filter(|a| !a.is_empty()).map(str::to_string).collect();
        }
        "trusted" => source.trusted = yes,
        "check-valid-until" => source.check_valid_until = Some(yes),
        "signed-by" => source.signed_by = signed_by(value),
        _ => {}
    }
}

fn signed_by(value: &str) -> SignedBy {
    if value.contains("-----BEGIN PGP") {
        // A continuation line begins with a blank; ` .` stands for an empty line.
        let lines = value.lines().map(|l| if l.trim() == "." { "" } else { l.trim() });
        return SignedBy::Inline(lines.collect::<Vec<_>>().join("\n") + "\n");
    }
    let words: Vec<&str> = value.split([',', ' ', '\n', '\t']).filter(|w| !w.is_empty()).collect();
    if words.iter().any(|w| w.starts_with('/')) {
        return SignedBy::Files(words.iter().filter(|w| w.starts_with('/')).map(PathBuf::from).collect());
    }
    match words.is_empty() {
        true => SignedBy::Host,
        false => SignedBy::Fingerprints(words.iter().map(|w| w.trim_end_matches('!').to_ascii_uppercase()).collect()),
    }
}

/// `mirror+file:/path` and `mirror+copy:` become the URIs listed in the file: one per line, options after a tab.
fn expand_mirror_lists(source: &mut Source) -> Result<(), PackagesError> {
    let mut uris = Vec::new();
    for uri in std::mem::take(&mut source.uris) {
        let Some(list) = uri.strip_prefix("mirror+").filter(|u| local_path(u).is_some()) else {
            uris.push(uri);
            continue;
        };
        let path = local_path(list).unwrap_or_default();
        let text = read_text(&path)?.ok_or_else(|| PackagesError::ReadHostFile {
            path: path.clone(),
            source: io::Error::new(io::ErrorKind::NotFound, "the mirror list is not there"),
        })?;
        let lines = text.lines().map(|l| l.split(['\t', '#']).next().unwrap_or_default().trim());
        uris.extend(lines.filter(|l| !l.is_empty()).map(|l| l.trim_end_matches('/').to_string()));
    }
    source.uris = uris;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<HostSources, PackagesError> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("@", directory.path().to_str().unwrap())).unwrap();
        }
        HostSources::read(directory.path(), &directory.path().join("keyrings"))
    }

    #[test]
    fn both_formats_and_their_options() {
        let host = read(&[
            ("sources.list", "# c\ndeb [arch=amd64,i386 signed-by=/k.gpg trusted=yes] http://a/debian/ stable main contrib # x\ndeb-src http://a stable main\n"),
            ("sources.list.d/b.sources", "Types: deb deb-src\n# mid\nURIs: http://b/x mirror+file:@/list\nSuites: s s-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\nTypes: deb\nEnabled: no\nURIs: http://c\nSuites: s\n"),
            ("sources.list.d/z.list.off", "nonsense"),
            ("list", "http://m1/debian\tpriority:1\n# c\nhttp://m2/debian/\n"),
        ])
        .unwrap();
        assert_eq!(host.sources.len(), 2);
        let first = &host.sources[0];
        assert_eq!((first.uris[0].as_str(), first.trusted), ("http://a/debian", true));
        assert_eq!(first.architectures, ["amd64", "i386"]);
        assert_eq!(first.signed_by, SignedBy::Files(vec!["/k.gpg".into()]));
        assert_eq!(first.components, ["main", "contrib"]);
        let second = &host.sources[1];
        assert_eq!(second.uris, ["http://b/x", "http://m1/debian", "http://m2/debian"]);
        assert_eq!(second.suites, ["s", "s-updates"]);
        let SignedBy::Inline(key) = &second.signed_by else { panic!("{:?}", second.signed_by) };
        assert_eq!(key, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n");
    }

    #[test]
    fn proxies_and_authorities() {
        let host = read(&[
            ("apt.conf.d/10proxy", "Acquire::http::Proxy \"http://p:3128\";\nAcquire::http::Proxy::near \"DIRECT\";"),
            ("apt.conf.d/20ca.conf", "Acquire { https { CAInfo \"/ca.pem\"; }; Check-Valid-Until \"false\"; };"),
            ("apt.conf.d/x.bak", "{"),
        ])
        .unwrap();
        assert_eq!(host.authorities, [PathBuf::from("/ca.pem")]);
        assert!(!host.check_valid_until);
        assert_eq!(host.proxies[0], ProxyRule { scheme: "http".into(), host: Some("near".into()), proxy: None });
        assert_eq!(host.proxies[2].scheme, "https");
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let message = |files: &[(&str, &str)]| read(files).unwrap_err().to_string();
        let text = message(&[("sources.list", "\nbed http://a s main\n")]);
        assert!(text.contains("sources.list:2: expected `deb` or `deb-src`, found `bed`"), "{text}");
        let text =
            message(&[("sources.list.d/a.sources", "Types: deb\nURIs: u\nSuites: s\n\n# c\nTypes: deb\nURIs: u\n")]);
        assert!(text.contains("a.sources:6: this stanza has no `Suites`"), "{text}");
    }

    #[test]
    fn this_machine_reads() {
        let host = HostSources::read(Path::new("/etc/apt"), Path::new("/usr/share/keyrings")).unwrap();
        for mount in &host.mounts {
            assert!(mount.source.exists());
        }
    }
}
