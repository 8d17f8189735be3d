//! `cache-from` and `cache-to` of an image; those of `project` count for every image that has none of that name.
//!
//! They are kept apart from the image's declaration: no result depends on where else it is kept.

use std::path::PathBuf;

use ctk_syntax::Node;

/// Nodes that name caches.
pub const CACHE_NODES: &[&str] = &["cache-from", "cache-to"];

/// A node that names a cache.
#[derive(Clone, Debug)]
pub struct CacheNode {
    /// Interpolated. A text that names `${platform}` is not: all platforms of an image share a cache.
    pub node: Node,
    /// What its paths start from, relative to the project's folder.
    pub directory: PathBuf,
}

/// Takes the caches out of an image's nodes, in the folder `directory`. `defaults` are the project's.
pub(crate) fn take(children: &mut Vec<Node>, directory: &str, defaults: Vec<Node>) -> Vec<CacheNode> {
    let own: Vec<Node> = children.extract_if(.., |child| is_cache(child)).collect();
    let declared = |node: &Node| own.iter().any(|own| own.name.value == node.name.value);
    let defaults: Vec<CacheNode> = defaults
        .into_iter()
        .filter(|node| !declared(node))
        .map(|node| CacheNode { node, directory: PathBuf::new() })
        .collect();
    let own = own.into_iter().map(|node| CacheNode { node, directory: PathBuf::from(directory) });
    own.chain(defaults).collect()
}

/// Whether the node names a cache.
pub(crate) fn is_cache(node: &Node) -> bool {
    CACHE_NODES.contains(&node.name.value.as_str())
}
