//! Moving lock file entries on purpose.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ctk_plan::{Address, Cancel, Input, Reporter, Sink};
use ctk_project::LockKey;
use serde_json::Value;

use crate::ground::Ground;
use crate::{ApplyError, Session};

/// An entry that moved.
#[derive(Clone, Debug)]
pub struct LockChange {
    /// The entry's key.
    pub entry: String,
    /// What changed, a line each.
    pub lines: Vec<String>,
}

impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.entry)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Session {
    /// Resolves the entries of `only` (all, if it is empty) anew, writes the lock file unless `dry_run`, and gives what
    /// moved.
    pub fn update(
        &self,
        only: &BTreeSet<Address>,
        dry_run: bool,
        sink: Arc<dyn Sink>,
        cancel: &Cancel,
    ) -> Result<Vec<LockChange>, ApplyError> {
        let ground = Ground::open(&self.options, self.registries.values())?;
        let chosen: Vec<&Address> = self.order.iter().filter(|a| only.is_empty() || only.contains(a)).collect();
        let images: BTreeSet<String> = chosen.iter().map(|address| address.to_string()).collect();
        let mut references: BTreeSet<String> = BTreeSet::new();
        let (mut repositories, mut urls) = (BTreeSet::new(), BTreeSet::new());
        for address in &chosen {
            let observed = self.unit(&ground, address, cancel);
            let observed =
                observed.map_err(|failure| ApplyError::Failed { failures: vec![failure], reports: Vec::new() })?;
            repositories.extend(observed.repositories);
            urls.extend(observed.urls);
            references.extend(observed.unit.inputs.into_keys().filter_map(|input| match input {
                Input::Base(name) => Some(name.split(' ').next().unwrap_or_default().to_owned()),
                _ => None,
            }));
        }
        let book = self.lock.without(|key| match key {
            LockKey::Packages { image, .. } => images.contains(image),
            LockKey::Image { reference, .. } => references.contains(reference),
            LockKey::Http { url } => only.is_empty() || urls.contains(url),
            LockKey::Git { url, reference } => {
                only.is_empty() || repositories.contains(&(url.clone(), reference.clone()))
            }
        });
        let mut failures = Vec::new();
        for address in chosen {
            let reporter = Reporter::new(address.clone(), sink.clone());
            if let Err(failure) = self.resolve(&ground, &book, address, &reporter, cancel) {
                failures.push(failure);
            }
        }
        if cancel.is_cancelled() {
            return Err(ApplyError::Cancelled);
        }
        if !failures.is_empty() {
            return Err(ApplyError::Failed { failures, reports: Vec::new() });
        }
        let changes = book.with(|lock| lock.changes());
        if !dry_run {
            book.write()?;
        }
        Ok(changes
            .into_iter()
            .map(|change| describe(change.key.to_string(), change.from.as_ref(), change.to.as_ref()))
            .collect())
    }
}

fn describe(entry: String, from: Option<&Value>, to: Option<&Value>) -> LockChange {
    let versions = |value: Option<&Value>| -> BTreeSet<String> {
        let packages = value.and_then(|value| value.get("packages")).and_then(Value::as_array);
        let name = |package: &Value| {
            let part = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{} {}", part("name"), part("version"))
        };
        packages.into_iter().flatten().map(name).collect()
    };
    let (before, after) = (versions(from), versions(to));
    let mut lines: Vec<String> = Vec::new();
    lines.extend(before.difference(&after).map(|package| format!("- {package}")));
    lines.extend(after.difference(&before).map(|package| format!("+ {package}")));
    if lines.is_empty() {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        lines.extend(text(from).map(|text| format!("- {text}")));
        lines.extend(text(to).map(|text| format!("+ {text}")));
    }
    LockChange { entry, lines }
}
