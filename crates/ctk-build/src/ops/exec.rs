//! RUN: a container whose changes are the layer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_buildgraph::{Exec, NetworkMode};
use ctk_container::{ExitStatus, LineSink, Network, RunOptions, Stdio};
use ctk_oci::{ContainerConfig, Mount, Platform};
use ctk_plan::Stream;
use ctk_snapshot::LayerKey;

use super::Work;
use crate::BuildError;
use crate::limits::ERROR_LINES;
use crate::mounts::Mounts;

/// Runs the process.
pub(super) fn run(work: &Work<'_>, exec: &Exec, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
    work.exec(exec, key)
}

impl Work<'_> {
    fn exec(&self, exec: &Exec, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
        let host = Platform::host();
        if host.rank(&exec.platform).is_none() {
            return Err(BuildError::ForeignPlatform { platform: exec.platform.clone() });
        }
        let workspace = self.workspace()?;
        let mut mounts = Mounts::prepare(self, exec)?;
        if exec.network != NetworkMode::None {
            mounts.list.extend(self.package_mounts()?);
        }
        let status = {
            let config = ContainerConfig::default();
            let mut options = RunOptions::new(workspace.root_mount()?, &config, &self.job.request.state_directory);
            options.args = Some(exec.argv.clone());
            options.entrypoint = Some(Vec::new());
            options.env = exec.env.iter().chain(&exec.unkeyed_env).chain(&mounts.env).cloned().collect();
            options.user = Some(exec.user.clone()).filter(|u| !u.is_empty());
            options.workdir = Some(exec.cwd.clone());
            options.mounts = std::mem::take(&mut mounts.list);
            options.network = match exec.network {
                NetworkMode::None => Network::None,
                NetworkMode::Default | NetworkMode::Host => Network::Host,
            };
            options.hostname = Some("localhost".into());
            // sudo and the like work in a build, as with every other builder.
            options.security.no_new_privileges = false;
            options.timeout = exec.timeout_seconds.map(Duration::from_secs);
            self.watched(options)?
        };
        drop(mounts);
        match status {
            (ExitStatus::Code(0), _) => self.commit(workspace, key),
            (ExitStatus::Cancelled, _) => Err(BuildError::Cancelled),
            (status, last_lines) => Err(BuildError::Command {
                command: self.vertex.name.clone(),
                status,
                last_lines,
                place: self.job.loaded.place(self.vertex.origin, self.job.request.world.sources),
            }),
        }
    }

    /// Runs a container to its end; its lines go to the step's log, the last ones are given back.
    fn watched(&self, mut options: RunOptions<'_>) -> Result<(ExitStatus, Vec<String>), BuildError> {
        let start = |source| BuildError::Start {
            command: self.vertex.name.clone(),
            place: self.job.loaded.place(self.vertex.origin, self.job.request.world.sources),
            source: Box::new(source),
        };
        let last: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (sender, receiver) = std::sync::mpsc::channel::<(Stream, String)>();
        let kept = last.clone();
        let sink: LineSink = Arc::new(move |stream, line: &str| {
            let mut kept = kept.lock().expect("no panic while locked");
            if kept.len() == ERROR_LINES {
                kept.pop_front();
            }
            kept.push_back(line.to_owned());
            drop(kept);
            // The receiver lives as long as the container does.
            let _ = sender.send((stream, line.to_owned()));
        });
        options.stdio = Stdio::Lines(sink);
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                for (stream, line) in receiver {
                    self.step.log(stream, line);
                }
            });
            let container = ctk_container::run(options).map_err(start)?;
            let status = container.wait(self.cancel).map_err(start);
            drop(container);
            status
        })?;
        let lines = last.lock().expect("no panic while locked").iter().cloned().collect();
        Ok((status, lines))
    }

    /// The host's package sources, so that the image's own package manager works where mirrors are private.
    fn package_mounts(&self) -> Result<Vec<Mount>, BuildError> {
        let tree = self.tree(0)?;
        if tree.stat("/usr/bin/apt-get")?.is_none() {
            return Ok(Vec::new());
        }
        let Ok(host) = (self.job.request.world.host_packages)() else { return Ok(Vec::new()) };
        let mount = |source: &std::path::Path, destination: &std::path::Path| {
            Mount::new("bind", &source.to_string_lossy(), &destination.to_string_lossy(), &["rbind", "ro"])
        };
        Ok(host.mounts.iter().map(|m| mount(&m.source, &m.destination)).collect())
    }
}
