//! Tags as versions: their order, and requirements as `>=1.2, <2`.
//!
//! Requirements are read as the tools around containers do (Masterminds/semver, which skopeo and Helm use): parts that
//! are left out stand for a range, and versions with something after a `-` fit only where the requirement has one, too.

use std::cmp::Ordering;

/// A tag that is a version: `v1.2.3-rc.1+build`, with any number of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: Vec<u64>,
    pre: Vec<Part>,
}

/// A part of what is after the `-`. Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    /// Reads a tag; `None` when it is no version.
    pub fn parse(tag: &str) -> Option<Version> {
        let text = tag.strip_prefix('v').unwrap_or(tag);
        // What is after a `+` does not order versions.
        let text = text.split(['+', '_']).next().unwrap_or_default();
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, pre),
            None => (text, ""),
        };
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?;
        let numbers: Vec<u64> = numbers.split('.').map(number).collect::<Option<_>>()?;
        let part = |text: &str| match number(text) {
            Some(number) => Part::Number(number),
            None => Part::Word(text.to_owned()),
        };
        let pre = pre.split('.').filter(|part| !part.is_empty()).map(part).collect();
        Some(Version { numbers, pre })
    }

    fn number(&self, place: usize) -> u64 {
        self.numbers.get(place).copied().unwrap_or(0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let length = self.numbers.len().max(other.numbers.len());
        let numbers = (0..length).map(|place| self.number(place).cmp(&other.number(place)));
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        };
        // `1.2` before `1.2.0`, so that the order is one.
        let length = self.numbers.len().cmp(&other.numbers.len());
        numbers.fold(Ordering::Equal, Ordering::then).then(pre).then(length)
    }
}

/// Orders tags from old to new: versions above all others, others by their words and numbers.
pub fn by_age(one: &str, other: &str) -> Ordering {
    match (Version::parse(one), Version::parse(other)) {
        (Some(a), Some(b)) => a.cmp(&b).then_with(|| one.cmp(other)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => runs(one).cmp(&runs(other)).then_with(|| one.cmp(other)),
    }
}

/// `bookworm-20240101` as a word and a number.
fn runs(text: &str) -> Vec<Part> {
    let mut runs: Vec<Part> = Vec::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = piece.trim_end_matches(|c: char| !c.is_ascii_digit());
        match digits.parse() {
            Ok(number) => runs.push(Part::Number(number)),
            Err(_) if digits.is_empty() => {}
            Err(_) => runs.push(Part::Word(digits.to_owned())),
        }
        if digits.len() < piece.len() {
            runs.push(Part::Word(piece[digits.len()..].to_owned()));
        }
    }
    runs
}

/// Which versions are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// One of these, each whole.
    any: Vec<Vec<Comparison>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Comparison {
    Least(Version),
    Below(Version),
    Not(Vec<Comparison>),
}

impl Requirement {
    /// Reads `>=1.2, <2 || ^3`. The error says which word is none.
    pub fn parse(text: &str) -> Result<Requirement, String> {
        let any = text.split("||").map(all).collect::<Result<Vec<_>, _>>()?;
        Ok(Requirement { any })
    }

    /// Whether a version fits.
    pub fn fits(&self, version: &Version) -> bool {
        self.any.iter().any(|all| {
            let asks = all.iter().any(|comparison| match comparison {
                Comparison::Least(bound) | Comparison::Below(bound) => bound.pre.len() > 1 || is_real(&bound.pre),
                Comparison::Not(_) => false,
            });
            (version.pre.is_empty() || asks) && all.iter().all(|comparison| comparison.holds(version))
        })
    }
}

/// `0` alone stands for "before everything of these numbers" and was written by nobody.
fn is_real(pre: &[Part]) -> bool {
    pre.first().is_some_and(|first| *first != Part::Number(0))
}

impl Comparison {
    fn holds(&self, version: &Version) -> bool {
        // Only by value: `1.2` fits where `1.2.0` does.
        let compare = |bound: &Version| match version.cmp(bound) {
            Ordering::Less if same(version, bound) => Ordering::Equal,
            Ordering::Greater if same(version, bound) => Ordering::Equal,
            other => other,
        };
        match self {
            Comparison::Least(bound) => compare(bound) != Ordering::Less,
            Comparison::Below(bound) => compare(bound) == Ordering::Less,
            Comparison::Not(all) => !all.iter().all(|comparison| comparison.holds(version)),
        }
    }
}

fn same(one: &Version, other: &Version) -> bool {
    let length = one.numbers.len().max(other.numbers.len());
    one.pre == other.pre && (0..length).all(|place| one.number(place) == other.number(place))
}

fn all(text: &str) -> Result<Vec<Comparison>, String> {
    const OPERATORS: &str = "=!<>^~";
    let mut words: Vec<String> = Vec::new();
    for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
        // An operator may stand apart from its version.
        match words.last_mut().filter(|last| last.chars().all(|c| OPERATORS.contains(c))) {
            Some(last) => last.push_str(word),
            None => words.push(word.to_owned()),
        }
    }
    let mut found = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if words.peek().is_some_and(|next| next == "-") {
            words.next();
            let end = words.next().ok_or_else(|| format!("`{word} -` has no end"))?;
            found.extend(comparisons(">=", &word)?);
            found.extend(comparisons("<=", &end)?);
            continue;
        }
        let version = word.trim_start_matches(|c| OPERATORS.contains(c));
        found.extend(comparisons(&word[..word.len() - version.len()], version)?);
    }
    match found.is_empty() && !text.trim().is_empty() && text.trim() != "*" {
        true if text.trim() == "x" => Ok(found),
        true => Err(format!("`{}` is no requirement", text.trim())),
        false => Ok(found),
    }
}

fn comparisons(operator: &str, text: &str) -> Result<Vec<Comparison>, String> {
    let bad =
        || format!("`{operator}{text}` is no version with an operator; expected e.g. `>=1.2`, `^1`, `~1.2.3`, `1.x`");
    // `1.x`, `1.*` and `1` are the same: the numbers that were written.
    let plain = text.strip_prefix('v').unwrap_or(text);
    let written: Vec<&str> = plain.split('.').take_while(|part| !matches!(*part, "x" | "X" | "*")).collect();
    if written.is_empty() {
        return match operator {
            "" | "=" | "==" | ">=" => Ok(Vec::new()),
            _ => Err(bad()),
        };
    }
    let lower = Version::parse(&written.join(".")).ok_or_else(bad)?;
    let count = lower.numbers.len();
    let whole = count >= 3;
    // The first version after all of the same first numbers.
    let after = |place: usize| {
        let mut numbers = lower.numbers[..=place.min(count - 1)].to_vec();
        if let Some(last) = numbers.last_mut() {
            *last = last.saturating_add(1);
        }
        numbers.resize(count.max(3), 0);
        // Before its own release candidates, too.
        Version { numbers, pre: vec![Part::Number(0)] }
    };
    let equal = |lower: &Version| match whole {
        // Next to nothing lies between a version and the same with one more part.
        true => {
            let mut above = lower.clone();
            match above.pre.is_empty() {
                true => return vec![Comparison::Least(lower.clone()), Comparison::Below(after(count - 1))],
                false => above.pre.push(Part::Number(0)),
            }
            vec![Comparison::Least(lower.clone()), Comparison::Below(above)]
        }
        false => vec![Comparison::Least(lower.clone()), Comparison::Below(after(count - 1))],
    };
    Ok(match operator {
        "" | "=" | "==" => equal(&lower),
        "!=" => vec![Comparison::Not(equal(&lower))],
        ">=" | "=>" => vec![Comparison::Least(lower)],
        "<" => vec![Comparison::Below(lower)],
        ">" => equal(&lower)
            .into_iter()
            .filter_map(|c| if let Comparison::Below(b) = c { Some(Comparison::Least(b)) } else { None })
            .collect(),
        "<=" | "=<" => equal(&lower).into_iter().filter(|c| matches!(c, Comparison::Below(_))).collect(),
        "~" | "~>" => vec![Comparison::Below(after(1)), Comparison::Least(lower)],
        "^" => {
            let place = lower.numbers.iter().position(|number| *number != 0).unwrap_or(count - 1);
            vec![Comparison::Below(after(place)), Comparison::Least(lower)]
        }
        _ => return Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(requirement: &str, fitting: &[&str], others: &[&str]) {
        let parsed = Requirement::parse(requirement).unwrap();
        for tag in fitting {
            assert!(parsed.fits(&Version::parse(tag).unwrap()), "{tag} should fit {requirement}");
        }
        for tag in others {
            assert!(!parsed.fits(&Version::parse(tag).unwrap()), "{tag} should not fit {requirement}");
        }
    }

    #[test]
    fn requirements() {
        check(">=1.2, <2", &["1.2", "1.2.0", "1.99.3", "v1.3"], &["1.1.9", "2.0.0", "2", "1.3-rc1", "2.0.0-rc1"]);
        check(">= 3.12.0", &["3.12", "3.12.1", "4"], &["3.11.9"]);
        check("^1.2.3", &["1.2.3", "1.9"], &["1.2.2", "2.0.0", "2.0.0-a"]);
        check("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0"]);
        check("^0.0.3", &["0.0.3"], &["0.0.4"]);
        check("^0", &["0.9.1"], &["1.0"]);
        check("~1.2.3", &["1.2.3", "1.2.9"], &["1.3.0", "1.2.2"]);
        check("~1", &["1.0", "1.9"], &["2.0"]);
        check("1.x", &["1.0.0", "1.9"], &["2.0", "0.9"]);
        check("1.2", &["1.2", "1.2.7"], &["1.3", "1.1"]);
        check("=1.2.3", &["1.2.3", "v1.2.3"], &["1.2.4", "1.2.3-rc1"]);
        check("!=1.2", &["1.3", "1.1.9"], &["1.2.0", "1.2.9"]);
        check(">1.2", &["1.3", "2"], &["1.2.9", "1.2"]);
        check(">1.2.3", &["1.2.4"], &["1.2.3"]);
        check("<=1.2", &["1.2.9", "1.0"], &["1.3"]);
        check("<=1.2.3", &["1.2.3"], &["1.2.4"]);
        check("1.2 - 1.4", &["1.2", "1.4.9"], &["1.5", "1.1"]);
        check("^1 || ^3", &["1.5", "3.1"], &["2.0", "4.0"]);
        check(">=1.2.0-rc1", &["1.2.0-rc1", "1.2.0-rc2", "1.2.0", "1.3.0-a"], &["1.2.0-beta"]);
        check("=1.2.3-rc.1", &["1.2.3-rc.1"], &["1.2.3-rc.2", "1.2.3"]);
        check("*", &["1", "0.0.1"], &["1-rc"]);
        for wrong in ["", "one", ">=", ">>1", "1 -", "1.2.y", "^*"] {
            assert!(Requirement::parse(wrong).is_err() || wrong.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn tags_by_age() {
        let mut tags =
            ["1.10", "latest", "1.9", "1.10-rc2", "v2.0.0", "1.10-rc10", "bookworm-20240102", "bookworm-9", "1.10.0"];
        tags.sort_by(|a, b| by_age(a, b));
        assert_eq!(
            tags,
            ["bookworm-9", "bookworm-20240102", "latest", "1.9", "1.10-rc10", "1.10-rc2", "1.10", "1.10.0", "v2.0.0"]
        );
    }

    #[test]
    fn what_is_no_version() {
        for tag in ["latest", "", "v", "1.", "1..2", "a1", "1.2a", "99999999999999999999999"] {
            assert_eq!(Version::parse(tag), None, "{tag}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_requirement_ends(text in "[ -~]{0,40}|[=<>!^~v.x*, |0-9-]{0,30}", tag in "v?[0-9.]{0,12}(-[a-z0-9.]{0,6})?") {
            if let (Ok(wanted), Some(version)) = (Requirement::parse(&text), Version::parse(&tag)) {
                wanted.fits(&version);
            }
        }

        #[test]
        fn the_order_of_tags_is_one(tags in proptest::collection::vec("v?[0-3](\\.[0-3]){0,3}(-[ab0-2.]{0,3})?|[a-c][0-9]{0,3}", 3)) {
            let order = |one: usize, other: usize| by_age(&tags[one], &tags[other]);
            proptest::prop_assert_eq!(order(0, 1), order(1, 0).reverse());
            if order(0, 1) != Ordering::Greater && order(1, 2) != Ordering::Greater {
                proptest::prop_assert!(order(0, 2) != Ordering::Greater, "{:?}", tags);
            }
        }
    }
}
