//! `--format`: the part of Go's templates that people use with docker and podman, over JSON.
//!
//! `{{.Field.Below}}`, `{{json .}}`, `{{index .Map "key"}}`, `{{len .List}}`, `{{join .List ","}}`, `{{upper .X}}`,
//! `{{lower .X}}`, pipes, `{{range .List}}…{{end}}`, `{{if .X}}…{{else}}…{{end}}`, `{{- … -}}`, and texts in quotes.

use serde_json::Value;

/// A template that was read.
#[derive(Debug)]
pub struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Value(Vec<Call>),
    Range(Vec<Call>, Vec<Part>, Vec<Part>),
    If(Vec<Call>, Vec<Part>, Vec<Part>),
}

/// A function and its words; the value of the call before comes last.
#[derive(Debug)]
struct Call(Vec<Word>);

#[derive(Clone, Debug)]
enum Word {
    Field(Vec<String>),
    Text(String),
    Number(i64),
    Name(String),
}

const FUNCTIONS: [&str; 15] = [
    "json", "index", "len", "join", "upper", "lower", "title", "println", "print", "eq", "ne", "not", "and", "or",
    "truncate",
];

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Template, String> {
        // As typed in a shell.
        let text = text.replace("\\n", "\n").replace("\\t", "\t");
        let mut pieces = Pieces { rest: &text, trims: false };
        let (parts, end) = pieces.parts(0)?;
        match end {
            Ends::Text => Ok(Template(parts)),
            Ends::ByElse => Err("`{{else}}` without `{{if}}`".into()),
            Ends::ByEnd => Err("`{{end}}` without `{{range}}` or `{{if}}`".into()),
        }
    }

    /// The text for a value.
    pub fn render(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, value, &mut out)?;
        Ok(out)
    }

    /// The head of a table: names of fields in capitals where their values come.
    pub fn head(&self) -> String {
        let one = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(calls) => {
                let words = calls.iter().flat_map(|call| &call.0);
                let field = words.into_iter().find_map(|word| match word {
                    Word::Field(path) => path.last().cloned(),
                    _ => None,
                });
                field.unwrap_or_default().to_uppercase()
            }
            _ => String::new(),
        };
        self.0.iter().map(one).collect()
    }
}

#[derive(PartialEq)]
enum Ends {
    Text,
    ByElse,
    ByEnd,
}

struct Pieces<'a> {
    rest: &'a str,
    /// Whether the white space that comes next is left out.
    trims: bool,
}

impl Pieces<'_> {
    fn parts(&mut self, depth: usize) -> Result<(Vec<Part>, Ends), String> {
        const DEPTH: usize = 32;
        if depth > DEPTH {
            return Err("`{{range}}` and `{{if}}` are nested too deep".into());
        }
        let mut parts = Vec::new();
        loop {
            let Some((text, after)) = self.rest.split_once("{{") else {
                let text = if self.trims { self.rest.trim_start() } else { self.rest };
                parts.push(Part::Text(text.into()));
                self.rest = "";
                return match depth {
                    0 => Ok((parts, Ends::Text)),
                    _ => Err("`{{end}}` is missing".into()),
                };
            };
            let (inner, rest) = after.split_once("}}").ok_or("`{{` without `}}`")?;
            let text = if self.trims { text.trim_start() } else { text };
            let (inner, trims_before) = match inner.strip_prefix("- ") {
                Some(inner) => (inner, true),
                None => (inner, false),
            };
            let (inner, trims_after) = match inner.strip_suffix(" -") {
                Some(inner) => (inner, true),
                None => (inner, false),
            };
            let text = if trims_before { text.trim_end() } else { text };
            parts.push(Part::Text(text.into()));
            (self.rest, self.trims) = (rest, trims_after);
            let inner = inner.trim();
            let (first, words) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
            match first {
                "end" => return Ok((parts, Ends::ByEnd)),
                "else" => return Ok((parts, Ends::ByElse)),
                "range" | "if" => {
                    let calls = calls(words)?;
                    let (then, end) = self.parts(depth + 1)?;
                    let other = match end {
                        Ends::ByElse => self.parts(depth + 1)?.0,
                        _ => Vec::new(),
                    };
                    parts.push(match first {
                        "if" => Part::If(calls, then, other),
                        _ => Part::Range(calls, then, other),
                    });
                }
                "with" | "define" | "template" | "block" => return Err(format!("`{{{{{first}}}}}` is not there")),
                _ if inner.starts_with("/*") => {}
                _ => parts.push(Part::Value(calls(inner)?)),
            }
        }
    }
}

fn calls(text: &str) -> Result<Vec<Call>, String> {
    let mut calls = vec![Call(Vec::new())];
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '|' => {
                calls.push(Call(Vec::new()));
                rest = rest.get(1..).unwrap_or_default().trim_start();
                continue;
            }
            '"' | '`' => {
                let body = rest.get(1..).unwrap_or_default();
                let (text, after) = body.split_once(first).ok_or("a text without its end")?;
                (Word::Text(text.into()), after)
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                let word = match word.strip_prefix('.') {
                    Some(path) => Word::Field(path.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect()),
                    None => match word.parse::<i64>() {
                        Ok(number) => Word::Number(number),
                        Err(_) if FUNCTIONS.contains(&word) => Word::Name(word.into()),
                        Err(_) => {
                            let near = ctk_syntax::nearest(word, FUNCTIONS);
                            let near = near.map(|near| format!("; did you mean `{near}`?"));
                            let near = near.unwrap_or_else(|| "; fields begin with a dot".into());
                            return Err(format!("there is no function `{word}`{near}"));
                        }
                    },
                };
                (word, after)
            }
        };
        if let Some(call) = calls.last_mut() {
            call.0.push(word);
        }
        rest = after.trim_start();
    }
    match calls.iter().any(|call| call.0.is_empty()) {
        true => Err("`{{}}` is empty".into()),
        false => Ok(calls),
    }
}

fn render(parts: &[Part], value: &Value, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value(calls) => out.push_str(&shown(&evaluate(calls, value)?)),
            Part::If(calls, then, other) => {
                render(if is_true(&evaluate(calls, value)?) { then } else { other }, value, out)?;
            }
            Part::Range(calls, then, other) => {
                let members: Vec<Value> = match evaluate(calls, value)? {
                    Value::Array(list) => list,
                    Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                    Value::Null => Vec::new(),
                    _ => return Err("`{{range}}` needs a list".into()),
                };
                if members.is_empty() {
                    render(other, value, out)?;
                }
                members.iter().try_for_each(|member| render(then, member, out))?;
            }
        }
    }
    Ok(())
}

fn evaluate(calls: &[Call], value: &Value) -> Result<Value, String> {
    let mut result: Option<Value> = None;
    for Call(words) in calls {
        let mut words = words.iter();
        let first = words.next().ok_or("nothing to show")?;
        let mut arguments = words.map(|word| argument(word, value)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(result.take());
        result = Some(match first {
            Word::Name(name) => call(name, &arguments)?,
            word if arguments.is_empty() => argument(word, value)?,
            _ => return Err("a field takes no words behind it".into()),
        });
    }
    result.ok_or_else(|| "nothing to show".into())
}

fn argument(word: &Word, value: &Value) -> Result<Value, String> {
    match word {
        Word::Text(text) => Ok(text.clone().into()),
        Word::Number(number) => Ok((*number).into()),
        Word::Name(name) => call(name, &[]),
        Word::Field(path) => {
            let mut at = value;
            for name in path {
                at = match at {
                    Value::Object(map) => match map.get(name).or_else(|| alike(map, name)) {
                        Some(found) => found,
                        None => {
                            let near = ctk_syntax::nearest(name, map.keys().map(String::as_str));
                            let near = near.map(|near| format!("; did you mean `.{near}`?"));
                            let all = || map.keys().cloned().collect::<Vec<_>>().join(", ");
                            let near = near.unwrap_or_else(|| format!("; there are {}", all()));
                            return Err(format!("there is no field `.{name}`{near}"));
                        }
                    },
                    _ => return Err(format!("`.{name}` is asked of something without fields")),
                };
            }
            Ok(at.clone())
        }
    }
}

/// The field that a Go program would call so: `.NetworkInterface` is `network_interface` in JSON, `.ID` is `Id`.
fn alike<'a>(map: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a Value> {
    let letters =
        |text: &str| text.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect();
    let wanted: Vec<u8> = letters(name);
    map.iter().find_map(|(field, value)| (Vec::from_iter(letters(field)) == wanted).then_some(value))
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let one = || arguments.first().ok_or_else(|| format!("`{name}` needs a value"));
    Ok(match name {
        "json" => serde_json::to_string(one()?).unwrap_or_default().into(),
        "len" => match one()? {
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            Value::String(text) => text.chars().count().into(),
            _ => return Err("`len` needs a list or a text".into()),
        },
        "upper" => shown(one()?).to_uppercase().into(),
        "lower" => shown(one()?).to_lowercase().into(),
        "title" => {
            let text = shown(one()?);
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |c| c.to_uppercase().chain(letters).collect()).into()
        }
        "print" => arguments.iter().map(shown).collect::<String>().into(),
        "println" => (arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        "join" => match arguments {
            [Value::Array(list), separator] => {
                list.iter().map(shown).collect::<Vec<_>>().join(&shown(separator)).into()
            }
            // In a pipe the list comes last.
            [separator, Value::Array(list)] => {
                list.iter().map(shown).collect::<Vec<_>>().join(&shown(separator)).into()
            }
            _ => return Err("`join` needs a list and a text".into()),
        },
        "truncate" => match arguments {
            [text, Value::Number(length)] | [Value::Number(length), text] => {
                shown(text).chars().take(length.as_u64().unwrap_or(0) as usize).collect::<String>().into()
            }
            _ => return Err("`truncate` needs a text and a number".into()),
        },
        "index" => {
            let mut at = one()?;
            for key in arguments.iter().skip(1) {
                at = match (at, key) {
                    (Value::Object(map), key) => map.get(&shown(key)).unwrap_or(&Value::Null),
                    (Value::Array(list), Value::Number(number)) => {
                        let number = number.as_u64().unwrap_or(u64::MAX) as usize;
                        list.get(number).ok_or("`index` is beyond the end")?
                    }
                    _ => return Err("`index` needs a list or a map".into()),
                };
            }
            at.clone()
        }
        "eq" | "ne" => {
            let same =
                arguments.iter().skip(1).any(|other| shown(other) == arguments.first().map_or(String::new(), shown));
            (same == (name == "eq")).into()
        }
        "not" => (!is_true(one()?)).into(),
        "and" => arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or_default(),
        "or" => arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or_default(),
        _ => return Err(format!("there is no function `{name}`")),
    })
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}:{}", shown(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: &str) {
        let value = json!({
            "Name": "web", "State": { "Running": true, "Pid": 7 }, "Ports": ["80", "443"],
            "dns_enabled": true, "Labels": { "a.b": "c" }, "Empty": "", "Mounts": [{ "To": "/a" }, { "To": "/b" }],
        });
        let found = Template::parse(template).and_then(|template| template.render(&value));
        assert_eq!(found.as_deref().unwrap_or_else(|error| error), expected, "{template}");
    }

    #[test]
    fn templates_are_read_as_docker_reads_them() {
        check("{{.Name}}", "web");
        check("{{ .State.Pid }} {{.State.Running}}", "7 true");
        check("{{json .Ports}}", "[\"80\",\"443\"]");
        check("{{.DNSEnabled}} {{.name}}", "true web");
        check("{{.Ports}}", "[80 443]");
        check("{{index .Labels \"a.b\"}}", "c");
        check("{{index .Ports 1}}", "443");
        check("{{len .Ports}}", "2");
        check("{{join .Ports \",\"}}", "80,443");
        check("{{.Name | upper}}", "WEB");
        check("{{range .Mounts}}{{.To}} {{end}}", "/a /b ");
        check("{{if .Empty}}yes{{else}}no{{end}}", "no");
        check("{{if eq .Name \"web\"}}yes{{end}}", "yes");
        check("a\\t{{.Name}}\\n", "a\tweb\n");
        check("x {{- .Name -}} y", "xweby");
    }

    #[test]
    fn mistakes_are_told() {
        check("{{.Nam}}", "there is no field `.Nam`; did you mean `.Name`?");
        check("{{jsn .Name}}", "there is no function `jsn`; did you mean `json`?");
        check("{{.Name", "`{{` without `}}`");
        check("{{range .Ports}}", "`{{end}}` is missing");
        check("{{.Name.X}}", "`.X` is asked of something without fields");
        check("{{end}}", "`{{end}}` without `{{range}}` or `{{if}}`");
        check("{{}}", "`{{}}` is empty");
    }
}
