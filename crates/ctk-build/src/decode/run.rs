//! `run "line" { cache "/path"; secret "name" env="X"; bind "src" to="/x"; tmpfs "/t"; ssh; network "none"; timeout "20m" }`

use ctk_buildgraph::{
    Access, Command, Device, From, Instruction, NetworkMode, Run, RunMount, RunMountKind, SecurityMode, Sharing,
    WrittenMount,
};
use ctk_syntax::{Node, Reader};

use super::Image;

impl Image<'_> {
    pub(super) fn run(&mut self, node: &Node, stages: &[&str]) -> Option<Instruction> {
        let mut reader = Reader::new(node, self.diagnostics);
        let words: Vec<String> = reader.args_text_some("a command").into_iter().map(|w| w.value).collect();
        let mut network = NetworkMode::Default;
        if let Some(child) = reader.opt_child("network") {
            let allowed = [("default", NetworkMode::Default), ("none", NetworkMode::None), ("host", NetworkMode::Host)];
            let mut inner = reader.child(child);
            network = inner.arg_one_of("a network", &allowed).map_or(network, |n| n.value);
            inner.finish();
        }
        let mut security = SecurityMode::Sandbox;
        if let Some(child) = reader.opt_child("security") {
            let allowed = [("sandbox", SecurityMode::Sandbox), ("insecure", SecurityMode::Insecure)];
            let mut inner = reader.child(child);
            security = inner.arg_one_of("a degree of confinement", &allowed).map_or(security, |s| s.value);
            inner.finish();
        }
        let mut devices = Vec::new();
        for child in reader.every("device") {
            let mut inner = reader.child(child);
            let name = inner.arg_str("a device");
            let required = inner.opt_prop_bool("required").is_some_and(|b| b.value);
            inner.finish();
            devices.extend(name.map(|name| Device { name: name.value, required }));
        }
        let mut timeout_seconds = None;
        if let Some(child) = reader.opt_child("timeout") {
            let mut inner = reader.child(child);
            timeout_seconds = inner.arg_duration("a time").map(|d| d.value.as_secs().max(1));
            inner.finish();
        }
        let caches = reader.every("cache");
        let secrets = reader.every("secret");
        let binds = reader.every("bind");
        let tmpfs = reader.every("tmpfs");
        let sockets = reader.every("ssh");
        reader.finish();
        let mut mounts: Vec<RunMount> = Vec::new();
        for child in &node.children {
            let among = |list: &[&Node]| list.iter().any(|n| std::ptr::eq(*n, child));
            let mount = if among(&caches) {
                self.cache(child, stages)
            } else if among(&secrets) {
                self.secret_mount(child)
            } else if among(&binds) {
                self.bind(child, stages)
            } else if among(&tmpfs) {
                self.tmpfs(child)
            } else if among(&sockets) {
                self.ssh_mount(child)
            } else {
                None
            };
            mounts.extend(mount);
        }
        let command = match words.as_slice() {
            [] => return None,
            [line] => Command::Shell(line.clone()),
            _ => Command::Exec(words),
        };
        let mounts = mounts.into_iter().map(WrittenMount::Plain).collect();
        Some(Instruction::Run(Run {
            command,
            heredocs: Vec::new(),
            mounts,
            network,
            security,
            devices,
            timeout_seconds,
        }))
    }

    fn cache(&mut self, node: &Node, stages: &[&str]) -> Option<RunMount> {
        let mut reader = Reader::new(node, self.diagnostics);
        let target = reader.arg_str("a path");
        let id = reader.opt_prop_str("id");
        let allowed = [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
        let sharing = reader.opt_prop_one_of("sharing", &allowed).map_or(Sharing::Shared, |s| s.value);
        let read_only = reader.opt_prop_bool("read-only").is_some_and(|b| b.value);
        let from = reader.opt_prop_str("from");
        let source = reader.opt_prop_str("source").map(|s| s.value).unwrap_or_default();
        let mode = mode(&mut reader, 0o755);
        let (uid, gid) = owner(&mut reader);
        reader.finish();
        let from = match from {
            Some(text) => Some(self.from(&text, stages)?),
            None => None,
        };
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        let kind = RunMountKind::Cache { id: id.map(|i| i.value), sharing, from, source, mode, uid, gid };
        Some(RunMount { target: Some(target?.value), access, kind })
    }

    fn secret_mount(&mut self, node: &Node) -> Option<RunMount> {
        let mut reader = Reader::new(node, self.diagnostics);
        let id = reader.arg_str("a secret's name");
        let env = reader.opt_prop_str("env").map(|e| e.value);
        let target = reader.opt_prop_str("to").map(|t| t.value);
        let required = reader.opt_prop_bool("required").is_none_or(|b| b.value);
        let mode = mode(&mut reader, 0o400);
        let (uid, gid) = owner(&mut reader);
        reader.finish();
        let id = id?.value;
        let target = target.or_else(|| env.is_none().then(|| format!("/run/secrets/{id}")));
        let kind = RunMountKind::Secret { id, env, required, mode, uid, gid };
        Some(RunMount { target, access: Access::ReadOnly, kind })
    }

    fn ssh_mount(&mut self, node: &Node) -> Option<RunMount> {
        let mut reader = Reader::new(node, self.diagnostics);
        let id = reader.opt_arg_str("an agent's name").map_or_else(|| "default".into(), |id| id.value);
        let target = reader.opt_prop_str("to").map(|t| t.value);
        let required = reader.opt_prop_bool("required").is_none_or(|b| b.value);
        let mode = mode(&mut reader, 0o600);
        let (uid, gid) = owner(&mut reader);
        reader.finish();
        let kind = RunMountKind::Ssh { id, required, mode, uid, gid };
        Some(RunMount { target, access: Access::ReadOnly, kind })
    }

    fn bind(&mut self, node: &Node, stages: &[&str]) -> Option<RunMount> {
        let mut reader = Reader::new(node, self.diagnostics);
        let source = reader.arg_str("a path");
        let target = reader.prop_str("to");
        let from = reader.opt_prop_str("from");
        let writable = reader.opt_prop_bool("writable").is_some_and(|b| b.value);
        reader.finish();
        let from = match from {
            Some(text) => self.from(&text, stages)?,
            None => From::Context,
        };
        let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
        Some(RunMount { target: Some(target?.value), access, kind: RunMountKind::Bind { from, source: source?.value } })
    }

    fn tmpfs(&mut self, node: &Node) -> Option<RunMount> {
        let mut reader = Reader::new(node, self.diagnostics);
        let target = reader.arg_str("a path");
        let size_bytes = reader.opt_prop_size("size").map(|s| s.value);
        reader.finish();
        Some(RunMount {
            target: Some(target?.value),
            access: Access::ReadWrite,
            kind: RunMountKind::Tmpfs { size_bytes },
        })
    }
}

/// `mode="0755"`: octal, as everywhere.
fn mode(reader: &mut Reader<'_, '_>, default: u32) -> u32 {
    let Some(text) = reader.opt_prop_text("mode") else { return default };
    u32::from_str_radix(&text.value, 8).ok().filter(|m| *m <= 0o7777).unwrap_or_else(|| {
        let message = format!("`{}` is no mode", text.value);
        reader.error(crate::codes::BAD_MODE, text.span, message, "expected octal digits, such as `0755`");
        default
    })
}

fn owner(reader: &mut Reader<'_, '_>) -> (u32, u32) {
    let ids = 0..=i128::from(u32::MAX - 1);
    let uid = reader.opt_prop_int("uid", ids.clone()).map_or(0, |u| u.value as u32);
    let gid = reader.opt_prop_int("gid", ids).map_or(0, |g| g.value as u32);
    (uid, gid)
}
