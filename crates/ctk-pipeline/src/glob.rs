//! Patterns of the shell on strings: `*`, `?`, `[…]` with ranges, classes and `!` or `^`, and `\` before anything.

#[derive(Clone, Debug)]
enum Piece {
    Any,
    One,
    Char(char),
    Set { not: bool, parts: Vec<Part> },
}

#[derive(Clone, Debug)]
enum Part {
    Range(char, char),
    Class(fn(char) -> bool),
}

/// A pattern.
#[derive(Clone, Debug)]
pub(crate) struct Glob(Vec<Piece>);

impl Glob {
    pub fn new(text: &str) -> Glob {
        let chars: Vec<char> = text.chars().collect();
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < chars.len() {
            let piece = match chars[at] {
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' if at + 1 < chars.len() => {
                    at += 1;
                    Piece::Char(chars[at])
                }
                '[' => match set(&chars[at..]) {
                    Some((piece, length)) => {
                        at += length - 1;
                        piece
                    }
                    None => Piece::Char('['),
                },
                c => Piece::Char(c),
            };
            if !(matches!(piece, Piece::Any) && matches!(pieces.last(), Some(Piece::Any))) {
                pieces.push(piece);
            }
            at += 1;
        }
        Glob(pieces)
    }

    /// How many steps a match with `text` may take.
    pub fn steps(&self, text: &[char]) -> usize {
        self.0.len().saturating_mul(text.len() + 1)
    }

    /// The lengths of the fronts of `text` that match, ascending.
    pub fn fronts(&self, text: &[char]) -> Vec<usize> {
        let mut at = vec![false; text.len() + 1];
        at[0] = true;
        for piece in &self.0 {
            let mut next = vec![false; text.len() + 1];
            match piece {
                Piece::Any => {
                    let mut reached = false;
                    for (place, is) in at.iter().enumerate() {
                        reached |= is;
                        next[place] = reached;
                    }
                }
                piece => {
                    for place in 0..text.len() {
                        next[place + 1] = at[place] && takes(piece, text[place]);
                    }
                }
            }
            at = next;
        }
        at.iter().enumerate().filter(|(_, is)| **is).map(|(place, _)| place).collect()
    }

    pub fn matches(&self, text: &[char]) -> bool {
        self.fronts(text).last() == Some(&text.len())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn takes(piece: &Piece, c: char) -> bool {
    match piece {
        Piece::Any | Piece::One => true,
        Piece::Char(own) => *own == c,
        Piece::Set { not, parts } => {
            let has = parts.iter().any(|part| match part {
                Part::Range(from, to) => (*from..=*to).contains(&c),
                Part::Class(is) => is(c),
            });
            has != *not
        }
    }
}

/// A set at the start of `chars`, and its length; none if it is not closed.
fn set(chars: &[char]) -> Option<(Piece, usize)> {
    let mut at = 1;
    let not = matches!(chars.get(at), Some('!' | '^'));
    at += usize::from(not);
    let first = at;
    let mut parts = Vec::new();
    loop {
        let c = *chars.get(at)?;
        if c == ']' && at > first {
            return Some((Piece::Set { not, parts }, at + 1));
        }
        if c == '[' && chars.get(at + 1) == Some(&':') {
            let name: String = chars[at + 2..].iter().take_while(|c| **c != ':').collect();
            let end = at + 2 + name.chars().count();
            if chars.get(end + 1) == Some(&']')
                && let Some(class) = class(&name)
            {
                parts.push(Part::Class(class));
                at = end + 2;
                continue;
            }
        }
        let from = if c == '\\' && at + 1 < chars.len() {
            at += 1;
            chars[at]
        } else {
            c
        };
        at += 1;
        if chars.get(at) == Some(&'-') && chars.get(at + 1).is_some_and(|c| *c != ']') {
            at += 1;
            if chars[at] == '\\' && at + 1 < chars.len() {
                at += 1;
            }
            parts.push(Part::Range(from, chars[at]));
            at += 1;
        } else {
            parts.push(Part::Range(from, from));
        }
    }
}

fn class(name: &str) -> Option<fn(char) -> bool> {
    Some(match name {
        "alpha" => char::is_alphabetic,
        "digit" => |c| c.is_ascii_digit(),
        "alnum" => char::is_alphanumeric,
        "upper" => char::is_uppercase,
        "lower" => char::is_lowercase,
        "space" => char::is_whitespace,
        "blank" => |c| c == ' ' || c == '\t',
        "punct" => |c| c.is_ascii_punctuation(),
        "xdigit" => |c| c.is_ascii_hexdigit(),
        "cntrl" => char::is_control,
        "graph" => |c| c.is_ascii_graphic(),
        "print" => |c| c == ' ' || c.is_ascii_graphic(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::Glob;

    fn check(pattern: &str, text: &str, fronts: &[usize]) {
        let chars: Vec<char> = text.chars().collect();
        assert_eq!(Glob::new(pattern).fronts(&chars), fronts, "{pattern} on {text}");
    }

    #[test]
    fn fronts_that_match() {
        check("a*", "abc", &[1, 2, 3]);
        check("*c", "abcc", &[3, 4]);
        check("?", "ab", &[1]);
        check("[a-c]", "b", &[1]);
        check("[!a-c]", "b", &[]);
        check("[]a]", "]", &[1]);
        check("[[:digit:]]*", "1x", &[1, 2]);
        check("\\*", "*", &[1]);
        check("[", "[", &[1]);
        check("", "a", &[0]);
    }
}
