//! Build arguments: those before the first stage, and those of a stage.

use super::Walk;
use crate::stage::Stage;

impl Walk<'_> {
    pub(super) fn read_globals(&mut self) {
        for (prefix, platform) in [("TARGET", &self.request.platform), ("BUILD", &self.request.build_platform)] {
            let parts = [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone().unwrap_or_default()),
            ];
            self.globals.extend(parts.map(|(name, value)| (format!("{prefix}{name}"), Some(value))));
        }
        let stage = self.request.target.clone().unwrap_or_else(|| "default".into());
        self.globals.push(("TARGETSTAGE".into(), Some(stage)));
        for arg in &self.recipe.globals {
            let globals = std::mem::take(&mut self.globals);
            let value = match (self.request.args.get(&arg.name), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, &|n| find(&globals, n), true, arg.origin).0),
                (None, None) => find(&globals, &arg.name),
            };
            self.globals = globals;
            self.globals.push((arg.name.clone(), value));
        }
    }

    /// Given on the command line, else the default, else the global of that name.
    pub(super) fn arg_value(&mut self, stage: &Stage, arg: &crate::Arg) -> Option<String> {
        if let Some(given) = self.request.args.get(&arg.name) {
            return Some(given.clone());
        }
        match &arg.default {
            Some(default) => Some(self.text(stage, default, arg.origin)),
            None => find(&self.globals, &arg.name),
        }
    }
}

pub(super) fn find(list: &[(String, Option<String>)], name: &str) -> Option<String> {
    list.iter().rev().find(|(n, _)| n == name).and_then(|(_, value)| value.clone())
}
