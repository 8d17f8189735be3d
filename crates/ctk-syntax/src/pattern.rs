//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before a character that stands for itself.

#[derive(Clone, Debug)]
enum Piece {
    Any,
    One,
    Char(char),
    Set { not: bool, ranges: Vec<(char, char)> },
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Piece::Any | Piece::One => true,
            Piece::Char(own) => *own == c,
            Piece::Set { not, ranges } => ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *not,
        }
    }
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Vec<Piece>);

impl Pattern {
    /// Every text is a pattern: an open `[` stands for itself. `escape` of None: no character escapes.
    pub fn new(text: &str, escape: Option<char>) -> Pattern {
        let chars: Vec<char> = text.chars().collect();
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            match chars[at] {
                c if Some(c) == escape && at + 1 < chars.len() => {
                    at += 1;
                    pieces.push(Piece::Char(chars[at]));
                }
                '*' => pieces.push(Piece::Any),
                '?' => pieces.push(Piece::One),
                '[' => match set(&chars[at..]) {
                    Some((piece, length)) => {
                        pieces.push(piece);
                        at += length - 1;
                    }
                    None => pieces.push(Piece::Char('[')),
                },
                c => pieces.push(Piece::Char(c)),
            }
            at += 1;
        }
        Pattern(pieces)
    }

    /// Lengths (in characters, ascending) of the prefixes of `text` that match: all of them, or only the first.
    pub fn prefixes(&self, text: &[char], only_first: bool) -> Vec<usize> {
        let last = self.0.len();
        let mut live = vec![false; last + 1];
        live[0] = true;
        self.skip_stars(&mut live);
        let mut out = Vec::new();
        for at in 0..=text.len() {
            if live[last] {
                out.push(at);
                if only_first {
                    break;
                }
            }
            if at == text.len() || !live.contains(&true) {
                break;
            }
            let mut next = vec![false; last + 1];
            for (nth, piece) in self.0.iter().enumerate().filter(|(nth, _)| live[*nth]) {
                if piece.takes(text[at]) {
                    let to = if matches!(piece, Piece::Any) { nth } else { nth + 1 };
                    next[to] = true;
                }
            }
            self.skip_stars(&mut next);
            live = next;
        }
        out
    }

    /// A star may match nothing.
    fn skip_stars(&self, live: &mut [bool]) {
        for (nth, piece) in self.0.iter().enumerate() {
            if live[nth] && matches!(piece, Piece::Any) {
                live[nth + 1] = true;
            }
        }
    }

    pub fn matches(&self, text: &[char]) -> bool {
        self.prefixes(text, false).last() == Some(&text.len())
    }
}

fn set(chars: &[char]) -> Option<(Piece, usize)> {
    let not = matches!(chars.get(1), Some('!' | '^'));
    let first = 1 + usize::from(not);
    let mut ranges = Vec::new();
    let mut at = first;
    loop {
        let c = *chars.get(at)?;
        if c == ']' && at > first {
            return Some((Piece::Set { not, ranges }, at + 1));
        }
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-'), Some(end)) if *end != ']' => {
                ranges.push((c, *end));
                at += 3;
            }
            _ => {
                ranges.push((c, c));
                at += 1;
            }
        }
    }
}

/// Whether all of `text` matches `glob` (`*` also over `/`), as in `needs "push:*"`.
pub fn matches_glob(glob: &str, text: &str) -> bool {
    Pattern::new(glob, None).matches(&text.chars().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(glob: &str, text: &str, expected: bool) {
        assert_eq!(matches_glob(glob, text), expected, "{glob} {text}");
    }

    #[test]
    fn globs() {
        check("push:*", "push:api", true);
        check("push:*", "test:api", false);
        check("*", "", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("[a-c]x", "bx", true);
        check("[!a-c]x", "bx", false);
        check("[", "[", true);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("é*", "éß", true);
    }
}
