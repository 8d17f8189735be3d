//! Lint rules: what a Dockerfile may do and better would not.
//!
//! Whoever meets a breach (the parser, lowering, the one who knows the context) pushes a warning with the rule's code;
//! [`Checks`], the `# check=` line or the build argument [`CHECK_ARG`], decides at the end which of them are told, and
//! whether they are errors.

pub mod codes;

use std::collections::BTreeSet;

use ctk_syntax::{Diagnostic, Diagnostics, Severity, nearest};

pub use crate::lower::check;
pub use codes::RULES;

/// The build argument that takes the place of `# check=`.
pub const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As `skip=` names it.
    pub name: &'static str,
    /// What it is about, in one line.
    pub meaning: &'static str,
    /// Of its diagnostics.
    pub code: &'static str,
    /// Whether it has to be asked for.
    pub experimental: bool,
}

impl Rule {
    /// The rule of a diagnostic; none if it is no rule's.
    pub fn of(diagnostic: &Diagnostic) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.code == diagnostic.code)
    }
}

/// Which rules count: `skip=A,B|all;error=true|false;experimental=A,B|all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    skip: Names,
    experimental: Names,
    error: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    names: BTreeSet<String>,
}

impl Names {
    fn parse(text: &str) -> Names {
        match text.trim() {
            "all" => Names { all: true, names: BTreeSet::new() },
            names => Names { all: false, names: names.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn have(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
}

impl Checks {
    /// Reads the value of `# check=`; an error is one sentence.
    pub fn parse(text: &str) -> Result<Checks, String> {
        let mut checks = Checks::default();
        if text.trim().is_empty() {
            return Ok(checks);
        }
        for option in text.split(';') {
            let Some((key, value)) = option.split_once('=') else {
                return Err(format!("check option `{}` has no value; expected `name=value`", option.trim()));
            };
            match key.trim() {
                "skip" => checks.skip = Names::parse(value),
                "experimental" => checks.experimental = Names::parse(value),
                "error" => {
                    checks.error = truth(value.trim()).ok_or_else(|| {
                        format!("check option `error` cannot be `{}`; expected `true` or `false`", value.trim())
                    })?;
                }
                other => {
                    let near = nearest(other, ["skip", "error", "experimental"]);
                    let near =
                        near.map_or("there are skip, error, experimental".into(), |n| format!("did you mean `{n}`?"));
                    return Err(format!("unknown check option `{other}`; {near}"));
                }
            }
        }
        Ok(checks)
    }

    /// Whether breaches of the rule are told.
    pub fn allow(&self, rule: &Rule) -> bool {
        if rule.experimental { self.experimental.have(rule.name) } else { !self.skip.have(rule.name) }
    }

    /// Takes away what is not to be told, and makes errors of the rest when that is asked for. What is no rule's stays.
    pub fn apply(&self, diagnostics: Diagnostics) -> Diagnostics {
        let mut kept = Diagnostics::new();
        for mut diagnostic in diagnostics {
            if let Some(rule) = Rule::of(&diagnostic) {
                if !self.allow(rule) {
                    continue;
                }
                if self.error {
                    diagnostic.severity = Severity::Error;
                }
            }
            kept.push(diagnostic);
        }
        kept
    }
}

/// Truth as Go's `strconv.ParseBool` reads it.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: &str) -> Vec<&'static str> {
        let checks = Checks::parse(check).unwrap();
        RULES.iter().filter(|rule| checks.allow(rule)).map(|rule| rule.name).collect()
    }

    #[test]
    fn options_choose_rules() {
        assert_eq!(RULES.len(), 22);
        assert_eq!(told("").len(), 21);
        assert_eq!(told("skip=all"), Vec::<&str>::new());
        assert_eq!(told("skip=all;experimental=all"), ["InvalidDefinitionDescription"]);
        assert_eq!(told(" skip = JSONArgsRecommended , StageNameCasing ; error = true").len(), 19);
        assert_eq!(told("experimental=InvalidDefinitionDescription").len(), 22);
        assert!(Checks::parse("skipp=all").unwrap_err().contains("did you mean `skip`?"));
        assert!(Checks::parse("skip").is_err());
        assert!(Checks::parse("error=maybe").is_err());
    }

    #[test]
    fn what_is_no_rule_is_untouched() {
        let mut diagnostics = Diagnostics::new();
        diagnostics.push(Diagnostic::warning(codes::STAGE_NAME_CASING, "one"));
        diagnostics.push(Diagnostic::warning("build::other", "two"));
        assert_eq!(Checks::parse("skip=all;error=1").unwrap().apply(diagnostics.clone()).len(), 1);
        let raised = Checks::parse("error=1").unwrap().apply(diagnostics);
        assert_eq!(raised.iter().map(|d| d.severity).collect::<Vec<_>>(), [Severity::Error, Severity::Warning]);
    }
}
