//! Who may sign: keys from keyring files, and whether one of them signed a text (RFC 9580).
//!
//! A key counts when it is bound by its owner, not revoked and not expired; SHA-1 and MD5 signatures never count.

use std::fs;

use pgp::composed::{CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::KeyDetails;

use crate::apt::sources::{HostSources, SignedBy};
use crate::{PackagesError, limits};

/// The keys that count for one source.
pub(crate) struct Keyring {
    keys: Vec<SignedPublicKey>,
    /// For errors: where the keys came from.
    pub(crate) name: String,
}

impl Keyring {
    /// The keys for a source's `Signed-By`.
    pub(crate) fn load(signed_by: &SignedBy, host: &HostSources) -> Result<Keyring, PackagesError> {
        let join = |paths: &[std::path::PathBuf]| {
            let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
            names.join(", ")
        };
        let mut ring = match signed_by {
            SignedBy::Files(paths) => Keyring { keys: from_files(paths, true)?, name: join(paths) },
            SignedBy::Host => Keyring { keys: from_files(&host.keyrings, false)?, name: join(&host.keyrings) },
            SignedBy::Fingerprints(fingerprints) => {
                let mut keys = from_files(&host.keyrings, false)?;
                keys.retain(|key| {
                    let all = std::iter::once(hex(key)).chain(key.public_subkeys.iter().map(|s| hex(&s.key)));
                    all.into_iter().any(|f| fingerprints.iter().any(|wanted| f.ends_with(wanted.as_str())))
                });
                Keyring { keys, name: format!("{} of {}", fingerprints.join(", "), join(&host.keyrings)) }
            }
            SignedBy::Inline(text) => {
                let name = "in the source's Signed-By".to_string();
                let keys =
                    parse(text.as_bytes()).map_err(|what| PackagesError::Keyring { keyring: name.clone(), what })?;
                Keyring { keys, name }
            }
        };
        if ring.name.is_empty() {
            ring.name = "of the host: no files found".into();
        }
        match ring.keys.is_empty() {
            true => Err(PackagesError::Keyring { keyring: ring.name, what: "holds no usable key".into() }),
            false => Ok(ring),
        }
    }

    /// The signed text of a clear-signed message, with line feeds; an error says why nobody trusted signed it.
    pub(crate) fn verify_inline(&self, message: &[u8], now_seconds: i64) -> Result<String, String> {
        let text = std::str::from_utf8(message).map_err(|_| "the release file is not UTF-8".to_string())?;
        let (message, _) =
            CleartextSignedMessage::from_string(text).map_err(|e| format!("not a signed message: {}", one_line(&e)))?;
        let signed = message.signed_text();
        self.check(message.signatures().iter(), signed.as_bytes(), now_seconds)?;
        Ok(signed.replace("\r\n", "\n"))
    }

    /// Whether `signatures` (armored or binary) holds a trusted one over `data`.
    pub(crate) fn verify_detached(&self, data: &[u8], signatures: &[u8], now_seconds: i64) -> Result<(), String> {
        let bad = |e: pgp::errors::Error| format!("not a signature: {}", one_line(&e));
        let all: Vec<DetachedSignature> = if signatures.starts_with(b"-----BEGIN") {
            let (found, _) = DetachedSignature::from_armor_many(signatures).map_err(bad)?;
            found.collect::<Result<_, _>>().map_err(bad)?
        } else {
            let found = DetachedSignature::from_bytes_many(signatures).map_err(bad)?;
            found.collect::<Result<_, _>>().map_err(bad)?
        };
        self.check(all.iter().map(|s| &s.signature), data, now_seconds)
    }

    fn check<'s>(
        &self,
        signatures: impl Iterator<Item = &'s Signature>,
        data: &[u8],
        now_seconds: i64,
    ) -> Result<(), String> {
        let mut unknown = Vec::new();
        let mut reasons = Vec::new();
        for signature in signatures {
            if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
                continue;
            }
            if matches!(signature.hash_alg(), None | Some(HashAlgorithm::Md5 | HashAlgorithm::Sha1)) {
                reasons.push("the signature uses a broken digest".to_string());
                continue;
            }
            let over = signature.signature_expiration_time().map_or(0, |d| d.as_secs());
            let created = signature.created().map_or(0, |t| t.as_secs());
            if over != 0 && i64::from(created) + i64::from(over) < now_seconds {
                reasons.push("the signature has expired".to_string());
                continue;
            }
            let issuers: Vec<String> =
                signature.issuer_key_id().iter().map(|id| id.to_string().to_ascii_uppercase()).collect();
            let prints: Vec<String> =
                signature.issuer_fingerprint().iter().map(|f| f.to_string().to_ascii_uppercase()).collect();
            let mut known = false;
            for key in &self.keys {
                for (fingerprint, id, subkey) in std::iter::once((hex(key), id(key), None))
                    .chain(key.public_subkeys.iter().map(|s| (hex(&s.key), id(&s.key), Some(s))))
                {
                    if !issuers.contains(&id) && !prints.contains(&fingerprint) {
                        continue;
                    }
                    known = true;
                    if let Err(why) = usable(key, now_seconds) {
                        reasons.push(format!("key {fingerprint} {why}"));
                        continue;
                    }
                    let verified = match subkey {
                        None => signature.verify(&key.primary_key, data),
                        Some(subkey) => subkey_usable(key, subkey, now_seconds)
                            .map_err(|what| pgp::errors::Error::from(std::io::Error::other(what)))
                            .and_then(|()| signature.verify(&subkey.key, data)),
                    };
                    match verified {
                        Ok(()) => return Ok(()),
                        Err(_) => reasons.push(format!("bad signature by key {fingerprint}")),
                    }
                }
            }
            if !known {
                unknown.extend(prints.into_iter().next().or(issuers.into_iter().next()));
            }
        }
        match (reasons.is_empty(), unknown.is_empty()) {
            (false, _) => Err(reasons.join("; ")),
            (true, false) => Err(format!("signed by unknown key {}", unknown.join(", "))),
            (true, true) => Err("carries no signature".into()),
        }
    }
}

fn usable(key: &SignedPublicKey, now_seconds: i64) -> Result<(), String> {
    if key.details.revocation_signatures.iter().any(|s| s.verify_key(&key.primary_key).is_ok()) {
        return Err("is revoked".into());
    }
    let mut bound = false;
    let mut lasting = None;
    let mut newest = 0;
    for user in &key.details.users {
        for signature in &user.signatures {
            if signature.verify_certification(&key.primary_key, pgp::types::Tag::UserId, &user.id).is_err() {
                continue;
            }
            bound = true;
            let created = signature.created().map_or(0, |t| t.as_secs());
            if created >= newest {
                newest = created;
                lasting = signature.key_expiration_time().map(|d| d.as_secs());
            }
        }
    }
    bound |= key.details.direct_signatures.iter().any(|s| s.verify_key(&key.primary_key).is_ok());
    if !bound {
        return Err("is not bound by its owner's signature".into());
    }
    let created = i64::from(key.primary_key.created_at().as_secs());
    match lasting {
        Some(seconds) if seconds > 0 && created + i64::from(seconds) < now_seconds => Err("has expired".into()),
        _ => Ok(()),
    }
}

fn subkey_usable(
    key: &SignedPublicKey,
    subkey: &pgp::composed::SignedPublicSubKey,
    now_seconds: i64,
) -> Result<(), String> {
    let revoked = subkey.signatures.iter().any(|s| {
        s.typ() == Some(SignatureType::SubkeyRevocation)
            && s.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok()
    });
    if revoked {
        return Err("is revoked".into());
    }
    let binding = subkey.signatures.iter().filter(|s| s.typ() == Some(SignatureType::SubkeyBinding));
    let newest = binding
        .filter(|s| s.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok())
        .max_by_key(|s| s.created().map_or(0, |t| t.as_secs()))
        .ok_or("is not bound by its owner's signature")?;
    let created = i64::from(subkey.key.created_at().as_secs());
    match newest.key_expiration_time().map(|d| i64::from(d.as_secs())) {
        Some(seconds) if seconds > 0 && created + seconds < now_seconds => Err("has expired".into()),
        _ => Ok(()),
    }
}

fn hex(key: &impl KeyDetails) -> String {
    key.fingerprint().to_string().to_ascii_uppercase()
}

fn id(key: &impl KeyDetails) -> String {
    key.legacy_key_id().to_string().to_ascii_uppercase()
}

/// Keys of several files; with `strict` a file that cannot be read is an error, else it is passed over as apt does.
fn from_files(paths: &[std::path::PathBuf], strict: bool) -> Result<Vec<SignedPublicKey>, PackagesError> {
    let mut keys = Vec::new();
    for path in paths {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(_) if !strict => continue,
            Err(source) => return Err(PackagesError::ReadHostFile { path: path.clone(), source }),
        };
        match parse(&bytes) {
            Ok(found) => keys.extend(found),
            Err(_) if !strict => {}
            Err(what) => return Err(PackagesError::Keyring { keyring: path.display().to_string(), what }),
        }
    }
    Ok(keys)
}

fn parse(bytes: &[u8]) -> Result<Vec<SignedPublicKey>, String> {
    if bytes.len() as u64 > limits::CONFIG_BYTES {
        return Err(format!("is larger than {} bytes", limits::CONFIG_BYTES));
    }
    let bad = |e: pgp::errors::Error| format!("is not readable as OpenPGP keys: {}", one_line(&e));
    let start = bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
    // A key in a newer format beside usable ones is passed over.
    let keys: Vec<SignedPublicKey> = if bytes[start..].starts_with(b"-----BEGIN") {
        SignedPublicKey::from_armor_many(&bytes[start..]).map_err(bad)?.0.filter_map(Result::ok).collect()
    } else {
        SignedPublicKey::from_bytes_many(bytes).map_err(bad)?.filter_map(Result::ok).collect()
    };
    if keys.is_empty() { Err("holds no usable key".into()) } else { Ok(keys) }
}

fn one_line(error: &pgp::errors::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
