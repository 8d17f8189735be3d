//! A large layer as several that follow each other: whoever applies them one by one has what the one layer gives.
//!
//! The layer is read twice. The first time only heads are looked at, and it is settled what goes where ([`divide`]);
//! the second time the pieces are written, one after the other ([`Split::write`]). The rule, which knows nothing of
//! machines or threads:
//!
//! - Files and other leaves keep their order. A piece ends before the one that would make its tar larger than the limit;
//!   one that is larger by itself is a piece of its own.
//! - Whiteouts and opaque markers are all in the first piece: in a later one they would hide what earlier ones put there.
//! - A hard link goes right behind the first name of its file, since no layer can link to a file of another one.
//! - Every piece begins the directories that it needs anew, with all their attributes: who unpacks each layer by itself
//!   needs them, and who unpacks all into one folder sets their times again.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};

use crate::entry::split;
use crate::limits::SPLIT_ENTRIES_MAX;
use crate::write::{END_BYTES, entry_bytes};
use crate::{Change, Entry, EntryKind, LayerError, TarReader, TarWriter, change_of};

/// What [`divide`] found.
#[derive(Debug)]
pub enum Division {
    /// The layer is within the limit, or is one file.
    Whole,
    /// Its entries depend on each other in ways that no sequence of layers has; it stays as it is.
    Entangled {
        /// The entry, for people.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// Two pieces or more.
    Pieces(Split),
}

/// Which entry of a layer goes into which piece.
#[derive(Debug)]
pub struct Split {
    directories: Vec<Directory>,
    pieces: Vec<Vec<Unit>>,
}

/// What stays together.
#[derive(Debug, Default)]
struct Unit {
    /// Directories to begin, by number.
    directories: Vec<usize>,
    /// Whether the stream's next leaf follows.
    leaf: bool,
    /// What follows then: hard links to it, or whiteouts.
    more: Vec<Entry>,
}

#[derive(Debug)]
struct Directory {
    entry: Entry,
    bytes: u64,
    above: Option<usize>,
    has_children: bool,
}

/// A leaf or a directory, in the layer's order.
enum Item {
    Leaf { above: Option<usize>, bytes: u64, links: Vec<Follower> },
    Directory(usize),
}

/// A hard link or a whiteout.
struct Follower {
    entry: Entry,
    above: Option<usize>,
    bytes: u64,
}

/// What a path is.
#[derive(Clone, Copy)]
enum Named {
    Directory(usize),
    /// A leaf and all links to it, by the item's number.
    Leaf(usize),
}

/// Reads the heads of `layer` to its end and says how it is divided so that no piece's tar is larger than
/// `limit_bytes`, as far as files allow.
pub fn divide<R: Read>(layer: &mut TarReader<R>, limit_bytes: u64) -> Result<Division, LayerError> {
    let mut survey = Survey::default();
    while let Some(entry) = layer.next_entry()? {
        let path = entry.display();
        match survey.add(entry) {
            Ok(()) => {}
            Err(Refusal::Entangled(reason)) => return Ok(Division::Entangled { path, reason }),
            Err(Refusal::Failed(error)) => return Err(error),
        }
        if survey.named.len() > SPLIT_ENTRIES_MAX {
            return Err(LayerError::Entries { limit: SPLIT_ENTRIES_MAX });
        }
    }
    let split = survey.divide(limit_bytes);
    Ok(if split.pieces.len() > 1 { Division::Pieces(split) } else { Division::Whole })
}

impl Split {
    /// How many pieces there are; at least 2.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Writes the tar of `piece`, counted from 0. To be called for one piece after the other, with one reader that
    /// begins at the start of the layer that was divided.
    pub fn write<R: Read, W: Write>(&self, piece: usize, layer: &mut TarReader<R>, out: W) -> Result<W, LayerError> {
        let mut tar = TarWriter::new(out);
        for unit in &self.pieces[piece] {
            for directory in &unit.directories {
                tar.append(&self.directories[*directory].entry, std::io::empty())?;
            }
            if unit.leaf {
                let entry = next_leaf(layer)?;
                tar.append(&entry, &mut *layer)?;
            }
            for entry in &unit.more {
                tar.append(entry, std::io::empty())?;
            }
        }
        tar.finish()
    }
}

/// The next entry that was not noted by the survey.
fn next_leaf<R: Read>(layer: &mut TarReader<R>) -> Result<Entry, LayerError> {
    while let Some(entry) = layer.next_entry()? {
        let noted = matches!(entry.kind, EntryKind::Directory | EntryKind::HardLink { .. });
        if !noted && change_of(&entry.path) == Change::Put {
            return Ok(entry);
        }
    }
    Err(LayerError::Read(std::io::Error::other("the layer is another one than when it was divided")))
}

/// Why an entry cannot be noted.
enum Refusal {
    Entangled(&'static str),
    Failed(LayerError),
}

impl From<&'static str> for Refusal {
    fn from(reason: &'static str) -> Refusal {
        Refusal::Entangled(reason)
    }
}

impl From<LayerError> for Refusal {
    fn from(error: LayerError) -> Refusal {
        Refusal::Failed(error)
    }
}

#[derive(Default)]
struct Survey {
    named: HashMap<Vec<u8>, Named>,
    /// Directories above entries, without an entry of their own so far.
    implied: HashSet<Vec<u8>>,
    directories: Vec<Directory>,
    items: Vec<Item>,
    markers: Vec<Follower>,
    marker_names: HashSet<Vec<u8>>,
}

impl Survey {
    /// Notes the next entry.
    fn add(&mut self, entry: Entry) -> Result<(), Refusal> {
        let change = change_of(&entry.path);
        if change == Change::Nothing {
            return Err("it is bookkeeping of AUFS".into());
        }
        let above = self.above(&entry.path)?;
        if let Some(above) = above {
            self.directories[above].has_children = true;
        }
        if change != Change::Put {
            if matches!(entry.kind, EntryKind::Directory | EntryKind::HardLink { .. }) || entry.size() > 0 {
                return Err("it is a whiteout that is no empty file".into());
            }
            if self.marker_names.insert(entry.path.clone()) {
                let bytes = entry_bytes(&entry)?;
                self.markers.push(Follower { entry, above, bytes });
            }
            return Ok(());
        }
        if self.named.contains_key(&entry.path) {
            return Err("it is there twice".into());
        }
        let path = entry.path.clone();
        let named = match &entry.kind {
            EntryKind::Directory => {
                if self.implied.contains(&path) {
                    return Err("it is a directory that comes after what is in it".into());
                }
                self.items.push(Item::Directory(self.directories.len()));
                let bytes = entry_bytes(&entry)?;
                self.directories.push(Directory { entry, bytes, above, has_children: false });
                Named::Directory(self.directories.len() - 1)
            }
            EntryKind::HardLink { target } => {
                let Some(Named::Leaf(item)) = self.named.get(target).copied() else {
                    return Err("it is a hard link to no file before it in its layer".into());
                };
                let Item::Leaf { links, .. } = &mut self.items[item] else { unreachable!("leaves are named as such") };
                let bytes = entry_bytes(&entry)?;
                links.push(Follower { entry, above, bytes });
                Named::Leaf(item)
            }
            _ => {
                if self.implied.contains(&path) {
                    return Err("it takes the place of a directory before it".into());
                }
                let bytes = entry_bytes(&entry)?;
                self.items.push(Item::Leaf { above, bytes, links: Vec::new() });
                Named::Leaf(self.items.len() - 1)
            }
        };
        self.named.insert(path, named);
        Ok(())
    }

    /// The nearest directory above `path` that has an entry.
    fn above(&mut self, path: &[u8]) -> Result<Option<usize>, &'static str> {
        let mut at = path;
        while !at.is_empty() {
            at = split(at).0;
            match self.named.get(at) {
                Some(Named::Directory(directory)) => return Ok(Some(*directory)),
                Some(Named::Leaf(_)) => return Err("it is below something that is no directory"),
                None if self.implied.contains(at) => {}
                None => {
                    self.implied.insert(at.to_vec());
                }
            }
        }
        Ok(None)
    }

    fn divide(self, limit_bytes: u64) -> Split {
        let mut packing = Packing::new(&self.directories, limit_bytes);
        if !self.markers.is_empty() {
            packing.add(None, 0, false, self.markers);
        }
        for item in self.items {
            match item {
                Item::Leaf { above, bytes, links } => packing.add(above, bytes, true, links),
                Item::Directory(directory) if !self.directories[directory].has_children => {
                    packing.add(Some(directory), 0, false, Vec::new());
                }
                // It comes with the first of its children.
                Item::Directory(_) => {}
            }
        }
        let pieces = packing.pieces;
        Split { directories: self.directories, pieces }
    }
}

/// Pieces that are being filled, one after the other.
struct Packing<'a> {
    directories: &'a [Directory],
    limit_bytes: u64,
    pieces: Vec<Vec<Unit>>,
    /// Bytes of the last piece.
    bytes: u64,
    /// In which piece each directory was begun last, counted from 1.
    begun: Vec<usize>,
}

impl<'a> Packing<'a> {
    fn new(directories: &'a [Directory], limit_bytes: u64) -> Packing<'a> {
        let begun = vec![0; directories.len()];
        Packing { directories, limit_bytes, pieces: Vec::new(), bytes: 0, begun }
    }

    /// Adds a unit in directory `above`, to the last piece or a new one.
    fn add(&mut self, above: Option<usize>, own_bytes: u64, leaf: bool, followers: Vec<Follower>) {
        let above: Vec<Option<usize>> = followers.iter().map(|f| f.above).chain([above]).collect();
        let own_bytes = followers.iter().map(|f| f.bytes).fold(own_bytes, u64::saturating_add);
        let mut needed = self.missing(&above);
        if self.pieces.is_empty()
            || self.bytes.saturating_add(own_bytes).saturating_add(self.bytes_of(&needed)) > self.limit_bytes
        {
            self.pieces.push(Vec::new());
            self.bytes = END_BYTES;
            needed = self.missing(&above);
        }
        self.bytes = self.bytes.saturating_add(own_bytes).saturating_add(self.bytes_of(&needed));
        for directory in &needed {
            self.begun[*directory] = self.pieces.len();
        }
        let more = followers.into_iter().map(|follower| follower.entry).collect();
        let unit = Unit { directories: needed, leaf, more };
        self.pieces.last_mut().expect("one was pushed").push(unit);
    }

    fn bytes_of(&self, directories: &[usize]) -> u64 {
        directories.iter().map(|directory| self.directories[*directory].bytes).sum()
    }

    /// The directories that the last piece lacks, upper ones first.
    fn missing(&self, above: &[Option<usize>]) -> Vec<usize> {
        let mut missing = Vec::new();
        for start in above {
            let mut at = *start;
            while let Some(directory) = at
                && self.begun[directory] != self.pieces.len()
                && !missing.contains(&directory)
            {
                missing.push(directory);
                at = self.directories[directory].above;
            }
        }
        // A directory has its number after those above it.
        missing.sort_unstable();
        missing
    }
}
