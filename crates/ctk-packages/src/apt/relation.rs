//! Relations between packages: `a (>= 1) | b:any [amd64], c` (deb-control(5)).

use std::cmp::Ordering;
use std::fmt;

use crate::apt::version;

/// One name with its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub(crate) name: &'a str,
    /// `any`, `native`, or an architecture.
    pub(crate) qualifier: Option<&'a str>,
    /// `<<`, `<=`, `=`, `>=`, `>>` and a version.
    pub(crate) version: Option<(&'a str, &'a str)>,
}

impl<'a> Relation<'a> {
    /// Reads one alternative; anything unreadable gives none.
    pub(crate) fn parse(text: &'a str) -> Option<Relation<'a>> {
        let text = text.trim();
        let end = text.find([' ', '\t', '\n', '(', '[', '<']).unwrap_or(text.len());
        let (head, rest) = text.split_at(end);
        let (name, qualifier) = match head.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (head, None),
        };
        if name.is_empty() {
            return None;
        }
        let version = match rest.split_once('(') {
            None => None,
            Some((_, rest)) => {
                let inner = rest.split(')').next()?.trim();
                let end = inner.find(|c| !matches!(c, '<' | '>' | '=')).unwrap_or(inner.len());
                let (operator, value) = inner.split_at(end);
                Some((operator, value.trim()))
            }
        };
        Some(Relation { name, qualifier, version })
    }

    /// Whether that version fulfils the condition on versions.
    pub(crate) fn accepts(&self, candidate: &str) -> bool {
        let Some((operator, wanted)) = self.version else { return true };
        let order = version::compare(candidate, wanted);
        match operator {
            "<<" => order == Ordering::Less,
            "<=" | "<" => order != Ordering::Greater,
            ">=" | ">" => order != Ordering::Less,
            ">>" => order == Ordering::Greater,
            _ => order == Ordering::Equal,
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        match self.version {
            Some((operator, version)) => write!(f, " ({operator} {version})"),
            None => Ok(()),
        }
    }
}

/// The groups of a field, each a list of alternatives.
pub(crate) fn groups(field: &str) -> impl Iterator<Item = Vec<Relation<'_>>> {
    field
        .split(',')
        .map(|group| group.split('|').filter_map(Relation::parse).collect::<Vec<_>>())
        .filter(|g| !g.is_empty())
}

/// The names of a field without alternatives: Provides, Conflicts, Breaks, Replaces.
pub(crate) fn list(field: &str) -> impl Iterator<Item = Relation<'_>> {
    field.split(',').filter_map(Relation::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shapes() {
        let all: Vec<String> = groups("a (>= 1:2~x), b:any|c(<<3) , d [amd64] <!nocheck>,")
            .map(|g| g.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
            .collect();
        assert_eq!(all, ["a (>= 1:2~x)", "b:any | c (<< 3)", "d"]);
        assert!(Relation::parse("a (>= 2)").unwrap().accepts("2"));
        assert!(!Relation::parse("a (= 2)").unwrap().accepts("2-1"));
    }
}
