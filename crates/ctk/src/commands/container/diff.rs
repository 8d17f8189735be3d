//! `ctk diff`: what a container changed of its image, or an image's last layer of those below it.

use std::os::fd::AsFd;

use clap::Args;
use ctk_monitor::Container;
use ctk_plan::Cancel;
use ctk_snapshot::{Change, LayerKey, Snapshots, changes};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::reach::{is_within, mount_points, own_tree};
use super::table::template_of;
use super::{Desk, image, options};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Show what a container changed of its image: A is new, C is changed, D is gone
#[derive(Args)]
pub struct Diff {
    /// `json`, or a template as `{{.Kind}} {{.Path}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// A container's name or id; or an image's name: what its last layer changed
    #[arg(value_name = "CONTAINER|IMAGE")]
    name: String,
}

impl Diff {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let cancel = context.cancel_on_interrupt();
        let found = match desk.containers.find(&self.name) {
            Ok(container) => of_container(context, &container, &cancel)?,
            Err(error @ ctk_monitor::Error::Missing { .. }) => {
                if context.find(&context.store()?, &self.name)?.is_none() {
                    let hint = Some("and no image; `ctk ps --all` and `ctk images` list them");
                    return Err(Failure::sentence(error.to_string(), hint));
                }
                of_image(context, &self.name, &cancel)?
            }
            Err(error) => return Err(error.into()),
        };
        output(&self.text(&found)?)
    }

    fn text(&self, found: &[(Change, Vec<u8>)]) -> Result<String, Failure> {
        let path = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
        match self.format.as_deref().map(str::trim) {
            None | Some("") => {
                Ok(found.iter().map(|(change, at)| format!("{} {}\n", letter(*change), path(at))).collect())
            }
            Some("json") => {
                let of = |wanted: Change| -> Vec<String> {
                    found.iter().filter(|(change, _)| *change == wanted).map(|(_, at)| path(at)).collect()
                };
                let all = [("changed", Change::Changed), ("added", Change::Added), ("deleted", Change::Deleted)];
                let lists = all.map(|(name, change)| (name.to_owned(), json!(of(change))));
                let map: serde_json::Map<String, Value> = lists
                    .into_iter()
                    .filter(|(_, list)| list.as_array().is_some_and(|list| !list.is_empty()))
                    .collect();
                Ok(serde_json::to_string_pretty(&map)? + "\n")
            }
            Some(format) => {
                let template = template_of(format)?;
                let mut text = String::new();
                for (change, at) in found {
                    let row = json!({ "Kind": letter(*change), "Path": path(at) });
                    let line =
                        template.render(&row).map_err(|why| Failure::sentence(format!("--format: {why}"), None))?;
                    text.push_str(&(line + "\n"));
                }
                Ok(text)
            }
        }
    }
}

fn letter(change: Change) -> &'static str {
    match change {
        Change::Added => "A",
        Change::Changed => "C",
        Change::Deleted => "D",
    }
}

type Found = Vec<(Change, Vec<u8>)>;

fn of_container(context: &Context, container: &Container, cancel: &Cancel) -> Result<Found, Failure> {
    let (config, mounted) = (container.config()?, mount_points(container)?);
    let Some(upper) = own_tree(container, &config)? else {
        let what = format!("container {} has no layer of its own: it writes into its folder", config.name);
        return Err(Failure::sentence(what, Some("`--rootfs FOLDER:O` gives it one")));
    };
    let store = context.store()?;
    let skip = |path: &[u8]| is_within(path, &mounted);
    if config.layers.is_empty() {
        // A folder of the host, or nothing at all.
        let below = config.root.options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap_or("/");
        return Ok(changes(upper.as_fd(), open(std::path::Path::new(below))?.as_fd(), &skip, cancel)?);
    }
    let layers = config.layers.iter().map(|text| text.parse::<LayerKey>()).collect::<Result<Vec<_>, _>>()?;
    let below = Snapshots::open(&store).tree(&layers)?;
    Ok(changes(upper.as_fd(), below.root(), &skip, cancel)?)
}

fn of_image(context: &Context, name: &str, cancel: &Cancel) -> Result<Found, Failure> {
    let store = context.store()?;
    let snapshots = Snapshots::open(&store);
    let found = image::find(context, &store, name, options::Pull::Never, None, cancel)?;
    let layers = snapshots.unpack_image(&found.manifest, None, cancel)?;
    let Some((last, parents)) = layers.split_last() else { return Ok(Vec::new()) };
    let trees = snapshots.trees(std::slice::from_ref(last))?;
    let Some(upper) = trees.first() else { return Ok(Vec::new()) };
    let below = snapshots.tree(parents)?;
    Ok(changes(open(upper)?.as_fd(), below.root(), &|_| false, cancel)?)
}

fn open(path: &std::path::Path) -> Result<std::os::fd::OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Failure::during(format!("cannot open {}", path.display())))
}
