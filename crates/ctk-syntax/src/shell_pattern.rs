//! Patterns of `${x#pattern}` and its like in a Dockerfile: `*`, `?`, and `\` before `*`, `?`, `\`, `/`, `}`. Brackets
//! mean nothing. Neither `*` nor `?` takes a line's end.

use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Char(char),
}

/// Which places of pattern and text a search has been at: it fails there again.
struct Tried {
    search: u32,
    places: Vec<u32>,
}

impl Tried {
    fn before(&mut self, place: usize) -> bool {
        std::mem::replace(&mut self.places[place], self.search) == self.search
    }
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Vec<Piece>);

impl Pattern {
    /// The error is the escape that cannot be.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let mut chars = text.chars().peekable();
        let mut pieces = Vec::new();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(kept @ ('*' | '?' | '\\')) => Piece::Char(kept),
                    other => return Err(other.map_or_else(|| "\\".to_owned(), |c| format!("\\{c}"))),
                },
                c => Piece::Char(c),
            });
        }
        Ok(Pattern(pieces))
    }

    /// Where a match that begins at `start` ends; of several the one in which earlier stars take the most, or the
    /// least.
    fn end(&self, text: &[char], start: usize, greedy: bool, tried: &mut Tried) -> Option<usize> {
        let mut todo = vec![(0, start)];
        while let Some((nth, at)) = todo.pop() {
            let Some(piece) = self.0.get(nth) else { return Some(at) };
            if tried.before(nth * (text.len() + 1) + at) {
                continue;
            }
            let takes = text.get(at).is_some_and(|c| match piece {
                Piece::Any | Piece::One => *c != '\n',
                Piece::Char(own) => own == c,
            });
            match piece {
                // The one pushed last is tried first.
                Piece::Any if greedy => {
                    todo.push((nth + 1, at));
                    todo.extend(takes.then_some((nth, at + 1)));
                }
                Piece::Any => {
                    todo.extend(takes.then_some((nth, at + 1)));
                    todo.push((nth + 1, at));
                }
                _ => todo.extend(takes.then_some((nth + 1, at + 1))),
            }
        }
        None
    }

    fn tried(&self, text: &[char]) -> Tried {
        Tried { search: 1, places: vec![0; self.0.len() * (text.len() + 1)] }
    }

    /// The first match at or after `from`.
    fn find(&self, text: &[char], from: usize, tried: &mut Tried) -> Option<(usize, usize)> {
        tried.search += 1;
        (from..=text.len()).find_map(|start| Some((start, self.end(text, start, true, tried)?)))
    }

    /// Whether matching it on `value` costs more than it should.
    pub fn is_large(&self, value: &str) -> bool {
        self.0.len().saturating_mul(value.len()) > limits::PATTERN_STEPS
    }

    /// `value` without the front that matches.
    pub fn cut_front(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = self.end(&chars, 0, longest, &mut self.tried(&chars)).unwrap_or(0);
        chars[end..].iter().collect()
    }

    /// `value` without the end that matches.
    pub fn cut_end(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().rev().collect();
        let pattern = Pattern(self.0.iter().rev().copied().collect());
        let end = pattern.end(&chars, 0, longest, &mut self.tried(&chars)).unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    /// `value` with `by` for the first match; none if that is too large.
    pub fn replace_first(&self, value: &str, by: &str) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let Some((start, end)) = self.find(&chars, 0, &mut self.tried(&chars)) else { return Some(value.to_owned()) };
        let mut out: String = chars[..start].iter().collect();
        out.push_str(by);
        out.extend(&chars[end..]);
        (out.len() <= limits::EXPANSION_BYTES).then_some(out)
    }

    /// `value` with what `by` writes for every match; none if that is too large. An empty match next to the one before
    /// it is none.
    pub fn replace_all(&self, value: &str, by: impl Fn(&str, &mut String)) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut tried = self.tried(&chars);
        let (mut out, mut last, mut from) = (String::new(), 0, 0);
        while let Some((start, end)) = self.find(&chars, from, &mut tried) {
            out.extend(&chars[last..start]);
            if end > last || start == 0 {
                by(&chars[start..end].iter().collect::<String>(), &mut out);
            }
            if out.len() > limits::EXPANSION_BYTES {
                return None;
            }
            last = end;
            from = end.max(from + 1);
        }
        out.extend(&chars[last..]);
        Some(out)
    }
}

/// Writes `by` with `$0` and `${0}` replaced by what was found; any other `$name` is empty and `$$` is a dollar.
pub(crate) fn template(by: &str, found: &str, out: &mut String) {
    let mut rest = by;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (inside, braces) = rest.strip_prefix('{').map_or((rest, false), |inside| (inside, true));
        let length = inside.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inside.len());
        let after = &inside[length..];
        let closed = if braces { after.strip_prefix('}') } else { Some(after) };
        match closed.filter(|_| length > 0) {
            None => out.push('$'),
            Some(after) => {
                if inside[..length].parse() == Ok(0usize) {
                    out.push_str(found);
                }
                rest = after;
            }
        }
    }
    out.push_str(rest);
}
