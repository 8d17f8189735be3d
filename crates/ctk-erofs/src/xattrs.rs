//! Extended attributes, shared and not.

use std::collections::{BTreeMap, HashMap};

use crate::ErofsError;
use crate::limits::{XATTR_NAME_MAX_BYTES, XATTR_VALUE_MAX_BYTES, XATTRS_MAX_BYTES, XATTRS_SHARED_MAX};
use crate::tree::Node;

/// Bytes of the header of an inode's attributes.
const HEADER_BYTES: usize = 12;

/// Namespaces and their numbers. Those of ACLs are whole names.
const NAMESPACES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Number of the namespace and the rest of the name.
fn divide(name: &[u8]) -> Option<(u8, &[u8])> {
    NAMESPACES.iter().find_map(|(prefix, index)| {
        let rest = name.strip_prefix(*prefix)?;
        (prefix.ends_with(b".") != rest.is_empty()).then_some((*index, rest))
    })
}

/// Whether the format has room for these attributes, even if none is shared.
pub fn check(xattrs: &Xattrs, path: impl Fn() -> String) -> Result<(), ErofsError> {
    let limit = |what, found: usize, limit: usize| match found > limit {
        true => Err(ErofsError::Limit { path: path(), what, found: found as u64, limit: limit as u64 }),
        false => Ok(()),
    };
    let mut bytes = HEADER_BYTES;
    for (name, value) in xattrs {
        let Some((_, rest)) = divide(name) else {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(ErofsError::XattrNamespace { path: path(), name });
        };
        limit("extended attribute's name", rest.len(), XATTR_NAME_MAX_BYTES)?;
        limit("extended attribute's value", value.len(), XATTR_VALUE_MAX_BYTES)?;
        bytes += entry(name, value).len();
    }
    limit("list of extended attributes", bytes, XATTRS_MAX_BYTES)
}

/// One attribute as it stands beside an inode or among the shared ones.
fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    let (index, rest) = divide(name).expect("checked when it was added");
    let mut bytes = vec![rest.len() as u8, index];
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(rest);
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes that several inodes have.
#[derive(Debug, Default)]
pub struct Shared<'a> {
    /// Their numbers: places in the area, by four.
    numbers: HashMap<(&'a [u8], &'a [u8]), u32>,
    /// The area.
    pub bytes: Vec<u8>,
}

impl<'a> Shared<'a> {
    pub fn of(nodes: &'a [Node]) -> Shared<'a> {
        let mut counts: BTreeMap<(&[u8], &[u8]), u32> = BTreeMap::new();
        for node in nodes {
            for (name, value) in &node.attributes.xattrs {
                *counts.entry((name, value)).or_default() += 1;
            }
        }
        let mut shared = Shared::default();
        for ((name, value), _) in counts.into_iter().filter(|(_, count)| *count > 1) {
            // The number has 32 bits, for 16 GiB of attributes that differ; what comes after is not shared.
            let Ok(number) = u32::try_from(shared.bytes.len() / 4) else { break };
            shared.numbers.insert((name, value), number);
            shared.bytes.extend(entry(name, value));
        }
        shared
    }

    /// What stands behind an inode: nothing if it has no attributes.
    pub fn beside(&self, xattrs: &Xattrs) -> Vec<u8> {
        if xattrs.is_empty() {
            return Vec::new();
        }
        let (mut numbers, mut own) = (Vec::new(), Vec::new());
        for (name, value) in xattrs {
            match self.numbers.get(&(name.as_slice(), value.as_slice())) {
                Some(number) if numbers.len() < XATTRS_SHARED_MAX => numbers.push(*number),
                _ => own.extend(entry(name, value)),
            }
        }
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4] = numbers.len() as u8;
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(own);
        bytes
    }
}

/// How an inode counts what stands behind it.
pub fn count(beside: &[u8]) -> u16 {
    if beside.is_empty() { 0 } else { ((beside.len() - HEADER_BYTES) / 4 + 1) as u16 }
}
