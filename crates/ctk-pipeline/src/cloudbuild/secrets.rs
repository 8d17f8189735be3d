//! Secrets: where they are from, and who uses them.

use std::collections::{BTreeMap, HashMap};

use ctk_syntax::{Diagnostic, Diagnostics, Span, Spanned, nearest, short};

use super::value::Object;
use super::{Secret, Step};
use crate::{codes, limits};

/// A secret variable, and where it is declared.
pub(super) struct Declared {
    pub secret: Secret,
    pub span: Span,
}

/// The secret variables that a build declares.
pub(super) fn declared(build: &Object, diagnostics: &mut Diagnostics) -> BTreeMap<String, Declared> {
    let mut found = BTreeMap::new();
    if let Some(available) = build.record("availableSecrets") {
        for one in available.records("secretManager") {
            let version = needed(one, "versionName", diagnostics);
            let name = needed(one, "env", diagnostics);
            let (Some(version), Some(name)) = (version, name) else { continue };
            let parts: Vec<&str> = version.split('/').collect();
            let fits = match parts.as_slice() {
                ["projects", a, "secrets", b, "versions", c] => [a, b, c].iter().all(|part| !part.is_empty()),
                ["projects", a, "locations", l, "secrets", b, "versions", c] => {
                    [a, l, b, c].iter().all(|part| !part.is_empty())
                }
                _ => false,
            };
            if !fits {
                let said = format!("`{}` is no version of a secret", short(&version));
                let label = "expected `projects/PROJECT/secrets/SECRET/versions/VERSION`";
                diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(version.span, label));
            }
            add(&mut found, &name, Secret::Manager { version: version.value }, diagnostics);
        }
        for one in available.records("inline") {
            encrypted(one, "envMap", &mut found, diagnostics);
        }
    }
    let mut keys: HashMap<String, Span> = HashMap::new();
    for one in build.records("secrets") {
        if let Some(key) = one.text("kmsKeyName")
            && let Some(first) = keys.insert(key.value.clone(), key.span)
        {
            let said = format!("two `secrets` have the key `{}`", short(&key));
            let mistake = Diagnostic::error(codes::CONFLICT, said).at(key.span, "the second");
            diagnostics.push(mistake.at(first, "add its variables here"));
        }
        encrypted(one, "secretEnv", &mut found, diagnostics);
    }
    if found.len() > limits::SECRETS
        && let Some(last) = found.values().map(|declared| declared.span).max()
    {
        let said = format!("{} secret variables; Cloud Build takes {}", found.len(), limits::SECRETS);
        diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(last, "too many"));
    }
    found
}

fn needed(object: &Object, name: &str, diagnostics: &mut Diagnostics) -> Option<Spanned<String>> {
    let text = object.text(name).filter(|text| !text.is_empty());
    if text.is_none() {
        let said = format!("a secret has no `{name}`");
        diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(object.span, format!("add `{name}`")));
    }
    text
}

fn encrypted(object: &Object, map: &str, found: &mut BTreeMap<String, Declared>, diagnostics: &mut Diagnostics) {
    let Some(key) = needed(object, "kmsKeyName", diagnostics) else { return };
    let parts: Vec<&str> = key.split('/').collect();
    let fits = matches!(parts.as_slice(), ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _, ..]);
    if !fits || parts.iter().any(|part| part.is_empty()) {
        let said = format!("`{}` is no key", short(&key));
        let label = "expected `projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY`";
        diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(key.span, label));
    }
    let table = object.table(map);
    if table.is_empty() {
        let said = format!("a secret has no `{map}`");
        diagnostics.push(Diagnostic::error(codes::MISSING_FIELD, said).at(object.span, format!("add `{map}`")));
    }
    for (name, value) in table {
        // Only whether it is base64 matters here; nobody can decrypt it without the key.
        let text: String = value.chars().filter(|c| !c.is_whitespace()).collect();
        let letters = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
        if text.is_empty() || text.len() % 4 == 1 || !text.chars().all(letters) {
            let said = format!("the value of `{}` is no base64", short(&name));
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(value.span, "expected encrypted bytes"));
        } else if text.len() / 4 * 3 > limits::SECRET_BYTES {
            let said = format!("the value of `{}` has more than 64 KiB", short(&name));
            diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(value.span, "too long"));
        }
        add(found, &name, Secret::Encrypted { key: key.value.clone() }, diagnostics);
    }
}

fn add(found: &mut BTreeMap<String, Declared>, name: &Spanned<String>, secret: Secret, diagnostics: &mut Diagnostics) {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(letters) {
        let said = format!("`{}` is no name of a variable", short(name));
        diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(name.span, "expected letters, digits, `_`"));
    }
    if let Some(first) = found.get(&name.value) {
        let said = format!("secret variable `{}` is declared twice", short(name));
        let mistake = Diagnostic::error(codes::SECRET, said).at(name.span, "the second");
        diagnostics.push(mistake.at(first.span, "the first"));
        return;
    }
    found.insert(name.value.clone(), Declared { secret, span: name.span });
}

/// Whether what is used is declared, and what is declared is used.
pub(super) fn used(
    build: &Object,
    declared: &BTreeMap<String, Declared>,
    steps: &[Step],
    diagnostics: &mut Diagnostics,
) {
    for (step, object) in steps.iter().zip(build.records("steps")) {
        let own = object.texts("env");
        for secret in &step.secret_env {
            if !declared.contains_key(&secret.value) {
                let near = nearest(secret, declared.keys().map(String::as_str));
                let said = format!("no secret is called `{}`", short(secret));
                let mistake = Diagnostic::error(codes::SECRET, said);
                diagnostics.push(mistake.at_or_nearest(secret.span, near, "declare it under `availableSecrets`"));
            }
            let plain =
                own.iter().find(|variable| variable.split_once('=').is_some_and(|(name, _)| name == secret.value));
            if let Some(plain) = plain {
                let said = format!("`{}` is a variable and a secret of one step", short(secret));
                let mistake = Diagnostic::error(codes::SECRET, said).at(secret.span, "the secret");
                diagnostics.push(mistake.at(plain.span, "the variable"));
            }
        }
    }
    for (name, one) in declared {
        if !steps.iter().any(|step| step.secret_env.iter().any(|secret| secret.value == *name)) {
            let said = format!("no step uses secret `{name}`");
            let mistake = Diagnostic::error(codes::SECRET, said).at(one.span, "declared here");
            diagnostics.push(mistake.hint(format!("name it in `secretEnv: ['{name}']` of a step, or leave it out")));
        }
    }
}
