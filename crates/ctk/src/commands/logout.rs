//! `ctk logout`: forget credentials.

use clap::Args;
use ctk_client::LoginPlace;

use super::output;
use crate::context::Context;
use crate::failure::Failure;

/// Forget credentials of a registry
#[derive(Args)]
pub struct Logout {
    /// The registry's host, with its port if it has one
    host: String,
}

impl Logout {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let places = context.client().logout(&self.host)?;
        if places.is_empty() {
            let text = format!("there are no credentials for {}", self.host);
            return Err(Failure::sentence(text, None));
        }
        let places = places.iter().map(|place| match place {
            LoginPlace::File(path) => path.display().to_string(),
            LoginPlace::Helper(name) => format!("the credential helper {name}"),
        });
        output(&places.map(|place| format!("removed from {place}\n")).collect::<String>())
    }
}
