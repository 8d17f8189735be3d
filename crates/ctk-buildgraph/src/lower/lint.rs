//! Lint rules that need to know what variables mean.

use ctk_oci::{Platform, Reference};
use ctk_syntax::{Diagnostic, Diagnostics, Span, nearest};

use super::{LowerRequest, Walk};
use crate::lint::codes;
use crate::pattern::PathPattern;
use crate::stage::{Stage, clean};
use crate::{Command, From, Instruction, Recipe, RecipeStage, Statement};

/// Breaches of lint rules in all stages of a Dockerfile, those that no target needs, too; and all mistakes in them.
/// `ignored` says whether the main context leaves a path out, with all that is below it.
pub fn check(recipe: &Recipe, request: &LowerRequest<'_>, ignored: &dyn Fn(&str) -> bool) -> Diagnostics {
    let mut walk = Walk::new(recipe, request);
    walk.ignored = Some(ignored);
    walk.target();
    walk.lint_bases();
    for index in 0..recipe.stages.len() {
        walk.stage(index, None);
    }
    let mut found = recipe.checks.apply(walk.warnings);
    found.extend(walk.diagnostics);
    found
}

impl Walk<'_> {
    pub(super) fn warn(&mut self, code: &'static str, message: String, origin: Option<Span>, label: String) {
        let diagnostic = Diagnostic::warning(code, message);
        self.warnings.push(match origin {
            Some(span) => diagnostic.at(span, label),
            None => diagnostic,
        });
    }

    /// What every FROM says, with the arguments before the first one.
    pub(super) fn lint_bases(&mut self) {
        if self.escape().is_none() {
            return;
        }
        for stage in &self.recipe.stages {
            if let From::Text(text) = &stage.from {
                self.undeclared(text, stage.origin);
                self.default_base(text, stage.origin);
            }
            if let Some(text) = &stage.platform {
                self.undeclared(text, stage.origin);
                self.platform_flag(text, stage);
            }
        }
    }

    fn undeclared(&mut self, text: &str, origin: Option<Span>) {
        self.global(text);
        for (name, value) in std::mem::take(&mut self.asked) {
            if value.is_none() && !self.globals.iter().any(|(known, _)| *known == name) {
                let near = nearest(&name, self.globals.iter().map(|(known, _)| known.as_str()));
                let near =
                    near.map_or("expected an ARG before the first FROM".into(), |n| format!("did you mean `{n}`?"));
                let message = format!("FROM uses `${name}`, and no ARG before the first FROM declares it");
                self.warn(codes::UNDEFINED_ARG_IN_FROM, message, origin, near);
            }
        }
    }

    /// The text with the arguments before the first FROM; none if it cannot be read, which lowering tells.
    fn global(&mut self, text: &str) -> Option<String> {
        let before = std::mem::take(&mut self.diagnostics);
        let globals = std::mem::take(&mut self.globals);
        let (value, _) = self.expand(text, &|name| super::arguments::find(&globals, name), true, None);
        self.globals = globals;
        let failed = std::mem::replace(&mut self.diagnostics, before).has_errors();
        (!failed).then_some(value)
    }

    /// The name must be one without any argument given, too.
    fn default_base(&mut self, text: &str, origin: Option<Span>) {
        let given = self.globals.clone();
        self.globals.retain(|(name, _)| !self.recipe.globals.iter().any(|arg| arg.name == *name));
        for arg in &self.recipe.globals {
            let value = arg.default.as_ref().and_then(|default| self.global(default));
            self.globals.push((arg.name.clone(), value));
        }
        let name = self.global(text);
        self.globals = given;
        let Some(name) = name else { return };
        if name.parse::<Reference>().is_err() {
            let message = format!("without build arguments, `{text}` is `{name}`, which is no image");
            self.warn(codes::INVALID_DEFAULT_ARG_IN_FROM, message, origin, "give its ARGs defaults".into());
        }
    }

    fn platform_flag(&mut self, text: &str, stage: &RecipeStage) {
        let Some(value) = self.global(text) else { return };
        let asked = std::mem::take(&mut self.asked);
        let name = stage.name.as_deref().unwrap_or_default();
        if asked.is_empty() {
            let Ok(platform) = value.parse::<Platform>() else { return };
            if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                let message = format!("`--platform={value}` is the same for every platform that is built for");
                let label = "leave it out, use `$BUILDPLATFORM`, or put the platform into the stage's name".into();
                self.warn(codes::FROM_PLATFORM_FLAG_CONST_DISALLOWED, message, stage.origin, label);
            }
        } else if asked.iter().all(|(name, found)| name == "TARGETPLATFORM" && found.as_ref() == Some(&value)) {
            let message = format!("`--platform={text}` is what it is anyway");
            self.warn(codes::REDUNDANT_TARGET_PLATFORM, message, stage.origin, "leave it out".into());
        }
    }

    /// Variables of the last text that neither the environment nor an ARG knows.
    pub(super) fn lint_variables(&mut self, stage: &Stage, origin: Option<Span>) {
        /// Arguments that are no variables of a stage and may be named all the same.
        const NEVER_SET: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
        for (name, value) in std::mem::take(&mut self.asked) {
            let declared =
                stage.args.iter().any(|(declared, _)| *declared == name) || NEVER_SET.contains(&name.as_str());
            // An unknown base may set any.
            if value.is_some() || declared || !stage.known {
                continue;
            }
            let near = nearest(&name, stage.env.iter().map(|(known, _)| known.as_str()));
            let label = near.map_or(String::new(), |n| format!("did you mean `{n}`?"));
            self.warn(codes::UNDEFINED_VAR, format!("nothing sets the variable `${name}`"), origin, label);
        }
    }

    /// What an instruction says, before it is carried out.
    pub(super) fn lint_statement(&mut self, stage: &Stage, statement: &Statement) {
        let origin = statement.origin;
        let shell = |command: &Command| matches!(command, Command::Shell(_)) && stage.config.shell.is_none();
        match &statement.instruction {
            Instruction::Cmd(command) if shell(command) => self.lint_shell_form("CMD", origin),
            Instruction::Entrypoint(command) if shell(command) => self.lint_shell_form("ENTRYPOINT", origin),
            Instruction::Arg(args) => {
                let names: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
                self.lint_secrets("ARG", &names, origin);
            }
            _ => {}
        }
    }

    fn lint_shell_form(&mut self, keyword: &str, origin: Option<Span>) {
        if self.escape().is_none() {
            return;
        }
        let message = format!("{keyword} in shell form: the shell, not the program, gets the signals");
        let label = format!("expected `{keyword} [\"program\", \"argument\"]`");
        self.warn(codes::JSON_ARGS_RECOMMENDED, message, origin, label);
    }

    /// Names that say their value is a secret.
    pub(super) fn lint_secrets(&mut self, keyword: &str, names: &[&str], origin: Option<Span>) {
        if self.escape().is_none() {
            return;
        }
        for name in names.iter().filter(|name| is_secret(name)) {
            let message =
                format!("{keyword} `{name}` seems to hold a secret, which everybody who has the image can read");
            self.warn(codes::SECRETS_USED_IN_ARG_OR_ENV, message, origin, "use `RUN --mount=type=secret`".into());
        }
    }

    /// The first `WORKDIR` of a stage and those it is built on.
    pub(super) fn lint_workdir(&mut self, stage: &Stage, path: &str, origin: Option<Span>) {
        if self.escape().is_some() && !stage.workdir_set && !path.starts_with('/') {
            let message = format!("`{path}` is relative to whatever directory the base image has");
            self.warn(codes::WORKDIR_RELATIVE_PATH, message, origin, "expected an absolute path".into());
        }
    }

    /// What is copied from the main context.
    pub(super) fn lint_sources(&mut self, paths: &[String], origin: Option<Span>) {
        let Some(ignored) = self.ignored else { return };
        for path in paths {
            let clean = clean("/", path);
            let relative = clean.trim_start_matches('/');
            let pattern = PathPattern::has_wildcard(relative);
            if !pattern && !relative.is_empty() && ignored(relative) {
                let message = format!("`{path}` is not in the context: `.dockerignore` keeps it out");
                self.warn(codes::COPY_IGNORED_FILE, message, origin, String::new());
            }
        }
    }

    /// A word of EXPOSE.
    pub(super) fn lint_port(&mut self, word: &str, origin: Option<Span>) {
        if self.escape().is_none() {
            return;
        }
        if word.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty()) {
            let message =
                format!("EXPOSE takes ports of the container, and `{word}` names an address or a port of the host");
            self.warn(codes::EXPOSE_INVALID_FORMAT, message, origin, "what is published is said when it runs".into());
        }
        let protocol = word.split_once('/').map_or("", |(_, protocol)| protocol);
        let lower = protocol.to_lowercase();
        if lower != protocol {
            let message = format!("the protocol of `{word}` is not in lower case");
            self.warn(codes::EXPOSE_PROTO_CASING, message, origin, format!("write `{lower}`"));
        }
    }
}

/// Whether one of the name's parts, between underscores, stands for a secret and none says that it is public.
pub fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    let name = name.to_ascii_lowercase();
    let mut parts = name.split('_');
    parts.clone().any(|part| SECRET.contains(&part)) && !parts.any(|part| part == "public")
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn names_that_stand_for_secrets() {
        for name in ["PASSWORD", "MY_SECRET", "apikey", "AUTH", "PASSWORD_FILE", "KEY", "API_KEY_2", "token_x"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["PWD", "PASSWORDS", "PUBLIC_KEY", "MYPASSWORD", "MONKEY", "accesskey", "xtoken", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
