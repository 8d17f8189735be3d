//! Containers for services of projects: by the words of `ctk run`.

use clap::{CommandFactory, FromArgMatches};
use ctk_service::{DIGEST_LABEL, Engine, Order, PROJECT_LABEL, Seen};

use super::create::Create;
use super::{Desk, make, start};
use crate::commands::Global;
use crate::context::Context;
use crate::env::Environment;
use crate::failure::Failure;

/// The engine of one store.
pub struct Services {
    root: std::path::PathBuf,
    is_root: bool,
}

impl Services {
    /// For the containers of the store at `root`; `is_root` is whose it is.
    pub fn new(root: std::path::PathBuf, is_root: bool) -> Services {
        Services { root, is_root }
    }

    fn context(&self) -> Context {
        Context::new(&Global::of_store(&self.root), Environment::read(), self.is_root)
    }
}

/// A failure in one text, its causes behind colons.
fn said(failure: Failure) -> String {
    let text = failure.text();
    let lines = text.lines().map(|line| line.trim().trim_start_matches("error: ").trim_start_matches("caused by: "));
    lines.collect::<Vec<_>>().join(": ")
}

impl Engine for Services {
    fn seen(&self, container: &str) -> Result<Option<Seen>, String> {
        let context = self.context();
        let desk = Desk::open(&context);
        let seen = || -> Result<Option<Seen>, ctk_monitor::Error> {
            let container = match desk.containers.find(container) {
                Err(ctk_monitor::Error::Missing { .. }) => return Ok(None),
                other => other?,
            };
            let state = ctk_monitor::look(&container)?;
            let config = container.config()?;
            let healthy = state.health.map(|health| health.status == ctk_monitor::state::HealthStatus::Healthy);
            Ok(Some(Seen {
                digest: config.labels.get(DIGEST_LABEL).and_then(|digest| digest.parse().ok()),
                running: state.status.is_alive(),
                ended: (!state.status.is_alive() && state.finished > 0).then_some(state.exit_code),
                fell_over: (state.restarts > 0).then_some(state.exit_code),
                healthy: healthy.or(config.health.is_some().then_some(false)),
                error: state.error,
            }))
        };
        match seen() {
            Err(ctk_monitor::Error::Missing { .. }) => Ok(None),
            other => other.map_err(|error| error.line()),
        }
    }

    fn start(&self, order: &Order<'_>) -> Result<(), String> {
        let context = self.context();
        let desk = Desk::open(&context);
        let decl = order.decl;
        let labels = [format!("{DIGEST_LABEL}={}", order.digest), format!("{PROJECT_LABEL}={}", order.project)];
        let mut words = vec!["create".to_owned(), "--name".into(), decl.container.clone(), "--replace".into()];
        labels.iter().for_each(|label| words.extend(["--label".to_owned(), label.clone()]));
        words.extend(decl.options.iter().cloned());
        words.push(order.image.digest.to_string());
        words.extend(decl.command.iter().cloned());
        let create = create(&words)?;
        network(&context, decl, order.project)?;
        let (image, command) = create.words.split_first().ok_or("no image")?;
        let named = make::Named { name: order.image_name, descriptor: order.image };
        let asked = serde_json::json!(words);
        let made = make::make(&context, &desk, &create.options, image, Some(named), command, asked).map_err(said)?;
        start::start(&desk, &made.container).map_err(said)
    }

    fn remove(&self, container: &str) -> Result<bool, String> {
        let context = self.context();
        let desk = Desk::open(&context);
        match desk.containers.find(container) {
            Err(ctk_monitor::Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error.line()),
            Ok(found) => {
                let seconds = found.config().map_or(10, |config| config.stop_seconds);
                desk.remove(&found, true, seconds, true).map(|()| true).map_err(said)
            }
        }
    }

    fn of_project(&self, project: &str) -> Result<Vec<String>, String> {
        let context = self.context();
        let desk = Desk::open(&context);
        let all = desk.all().map_err(said)?;
        let of =
            all.into_iter().filter(|(_, config, _)| config.labels.get(PROJECT_LABEL).is_some_and(|p| p == project));
        Ok(of.map(|(_, config, _)| config.name).collect())
    }
}

/// The words as the command line reads them.
fn create(words: &[String]) -> Result<Create, String> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }
    let matches = Line::command().no_binary_name(false).try_get_matches_from(words);
    let line = matches.and_then(|matches| Line::from_arg_matches(&matches));
    line.map(|line| line.create).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// The network of the project's services, if they are on it.
fn network(context: &Context, decl: &ctk_service::ServiceDecl, project: &str) -> Result<(), String> {
    let mut words = decl.options.iter();
    let wanted = words.by_ref().find(|word| *word == "--network").and_then(|_| words.next());
    let on_its_own = decl.options.iter().any(|word| word == "--network-alias");
    if on_its_own && !ctk_network::may_make_bridges() {
        let service = &decl.address.name;
        return Err(format!(
            "services of an ordinary user have no network together, for bridges need root: give `{service}` \
             `network \"default\"` (a way out, and published ports) or `network \"none\"`"
        ));
    }
    match wanted.filter(|_| on_its_own) {
        Some(name) => crate::commands::network::ensure(context, name, project).map_err(said),
        None => Ok(()),
    }
}
