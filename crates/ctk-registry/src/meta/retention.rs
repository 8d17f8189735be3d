//! Which tags and manifests stay: a policy, decided as values.

use crate::glob::Glob;
use crate::meta::Seconds;

/// What a repository keeps. A tag stays when any of the reasons to keep it holds; with no reason given, all stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest by the time of their push.
    pub newest: Option<usize>,
    /// Those pushed within so many seconds.
    pub pushed_within: Option<Seconds>,
    /// Those pulled within so many seconds.
    pub pulled_within: Option<Seconds>,
    /// Those of which one of these patterns is the name, e.g. `v*`.
    pub patterns: Vec<Glob>,
    /// Manifests that no tag, index or subject leads to go after so many seconds; never when `None`.
    pub untagged_after: Option<Seconds>,
}

/// A tag that a policy looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// Its name.
    pub name: String,
    /// When it was last written.
    pub pushed: Seconds,
    /// When it was last read; 0 for never.
    pub pulled: Seconds,
}

impl Retention {
    /// Whether it may ever remove a tag.
    pub fn limits_tags(&self) -> bool {
        self.newest.is_some()
            || self.pushed_within.is_some()
            || self.pulled_within.is_some()
            || !self.patterns.is_empty()
    }

    /// The tags that do not stay, in the order of their names.
    pub fn doomed(&self, mut tags: Vec<TagState>, now: Seconds) -> Vec<String> {
        if !self.limits_tags() {
            return Vec::new();
        }
        // The newest first; of equals, the greater name, so that the answer is the same every time.
        tags.sort_by(|a, b| (b.pushed, &b.name).cmp(&(a.pushed, &a.name)));
        let within = |then: Seconds, span: Option<Seconds>| span.is_some_and(|span| now.saturating_sub(then) <= span);
        let stays = |place: usize, tag: &TagState| {
            self.newest.is_some_and(|n| place < n)
                || within(tag.pushed, self.pushed_within)
                || within(tag.pulled, self.pulled_within)
                || self.patterns.iter().any(|pattern| pattern.matches(&tag.name))
        };
        let mut doomed: Vec<String> = tags
            .iter()
            .enumerate()
            .filter(|(place, tag)| !stays(*place, tag))
            .map(|(_, tag)| tag.name.clone())
            .collect();
        doomed.sort();
        doomed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: Retention, expected: &[&str]) {
        let tag = |name: &str, pushed, pulled| TagState { name: name.into(), pushed, pulled };
        let tags = vec![tag("a", 100, 950), tag("b", 200, 0), tag("latest", 300, 0), tag("v1", 50, 60)];
        assert_eq!(policy.doomed(tags, 1000), expected, "{policy:?}");
    }

    #[test]
    fn reasons_to_stay_add_up() {
        let none = Retention::default();
        check(none.clone(), &[]);
        check(Retention { newest: Some(2), ..none.clone() }, &["a", "v1"]);
        check(Retention { newest: Some(0), ..none.clone() }, &["a", "b", "latest", "v1"]);
        check(Retention { newest: Some(1), pulled_within: Some(100), ..none.clone() }, &["b", "v1"]);
        check(Retention { pushed_within: Some(800), ..none.clone() }, &["a", "v1"]);
        let patterns = vec!["v*".parse().unwrap(), "latest".parse().unwrap()];
        check(Retention { patterns, ..none.clone() }, &["a", "b"]);
        check(Retention { untagged_after: Some(1), ..none }, &[]);
    }
}
