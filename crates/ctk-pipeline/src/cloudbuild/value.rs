//! Nodes of a file as records of the schema. Every mistake of type and name is found here.

use ctk_syntax::{Diagnostic, Diagnostics, Span, Spanned, nearest, short};

use super::schema::{Fate, Field, Record, Type};
use crate::codes;
use crate::yaml::{Kind, Node, Plain, plain};

/// A value of the schema.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Whole(i64),
    /// Nanoseconds.
    Duration(u64),
    Choice(&'static str),
    Record(Object),
    Table(Vec<(Spanned<String>, Spanned<String>)>),
}

/// A record as it was written: each field once, with its place.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub span: Span,
    pub fields: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub field: &'static Field,
    /// Of its name.
    pub key: Span,
    /// One, or those of the list.
    pub values: Vec<Spanned<Value>>,
}

impl Object {
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.fields.iter().find(|entry| entry.field.name == name)
    }

    fn one(&self, name: &str) -> Option<&Spanned<Value>> {
        self.entry(name).and_then(|entry| entry.values.first())
    }

    pub fn text(&self, name: &str) -> Option<Spanned<String>> {
        let value = self.one(name)?;
        match &value.value {
            Value::Text(text) => Some(Spanned::new(text.clone(), value.span)),
            _ => None,
        }
    }

    pub fn texts(&self, name: &str) -> Vec<Spanned<String>> {
        let values = self.entry(name).map(|entry| entry.values.as_slice()).unwrap_or_default();
        let texts = values.iter().filter_map(|value| match &value.value {
            Value::Text(text) => Some(Spanned::new(text.clone(), value.span)),
            _ => None,
        });
        texts.collect()
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.one(name)?.value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    pub fn whole(&self, name: &str) -> Vec<Spanned<i64>> {
        let values = self.entry(name).map(|entry| entry.values.as_slice()).unwrap_or_default();
        let numbers = values.iter().filter_map(|value| match value.value {
            Value::Whole(number) => Some(Spanned::new(number, value.span)),
            _ => None,
        });
        numbers.collect()
    }

    pub fn duration(&self, name: &str) -> Option<Spanned<std::time::Duration>> {
        let value = self.one(name)?;
        match value.value {
            Value::Duration(nanoseconds) => {
                Some(Spanned::new(std::time::Duration::from_nanos(nanoseconds), value.span))
            }
            _ => None,
        }
    }

    pub fn choice(&self, name: &str) -> Option<&'static str> {
        match self.one(name)?.value {
            Value::Choice(word) => Some(word),
            _ => None,
        }
    }

    pub fn record(&self, name: &str) -> Option<&Object> {
        match &self.one(name)?.value {
            Value::Record(object) => Some(object),
            _ => None,
        }
    }

    pub fn records(&self, name: &str) -> impl Iterator<Item = &Object> {
        let values = self.entry(name).map(|entry| entry.values.as_slice()).unwrap_or_default();
        values.iter().filter_map(|value| match &value.value {
            Value::Record(object) => Some(object),
            _ => None,
        })
    }

    pub fn table(&self, name: &str) -> Vec<(Spanned<String>, Spanned<String>)> {
        match self.one(name).map(|value| &value.value) {
            Some(Value::Table(table)) => table.clone(),
            _ => Vec::new(),
        }
    }
}

/// `wait_for` as `waitFor`.
pub(super) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for (at, c) in name.chars().enumerate() {
        match c {
            '_' if at > 0 => up = true,
            c if up => {
                out.extend(c.to_uppercase());
                up = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// Reads nodes as records.
pub(super) struct Reading<'a> {
    pub diagnostics: &'a mut Diagnostics,
}

impl Reading<'_> {
    fn error(&mut self, code: &'static str, message: impl Into<String>, span: Span, label: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(code, message).at(span, label));
    }

    /// `path` is how messages call the record.
    pub fn object(&mut self, node: &Node, record: &'static Record, path: &str) -> Option<Object> {
        let Kind::Map(entries) = &node.kind else {
            let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
            let said = format!("{what} is {}, and should have fields", is(node));
            self.error(codes::WRONG_TYPE, said, node.span, "expected `name: value`");
            return None;
        };
        let mut object = Object { span: node.span, fields: Vec::new() };
        for (key, value) in entries {
            let name = camel(&key.value);
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let Some(field) = record.fields.iter().find(|field| field.name == name) else {
                let names = record.fields.iter().filter(|field| field.fate != Fate::Output).map(|field| field.name);
                let near = nearest(&name, names);
                let said = format!("{} has no field `{}`", record.name, short(&key.value));
                let otherwise = if record.fields.len() <= 8 {
                    let all: Vec<String> = record.fields.iter().map(|field| format!("`{}`", field.name)).collect();
                    format!("there are {}", all.join(", "))
                } else {
                    "no field of that name".into()
                };
                let mistake = Diagnostic::error(codes::UNKNOWN_FIELD, said);
                self.diagnostics.push(mistake.at_or_nearest(key.span, near, otherwise));
                continue;
            };
            if let Some(first) = object.entry(field.name) {
                let said = format!("`{here}` is written twice; the first counts");
                let mistake = Diagnostic::warning(codes::DUPLICATE_FIELD, said);
                self.diagnostics.push(mistake.at(key.span, "this one is ignored").at(first.key, "this one counts"));
                continue;
            }
            match field.fate {
                Fate::Output => {
                    let said = format!("`{here}` is set by Cloud Build, and means nothing in a file");
                    let mistake = Diagnostic::warning(codes::NOT_IN_A_FILE, said);
                    self.diagnostics.push(mistake.at(key.span, "leave it out"));
                    continue;
                }
                Fate::Refused(why) => {
                    let said = format!("a file cannot have `{here}`: {why}");
                    self.error(codes::NOT_IN_A_FILE, said, key.span, "leave it out");
                    continue;
                }
                Fate::Used | Fate::Said(_) => {}
            }
            let values = self.values(value, field, &here);
            object.fields.push(Entry { field, key: key.span, values });
        }
        Some(object)
    }

    fn values(&mut self, node: &Node, field: &'static Field, path: &str) -> Vec<Spanned<Value>> {
        if is_null(node) {
            return Vec::new();
        }
        if !field.list {
            return self.value(node, field, path).into_iter().collect();
        }
        match &node.kind {
            Kind::List(list) => {
                let mut values = Vec::new();
                for (number, node) in list.iter().enumerate() {
                    let here = format!("{path}[{number}]");
                    if is_null(node) {
                        let said = format!("`{here}` has no value");
                        self.error(codes::WRONG_TYPE, said, node.span, "write a value, or leave the dash out");
                        continue;
                    }
                    values.extend(self.value(node, field, &here));
                }
                values
            }
            _ => {
                let said = format!("`{path}` is a list; gcloud takes a single value, others refuse it");
                let hint = match field.kind {
                    Type::Record(_) => "write a `-` before it",
                    _ => "write it in brackets: `['…']`",
                };
                let warning = Diagnostic::warning(codes::NO_LIST, said).at(node.span, hint);
                let value = self.value(node, field, path);
                if value.is_some() {
                    self.diagnostics.push(warning);
                }
                value.into_iter().collect()
            }
        }
    }

    fn value(&mut self, node: &Node, field: &'static Field, path: &str) -> Option<Spanned<Value>> {
        let wrong = |reading: &mut Self, expected: &str| {
            let said = format!("`{path}` is {}, and should be {expected}", is(node));
            reading.error(codes::WRONG_TYPE, said, node.span, format!("expected {expected}"));
            None
        };
        let scalar = match &node.kind {
            Kind::Scalar { text, plain: is_plain } => Some((text, if *is_plain { plain(text) } else { Plain::Text })),
            _ => None,
        };
        let value = match field.kind {
            Type::Record(record) if record.fields.is_empty() => {
                Some(Value::Record(Object { span: node.span, fields: Vec::new() }))
            }
            Type::Record(record) => self.object(node, record, path).map(Value::Record),
            Type::Table => self.table(node, path).map(Value::Table),
            Type::Text => match scalar {
                Some((text, Plain::Text)) => Some(Value::Text(text.clone())),
                Some((text, _)) => {
                    let said = format!("`{path}` is {}, and should be a text", is(node));
                    let label = format!("write it in quotes: `'{}'`", short(text));
                    self.error(codes::WRONG_TYPE, said, node.span, label);
                    None
                }
                None => wrong(self, "a text"),
            },
            Type::Flag => match scalar {
                Some((_, Plain::Flag(flag))) => Some(Value::Flag(flag)),
                Some((text, _)) if matches!(text.as_str(), "true" | "false") => {
                    wrong(self, &format!("`{text}` without quotes"))
                }
                // A record of no fields, in the one place where there is one.
                None if field.name == "empty" => Some(Value::Flag(true)),
                _ => wrong(self, "`true` or `false`"),
            },
            Type::Whole => match scalar {
                Some((_, Plain::Whole(number))) => Some(Value::Whole(number)),
                Some((text, Plain::Text)) if text.parse::<i64>().is_ok() => text.parse().ok().map(Value::Whole),
                _ => wrong(self, "a whole number"),
            },
            Type::Duration => match scalar {
                Some((text, Plain::Text)) => match duration(text) {
                    Some(nanoseconds) => Some(Value::Duration(nanoseconds)),
                    None => {
                        let said = format!("`{path}` is `{}`, which is no duration", short(text));
                        let better = ctk_syntax::parse_duration(text).map(|d| format!("{}s", d.as_secs_f64()));
                        let label = format!("write `{}`", better.unwrap_or_else(|| "1200s".into()));
                        let mistake = Diagnostic::error(codes::BAD_VALUE, said).at(node.span, label);
                        self.diagnostics.push(mistake.hint("seconds, at most nine digits of a fraction, then `s`"));
                        None
                    }
                },
                Some((text, Plain::Whole(_))) => wrong(self, &format!("a duration, such as `{text}s`")),
                _ => wrong(self, "a duration, such as `1200s`"),
            },
            Type::Choice(words) => match scalar {
                Some((text, _)) => match words.iter().find(|word| word.trim_end_matches('!') == text) {
                    Some(word) => {
                        if word.ends_with('!') {
                            let said = format!("`{text}` is no longer offered for `{path}`");
                            let mistake = Diagnostic::warning(codes::SUSPICIOUS, said);
                            self.diagnostics.push(mistake.at(node.span, "choose another"));
                        }
                        Some(Value::Choice(word.trim_end_matches('!')))
                    }
                    None => {
                        let known = || words.iter().map(|word| word.trim_end_matches('!'));
                        let all: Vec<String> = known().map(|word| format!("`{word}`")).collect();
                        let said = format!("`{path}` cannot be `{}`", short(text));
                        let mistake = Diagnostic::error(codes::BAD_VALUE, said);
                        let near = nearest(text, known());
                        self.diagnostics.push(mistake.at_or_nearest(
                            node.span,
                            near,
                            format!("there are {}", all.join(", ")),
                        ));
                        None
                    }
                },
                None => wrong(self, "a word"),
            },
        };
        value.map(|value| Spanned::new(value, node.span))
    }

    fn table(&mut self, node: &Node, path: &str) -> Option<Vec<(Spanned<String>, Spanned<String>)>> {
        let Kind::Map(entries) = &node.kind else {
            let said = format!("`{path}` is {}, and should be names with texts", is(node));
            self.error(codes::WRONG_TYPE, said, node.span, "expected `NAME: 'value'`");
            return None;
        };
        let mut table: Vec<(Spanned<String>, Spanned<String>)> = Vec::new();
        for (key, value) in entries {
            if let Some((first, _)) = table.iter().find(|(known, _)| known.value == key.value) {
                let said = format!("`{path}.{}` is written twice; the first counts", short(&key.value));
                let first = first.span;
                let mistake = Diagnostic::warning(codes::DUPLICATE_FIELD, said);
                self.diagnostics.push(mistake.at(key.span, "this one is ignored").at(first, "this one counts"));
                continue;
            }
            let text = match &value.kind {
                Kind::Scalar { text, plain: is_plain } if !*is_plain || plain(text) == Plain::Text => text.clone(),
                // A name without a value is empty.
                _ if is_null(value) => String::new(),
                _ => {
                    let said = format!("`{path}.{}` is {}, and should be a text", short(&key.value), is(value));
                    let label = match &value.kind {
                        Kind::Scalar { text, .. } => format!("write it in quotes: `'{}'`", short(text)),
                        _ => "expected a text".into(),
                    };
                    self.error(codes::WRONG_TYPE, said, value.span, label);
                    // It is defined: nothing else is wrong where it is used.
                    String::new()
                }
            };
            table.push((key.clone(), Spanned::new(text, value.span)));
        }
        Some(table)
    }
}

fn is_null(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar { text, plain: true } if plain(text) == Plain::Null)
}

fn is(node: &Node) -> &'static str {
    match &node.kind {
        Kind::List(_) => "a list",
        Kind::Map(_) => "a mapping",
        Kind::Scalar { plain: false, .. } => "a text",
        Kind::Scalar { text, .. } => match plain(text) {
            Plain::Null => "nothing",
            Plain::Flag(_) => "true or false",
            Plain::Whole(_) | Plain::Number => "a number",
            Plain::Text => "a text",
        },
    }
}

/// Nanoseconds of `1200s` or `3.5s`, as protocol buffers write durations in JSON.
fn duration(text: &str) -> Option<u64> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 || number.ends_with('.') {
        return None;
    }
    let seconds: u64 = whole.parse().ok()?;
    let nanoseconds: u64 = format!("{part:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_protocol_buffers() {
        let check = |text: &str, is: Option<u64>| assert_eq!(duration(text), is, "{text}");
        check("1200s", Some(1_200_000_000_000));
        check("3.5s", Some(3_500_000_000));
        check("0s", Some(0));
        check("1.s", None);
        check("20m", None);
        check("-1s", None);
        check("s", None);
        check("1.1234567890s", None);
        check("99999999999999999999s", None);
    }

    #[test]
    fn underscores_become_capitals() {
        assert_eq!(camel("wait_for"), "waitFor");
        assert_eq!(camel("waitFor"), "waitFor");
        assert_eq!(camel("disk_size_gb"), "diskSizeGb");
    }
}
