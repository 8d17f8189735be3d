//! The keys that tokens are signed with: files of a folder, of which several are valid at once. The newest signs, once
//! every server that shares the folder has had the time to read it; each of them verifies, chosen by the token's `kid`
//! and never by anything else that the token says (CVE-2025-24976).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use ctk_oci::Digest;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::meta::Seconds;
use crate::{KEY_SETTLE_SECONDS, RegistryError, SIGNING_KEYS_LIMIT};

/// A key as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name in tokens, and of its file without `.pem`.
    pub kid: String,
    /// When it was made, in seconds since 1970; 0 for a file that was not made by [`new_key`].
    pub created: Seconds,
    /// Whether new tokens are signed with it.
    pub signs: bool,
}

struct Key {
    created: Seconds,
    encode: EncodingKey,
    decode: DecodingKey,
}

/// The keys of a folder, which may change while we serve.
pub(crate) struct Keys {
    folder: PathBuf,
    keys: RwLock<BTreeMap<String, Key>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.folder.display())
    }
}

impl Keys {
    /// The keys of a folder. An empty or missing one gets its first key.
    pub(crate) fn load(folder: &Path, now: Seconds) -> Result<Keys, RegistryError> {
        let mut keys = read(folder)?;
        if keys.is_empty() {
            new_key(folder, now)?;
            keys = read(folder)?;
        }
        Ok(Keys { folder: folder.into(), keys: RwLock::new(keys) })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads the folder again. One that holds no usable key leaves everything as it was.
    pub(crate) fn reload(&self) -> Result<(), RegistryError> {
        let keys = read(&self.folder)?;
        if keys.is_empty() {
            return Err(fail(&self.folder, "it holds no key"));
        }
        *self.keys.write().expect("no holder panics") = keys;
        Ok(())
    }

    pub(crate) fn sign(&self, claims: &impl Serialize, now: Seconds) -> Result<String, RegistryError> {
        let keys = self.keys.read().expect("no holder panics");
        let known = keys.iter().map(|(kid, key)| (kid.as_str(), key.created));
        let kid = signing(known, now).ok_or_else(|| fail(&self.folder, "it holds no key"))?;
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &keys[kid].encode).map_err(|error| fail(&self.folder, error))
    }

    /// The claims of a token whose signature is right. Their times are the caller's business.
    pub(crate) fn verify<T: DeserializeOwned>(&self, token: &str, service: &str) -> Option<T> {
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let keys = self.keys.read().expect("no holder panics");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[service]);
        validation.set_issuer(&[service]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.validate_exp = false;
        Some(jsonwebtoken::decode(token, &keys.get(&kid)?.decode, &validation).ok()?.claims)
    }
}

/// The name of the newest key that everybody knows by now; of the newest of all when there is no older one.
fn signing<'a>(keys: impl Iterator<Item = (&'a str, Seconds)>, now: Seconds) -> Option<&'a str> {
    let settled = |created: Seconds| created + KEY_SETTLE_SECONDS <= now;
    // Among keys that are all too new the oldest is the one that most servers know.
    let rank = |created: Seconds| if settled(created) { (1, created) } else { (0, Seconds::MAX - created) };
    keys.max_by_key(|(kid, created)| (rank(*created), *kid)).map(|(kid, _)| kid)
}

fn fail(path: &Path, reason: impl fmt::Display) -> RegistryError {
    RegistryError::Keys { path: path.into(), reason: reason.to_string() }
}

fn read(folder: &Path) -> Result<BTreeMap<String, Key>, RegistryError> {
    let mut keys = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(keys),
        Err(error) => return Err(fail(folder, error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| fail(folder, error))?.path();
        if path.extension().is_none_or(|extension| extension != "pem") {
            continue;
        }
        let kid = path.file_stem().and_then(|name| name.to_str()).filter(|name| is_kid(name));
        let kid = kid.ok_or_else(|| fail(&path, "a key's name is made of letters, digits and dashes"))?.to_owned();
        if keys.len() == SIGNING_KEYS_LIMIT {
            return Err(fail(folder, format!("it holds more than {SIGNING_KEYS_LIMIT} keys; retire old ones")));
        }
        let der = PrivatePkcs8KeyDer::from_pem_file(&path).map_err(|error| fail(&path, error))?;
        let der = der.secret_pkcs8_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|error| fail(&path, format!("it is no ECDSA key on P-256 in PKCS #8: {error}")))?;
        let created = kid.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let decode = DecodingKey::from_ec_der(pair.public_key().as_ref());
        keys.insert(kid, Key { created, encode: EncodingKey::from_ec_der(der), decode });
    }
    Ok(keys)
}

fn is_kid(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The keys of a folder, the oldest first.
pub fn signing_keys(folder: &Path, now: Seconds) -> Result<Vec<SigningKey>, RegistryError> {
    let keys = read(folder)?;
    let signs = signing(keys.iter().map(|(kid, key)| (kid.as_str(), key.created)), now);
    let shown = |(kid, key): (&String, &Key)| SigningKey {
        kid: kid.clone(),
        created: key.created,
        signs: signs == Some(kid.as_str()),
    };
    let mut shown: Vec<SigningKey> = keys.iter().map(shown).collect();
    shown.sort_by_key(|key| key.created);
    Ok(shown)
}

/// Makes a key in a folder, which is made if it does not exist; gives its name. Servers of the folder sign with it a
/// few seconds later.
pub fn new_key(folder: &Path, now: Seconds) -> Result<String, RegistryError> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| fail(folder, error))?;
    let refused = |_| fail(folder, "no key could be made");
    let random = aws_lc_rs::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(refused)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref());
    let pair = pair.map_err(|error| fail(folder, error))?;
    let digest = Digest::of(pair.public_key().as_ref());
    let kid = format!("{now}-{}", &digest.hex()[..12]);
    let encoded = base64::prelude::BASE64_STANDARD.encode(document.as_ref());
    let mut text = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    // Whole or not at all: a server may read the folder at any time.
    let (temporary, path) = (folder.join(format!(".{kid}")), folder.join(format!("{kid}.pem")));
    let mut file = std::fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|error| fail(&temporary, error))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| std::fs::rename(&temporary, &path));
    renamed.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        fail(&path, error)
    })?;
    Ok(kid)
}

/// Removes a key: tokens that were signed with it are refused from now on. The last one stays.
pub fn retire_key(folder: &Path, kid: &str) -> Result<(), RegistryError> {
    let keys = read(folder)?;
    if !keys.contains_key(kid) {
        let known: Vec<&str> = keys.keys().map(String::as_str).collect();
        return Err(fail(folder, format!("it holds no key `{kid}`; its keys are: {}", known.join(", "))));
    }
    if keys.len() == 1 {
        return Err(fail(folder, "it is the only key; make a new one first"));
    }
    let path = folder.join(format!("{kid}.pem"));
    std::fs::remove_file(&path).map_err(|error| fail(&path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_key_that_everybody_knows_signs() {
        let check = |keys: &[(&str, Seconds)], now, expected| {
            assert_eq!(signing(keys.iter().copied(), now), expected, "{keys:?} at {now}");
        };
        check(&[], 100, None);
        check(&[("a", 100)], 100, Some("a"));
        check(&[("a", 10), ("b", 100)], 100, Some("a"));
        check(&[("a", 10), ("b", 100)], 100 + KEY_SETTLE_SECONDS, Some("b"));
        check(&[("a", 99), ("b", 100)], 100, Some("a"));
        check(&[("old", 0), ("a", 10)], 1000, Some("a"));
    }

    #[test]
    fn keys_are_made_listed_and_retired() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let keys = Keys::load(&folder, 1000).unwrap();
        let first = signing_keys(&folder, 1000).unwrap();
        assert!(first.len() == 1 && first[0].signs && first[0].created == 1000);
        assert!(retire_key(&folder, &first[0].kid).unwrap_err().to_string().contains("only key"));
        let second = new_key(&folder, 2000).unwrap();
        keys.reload().unwrap();
        let shown = signing_keys(&folder, 2000).unwrap();
        assert_eq!(shown.iter().map(|key| key.signs).collect::<Vec<_>>(), [true, false]);
        assert!(signing_keys(&folder, 2000 + KEY_SETTLE_SECONDS).unwrap()[1].signs);
        let error = retire_key(&folder, "nonsense").unwrap_err().to_string();
        assert!(error.contains(&second), "{error}");
        retire_key(&folder, &first[0].kid).unwrap();
        std::fs::write(folder.join("broken.pem"), "nonsense").unwrap();
        assert!(keys.reload().unwrap_err().to_string().contains("broken.pem"));
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.join(format!("{second}.pem"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
