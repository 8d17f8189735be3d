//! Digests (image-spec 1.1, `descriptor.md#digests`) and the ids of unpacked layers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

/// The hash functions that the specification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// 32 bytes; what everybody writes.
    Sha256,
    /// 64 bytes; accepted everywhere, written on request.
    Sha512,
}

impl Algorithm {
    /// Each of them.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// `sha256` or `sha512`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the encoded part: 64 or 128 lower-case hex digits.
    pub fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }

    /// A running hash of this kind.
    pub fn digester(self) -> Digester {
        match self {
            Algorithm::Sha256 => Digester(Hash::Sha256(sha2::Sha256::new())),
            Algorithm::Sha512 => Digester(Hash::Sha512(sha2::Sha512::new())),
        }
    }
}

/// `algorithm:hex`, the name of bytes. Always well formed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `:` between algorithm and hex.
    #[error("digest `{0}` has no `:`; expected `sha256:` and 64 hex digits")]
    NoColon(String),
    /// An algorithm that the specification does not register.
    #[error("digest algorithm `{0}` is unknown; expected `sha256` or `sha512`")]
    UnknownAlgorithm(String),
    /// Wrong length, or a character other than `0-9a-f`.
    #[error("digest `{0}` is malformed; expected {1} lower-case hex digits after the colon")]
    BadHex(String, usize),
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut digester = Algorithm::Sha256.digester();
        digester.update(bytes);
        digester.finish()
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lower-case hex part.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::NoColon(text.into()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::UnknownAlgorithm(name.into())),
        };
        let well_formed =
            hex.len() == algorithm.hex_len() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(DigestError::BadHex(text.into(), algorithm.hex_len()));
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's uncompressed tar stream (`config.md`, `rootfs.diff_ids`).
///
/// A type of its own: a `DiffId` names a tree of changes, a [`Digest`] the bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ChainID of each layer, base first (`config.md#layer-chainid`).
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for DiffId(digest) in diff_ids {
        let next = match chain.last() {
            None => digest.clone(),
            Some(parent) => Digest::of(format!("{parent} {digest}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// A running hash: feed bytes, then take the digest. It can be saved half-way and gone on with in another process.
#[derive(Clone)]
pub struct Digester(Hash);

#[derive(Clone)]
enum Hash {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Digester {
    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Hash::Sha256(_) => Algorithm::Sha256,
            Hash::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The state, at most 256 bytes, for [`Digester::restore`] with the same algorithm. It says something about the
    /// bytes fed: keep it where they are kept.
    pub fn save(&self) -> Vec<u8> {
        match &self.0 {
            Hash::Sha256(hash) => hash.serialize().to_vec(),
            Hash::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    /// What [`Digester::save`] gave, running on. `None` when the bytes are no such state.
    pub fn restore(algorithm: Algorithm, state: &[u8]) -> Option<Digester> {
        let hash = match algorithm {
            Algorithm::Sha256 => {
                let state = SerializedState::<sha2::Sha256>::try_from(state).ok()?;
                Hash::Sha256(sha2::Sha256::deserialize(&state).ok()?)
            }
            Algorithm::Sha512 => {
                let state = SerializedState::<sha2::Sha512>::try_from(state).ok()?;
                Hash::Sha512(sha2::Sha512::deserialize(&state).ok()?)
            }
        };
        Some(Digester(hash))
    }

    /// The digest of everything fed.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            Hash::Sha256(hash) => (Algorithm::Sha256, hash.finalize().to_vec()),
            Hash::Sha512(hash) => (Algorithm::Sha512, hash.finalize().to_vec()),
        };
        let mut hex = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            hex.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble"));
            hex.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble"));
        }
        Digest { algorithm, hex: hex.into() }
    }
}

impl std::io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn malformed_digests_are_refused() {
        let refused = |text: &str| text.parse::<Digest>().unwrap_err();
        assert!(matches!(refused("sha256"), DigestError::NoColon(_)));
        assert!(matches!(refused("md5:00"), DigestError::UnknownAlgorithm(_)));
        assert!(matches!(refused(&EMPTY.to_uppercase().replace("SHA", "sha")), DigestError::BadHex(..)));
        assert!(matches!(refused(&EMPTY[..70]), DigestError::BadHex(..)));
    }

    #[test]
    fn a_saved_hash_goes_on() {
        let text: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in [0, 1, 63, 64, 127, 128, 5000] {
                let mut whole = algorithm.digester();
                whole.update(&text);
                let mut first = algorithm.digester();
                first.update(&text[..cut]);
                let mut second = Digester::restore(algorithm, &first.save()).unwrap();
                second.update(&text[cut..]);
                assert_eq!(second.finish(), whole.finish());
            }
            assert!(Digester::restore(algorithm, b"short").is_none());
        }
    }

    #[test]
    fn chain_of_two_is_the_hash_of_both() {
        let a = DiffId(Digest::of(b"a"));
        let b = DiffId(Digest::of(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a.0);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
