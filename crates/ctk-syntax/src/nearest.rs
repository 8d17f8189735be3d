//! The word that someone meant.

/// The candidate nearest to `word`, when one is near enough to be worth saying. The first of equals wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = word.to_lowercase().chars().collect();
    // One slip in four letters; a long word may have three.
    let bound = (wanted.len() / 4).clamp(1, 3);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other: Vec<char> = candidate.to_lowercase().chars().collect();
        let mut far = distance(&wanted, &other);
        let prefix = wanted.len() >= 3 && other.starts_with(&wanted);
        if prefix {
            far = far.min(bound);
        }
        if far <= bound && far < other.len().max(1) && best.is_none_or(|(b, _)| far < b) && candidate != word {
            best = Some((far, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (vec![0; b.len() + 1], (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[track_caller]
    fn check(word: &str, candidates: &[&str], expected: Option<&str>) {
        assert_eq!(nearest(word, candidates.iter().copied()), expected, "{word}");
    }

    #[test]
    fn a_slip_is_found_and_a_stranger_is_not() {
        check("buidl", &["build", "run"], Some("build"));
        check("entripoint", &["entrypoint", "env"], Some("entrypoint"));
        check("healthcheck", &["healthcheck2"], Some("healthcheck2"));
        check("plat", &["label", "platforms"], Some("platforms"));
        check("IMAGE", &["image"], Some("image"));
        check("x", &["y"], None);
        check("volcano", &["build", "run", "copy"], None);
        check("", &["a"], None);
    }
}
