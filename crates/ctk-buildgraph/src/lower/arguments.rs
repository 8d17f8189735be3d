//! Build arguments: those before the first stage, those of a stage, and those that mean something by themselves.

use std::collections::{BTreeMap, BTreeSet};

use ctk_oci::Platform;
use ctk_syntax::{Diagnostic, nearest, short};

use super::Walk;
use crate::lint::truth;
use crate::stage::Stage;
use crate::{Arg, Instruction, codes};

/// Build arguments that every `RUN` sees in both cases when they are given, and that no key and no history holds unless
/// an ARG declares them.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Build arguments for who scans the image; no process sees them.
const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The argument that dates the image.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What that argument says to be dated as the main context is.
pub(super) const CONTEXT_EPOCH: &str = "context";

/// The argument that makes an index of an image for one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// The argument that names the host of every RUN.
pub(super) const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";

/// What the kernel takes as a host's name (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES: usize = 64;

/// What BuildKit's own build arguments begin with.
const SWITCH: &str = "BUILDKIT_";

impl Walk<'_> {
    /// The automatic arguments, which those given on the command line override, and the recipe's own.
    pub(super) fn read_globals(&mut self) {
        let last = self.recipe.stages.last().and_then(|stage| stage.name.clone());
        let stage = self.request.target.clone().or(last).unwrap_or_else(|| "default".into());
        let automatic = automatic(&self.request.platform, &self.request.build_platform, stage);
        let given = |(name, value): (String, String)| {
            let value = self.request.args.get(&name).cloned().unwrap_or(value);
            (name, Some(value))
        };
        self.globals = automatic.into_iter().map(given).collect();
        for arg in &self.recipe.globals {
            let globals = std::mem::take(&mut self.globals);
            let value = match (self.request.args.get(&arg.name), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, &|n| find(&globals, n), true, arg.origin).0),
                (None, None) => find(&globals, &arg.name),
            };
            self.globals = globals;
            let value = value.map(|value| self.dated(&arg.name, value));
            self.globals.push((arg.name.clone(), value));
        }
    }

    /// Each argument of a line sees those before it.
    pub(super) fn arg(&mut self, stage: &mut Stage, args: &[Arg]) {
        let mut shown = Vec::new();
        for arg in args {
            let value = self.arg_value(stage, arg);
            let hidden = NOT_IN_ENVIRONMENT.contains(&arg.name.as_str());
            shown.push(stage.arg(&arg.name, value.as_deref(), hidden));
        }
        stage.arg_history(&shown);
    }

    /// Given on the command line, else the default, else the global of that name.
    fn arg_value(&mut self, stage: &Stage, arg: &Arg) -> Option<String> {
        let value = match (self.request.args.get(&arg.name), &arg.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(self.text(stage, default, arg.origin)),
            (None, None) => find(&self.globals, &arg.name),
        };
        value.map(|value| self.dated(&arg.name, value))
    }

    /// The value of an argument, in which the date of the context stands as a number.
    fn dated(&self, name: &str, value: String) -> String {
        match self.request.context_epoch {
            Some(seconds) if name == EPOCH && value == CONTEXT_EPOCH => seconds.to_string(),
            _ => value,
        }
    }

    /// Environment for every process: what was given as a proxy, in small and in capital letters.
    pub(super) fn proxies(&self) -> Vec<String> {
        let given = |name: &str| {
            let same = |(n, _): &(&String, &String)| n.eq_ignore_ascii_case(name);
            self.request.args.iter().rfind(same).map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let both = |name: &str| given(name).map(|v| [format!("{}={v}", name.to_uppercase()), format!("{name}={v}")]);
        PROXIES.iter().filter_map(|name| both(name)).flatten().collect()
    }

    /// What `SOURCE_DATE_EPOCH` says.
    pub(super) fn epoch_text(&self) -> Option<String> {
        let text = self.request.args.get(EPOCH).cloned().or_else(|| find(&self.globals, EPOCH))?;
        Some(self.dated(EPOCH, text))
    }

    /// The date that `SOURCE_DATE_EPOCH` gives.
    pub(super) fn epoch(&mut self) -> Option<i64> {
        let text = self.epoch_text()?;
        // Nobody has looked at the context yet.
        if text.is_empty() || text == CONTEXT_EPOCH {
            return None;
        }
        let seconds = text.parse().ok().filter(|seconds| (0..=ctk_oci::EPOCH_MAX_SECONDS).contains(seconds));
        if seconds.is_none() {
            let message = format!("`{EPOCH}` cannot be `{text}`; {}", ctk_oci::EPOCH_EXPECTED);
            let origin = self.recipe.globals.iter().rfind(|arg| arg.name == EPOCH).and_then(|arg| arg.origin);
            self.error(codes::BAD_EPOCH, message, origin, "");
        }
        seconds
    }

    /// What is said to the builder itself, by arguments that no ARG declares.
    pub(super) fn switches(&mut self) {
        let given = |name: &str| self.request.args.get(name).filter(|value| !value.is_empty());
        if let Some(value) = given(MULTI_PLATFORM).filter(|value| truth(value).is_none()) {
            let message = format!("`{MULTI_PLATFORM}` cannot be `{value}`; expected `true` or `false`");
            self.error(codes::BAD_ARGUMENT, message, None, "");
        }
        if let Some(name) = given(HOSTNAME) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if name.len() > HOSTNAME_BYTES {
                let message =
                    format!("`{HOSTNAME}` has {} bytes; a host's name has at most {HOSTNAME_BYTES}", name.len());
                self.error(codes::BAD_ARGUMENT, message, None, "");
            } else if !name.bytes().all(plain) {
                let message = format!("`{}` in `{HOSTNAME}` is no name of a host", short(name));
                let warning = Diagnostic::warning(codes::BAD_ARGUMENT, message);
                self.warnings.push(warning.hint("expected letters, digits, `-` and `.`"));
            }
        }
    }

    /// Warns of given arguments that nothing in the recipe declares.
    pub(super) fn unused_args(&mut self) {
        let mut known: BTreeSet<&str> = self.recipe.globals.iter().map(|arg| arg.name.as_str()).collect();
        let statements = self.recipe.stages.iter().flat_map(|stage| &stage.statements).chain(&self.triggered);
        for statement in statements {
            if let Instruction::Arg(args) = &statement.instruction {
                known.extend(args.iter().map(|arg| arg.name.as_str()));
            }
        }
        let automatic: BTreeMap<String, String> =
            automatic(&self.request.platform, &self.request.build_platform, String::new()).into_iter().collect();
        let special = |name: &str| {
            automatic.contains_key(name)
                || name.starts_with(SWITCH)
                || name == EPOCH
                || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        };
        for name in self.request.args.keys().filter(|name| !known.contains(name.as_str()) && !special(name)) {
            let warning = Diagnostic::warning(codes::UNUSED_ARGUMENT, format!("build argument `{name}` is not used"));
            let near = nearest(name, known.iter().copied());
            self.warnings.push(match near {
                Some(near) => warning.hint(format!("did you mean `{near}`?")),
                None => warning.hint("no ARG declares it"),
            });
        }
    }
}

/// The arguments that are there without being given.
fn automatic(target: &Platform, build: &Platform, stage: String) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", build)] {
        all.extend(platform.parts().into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    all.push(("TARGETSTAGE".into(), stage));
    all
}

pub(super) fn find(list: &[(String, Option<String>)], name: &str) -> Option<String> {
    list.iter().rev().find(|(n, _)| n == name).and_then(|(_, value)| value.clone())
}

/// Whether `BUILDKIT_MULTI_PLATFORM` asks for an index, or for none; nothing if it is not given.
pub fn multi_platform(args: &BTreeMap<String, String>) -> Option<bool> {
    args.get(MULTI_PLATFORM).and_then(|value| truth(value))
}
