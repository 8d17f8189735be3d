//! Which tags of a repository are meant.

use ctk_syntax::matches_glob;
use regex::Regex;

use super::version::{Requirement, Version, by_age};

/// What the tags have to be. Empty: all of them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// One of these, with `*`, `?` and `[…]`.
    pub tags: Vec<String>,
    /// None of these.
    pub not: Vec<String>,
    /// This somewhere in it.
    pub regex: Option<Regex>,
    /// A version of this kind.
    pub semver: Option<Requirement>,
    /// Only so many of them, the newest by version.
    pub newest: Option<usize>,
}

impl Selection {
    /// The tags, where they are named one by one: then nobody needs to ask which there are.
    pub fn named(&self) -> Option<&[String]> {
        let open = self.regex.is_some() || self.semver.is_some() || self.newest.is_some() || !self.not.is_empty();
        (!open && !self.tags.is_empty() && !self.tags.iter().any(|tag| is_pattern(tag))).then_some(&self.tags)
    }

    /// Those of `all` that are meant, oldest first. The error says what was asked for in vain.
    pub fn select(&self, all: &[String]) -> Result<Vec<String>, String> {
        for name in self.tags.iter().filter(|tag| !is_pattern(tag)) {
            if !all.contains(name) {
                return Err(format!("it has no tag `{name}`"));
            }
        }
        let fits = |tag: &String| {
            (self.tags.is_empty() || self.tags.iter().any(|glob| matches_glob(glob, tag)))
                && !self.not.iter().any(|glob| matches_glob(glob, tag))
                && self.regex.as_ref().is_none_or(|regex| regex.is_match(tag))
                && self
                    .semver
                    .as_ref()
                    .is_none_or(|wanted| Version::parse(tag).is_some_and(|version| wanted.fits(&version)))
        };
        let mut chosen: Vec<String> = all.iter().filter(|tag| fits(tag)).cloned().collect();
        chosen.sort_by(|one, other| by_age(one, other));
        if let Some(newest) = self.newest {
            chosen.drain(..chosen.len().saturating_sub(newest));
        }
        match chosen.is_empty() {
            true => Err(format!("none of its {} tags fits", all.len())),
            false => Ok(chosen),
        }
    }
}

/// Whether it stands for several tags.
pub fn is_pattern(tag: &str) -> bool {
    tag.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 9] = ["1.0", "1.1", "1.1-alpine", "1.10", "2.0", "latest", "nightly", "1.2-rc1", "1.2"];

    fn check(selection: Selection, expected: Result<&[&str], &str>) {
        let all: Vec<String> = ALL.map(str::to_owned).to_vec();
        let found = selection.select(&all);
        let expected = expected.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected.map_err(str::to_owned), "{selection:?}");
    }

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn tags_are_chosen() {
        let none = Selection::default;
        check(Selection { tags: tags(&["1.1*"]), ..none() }, Ok(&["1.1-alpine", "1.1", "1.10"]));
        check(Selection { tags: tags(&["latest", "2.*"]), ..none() }, Ok(&["latest", "2.0"]));
        check(Selection { tags: tags(&["1.*"]), not: tags(&["*-*"]), ..none() }, Ok(&["1.0", "1.1", "1.2", "1.10"]));
        check(Selection { newest: Some(2), ..none() }, Ok(&["1.10", "2.0"]));
        let semver = Some(Requirement::parse("^1").unwrap());
        check(Selection { semver, newest: Some(2), ..none() }, Ok(&["1.2", "1.10"]));
        check(Selection { regex: Some(Regex::new("^n").unwrap()), ..none() }, Ok(&["nightly"]));
        check(Selection { tags: tags(&["3.*"]), ..none() }, Err("none of its 9 tags fits"));
        check(Selection { tags: tags(&["3.0"]), ..none() }, Err("it has no tag `3.0`"));
        assert_eq!(none().select(&[]), Err("none of its 0 tags fits".into()));
    }

    #[test]
    fn named_tags_need_no_list() {
        let named = Selection { tags: tags(&["1", "2"]), ..Selection::default() };
        assert_eq!(named.named(), Some(&tags(&["1", "2"])[..]));
        assert_eq!(Selection { newest: Some(1), ..named.clone() }.named(), None);
        assert_eq!(Selection { tags: tags(&["1*"]), ..named }.named(), None);
        assert_eq!(Selection::default().named(), None);
    }
}
