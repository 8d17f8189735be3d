//! Debian's family: release files, indexes, selection, downloads.

pub(crate) mod conf;
pub(crate) mod deb822;
pub(crate) mod index;
pub(crate) mod keyring;
pub(crate) mod relation;
pub(crate) mod release;
pub(crate) mod resolve;
pub(crate) mod sources;
pub(crate) mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_plan::{Cancel, Step};

use crate::apt::index::{IndexText, Offers};
use crate::apt::keyring::Keyring;
use crate::apt::release::Release;
use crate::apt::sources::{SignedBy, Source};
use crate::cache::Cache;
use crate::transport::{Transport, Wanted, shown};
use crate::{Format, HostSources, Locked, LockedPackage, PackagesError, Request, limits};

/// One suite of one source.
struct Suite<'a> {
    source: &'a Source,
    name: &'a str,
}

pub(crate) fn resolve(
    request: &Request,
    host: &HostSources,
    cache: &Path,
    step: &Step,
    cancel: &Cancel,
) -> Result<Locked, PackagesError> {
    let cache = Cache::open(cache)?;
    let sources = sources_for(request, host)?;
    let suites: Vec<Suite<'_>> =
        sources.iter().flat_map(|s| s.suites.iter().map(|name| Suite { source: s, name })).collect();
    let transport = Transport::new(host);
    let releases = releases(&suites, request, host, &transport, &cache, step, cancel)?;
    let texts = indexes(&suites, &releases, request, &transport, &cache, step, cancel)?;
    if cancel.is_cancelled() {
        return Err(PackagesError::Cancelled);
    }
    let offers = Offers::read(&texts)?;
    let chosen = resolve::resolve(&offers, request, &request.suite)?;
    let mut locked = Locked {
        format: Format::Apt,
        distro: request.distro.clone(),
        suite: request.suite.clone(),
        architecture: request.architecture.clone(),
        epoch_seconds: 0,
        packages: Vec::with_capacity(chosen.len()),
    };
    for number in chosen {
        let offer = &offers.all[number as usize];
        let bad = |field: &str| PackagesError::Index {
            url: offer.index.url.clone(),
            what: format!("package {} has no usable {field}", offer.name),
        };
        let sha256 = offer.stanza.get("SHA256").filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        let filename = offer.stanza.get("Filename").map(|f| f.trim_start_matches("./"));
        let filename = filename.filter(|f| !f.is_empty() && !f.starts_with('/') && !f.split('/').any(|p| p == ".."));
        locked.epoch_seconds = locked.epoch_seconds.max(offer.index.epoch_seconds);
        locked.packages.push(LockedPackage {
            name: offer.name.into(),
            version: offer.version.into(),
            architecture: offer.architecture.into(),
            suite: offer.index.suite.clone(),
            filename: filename.ok_or_else(|| bad("Filename"))?.into(),
            sha256: sha256.ok_or_else(|| bad("SHA256"))?.to_ascii_lowercase(),
            size: offer.stanza.get("Size").and_then(|s| s.parse().ok()).ok_or_else(|| bad("Size"))?,
        });
    }
    Ok(locked)
}

pub(crate) fn fetch(
    locked: &Locked,
    host: &HostSources,
    mirror: Option<&str>,
    cache: &Path,
    step: &Step,
    cancel: &Cancel,
) -> Result<Vec<PathBuf>, PackagesError> {
    let cache = Cache::open(cache)?;
    let mut wanted = Vec::with_capacity(locked.packages.len());
    for package in &locked.packages {
        let mut urls: Vec<String> = Vec::new();
        let mut add = |uri: &str| {
            let url = join(uri, &package.filename);
            if !urls.contains(&url) {
                urls.push(url);
            }
        };
        mirror.into_iter().for_each(&mut add);
        let mut sources: Vec<&Source> = host.sources.iter().filter(|s| s.suites.contains(&package.suite)).collect();
        // Another archive of the host may hold the same file; its digest is all that counts.
        sources.extend(host.sources.iter().filter(|s| mirror.is_none() && related(&s.suites, &locked.suite)));
        sources.iter().flat_map(|s| &s.uris).for_each(|uri| add(uri));
        if urls.is_empty() {
            return Err(no_source(&package.suite, None, host));
        }
        wanted.push(Wanted {
            urls,
            sha256: Some(package.sha256.clone()),
            size: Some(package.size),
            limit_bytes: package.size,
        });
    }
    Transport::new(host).download_all(wanted, &cache, step, cancel)
}

/// The sources to ask, narrowed to the suites that belong to the request.
fn sources_for(request: &Request, host: &HostSources) -> Result<Vec<Source>, PackagesError> {
    if let Some(mirror) = &request.mirror {
        // A mirror of the host's own archive is signed by the same keys.
        let known = host.sources.iter().find(|s| s.suites.contains(&request.suite));
        let signed_by = match (&request.keyring, known) {
            (Some(keyring), _) => SignedBy::Files(vec![keyring.clone()]),
            (None, Some(source)) => source.signed_by.clone(),
            (None, None) => SignedBy::Host,
        };
        let components = if request.components.is_empty() { vec!["main".into()] } else { request.components.clone() };
        return Ok(vec![Source {
            uris: vec![mirror.trim_end_matches('/').into()],
            suites: vec![request.suite.clone()],
            components,
            signed_by,
            ..Source::default()
        }]);
    }
    let mut found = Vec::new();
    let mut wrong_architecture = false;
    for source in &host.sources {
        let mut source = source.clone();
        source.suites.retain(|name| belongs(name, &request.suite));
        if source.suites.is_empty() {
            continue;
        }
        if !source.architectures.is_empty() && !source.architectures.contains(&request.architecture) {
            wrong_architecture = true;
            continue;
        }
        if !request.components.is_empty() {
            source.components.clone_from(&request.components);
        }
        if let Some(keyring) = &request.keyring {
            source.signed_by = SignedBy::Files(vec![keyring.clone()]);
        }
        found.push(source);
    }
    if !found.iter().any(|s| s.suites.contains(&request.suite)) {
        let architecture = wrong_architecture.then(|| request.architecture.clone());
        return Err(no_source(&request.suite, architecture, host));
    }
    Ok(found)
}

/// `bookworm`, and with it `bookworm-updates`, `bookworm-security`, `bookworm/updates`.
fn belongs(name: &str, suite: &str) -> bool {
    name == suite || name.strip_prefix(suite).is_some_and(|rest| matches!(rest, "-updates" | "-security" | "/updates"))
}

fn related(suites: &[String], suite: &str) -> bool {
    suites.iter().any(|s| belongs(s, suite))
}

fn no_source(suite: &str, architecture: Option<String>, host: &HostSources) -> PackagesError {
    let mut available: Vec<&str> = host.sources.iter().flat_map(|s| &s.suites).map(String::as_str).collect();
    available.sort_unstable();
    available.dedup();
    let available =
        if available.is_empty() { "none, this host has no package sources".into() } else { available.join(", ") };
    PackagesError::NoSource { suite: suite.into(), architecture, available }
}

fn join(uri: &str, path: &str) -> String {
    format!("{}/{}", uri.trim_end_matches('/'), path.replace('+', "%2B"))
}

/// Release files of all suites at once, each verified before anything in it is believed.
fn releases(
    suites: &[Suite<'_>],
    request: &Request,
    host: &HostSources,
    transport: &Arc<Transport>,
    cache: &Cache,
    step: &Step,
    cancel: &Cancel,
) -> Result<Vec<Release>, PackagesError> {
    let wanted = |suite: &Suite<'_>, name: &str| Wanted {
        urls: suite.source.uris.iter().map(|uri| join(uri, &format!("dists/{}/{name}", suite.name))).collect(),
        sha256: None,
        size: None,
        limit_bytes: limits::RELEASE_BYTES,
    };
    let inline: Vec<Wanted> = suites.iter().map(|s| wanted(s, "InRelease")).collect();
    let urls: Vec<String> = inline.iter().map(|w| shown(&w.urls[0])).collect();
    let mut keyrings: Vec<(&SignedBy, Arc<Keyring>)> = Vec::new();
    for suite in suites.iter().filter(|s| !s.source.trusted) {
        let signed_by = &suite.source.signed_by;
        if !keyrings.iter().any(|(known, _)| *known == signed_by) {
            keyrings.push((signed_by, Arc::new(Keyring::load(signed_by, host)?)));
        }
    }
    let found = transport.download(inline, cache, step, cancel).into_iter();
    let found: Vec<Result<Vec<u8>, PackagesError>> = found.map(|file| file.and_then(|path| take(&path))).collect();
    let mut releases = Vec::new();
    for ((suite, url), file) in suites.iter().zip(urls).zip(found) {
        let known = keyrings.iter().find(|(signed_by, _)| *signed_by == &suite.source.signed_by);
        let keyring = known.filter(|_| !suite.source.trusted).map(|(_, ring)| ring.clone());
        let refused = |url: &str, what: String| PackagesError::Signature {
            url: url.into(),
            what,
            keyring: keyring.as_ref().map_or_else(String::new, |k| k.name.clone()),
        };
        let (url, text) = match file {
            Ok(bytes) => match &keyring {
                Some(ring) => {
                    let text = ring.verify_inline(&bytes, request.now_seconds).map_err(|what| refused(&url, what))?;
                    (url, text)
                }
                None => (url, unsigned(&bytes)),
            },
            Err(PackagesError::Status { status, .. }) if status.starts_with("404") || status == "no such file" => {
                let mut both = transport.download(
                    vec![wanted(suite, "Release"), wanted(suite, "Release.gpg")],
                    cache,
                    step,
                    cancel,
                );
                let signature = both.pop().unwrap_or(Err(PackagesError::Cancelled));
                // The absence of InRelease is the likelier mistake to report when there is no Release either.
                let release = both.pop().unwrap_or(Err(PackagesError::Cancelled)).map_err(|e| match e {
                    PackagesError::Status { status, .. } => PackagesError::Status { url: url.clone(), status },
                    other => other,
                });
                let signature = signature.and_then(|path| take(&path));
                let bytes = release.and_then(|path| take(&path))?;
                let url = url.replace("InRelease", "Release");
                if let Some(ring) = &keyring {
                    let signature = signature
                        .map_err(|_| refused(&url, "carries no signature (no Release.gpg beside it)".into()))?;
                    ring.verify_detached(&bytes, &signature, request.now_seconds)
                        .map_err(|what| refused(&url, what))?;
                }
                (url, String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(error) => return Err(error),
        };
        let check_date = suite.source.check_valid_until.unwrap_or(host.check_valid_until);
        releases.push(Release::parse(&url, &text, suite.name, check_date.then_some(request.now_seconds))?);
    }
    Ok(releases)
}

/// Reads a file that only this call knows of, and removes it.
fn take(path: &Path) -> Result<Vec<u8>, PackagesError> {
    let bytes = std::fs::read(path).map_err(|source| PackagesError::Cache { path: path.into(), source });
    let _ = std::fs::remove_file(path);
    bytes
}

/// The text of a clear-signed file whose signature nobody asked for (`trusted=yes`).
fn unsigned(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let Some((_, body)) = text.split_once("-----BEGIN PGP SIGNED MESSAGE-----") else { return text };
    let body = body.split_once("\n\n").map_or(body, |(_, b)| b);
    body.split("-----BEGIN PGP SIGNATURE-----").next().unwrap_or(body).to_string()
}

/// The indexes that the request needs, digests checked, in the order of the suites.
fn indexes(
    suites: &[Suite<'_>],
    releases: &[Release],
    request: &Request,
    transport: &Arc<Transport>,
    cache: &Cache,
    step: &Step,
    cancel: &Cancel,
) -> Result<Vec<IndexText>, PackagesError> {
    let mut architectures = vec![request.architecture.as_str()];
    for word in &request.install {
        let head = word.split('=').next().unwrap_or_default();
        if let Some((_, architecture)) = head.split_once(':')
            && !architectures.contains(&architecture)
        {
            architectures.push(architecture);
        }
    }
    let mut wanted = Vec::new();
    let mut origins: Vec<(String, &Suite<'_>, &Release)> = Vec::new();
    for (suite, release) in suites.iter().zip(releases) {
        let bad = |what: String| PackagesError::Release {
            url: join(&suite.source.uris[0], &format!("dists/{}", suite.name)),
            what,
        };
        for component in &suite.source.components {
            let plain = component.rsplit('/').next().unwrap_or(component);
            if !release.components.is_empty()
                && !release.components.iter().any(|c| c == component || c.rsplit('/').next() == Some(plain))
            {
                return Err(bad(format!("has no component `{component}`; there is {}", release.components.join(", "))));
            }
            let all = release.all_separate && release.architectures.iter().any(|a| a == "all");
            for architecture in architectures.iter().copied().chain(all.then_some("all")) {
                let directory = format!("{component}/binary-{architecture}");
                let Some((name, digest, size)) = best_compression(release, &directory) else {
                    if architecture == "all" {
                        continue;
                    }
                    let there = release.architectures.join(", ");
                    return Err(bad(format!(
                        "has no packages for `{architecture}` in `{component}`; its architectures are {there}"
                    )));
                };
                let path = match release.by_hash {
                    true => format!("dists/{}/{directory}/by-hash/SHA256/{digest}", suite.name),
                    false => format!("dists/{}/{name}", suite.name),
                };
                let plain_path = format!("dists/{}/{name}", suite.name);
                let mut urls: Vec<String> = suite.source.uris.iter().map(|uri| join(uri, &path)).collect();
                if release.by_hash {
                    urls.extend(suite.source.uris.iter().map(|uri| join(uri, &plain_path)));
                }
                wanted.push(Wanted { urls, sha256: Some(digest), size: Some(size), limit_bytes: limits::INDEX_BYTES });
                origins.push((name, suite, release));
            }
        }
    }
    let urls: Vec<String> = wanted.iter().map(|w| shown(&w.urls[0])).collect();
    let files = transport.download_all(wanted, cache, step, cancel)?;
    let mut texts: Vec<Option<Result<IndexText, PackagesError>>> = files.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for (((slot, file), url), (name, suite, release)) in texts.iter_mut().zip(&files).zip(&urls).zip(&origins) {
            scope.spawn(move || {
                *slot = Some(index::decompress(file, name, url).map(|text| IndexText {
                    url: url.clone(),
                    suite: suite.name.to_string(),
                    not_automatic: release.not_automatic,
                    epoch_seconds: release.epoch_seconds,
                    text,
                }));
            });
        }
    });
    texts.into_iter().map(|t| t.unwrap_or(Err(PackagesError::Cancelled))).collect()
}

/// The file of an index to take: gzip decompresses five times faster than xz, so it may be half larger.
fn best_compression(release: &Release, directory: &str) -> Option<(String, String, u64)> {
    let find = |extension: &str| {
        let name = format!("{directory}/Packages{extension}");
        release.files.get(&name).map(|(digest, size)| (name, digest.clone(), *size))
    };
    match (find(".gz"), find(".xz")) {
        (Some(gz), Some(xz)) if gz.2 <= xz.2 + xz.2 / 2 => Some(gz),
        (gz, xz) => xz.or_else(|| find(".zst")).or(gz).or_else(|| find("")),
    }
}
