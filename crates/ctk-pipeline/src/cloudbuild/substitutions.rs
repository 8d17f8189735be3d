//! What keys stand for, and where they are put in.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use ctk_syntax::{Diagnostic, Diagnostics, Sources, Span, Spanned, nearest, short};

use super::Inputs;
use super::value::{Entry, Object, Value};
use crate::bash::{Found, Mistake, MistakeKind, Rules, key_length, substitute};
use crate::{codes, limits};

/// The substitutions that Cloud Build has of its own.
pub const BUILT_IN: &[&str] = &[
    "PROJECT_ID",
    "BUILD_ID",
    "PROJECT_NUMBER",
    "LOCATION",
    "TRIGGER_NAME",
    "COMMIT_SHA",
    "REVISION_ID",
    "SHORT_SHA",
    "REPO_NAME",
    "REPO_FULL_NAME",
    "BRANCH_NAME",
    "TAG_NAME",
    "REF_NAME",
    "TRIGGER_BUILD_CONFIG_PATH",
    "SERVICE_ACCOUNT_EMAIL",
    "SERVICE_ACCOUNT",
];

/// Those of them that the command line may set.
pub const GIVEN_BUILT_IN: &[&str] =
    &["REPO_NAME", "BRANCH_NAME", "TAG_NAME", "REVISION_ID", "COMMIT_SHA", "SHORT_SHA", "TRIGGER_NAME"];

/// Those that triggers of pull requests add.
const PULL_REQUEST: &[&str] = &["_HEAD_BRANCH", "_BASE_BRANCH", "_HEAD_REPO_URL", "_PR_NUMBER"];

/// What keys stand for.
pub(super) struct Table<'a> {
    inputs: &'a Inputs,
    /// Of the file: as written, and where.
    own: BTreeMap<String, (Spanned<String>, Span)>,
    dynamic: bool,
    loose: bool,
    known: RefCell<BTreeMap<String, Result<String, String>>>,
    /// Keys whose values are being made.
    open: RefCell<Vec<String>>,
    used: RefCell<BTreeSet<String>>,
    /// Where a built-in substitution without a value was put in.
    empty: RefCell<Vec<(Span, String)>>,
}

/// `_[A-Z0-9_]+`.
fn is_own(key: &str) -> bool {
    key.len() > 1 && key.starts_with('_') && key_length(key) == key.len()
}

impl<'a> Table<'a> {
    /// From `substitutions` and `options` of a build.
    pub fn new(build: &Object, inputs: &'a Inputs, diagnostics: &mut Diagnostics) -> Table<'a> {
        let options = build.record("options");
        let option = |name: &str| options.and_then(|options| options.flag(name)).unwrap_or(false);
        let loose = options.and_then(|options| options.choice("substitutionOption")) == Some("ALLOW_LOOSE");
        let mut own = BTreeMap::new();
        let table = build.table("substitutions");
        if table.len() > limits::SUBSTITUTIONS
            && let Some(entry) = build.entry("substitutions")
        {
            let said = format!("{} substitutions; Cloud Build takes {}", table.len(), limits::SUBSTITUTIONS);
            diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(entry.key, "too many"));
        }
        for (key, value) in table {
            let mut wrong = |code, said: String, span: Span, label: &str| {
                diagnostics.push(Diagnostic::error(code, said).at(span, label));
            };
            if BUILT_IN.contains(&key.value.as_str()) {
                let said = format!("`{}` is a built-in substitution, which a file cannot define", key.value);
                wrong(codes::SUBSTITUTION, said, key.span, "choose a name that begins with `_`");
            } else if !is_own(&key) {
                let said = format!("`{}` is no name of a substitution", short(&key));
                wrong(codes::SUBSTITUTION, said, key.span, "expected `_`, then capitals, digits and `_`");
            } else if key.chars().count() > limits::SUBSTITUTION_KEY_CHARACTERS {
                let said = format!("a name of {} characters; Cloud Build takes 100", key.chars().count());
                wrong(codes::OVER_LIMIT, said, key.span, "too long");
            }
            if value.chars().count() > limits::SUBSTITUTION_VALUE_CHARACTERS {
                let said = format!("a value of {} characters; Cloud Build takes 4000", value.chars().count());
                wrong(codes::OVER_LIMIT, said, value.span, "too long");
            }
            own.insert(key.value.clone(), (value, key.span));
        }
        Table {
            inputs,
            own,
            dynamic: option("dynamicSubstitutions") || inputs.trigger,
            loose: loose || inputs.trigger,
            known: RefCell::default(),
            open: RefCell::default(),
            used: RefCell::default(),
            empty: RefCell::default(),
        }
    }

    fn rules(&self) -> Rules<'a> {
        Rules { dynamic: self.dynamic, loose: self.loose, payload: self.inputs.payload.as_ref() }
    }

    /// What `key` stands for, its own substitutions made.
    fn find(&self, key: &str) -> Found {
        self.used.borrow_mut().insert(key.to_owned());
        if let Some(known) = self.known.borrow().get(key) {
            return known.clone().map_or_else(Found::Failed, Found::Value);
        }
        let raw = if let Some(value) = self.inputs.given.get(key) {
            value
        } else if let Some((value, _)) = self.own.get(key) {
            &value.value
        } else if BUILT_IN.contains(&key) {
            return Found::Value(self.inputs.built_in.get(key).cloned().unwrap_or_default());
        } else if key.starts_with('_') {
            return Found::Unset;
        } else {
            return Found::Unknown;
        };
        let made = if self.dynamic { self.made(key, raw) } else { Ok(raw.clone()) };
        self.known.borrow_mut().insert(key.to_owned(), made.clone());
        made.map_or_else(Found::Failed, Found::Value)
    }

    fn made(&self, key: &str, raw: &str) -> Result<String, String> {
        if self.open.borrow().iter().any(|open| open == key) {
            let mut way = self.open.borrow().clone();
            way.push(key.to_owned());
            return Err(format!("its value needs itself: {}", way.join(" → ")));
        }
        if self.open.borrow().len() >= limits::EXPANSION_LEVELS {
            return Err(format!("more than {} values that name each other", limits::EXPANSION_LEVELS));
        }
        self.open.borrow_mut().push(key.to_owned());
        let made = substitute(raw, self.rules(), &mut |key| self.find(key));
        self.open.borrow_mut().pop();
        made.map_err(|mistake| words(&mistake.kind).0)
    }

    /// Makes the substitutions of every field that has some.
    pub fn fill(&self, object: &mut Object, sources: &Sources, diagnostics: &mut Diagnostics) {
        for Entry { field, values, .. } in &mut object.fields {
            for value in values {
                let span = value.span;
                match &mut value.value {
                    Value::Record(inner) => self.fill(inner, sources, diagnostics),
                    Value::Text(text) if field.substituted => {
                        if !self.dynamic {
                            self.unexpanded(text, span, sources, diagnostics);
                        }
                        let mut find = |key: &str| {
                            let found = self.find(key);
                            if found == Found::Value(String::new()) && BUILT_IN.contains(&key) {
                                self.empty.borrow_mut().push((span, key.to_owned()));
                            }
                            found
                        };
                        match substitute(text, self.rules(), &mut find) {
                            Ok(made) => *text = made,
                            Err(mistake) => diagnostics.push(self.told(&mistake, text, span, sources)),
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// An expansion that is none without `dynamicSubstitutions`.
    fn unexpanded(&self, text: &str, span: Span, sources: &Sources, diagnostics: &mut Diagnostics) {
        for (at, _) in text.match_indices("${_") {
            let inside = &text[at + 2..];
            let after = &inside[key_length(inside)..];
            let escaped = text[..at].bytes().rev().take_while(|byte| *byte == b'$').count() % 2 == 1;
            if !escaped && after.starts_with([':', '#', '%', '/', '^', ',']) {
                let end = text[at..].find('}').map_or(text.len(), |length| at + length + 1);
                let said = format!("`{}` is not expanded without `dynamicSubstitutions`", short(&text[at..end]));
                let mistake = Diagnostic::warning(codes::SUSPICIOUS, said);
                let mistake = mistake.at(inner(&text[at..end], span, sources), "stays as it is");
                diagnostics.push(
                    mistake.hint("`options: {dynamicSubstitutions: true}` expands it; `$${` says that it is meant"),
                );
            }
        }
    }

    fn told(&self, mistake: &Mistake, text: &str, span: Span, sources: &Sources) -> Diagnostic {
        let (said, hint) = words(&mistake.kind);
        let place = inner(&text[mistake.at.clone()], span, sources);
        let told = Diagnostic::error(codes::SUBSTITUTION, said);
        let told = match &mistake.kind {
            MistakeKind::Unset(key) => {
                let names = self.own.keys().chain(self.inputs.given.keys());
                let near = nearest(key, names.map(String::as_str));
                told.at_or_nearest(place, near, "it has no value")
            }
            MistakeKind::Unknown(key) => {
                let names = BUILT_IN.iter().copied().chain(self.own.keys().map(String::as_str));
                told.at_or_nearest(place, nearest(key, names), "not defined")
            }
            MistakeKind::Failed { key, .. } => match self.own.get(key) {
                Some((value, _)) => told.at(place, "here").at(value.span, "its value"),
                None => told.at(place, "here"),
            },
            _ => told.at(place, "here"),
        };
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }

    /// Every substitution by name, for `automapSubstitutions` and for the plan.
    pub fn all(&self) -> BTreeMap<String, String> {
        let names = self.own.keys().chain(self.inputs.given.keys()).map(String::as_str).chain(BUILT_IN.iter().copied());
        let used = self.used.borrow().clone();
        let all = names.filter_map(|name| match self.find(name) {
            Found::Value(value) => Some((name.to_owned(), value)),
            _ => None,
        });
        let all = all.collect();
        *self.used.borrow_mut() = used;
        all
    }

    /// Says what is defined and never used, which Cloud Build refuses.
    pub fn unused(&self, automapped: bool, diagnostics: &mut Diagnostics) {
        if self.loose || automapped {
            return;
        }
        let hint = "use it, leave it out, or write `substitutionOption: ALLOW_LOOSE` in `options`";
        let used = self.used.borrow();
        for (key, (_, span)) in self.own.iter().filter(|(key, _)| !used.contains(*key)) {
            let said = format!("substitution `{key}` is never used");
            diagnostics.push(Diagnostic::error(codes::SUBSTITUTION, said).at(*span, "defined here").hint(hint));
        }
        let given = self.inputs.given.keys().filter(|key| key.starts_with('_') && !self.own.contains_key(*key));
        for key in given.filter(|key| !used.contains(*key)) {
            let said = format!("substitution `{key}` is given, and never used");
            diagnostics.push(Diagnostic::error(codes::SUBSTITUTION, said).hint(hint));
        }
    }

    /// Adds to what was said about a value that it is empty because a built-in substitution is.
    pub fn explain(&self, diagnostics: &mut Diagnostics) {
        let empty = self.empty.borrow();
        let told = std::mem::take(diagnostics);
        for mistake in told {
            let place = mistake.labels.first().map(|label| label.span);
            let key = empty.iter().find(|(span, _)| Some(*span) == place).map(|(_, key)| key);
            diagnostics.push(match key {
                Some(key) if mistake.code == codes::BAD_VALUE && mistake.hint.is_none() => {
                    let way = match key.as_str() {
                        key if GIVEN_BUILT_IN.contains(&key) => format!("git has it, or `--substitutions {key}=…`"),
                        "REF_NAME" | "REPO_FULL_NAME" => {
                            "git has it, in a work tree with a branch and an origin".into()
                        }
                        "PROJECT_ID" => "`--project ID` sets it".into(),
                        _ => "only Cloud Build itself has it".into(),
                    };
                    mistake.hint(format!("`{key}` is empty here: {way}"))
                }
                _ => mistake,
            });
        }
    }

    /// Whether `key` is a substitution that has a value, for warnings about where it is not made.
    pub fn has(&self, key: &str) -> bool {
        BUILT_IN.contains(&key) || self.own.contains_key(key) || self.inputs.given.contains_key(key)
    }
}

/// A mistake as a sentence, and what to do.
fn words(kind: &MistakeKind) -> (String, Option<String>) {
    match kind {
        MistakeKind::Unknown(key) => {
            let hint = format!("own substitutions begin with `_`; `$${key}` leaves `${key}` to the step");
            (format!("`{key}` is no built-in substitution"), Some(hint))
        }
        MistakeKind::Unset(key) if PULL_REQUEST.contains(&key.as_str()) => {
            let hint = format!("triggers of pull requests set it; here `--substitutions {key}=…` does");
            (format!("substitution `{key}` has no value"), Some(hint))
        }
        MistakeKind::Unset(key) => {
            let hint = format!("define it under `substitutions`, or give `--substitutions {key}=…`");
            (format!("substitution `{key}` has no value"), Some(hint))
        }
        MistakeKind::Required { key, message } if message.is_empty() => (format!("`{key}` has no value"), None),
        MistakeKind::Required { key, message } => (format!("`{key}` has no value: {message}"), None),
        MistakeKind::Failed { key, why } => (format!("`{key}` cannot be had: {why}"), None),
        MistakeKind::Syntax(words) => (format!("this cannot be substituted: {words}"), None),
    }
}

/// Where `part` is in the source of a text; the text's own place if it is written otherwise there.
pub(super) fn inner(part: &str, span: Span, sources: &Sources) -> Span {
    match sources.slice(span).find(part) {
        Some(at) if !part.is_empty() => Span::new(span.source, span.start + at, span.start + at + part.len()),
        _ => span,
    }
}
