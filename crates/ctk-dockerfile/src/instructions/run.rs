//! `RUN [flags] command`

use ctk_buildgraph::{Instruction, NetworkMode, Run};

use super::{Parsed, done};
use crate::line::Line;
use crate::{codes, mount};

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let mut mounts = Vec::new();
    for (value, range) in line.flag_all("mount") {
        mounts.extend(mount::parse(line, &value, range));
    }
    let network = match line.flag("network") {
        None => NetworkMode::Default,
        Some((value, range)) => match value.as_str() {
            "default" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            _ => {
                let label = "expected `default`, `none` or `host`";
                line.error(codes::BAD_FLAG, format!("flag `--network` cannot be `{value}`"), range, label);
                NetworkMode::Default
            }
        },
    };
    if let Some((value, range)) = line.flag("security").filter(|(value, _)| value != "sandbox") {
        line.error(
            codes::NOT_SUPPORTED,
            format!("`--security={value}` is not supported yet"),
            range,
            "only `sandbox` is",
        );
    }
    if let Some((_, range)) = line.flag("device") {
        line.error(codes::NOT_SUPPORTED, "`--device` is not supported yet", range, "");
    }
    let command = line.command("a command")?;
    done(Instruction::Run(Run {
        command,
        heredocs: line.logical.heredocs.clone(),
        mounts,
        network,
        timeout_seconds: None,
    }))
}
