//! What an image is to hold.

use std::collections::BTreeMap;

use ctk_layer::Time;

use crate::ErofsError;
use crate::limits::{DEVICE_MAX, NAME_MAX_BYTES, NODES_MAX, TARGET_MAX_BYTES};
use crate::xattrs;

/// What all kinds of nodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky; others are dropped.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: Time,
    /// Extended attributes by their whole names.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kinds of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with so many bytes.
    File(u64),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device, major and minor number; 0:0 is overlay's whiteout.
    Character(u32, u32),
    /// A block device, major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A node of one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its place among the nodes: the root's is 0, each further one's is one more.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file tree without the bytes of its files.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    pub attributes: Attributes,
    /// Names that lead to it, for directories one.
    pub links: u32,
    /// Where it was added first.
    pub parent: NodeId,
    /// Of a directory.
    pub children: BTreeMap<Vec<u8>, NodeId>,
    /// Of its children, how many are directories.
    pub directories: u32,
}

impl Tree {
    /// A tree of nothing but its root directory.
    pub fn new(root: Attributes) -> Result<Tree, ErofsError> {
        xattrs::check(&root.xattrs, || "/".into())?;
        Ok(Tree { nodes: vec![node(Kind::Directory, root, Tree::ROOT)] })
    }

    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a node as `name` of the directory `parent`.
    ///
    /// [`ErofsError::Name`] for what is no name or is there already, or if `parent` is no directory;
    /// [`ErofsError::Limit`] and [`ErofsError::XattrNamespace`] for what the format cannot hold.
    pub fn add(
        &mut self,
        parent: NodeId,
        name: &[u8],
        kind: Kind,
        attributes: Attributes,
    ) -> Result<NodeId, ErofsError> {
        self.check_name(parent, name)?;
        let path = || self.path_of(parent, name);
        let limit = |what, found: usize, limit: usize| match found > limit {
            true => Err(ErofsError::Limit { path: path(), what, found: found as u64, limit: limit as u64 }),
            false => Ok(()),
        };
        match &kind {
            Kind::Symlink(target) => limit("target", target.len(), TARGET_MAX_BYTES)?,
            Kind::Character(major, minor) | Kind::Block(major, minor) => {
                limit("major number", *major as usize, DEVICE_MAX.0 as usize)?;
                limit("minor number", *minor as usize, DEVICE_MAX.1 as usize)?;
            }
            _ => {}
        }
        xattrs::check(&attributes.xattrs, path)?;
        if self.nodes.len() >= NODES_MAX {
            let (found, limit) = (self.nodes.len() as u64 + 1, NODES_MAX as u64);
            return Err(ErofsError::TooLarge { what: "nodes", found, limit });
        }
        let id = NodeId(self.nodes.len() as u32);
        let above = &mut self.nodes[parent.index()];
        above.directories += u32::from(kind == Kind::Directory);
        above.children.insert(name.to_vec(), id);
        self.nodes.push(node(kind, attributes, parent));
        Ok(id)
    }

    /// Gives `node`, which may not be a directory, one more name.
    pub fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), ErofsError> {
        self.check_name(parent, name)?;
        if self.nodes[node.index()].kind == Kind::Directory {
            let path = self.path_of(parent, name);
            return Err(ErofsError::Name { path, reason: "a directory has one name only" });
        }
        self.nodes[parent.index()].children.insert(name.to_vec(), node);
        self.nodes[node.index()].links += 1;
        Ok(())
    }

    /// The path of a node by the name that it was added with, without a leading slash; of the root, nothing.
    pub fn path(&self, id: NodeId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = id;
        while at != Tree::ROOT {
            let parent = self.nodes[at.index()].parent;
            let name = self.nodes[parent.index()].children.iter().find(|(_, child)| **child == at);
            names.push(name.expect("it was added to its parent").0.as_slice());
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    pub(crate) fn display(&self, id: NodeId) -> String {
        String::from_utf8_lossy(&self.path(id)).into_owned()
    }

    fn path_of(&self, parent: NodeId, name: &[u8]) -> String {
        let parent = self.display(parent);
        let name = String::from_utf8_lossy(name);
        if parent.is_empty() { name.into_owned() } else { format!("{parent}/{name}") }
    }

    fn check_name(&self, parent: NodeId, name: &[u8]) -> Result<(), ErofsError> {
        let above = &self.nodes[parent.index()];
        let reason = if above.kind != Kind::Directory {
            "it is in what is no directory"
        } else if name.is_empty() || name.contains(&0) || name.contains(&b'/') || matches!(name, b"." | b"..") {
            "that is no name of a file"
        } else if name.len() > NAME_MAX_BYTES {
            "its name is longer than 255 bytes"
        } else if above.children.contains_key(name) {
            "the name is there already"
        } else {
            return Ok(());
        };
        Err(ErofsError::Name { path: self.path_of(parent, name), reason })
    }
}

fn node(kind: Kind, attributes: Attributes, parent: NodeId) -> Node {
    Node { kind, attributes, links: 1, parent, children: BTreeMap::new(), directories: 0 }
}

impl Node {
    /// As `stat` counts: a directory also has its `.` and each child's `..`.
    pub fn link_count(&self) -> u32 {
        if self.kind == Kind::Directory { 2 + self.directories } else { self.links }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &[u8], kind: Kind, xattr: Option<(&str, usize)>) -> String {
        let mut tree = Tree::new(Attributes::default()).unwrap();
        tree.add(Tree::ROOT, b"there", Kind::Fifo, Attributes::default()).unwrap();
        let xattrs = xattr.map(|(name, size)| (name.as_bytes().to_vec(), vec![0; size])).into_iter().collect();
        let error = tree.add(Tree::ROOT, name, kind, Attributes { xattrs, ..Attributes::default() }).unwrap_err();
        assert_eq!(tree.len(), 2);
        error.to_string()
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused_by_name() {
        let check = |error: String, expected: &str| assert!(error.contains(expected), "{error}");
        check(refused(b"there", Kind::Fifo, None), "`there` cannot be in an EROFS image: the name is there already");
        check(refused(b"..", Kind::Fifo, None), "no name of a file");
        check(refused(b"a/b", Kind::Fifo, None), "no name of a file");
        check(refused(&[b'n'; 256], Kind::Fifo, None), "longer than 255 bytes");
        check(refused(b"l", Kind::Symlink(vec![b'a'; 4096]), None), "its target has 4096, more than 4095");
        check(refused(b"d", Kind::Block(1, 1 << 20), None), "its minor number has 1048576, more than 1048575");
        check(refused(b"x", Kind::Fifo, Some(("system.other", 1))), "no extended attribute `system.other`");
        check(refused(b"x", Kind::Fifo, Some(("user.a", 1 << 16))), "has 65536, more than 65535");
    }

    #[test]
    fn nodes_have_paths() {
        let mut tree = Tree::new(Attributes::default()).unwrap();
        let a = tree.add(Tree::ROOT, b"a", Kind::Directory, Attributes::default()).unwrap();
        let b = tree.add(a, b"b", Kind::File(0), Attributes::default()).unwrap();
        tree.link(Tree::ROOT, b"c", b).unwrap();
        assert_eq!(tree.path(b), b"a/b");
        assert_eq!(tree.path(Tree::ROOT), b"");
        assert!(tree.link(Tree::ROOT, b"d", a).is_err());
        assert!(tree.add(b, b"e", Kind::Fifo, Attributes::default()).is_err());
    }
}
