//! `RUN [flags] command`

use std::ops::Range;

use ctk_buildgraph::{Command, Device, Instruction, NetworkMode, Run, SecurityMode};
use ctk_syntax::nearest;

use super::{Parsed, done};
use crate::line::Line;
use crate::{codes, mount};

const NETWORKS: [(&str, NetworkMode); 3] =
    [("default", NetworkMode::Default), ("none", NetworkMode::None), ("host", NetworkMode::Host)];
const SECURITIES: [(&str, SecurityMode); 2] =
    [("sandbox", SecurityMode::Sandbox), ("insecure", SecurityMode::Insecure)];

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let mut mounts = Vec::new();
    for (value, range) in line.flag_all("mount") {
        mounts.extend(mount::parse(line, &value, range));
    }
    let network = word(line, "network", &NETWORKS).unwrap_or(NetworkMode::Default);
    let security = word(line, "security", &SECURITIES).unwrap_or(SecurityMode::Sandbox);
    let mut devices = Vec::new();
    for (value, range) in line.flag_all("device") {
        devices.extend(device(line, &value, range));
    }
    let written = line.rest_range();
    let command = line.command()?;
    if command == Command::Exec(Vec::new()) {
        let message = "the array of this RUN names no program";
        line.error(codes::MISSING_ARGUMENT, message, written, "expected `[\"program\", \"argument\"]`");
        return None;
    }
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

/// A flag whose value is one of some words.
fn word<T: Copy>(line: &mut Line<'_>, name: &str, words: &[(&str, T)]) -> Option<T> {
    let (value, range) = line.flag(name)?;
    let found = words.iter().find(|(word, _)| *word == value).map(|(_, meant)| *meant);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let label = match nearest(&value.to_ascii_lowercase(), known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected `{}`", known.join("`, `")),
        };
        line.error(codes::BAD_FLAG, format!("flag `--{name}` cannot be `{value}`"), range, label);
    }
    found
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
