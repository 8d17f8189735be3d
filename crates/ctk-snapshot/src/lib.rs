//! Layers to mounts and back: unpacked layers on disk, overlay mounts over them, and tars of what changed.
//!
//! A layer is a directory `layers/<key>/` of the store: `fs/` is its tree in overlay's own format (whiteouts are
//! character devices 0:0, opaque directories have `trusted.overlay.opaque`), `info.json` says what it weighs, and
//! `image.erofs` is there if somebody wanted the tree as one file to mount ([`LayerForm`]). It
//! appears by one rename, so it is complete or not there; until it is on the disk it is believed in this boot of the
//! machine only. What a RUN changed is written straight into
//! the next layer's tree ([`Workspace`]); it is packed into a tar only when somebody needs the bytes.
//!
//! Paths inside a tree are resolved by the kernel (`openat2` with `RESOLVE_IN_ROOT`); names are only ever used
//! against held directory fds.

mod changes;
mod copier;
pub mod copy;
mod dir;
mod error;
mod extract;
mod image;
mod key;
pub mod limits;
mod made;
mod overlay;
mod own;
mod pack;
mod rebase;
mod same;
mod settle;
mod snapshots;
mod tree;
mod unpack;
pub mod users;
mod workspace;
mod writers;

pub use changes::{Change, changes};
pub use error::SnapshotError;
pub use image::LayerForm;
pub use key::{LayerKey, LayerKeyError};
pub use made::Made;
pub use pack::{Merged, Packed, Skip, archive};
pub use rebase::Footing;
pub use snapshots::Snapshots;
pub use tree::{Node, NodeKind, TreeView};
pub use workspace::{Ephemeral, Workspace};
