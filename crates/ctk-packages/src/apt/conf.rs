//! `apt.conf`: nested, case-insensitive keys with quoted values (apt.conf(5)).

use std::collections::BTreeMap;

/// Every value by its full lower-case key, in order of appearance; lists and repeated keys append.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conf(BTreeMap<String, Vec<String>>);

impl Conf {
    /// The value that counts: the last one set.
    pub(crate) fn last(&self, key: &str) -> Option<&str> {
        self.0.get(&key.to_ascii_lowercase())?.last().map(String::as_str)
    }

    /// The keys directly below `key` with their last values, keys in lower case.
    pub(crate) fn below<'a>(&'a self, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = format!("{}::", key.to_ascii_lowercase());
        self.0.iter().filter_map(move |(k, values)| {
            let name = k.strip_prefix(&prefix)?;
            Some((name, values.last()?.as_str())).filter(|(n, _)| !n.is_empty() && !n.contains("::"))
        })
    }

    /// Adds the settings of a file; an error is a line and what is wrong with it.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), (usize, String)> {
        let mut scope: Vec<String> = Vec::new();
        let mut words: Vec<(String, bool)> = Vec::new();
        let mut line = 1;
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'\n' => {
                    line += 1;
                    at += 1;
                }
                b' ' | b'\t' | b'\r' => at += 1,
                b'/' if bytes[at..].starts_with(b"//") => at = end_of_line(bytes, at),
                b'/' if bytes[at..].starts_with(b"/*") => {
                    let end = memchr::memmem::find(&bytes[at + 2..], b"*/").map(|e| at + e + 4);
                    let end = end.ok_or_else(|| (line, "the comment `/*` never ends".to_string()))?;
                    line += text[at..end].matches('\n').count();
                    at = end;
                }
                // `#clear` and `#include` are directives; neither carries a proxy or a CA in practice.
                b'#' => at = end_of_line(bytes, at),
                b'"' => {
                    let mut value = Vec::new();
                    at += 1;
                    loop {
                        match bytes.get(at) {
                            None | Some(b'\n') => return Err((line, "the quotation mark is never closed".into())),
                            Some(b'"') => break,
                            Some(b'\\') if matches!(bytes.get(at + 1), Some(b'"' | b'\\')) => {
                                value.push(bytes[at + 1]);
                                at += 2;
                            }
                            Some(byte) => {
                                value.push(*byte);
                                at += 1;
                            }
                        }
                    }
                    at += 1;
                    words.push((String::from_utf8_lossy(&value).into_owned(), true));
                }
                b'{' => {
                    scope.push(words.pop().map_or(String::new(), |(w, _)| w.to_ascii_lowercase()));
                    words.clear();
                    at += 1;
                }
                b'}' => {
                    self.set(&scope, &mut words);
                    if scope.pop().is_none() {
                        return Err((line, "`}` without `{`".into()));
                    }
                    at += 1;
                }
                b';' => {
                    self.set(&scope, &mut words);
                    at += 1;
                }
                _ => {
                    let end =
                        bytes[at..].iter().position(|b| b" \t\r\n;{}\"".contains(b)).map_or(bytes.len(), |e| at + e);
                    words.push((text[at..end].to_string(), false));
                    at = end;
                }
            }
        }
        if scope.is_empty() { Ok(()) } else { Err((line, format!("`{}` {{ is never closed", scope.join("::")))) }
    }

    fn set(&mut self, scope: &[String], words: &mut Vec<(String, bool)>) {
        let (name, value) = match words.as_slice() {
            [] => return,
            [(value, true)] => (String::new(), value.clone()),
            [(name, false)] => (name.clone(), String::new()),
            [(name, _), .., (value, _)] => (name.clone(), value.clone()),
        };
        let mut key = scope.join("::");
        if !name.is_empty() {
            key.push_str(if key.is_empty() { "" } else { "::" });
            key.push_str(&name.trim_end_matches("::").to_ascii_lowercase());
        }
        self.0.entry(key).or_default().push(value);
        words.clear();
    }
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |e| at + e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_flat_and_commented_settings() {
        let mut conf = Conf::default();
        conf.add(
            "// c\nAcquire { http { Proxy \"http://a:1\"; Proxy::host.example \"DIRECT\"; }; /* x\n */ };\n# y\nAcquire::HTTPS::CAInfo \"/ca\";\nDPkg::Pre {\"a;b\";};",
        )
        .unwrap();
        assert_eq!(conf.last("acquire::http::proxy"), Some("http://a:1"));
        assert_eq!(conf.last("Acquire::https::CaInfo"), Some("/ca"));
        assert_eq!(conf.below("acquire::http::proxy").collect::<Vec<_>>(), [("host.example", "DIRECT")]);
        assert_eq!(conf.add("A \"x\n").unwrap_err().0, 1);
        assert!(conf.add("A {\n B \"x\";\n").is_err());
    }
}
