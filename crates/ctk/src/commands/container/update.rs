//! `ctk update CONTAINER` changes limits; without one, lock file entries move (`commands/update.rs`).

use ctk_monitor::protocol::Request;
use ctk_monitor::{Client, Container, set_resources};
use serde_json::Value;

use super::options::LimitOptions;
use super::{Desk, limits};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Changes limits and the restart policy of containers, at once and for their next start.
pub fn update(
    context: &Context,
    names: &[String],
    options: &LimitOptions,
    restart: Option<ctk_monitor::config::Restart>,
) -> Result<(), Failure> {
    let desk = Desk::open(context);
    let resources = limits::resources(options)?;
    if names.is_empty() {
        return Err(Failure::sentence("whose limits are to be changed?", Some("`ctk update --memory 1GiB NAME`")));
    }
    let chosen = desk.chosen(names, false, |_| true)?;
    super::each(&chosen, |container| {
        if !resources.is_empty() {
            let state = desk.settle(container)?;
            if state.pid != 0 {
                set_resources(container, &Value::Object(resources.clone()))?;
            }
            remember(container, &resources)?;
        }
        if let Some(restart) = restart {
            container.change(|config| config.restart = restart)?;
            if let Some(mut client) = Client::connect(container)? {
                client.request_within(&Request::Reload, ctk_monitor::limits::ANSWER)?;
            }
        }
        output(&format!("{}\n", container.config()?.name))
    })
}

/// For the next start.
fn remember(container: &Container, resources: &serde_json::Map<String, Value>) -> Result<(), Failure> {
    let path = container.bundle().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    if let Some(before) = config.pointer_mut("/linux/resources").and_then(Value::as_object_mut) {
        for (group, values) in resources {
            match (before.get_mut(group).and_then(Value::as_object_mut), values.as_object()) {
                (Some(before), Some(values)) => before.extend(values.clone()),
                _ => drop(before.insert(group.clone(), values.clone())),
            }
        }
    }
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&config)?)?;
    std::fs::rename(&new, &path).map_err(Failure::during(format!("cannot write {}", path.display())))
}
