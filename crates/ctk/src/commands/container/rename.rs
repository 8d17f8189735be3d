//! `ctk rename`: another name for a container.

use clap::Args;
use ctk_monitor::Client;
use ctk_monitor::protocol::Request;

use super::Desk;
use crate::context::Context;
use crate::failure::Failure;

/// Give a container another name
#[derive(Args)]
pub struct Rename {
    /// Which: a name or an id
    container: String,
    /// The new name
    name: String,
}

impl Rename {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let container = desk.find(&self.container)?;
        desk.containers.rename(&container, &self.name)?;
        if let Some(mut client) = Client::connect(&container)? {
            client.request_within(&Request::Reload, ctk_monitor::limits::ANSWER)?;
        }
        Ok(())
    }
}
