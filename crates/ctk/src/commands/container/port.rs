//! `ctk port`: where the ports of a container are published.

use clap::Args;
use serde_json::Value;

use super::Desk;
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Show where ports of containers are published
#[derive(Args)]
pub struct Port {
    /// Of all that run
    #[arg(short, long, conflicts_with = "container")]
    all: bool,
    /// Which: a name or an id
    #[arg(required_unless_present = "all")]
    container: Option<String>,
    /// Only this port of it: `80`, `53/udp`
    port: Option<String>,
}

impl Port {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let names: Vec<String> = self.container.clone().into_iter().collect();
        let mut text = String::new();
        for container in desk.chosen(&names, self.all, super::is_alive)? {
            let state = desk.settle(&container)?;
            let list = state.network.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
            for port in &list {
                let word = |name: &str| port.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                let word = |name: &str| word(name).unwrap_or_default();
                let inside = format!("{}/{}", word("container_port"), word("protocol"));
                let host = word("host_ip");
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                let outside = format!("{host}:{}", word("host_port"));
                match &self.port {
                    None if self.all => text.push_str(&format!("{} {inside} -> {outside}\n", container.config()?.name)),
                    None => text.push_str(&format!("{inside} -> {outside}\n")),
                    Some(wanted) if *wanted == inside || format!("{wanted}/tcp") == inside => {
                        text.push_str(&format!("{outside}\n"));
                    }
                    Some(_) => {}
                }
            }
        }
        if let (true, Some(port)) = (text.is_empty(), &self.port) {
            let what = format!("port {port} of container {} is not published", names.join(" "));
            return Err(Failure::sentence(what, Some("`--publish` of `ctk run` publishes ports")));
        }
        output(&text)
    }
}
