//! `ctk events`: what happened to containers.

use std::time::Duration;

use clap::Args;
use ctk_monitor::events;

use super::Desk;
use super::table::template_of;
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Show what happens to containers
#[derive(Args)]
pub struct Events {
    /// Also what happened since this: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = super::logs::moment)]
    since: Option<u64>,
    /// Not after this, and no waiting
    #[arg(long, value_name = "TIME", value_parser = super::logs::moment)]
    until: Option<u64>,
    /// Only those: `container=`, `event=`, `image=`, `label=`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, or a template as `{{.Status}} {{.Name}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Whether what happens from now on is waited for
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    stream: bool,
}

impl Events {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let filters = self.filter.iter().map(|text| filter(text)).collect::<Result<Vec<_>, _>>()?;
        let template = match self.format.as_deref() {
            None | Some("json") => None,
            Some(text) => Some(template_of(text)?),
        };
        let from = match (self.since, self.stream && self.until.is_none()) {
            (Some(since), _) => since,
            (None, true) => ctk_monitor::time::now(),
            (None, false) => 0,
        };
        let mut reader = events::Reader::open(&desk.containers);
        loop {
            for event in reader.next_ones()? {
                let taken = filters.iter().all(|(key, value)| takes(&event, key, value));
                if event.time < from || self.until.is_some_and(|until| event.time > until) || !taken {
                    continue;
                }
                let row = event.row();
                output(&match (&template, self.format.as_deref()) {
                    (Some(template), _) => {
                        template.render(&row).map_err(|why| Failure::sentence(format!("--format: {why}"), None))? + "\n"
                    }
                    (None, Some(_)) => row.to_string() + "\n",
                    (None, None) => event.line() + "\n",
                })?;
            }
            if !self.stream || self.until.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn filter(text: &str) -> Result<(String, String), Failure> {
    const KEYS: [&str; 4] = ["container", "event", "image", "label"];
    match text.split_once('=') {
        Some((key, value)) if KEYS.contains(&key) => Ok((key.into(), value.into())),
        _ => {
            let hint = format!("it is KEY=VALUE, and keys are {}", KEYS.join(", "));
            Err(Failure::sentence(format!("--filter `{text}` cannot be understood"), Some(&hint)))
        }
    }
}

fn takes(event: &events::Event, key: &str, value: &str) -> bool {
    match key {
        "container" => event.name == value || event.id.starts_with(value),
        "event" => event.what == value,
        "image" => event.image == value,
        "label" => match value.split_once('=') {
            Some((name, value)) => event.labels.get(name).is_some_and(|found| found == value),
            None => event.labels.contains_key(value),
        },
        _ => true,
    }
}
