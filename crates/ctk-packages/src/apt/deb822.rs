//! Stanzas of `Name: value` lines: the format of release files, indexes, `control` and `.sources`.
//! Nothing is copied; unknown fields cost nothing.

/// One stanza: fields in order. Names compare without case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stanza<'a>(pub(crate) &'a str);

impl<'a> Stanza<'a> {
    /// The fields; a value keeps its continuation lines, without the first line's leading blanks.
    pub(crate) fn fields(self) -> Fields<'a> {
        Fields { rest: self.0 }
    }

    /// The value of the first field of that name.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether the field is there and says `yes`.
    pub(crate) fn is_yes(self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v.eq_ignore_ascii_case("yes"))
    }
}

pub(crate) struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let field_end = field_end(self.rest.as_bytes());
            let (field, rest) = self.rest.split_at(field_end);
            self.rest = rest;
            if field.starts_with('#') {
                continue;
            }
            if let Some((name, value)) = field.split_once(':') {
                return Some((name.trim_end(), value.trim_matches([' ', '\t', '\n', '\r'])));
            }
        }
    }
}

/// Where the field that begins at 0 ends: after the first line feed not followed by a blank.
fn field_end(bytes: &[u8]) -> usize {
    let comment = bytes.first() == Some(&b'#');
    for at in memchr::memchr_iter(b'\n', bytes) {
        match bytes.get(at + 1) {
            Some(b' ' | b'\t') if !comment => continue,
            _ => return at + 1,
        }
    }
    bytes.len()
}

/// The stanzas of a text, split at empty lines.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memmem::find(rest.as_bytes(), b"\n\n").map_or(rest.len(), |at| at + 1);
        let (stanza, after) = rest.split_at(end);
        rest = after;
        Some(Stanza(stanza))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_continuations_and_skip_comments() {
        let text = "A: 1\n# no\nB:\n x\n y\nc:z\n\n\nD: 2\n";
        let all: Vec<Vec<_>> = stanzas(text).map(|s| s.fields().collect()).collect();
        assert_eq!(all, vec![vec![("A", "1"), ("B", "x\n y"), ("c", "z")], vec![("D", "2")]]);
        assert_eq!(stanzas(text).next().unwrap().get("C"), Some("z"));
    }
}
