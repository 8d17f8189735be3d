//! `RUN [flags] command`

use std::ops::Range;

use ctk_buildgraph::{Device, Instruction, NetworkMode, Run, SecurityMode};

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
    let security = match line.flag("security") {
        None => SecurityMode::Sandbox,
        Some((value, range)) => match value.as_str() {
            "sandbox" => SecurityMode::Sandbox,
            "insecure" => SecurityMode::Insecure,
            _ => {
                let label = "expected `sandbox` or `insecure`";
                line.error(codes::BAD_FLAG, format!("flag `--security` cannot be `{value}`"), range, label);
                SecurityMode::Sandbox
            }
        },
    };
    let mut devices = Vec::new();
    for (value, range) in line.flag_all("device") {
        devices.extend(device(line, &value, range));
    }
    let command = line.command()?;
    done(Instruction::Run(Run {
        command,
        heredocs: line.logical.heredocs.clone(),
        mounts,
        network,
        security,
        devices,
        timeout_seconds: None,
    }))
}

/// `name[,required]`, `name=…[,required=…]`.
fn device(line: &mut Line<'_>, text: &str, range: Range<usize>) -> Option<Device> {
    let mut device = Device { name: String::new(), required: false };
    for field in text.split(',') {
        // Names of the container device interface hold a `=` themselves: `vendor.com/class=name`.
        let (key, value) = field.split_once('=').filter(|(key, _)| !key.contains('/')).unwrap_or((field, ""));
        match (key, value) {
            ("required", "" | "true" | "1") => device.required = true,
            ("required", "false" | "0") => device.required = false,
            ("name", name) if device.name.is_empty() => device.name = name.to_owned(),
            (name, "") if device.name.is_empty() => device.name = name.to_owned(),
            _ => {
                let message = format!("flag `--device` cannot hold `{field}`");
                line.error(codes::BAD_FLAG, message, range, "expected `--device=name` or `--device=name,required`");
                return None;
            }
        }
    }
    if device.name.is_empty() {
        line.error(codes::BAD_FLAG, "flag `--device` names no device", range, "expected `--device=name`");
        return None;
    }
    Some(device)
}
