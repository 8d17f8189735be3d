//! Results of other machines: what to read them from, what to write them to.
//!
//! A cache maps definition keys to trees and content keys to layers, as the store's own records do. It is asked where
//! the store has no answer, and opened by the first such question: a build that is done needs no network. Its word is
//! a tree; layers of that are fetched when an instruction stands on them or the image is packed, each verified. One
//! that turns out bad is forgotten, and the build begins again without it: what was done meanwhile is in the store.

mod exports;
mod imports;

use ctk_cache::{Env, Export, Import};
use ctk_client::Client;

use crate::World;

pub(crate) use exports::{Exports, inline};
pub(crate) use imports::Imports;

/// Caches of a build.
#[derive(Clone, Copy)]
pub struct Caches<'a> {
    /// Asked in this order.
    pub from: &'a [Import],
    /// Written when everything is built.
    pub to: &'a [Export],
    /// Speaks to registries.
    pub client: &'a Client,
}

impl<'a> Caches<'a> {
    fn env(&self, world: &World<'a>) -> Env<'a> {
        Env {
            client: self.client,
            http: world.http,
            store: world.store,
            directory: world.project_directory,
            environment: world.environment,
            step: None,
            cancel: world.cancel,
        }
    }
}
