//! OS packages: a layer without a base.

use std::sync::{Arc, Mutex};

use ctk_container::{Network, RunOptions, Stdin, Stdio};
use ctk_oci::{ContainerConfig, Mount};
use ctk_packages::{RunInRoot, ScriptCommand, ScriptOutput, Scripts};
use ctk_plan::Cancel;
use ctk_snapshot::LayerKey;

use super::Work;
use crate::BuildError;

/// Installs the locked list.
pub(super) fn run(work: &Work<'_>, stage: &str, scripts: bool, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
    work.packages(stage, scripts, key)
}

impl Work<'_> {
    fn packages(&self, stage: &str, scripts: bool, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
        let world = &self.job.request.world;
        let failed = |source| BuildError::Packages { stage: stage.to_owned(), source: Box::new(source) };
        let locked = self.job.plan.packages.get(stage).expect("lowered with its locked list");
        let host = (world.host_packages)().map_err(failed)?;
        let mirror = self.job.plan.mirrors.get(stage).and_then(|m| m.as_deref());
        let cache = world.store.root().join("packages");
        let files = ctk_packages::fetch(locked, &host, mirror, &cache, self.step, self.cancel).map_err(failed)?;
        let workspace = world.snapshots.begin(&[])?;
        let runner = Runner {
            root: Mount::new("bind", &workspace.upper().to_string_lossy(), "/", &["rbind", "rw"]),
            state: self.job.request.state_directory.clone(),
            cancel: self.cancel,
        };
        let how = if scripts { Scripts::Run(&runner) } else { Scripts::None };
        ctk_packages::install(locked, &files, workspace.upper(), how, self.step, self.cancel).map_err(failed)?;
        self.commit(workspace, key)
    }
}

/// Runs maintainer scripts in the tree that is being made.
struct Runner<'a> {
    root: Mount,
    state: std::path::PathBuf,
    cancel: &'a Cancel,
}

impl Runner<'_> {
    /// Starts writing the unpacked files to the disk while scripts keep the processor busy: what is there already, the
    /// commit of the layer needs not wait for.
    fn write_back(&self) {
        let Some(Ok(upper)) = self.root.source.as_ref().map(std::fs::File::open) else { return };
        std::thread::spawn(move || {
            // The commit waits for the disk itself, and hears of its errors.
            let _ = rustix::fs::syncfs(upper);
        });
    }
}

impl RunInRoot for Runner<'_> {
    fn run(&self, command: &ScriptCommand) -> Result<ScriptOutput, Box<dyn std::error::Error + Send + Sync>> {
        self.write_back();
        let config = ContainerConfig::default();
        let output: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = output.clone();
        let mut options = RunOptions::new(self.root.clone(), &config, &self.state);
        options.args = Some(command.argv.clone());
        options.entrypoint = Some(Vec::new());
        options.env = command.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        options.workdir = Some("/".into());
        options.network = Network::None;
        options.resolv_conf = None;
        options.hostname = Some("localhost".into());
        options.security.no_new_privileges = false;
        options.stdin = if command.stdin.is_empty() { Stdin::Null } else { Stdin::Bytes(command.stdin.clone()) };
        options.mounts.push(Mount::new("tmpfs", "tmpfs", "/tmp", &["mode=1777", "nosuid", "nodev"]));
        options.stdio = Stdio::Lines(Arc::new(move |_, line: &str| {
            let mut output = into.lock().expect("no panic while locked");
            output.extend_from_slice(line.as_bytes());
            output.push(b'\n');
        }));
        let container = ctk_container::run(options)?;
        let status = container.wait(self.cancel)?;
        drop(container);
        let output = std::mem::take(&mut *output.lock().expect("no panic while locked"));
        Ok(ScriptOutput { code: status.shell_code(), output })
    }
}
