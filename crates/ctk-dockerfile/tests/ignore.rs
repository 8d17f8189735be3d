//! Ignore patterns against a slow, plain matcher: every pattern a regular expression, every parent asked.

use ctk_dockerfile::Ignore;
use proptest::prelude::*;
use regex::Regex;

/// A pattern as the expression that it stands for.
fn expression(pattern: &str) -> Regex {
    if !pattern.contains(['?', '[', '\\']) {
        let (first, last) = (pattern.starts_with("**"), pattern.ends_with("**") && pattern.len() > 2);
        let inner = pattern.trim_start_matches("**").trim_end_matches("**");
        if first && !last && !pattern[2..].contains('*') {
            let name = inner.strip_prefix('/').map(|name| format!("|^{}", regex::escape(name))).unwrap_or_default();
            return Regex::new(&format!("(?s)(.*{}{name})$", regex::escape(inner))).unwrap();
        }
    }
    let mut text = String::from("(?s)^");
    let mut rest = pattern;
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        match char {
            '*' if rest.starts_with('*') => {
                rest = &rest[1..];
                rest = rest.strip_prefix('/').unwrap_or(rest);
                text += if rest.is_empty() { ".*" } else { "(.*/)?" };
            }
            '*' => text += "[^/]*",
            '?' => text += "[^/]",
            '\\' => {
                let next = rest.chars().next().unwrap();
                rest = &rest[next.len_utf8()..];
                text += &regex::escape(&next.to_string());
            }
            '[' => {
                let end = rest.find(']').unwrap();
                text += &format!("[{}]", &rest[..end]);
                rest = &rest[end + 1..];
            }
            char => text += &regex::escape(&char.to_string()),
        }
    }
    Regex::new(&(text + "$")).unwrap()
}

/// The last pattern that matches the path or a directory above it counts.
fn reference(patterns: &[(bool, String)], path: &str) -> bool {
    let mut ignored = false;
    for (negated, pattern) in patterns {
        let expression = expression(pattern);
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        if ends.into_iter().any(|end| expression.is_match(&path[..end])) {
            ignored = !negated;
        }
    }
    ignored
}

fn component() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab.ü]",
        2 => Just("*".to_owned()),
        1 => Just("**".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("[a-b]".to_owned()),
        1 => Just("[^a]".to_owned()),
        1 => Just(r"\*".to_owned()),
    ];
    prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![3 => component(), 1 => Just("**".to_owned())];
    let plain = |pattern: &String| pattern.split('/').all(|part| part != "." && part != "..");
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/")).prop_filter("cleaning changes it", plain)
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab.ü*]{1,3}", 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_pattern_matches_what_its_expression_matches(pattern in pattern(), path in path()) {
        let expected = reference(&[(false, pattern.clone())], &path);
        prop_assert_eq!(Ignore::parse(&pattern).unwrap().matches(path.as_bytes()), expected);
    }

    #[test]
    fn the_last_of_several_counts(patterns in prop::collection::vec((any::<bool>(), pattern()), 0..5), path in "[ab]{1,2}") {
        let text: String = patterns.iter().map(|(not, p)| format!("{}{p}\n", if *not { "!" } else { "" })).collect();
        prop_assert_eq!(Ignore::parse(&text).unwrap().matches(path.as_bytes()), reference(&patterns, &path));
    }

    #[test]
    fn what_is_pruned_holds_nothing_taken_back(patterns in prop::collection::vec((any::<bool>(), pattern()), 1..5), path in path()) {
        let text: String = patterns.iter().map(|(not, p)| format!("{}{p}\n", if *not { "!" } else { "" })).collect();
        let ignore = Ignore::parse(&text).unwrap();
        for (end, _) in path.match_indices('/') {
            let above = &path.as_bytes()[..end];
            if ignore.matches(above) && ignore.prunes(above) {
                prop_assert!(ignore.matches(path.as_bytes()), "{text:?} takes {path} back below {}", &path[..end]);
            }
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,40}", path in path()) {
        if let Ok(ignore) = Ignore::parse(&text) {
            ignore.matches(path.as_bytes());
        }
    }
}
