//! containerd's `hosts.toml`: mirrors of a registry, one file for each.
//!
//! ```text
//! <directory>/<host>/hosts.toml, <host>:<port>, <host>_<port>_, or _default for all others
//! ```
//!
//! Read are `server` and, in `[host."URL"]`, `capabilities`, `ca`, `client`, `skip_verify` and `override_path` (with paths
//! that begin with `/v2`). Further headers and timeouts are not. A mirror is told by `?ns=` whose mirror it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ctk_oci::Reference;
use reqwest::Url;
use serde::Deserialize;

use crate::ClientError;
use crate::registries::Place;

/// What a file says about a registry.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    /// Mirrors, in the order of the file.
    mirrors: Vec<Mirror>,
    /// The registry itself, if it is elsewhere than its name says.
    server: Option<Mirror>,
}

#[derive(Debug)]
struct Mirror {
    host: String,
    /// What goes before the repository's name.
    prefix: String,
    insecure: bool,
    resolves: bool,
    pulls: bool,
    tls: Identity,
}

/// Certificates for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Authorities.
    pub authorities: Vec<PathBuf>,
    /// A certificate and its key, which may be in one file.
    pub client: Option<(PathBuf, Option<PathBuf>)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    server: Option<String>,
    host: BTreeMap<String, Host>,
    // What stands at the top is meant for the server.
    #[serde(flatten)]
    own: Host,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<ClientFiles>,
    skip_verify: bool,
    override_path: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    One(PathBuf),
    Many(Vec<OneOrMany>),
}

impl Hosts {
    /// The first file of the directories that is about a registry.
    pub(crate) fn read(directories: &[PathBuf], registry: &str) -> Result<Option<Hosts>, ClientError> {
        let colon = registry.replacen(':', "_", 1);
        let names = [registry.to_owned(), format!("{colon}_"), "_default".to_owned()];
        for name in &names {
            for directory in directories {
                let folder = directory.join(name);
                let path = folder.join("hosts.toml");
                let text = match fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => continue,
                    Err(error) => return Err(ClientError::file("read", path)(error)),
                };
                return Hosts::parse(&folder, &path, &text).map(Some);
            }
        }
        Ok(None)
    }

    fn parse(folder: &Path, path: &Path, text: &str) -> Result<Hosts, ClientError> {
        let refuse = |reason: String| ClientError::File { action: "read", path: path.into(), reason };
        let parsed: File = toml::from_str(text).map_err(|error| refuse(error.to_string().trim().to_owned()))?;
        let mut hosts: Vec<(usize, String, Host)> = Vec::new();
        for (url, host) in parsed.host {
            // They are tried in the order in which they stand there.
            hosts.push((text.find(&format!("{url}\"")).unwrap_or(usize::MAX), url, host));
        }
        hosts.sort_by_key(|(place, ..)| *place);
        let mirror = |url: &str, host: &Host| mirror(folder, url, host).map_err(refuse);
        let mirrors = hosts.iter().map(|(_, url, host)| mirror(url, host)).collect::<Result<_, _>>()?;
        let server = parsed.server.as_deref().map(|url| mirror(url, &parsed.own)).transpose()?;
        Ok(Hosts { mirrors, server })
    }

    /// Where to pull from: mirrors first, the registry itself last.
    pub(crate) fn pull_places(&self, reference: &Reference) -> Vec<Place> {
        let by_digest = reference.digest().is_some();
        let fitting = self.mirrors.iter().filter(|mirror| mirror.pulls && (by_digest || mirror.resolves));
        let mut places: Vec<Place> = fitting.map(|mirror| mirror.place(reference)).collect();
        places.push(self.own_place(reference));
        places
    }

    /// The registry itself.
    pub(crate) fn own_place(&self, reference: &Reference) -> Place {
        match &self.server {
            Some(server) => Place { namespace: None, ..server.place(reference) },
            None => Place {
                host: reference.registry().into(),
                repository: reference.repository().into(),
                insecure: false,
                namespace: None,
                identity: None,
            },
        }
    }
}

impl Mirror {
    fn place(&self, reference: &Reference) -> Place {
        Place {
            host: self.host.clone(),
            repository: format!("{}{}", self.prefix, reference.repository()),
            insecure: self.insecure,
            namespace: Some(reference.registry().into()).filter(|namespace| *namespace != self.host),
            identity: Some(self.tls.clone()).filter(|identity| *identity != Identity::default()),
        }
    }
}

fn mirror(folder: &Path, url: &str, host: &Host) -> Result<Mirror, String> {
    let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let parsed = Url::parse(&full).map_err(|_| format!("`{url}` is no URL"))?;
    let name = match (parsed.host_str(), parsed.port()) {
        (Some(name), Some(port)) => format!("{name}:{port}"),
        (Some(name), None) if parsed.scheme() == "http" => format!("{name}:80"),
        (Some(name), None) => name.to_owned(),
        (None, _) => return Err(format!("`{url}` has no host")),
    };
    let path = parsed.path().trim_matches('/');
    let prefix = match (path, host.override_path) {
        ("", false) | ("v2", _) => String::new(),
        (path, true) if path.starts_with("v2/") => format!("{}/", &path["v2/".len()..]),
        _ => return Err(format!("`{url}`: a path is only read with `override_path` and when it begins with `/v2`")),
    };
    let can = |word: &str| host.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == word));
    let at = |path: &PathBuf| folder.join(path);
    let authorities = match &host.ca {
        None => Vec::new(),
        Some(OneOrMany::One(path)) => vec![at(path)],
        Some(OneOrMany::Many(paths)) => paths.iter().map(at).collect(),
    };
    let client = match &host.client {
        None => None,
        Some(ClientFiles::One(path)) => Some((at(path), None)),
        Some(ClientFiles::Many(pairs)) => match pairs.first() {
            None => None,
            Some(OneOrMany::One(path)) => Some((at(path), None)),
            Some(OneOrMany::Many(pair)) => match pair.as_slice() {
                [certificate] => Some((at(certificate), None)),
                [certificate, key] => Some((at(certificate), Some(at(key)).filter(|_| !key.as_os_str().is_empty()))),
                _ => return Err(format!("`client` of `{url}` is no pair of files")),
            },
        },
    };
    Ok(Mirror {
        host: name,
        prefix,
        insecure: host.skip_verify || parsed.scheme() == "http",
        resolves: can("resolve"),
        pulls: can("pull"),
        tls: Identity { authorities, client },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
server = "https://registry-1.docker.io"

[host."https://z.lan:5000"]
  capabilities = ["pull", "resolve"]
  ca = "z.crt"
  client = [["z.cert", "z.key"]]
[host."http://a.lan"]
  capabilities = ["pull"]
[host."https://b.lan/v2/hub"]
  override_path = true
  skip_verify = true
"#;

    fn shown(places: &[Place]) -> Vec<String> {
        let show = |place: &Place| {
            let insecure = if place.insecure { " insecure" } else { "" };
            let namespace = place.namespace.as_ref().map(|n| format!(" ns={n}")).unwrap_or_default();
            format!("{}/{}{insecure}{namespace}", place.host, place.repository)
        };
        places.iter().map(show).collect()
    }

    #[test]
    fn mirrors_in_their_order() {
        let folder = Path::new("/etc/containerd/certs.d/docker.io");
        let hosts = Hosts::parse(folder, &folder.join("hosts.toml"), TEXT).unwrap();
        let by_tag = hosts.pull_places(&"debian:12".parse().unwrap());
        assert_eq!(
            shown(&by_tag),
            [
                "z.lan:5000/library/debian ns=docker.io",
                "b.lan/hub/library/debian insecure ns=docker.io",
                "registry-1.docker.io/library/debian",
            ]
        );
        let digest = ctk_oci::Digest::of(b"");
        let by_digest = hosts.pull_places(&format!("debian@{digest}").parse().unwrap());
        assert_eq!(shown(&by_digest)[1], "a.lan:80/library/debian insecure ns=docker.io");
        let identity = by_tag[0].identity.as_ref().unwrap();
        assert_eq!(identity.authorities, [folder.join("z.crt")]);
        assert_eq!(identity.client, Some((folder.join("z.cert"), Some(folder.join("z.key")))));
    }

    #[test]
    fn files_are_found_by_host() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("hosts.toml"), text).unwrap();
        };
        write("a.lan_5000_", "[host.\"https://m.lan\"]\n");
        write("_default", "[host.\"https://d.lan\"]\n");
        let directories = [directory.path().to_owned()];
        let first = |registry: &str| {
            let hosts = Hosts::read(&directories, registry).unwrap().unwrap();
            shown(&hosts.pull_places(&format!("{registry}/x:1").parse().unwrap())).remove(0)
        };
        assert_eq!(first("a.lan:5000"), "m.lan/x ns=a.lan:5000");
        assert_eq!(first("b.lan"), "d.lan/x ns=b.lan");
        assert!(Hosts::read(&[], "a.lan").unwrap().is_none());
        for (text, part) in [
            ("[host.\"https://m.lan/prefix\"]\n", "override_path"),
            ("[host.\"https://m.lan\"]\nclient = [[\"a\", \"b\", \"c\"]]\n", "no pair"),
            ("[host", "hosts.toml"),
        ] {
            write("wrong.lan", text);
            let error = Hosts::read(&directories, "wrong.lan").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
