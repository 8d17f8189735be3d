//! The waist of the builder: what both frontends write and the solver reads.
//!
//! ```text
//! Dockerfile ─┐                  lower                      keys
//!             ├─► Recipe (stages) ─────► Graph of vertices ─────► Key per vertex ─► solver
//! native KDL ─┘      + bases' configs     + image config
//! ```
//!
//! A [`Recipe`] is what a person wrote: stages of instructions with places. [`lower`] gives every
//! instruction its meaning, once, whoever wrote it: it walks the stages that the target needs,
//! expands variables and yields a [`Graph`] of operations and the [`Image`] they make. It asks for
//! what it has to know of the world by [`Lowering::Needs`]. All of it is pure.

pub mod codes;
mod graph;
mod history;
mod key;
pub mod lint;
mod lower;
mod mode;
mod mount;
mod op;
pub mod pattern;
mod recipe;
mod source;
mod stage;
mod words;

pub use codes::CODES;
pub use graph::{Graph, Read, Vertex, VertexId};
pub use key::{Key, KeyHasher, Sources};
pub use lower::{
    BaseImage, Bases, ContextKind, Image, ImageHistory, LowerRequest, Lowered, Lowering, Need, ParseTrigger, Remote,
    RemoteFile, context_epoch_asked, is_secret, lower, multi_platform, reads,
};
pub use mode::FileMode;
pub use mount::{MountFault, ReadMount, mount_of};
pub use op::{
    Access, BaseName, BaseRequest, Device, Exec, ExecMount, ExecSettings, FileAction, Follow, MountKind, NetworkMode,
    Op, Owner, SecurityMode, Selection, Sharing,
};
pub use recipe::{
    Arg, Command, Copy, CopySource, Escape, Expansion, From, Health, Heredoc, Instruction, MountOption, PackagesSpec,
    Recipe, RecipeStage, Run, RunHeredoc, RunMount, RunMountKind, Statement, UserEntry, WrittenMount,
};
pub use source::{ContextName, ContextSource, GitSource, GitTime, OciLayout, SourceError, is_commit, without_password};
