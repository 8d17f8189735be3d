//! `ctk rmi`: forget names; `ctk gc` frees what only they kept.

use clap::Args;

use super::output;
use crate::context::Context;
use crate::failure::Failure;

/// Remove names of images from the store
#[derive(Args)]
pub struct Rmi {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Don't fail for a name that isn't there
    #[arg(short, long)]
    force: bool,
}

impl Rmi {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let store = context.store()?;
        let mut changes = Vec::new();
        for image in &self.images {
            match context.find(&store, image)? {
                Some((name, _)) => changes.push((name, None)),
                None if context.remove_damaged(&store, image)? => eprintln!("`{image}` was damaged; its entry is gone"),
                None if self.force => {}
                None => {
                    return Err(Failure::sentence(
                        format!("the store has no image `{image}`"),
                        Some("`ctk images` lists the names"),
                    ));
                }
            }
        }
        store.update_references(&changes)?;
        output(&changes.iter().map(|(name, _)| format!("{name}\n")).collect::<String>())
    }
}
