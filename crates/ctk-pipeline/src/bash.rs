//! Substitutions in a text: `$KEY`, `${KEY}`, and with `dynamicSubstitutions` bash's parameter expansions.
//!
//! A key is `[A-Z_][A-Z0-9_]*`, as long as it goes. `$$` is a dollar; a dollar before anything else is one, too, so that
//! `$foo`, `$(pwd)` and `${x:-y}` of a step's shell stay as they are. What a key stands for is not read again.
//!
//! | with `dynamicSubstitutions` | gives |
//! |---|---|
//! | `${K:-w}` `${K-w}` | `w` if K is unset or empty; if unset |
//! | `${K:=w}` `${K=w}` | the same, and K is `w` in the rest of the text |
//! | `${K:+w}` `${K+w}` | `w` if K is set and not empty; if set |
//! | `${K:?w}` `${K?w}` | an error that says `w` if K is unset or empty; if unset |
//! | `${K#p}` `${K##p}` `${K%p}` `${K%%p}` | K without the front or end that matches, the shortest or longest |
//! | `${K/p/w}` `${K//p/w}` `${K/#p/w}` `${K/%p/w}` | the first match, every match, one at the front, one at the end is `w` |
//! | `${K:3}` `${K:3:2}` `${K: -2}` | a part of K |
//! | `${K^}` `${K^^}` `${K,}` `${K,,}` | in capitals or not, the first letter or all, those that match a pattern behind it |
//! | `${#K}` | how many characters K has |
//! | `$(body.a.b[0])` | of the payload of the event |
//!
//! The text counts as if it stood in double quotes, and has no quotes of its own: `'` and `"` are characters. `&` in a
//! replacement is a character, as in bash before 5.2. Tests ask `bash` itself.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;

use crate::glob::Glob;
use crate::limits;

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This.
    Value(String),
    /// It may be defined, and is not.
    Unset,
    /// There is no such built-in substitution.
    Unknown,
    /// Its own value cannot be had.
    Failed(String),
}

/// Why a text could not be substituted, and where in it (bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the text.
    pub at: Range<usize>,
    /// Why.
    pub kind: MistakeKind,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MistakeKind {
    /// No such built-in.
    Unknown(String),
    /// No value for it.
    Unset(String),
    /// `:?`.
    Required {
        /// The key.
        key: String,
        /// What its author says.
        message: String,
    },
    /// The value of this key cannot be had.
    Failed {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
    /// Something that bash or we do not know, in words.
    Syntax(String),
}

/// How texts are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Whether there are expansions and payloads: `dynamicSubstitutions`.
    pub dynamic: bool,
    /// Whether a `_KEY` without a value is empty: `ALLOW_LOOSE`.
    pub loose: bool,
    /// The event, with `body` and such at its top.
    pub payload: Option<&'a Value>,
}

/// The text with its substitutions made. `lookup` is asked for each key that matters.
pub fn substitute(text: &str, rules: Rules<'_>, lookup: &mut dyn FnMut(&str) -> Found) -> Result<String, Mistake> {
    let mut run = Run { text, at: 0, rules, lookup: Some(lookup), set: HashMap::new(), level: 0, size: 0 };
    let mut out = String::new();
    while let Some(c) = run.peek() {
        if c == '$' {
            let start = run.at;
            let part = run.dollar()?;
            run.grow(part.len(), start)?;
            out.push_str(&part);
        } else {
            run.at += c.len_utf8();
            out.push(c);
        }
    }
    Ok(out)
}

/// How long the key at the start of `text` is; 0 if there is none.
pub fn key_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(text.len())
}

struct Run<'t, 'l> {
    text: &'t str,
    at: usize,
    rules: Rules<'t>,
    /// None in a word that is not used.
    lookup: Option<&'l mut dyn FnMut(&str) -> Found>,
    /// By `:=`.
    set: HashMap<String, String>,
    level: usize,
    size: usize,
}

impl<'t> Run<'t, '_> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, text: &str) -> bool {
        let is = self.rest().starts_with(text);
        self.at += if is { text.len() } else { 0 };
        is
    }

    fn mistake<T>(&self, start: usize, kind: MistakeKind) -> Result<T, Mistake> {
        Err(Mistake { at: start..self.at.max(start), kind })
    }

    fn syntax<T>(&self, start: usize, words: impl Into<String>) -> Result<T, Mistake> {
        self.mistake(start, MistakeKind::Syntax(words.into()))
    }

    fn grow(&mut self, bytes: usize, start: usize) -> Result<(), Mistake> {
        self.size += bytes;
        if self.size > limits::EXPANSION_BYTES {
            return self.syntax(start, format!("it gives more than {} bytes", limits::EXPANSION_BYTES));
        }
        Ok(())
    }

    /// At a dollar.
    fn dollar(&mut self) -> Result<String, Mistake> {
        let start = self.at;
        self.at += 1;
        if self.eat("$") {
            return Ok("$".into());
        }
        let length = key_length(self.rest());
        if length > 0 {
            let key = &self.rest()[..length];
            self.at += length;
            return self.plain(key, start);
        }
        if self.rest().starts_with('{') {
            return self.braces(start);
        }
        if self.rules.dynamic && self.rest().starts_with('(') && is_binding(&self.rest()[1..]) {
            return self.binding(start);
        }
        Ok("$".into())
    }

    fn ask(&mut self, key: &str) -> Found {
        if let Some(text) = self.set.get(key) {
            return Found::Value(text.clone());
        }
        match &mut self.lookup {
            Some(lookup) => lookup(key),
            None => Found::Value(String::new()),
        }
    }

    fn plain(&mut self, key: &str, start: usize) -> Result<String, Mistake> {
        match self.ask(key) {
            Found::Value(text) => Ok(text),
            Found::Unset if self.rules.loose => Ok(String::new()),
            Found::Unset => self.mistake(start, MistakeKind::Unset(key.into())),
            Found::Unknown => self.mistake(start, MistakeKind::Unknown(key.into())),
            Found::Failed(why) => self.mistake(start, MistakeKind::Failed { key: key.into(), why }),
        }
    }

    /// After the dollar, at `{`.
    fn braces(&mut self, start: usize) -> Result<String, Mistake> {
        let inside = &self.rest()[1..];
        let counts = self.rules.dynamic && inside.starts_with('#');
        let name = &inside[usize::from(counts)..];
        let length = key_length(name);
        let key = &name[..length];
        let after = &name[length..];
        if length == 0 {
            return Ok("$".into());
        }
        if after.starts_with('}') {
            self.at += 1 + usize::from(counts) + length + 1;
            let text = self.plain(key, start)?;
            return Ok(if counts { text.chars().count().to_string() } else { text });
        }
        // Not ours: it stays as it is, for whoever reads the text next.
        let operator = after.starts_with([':', '-', '=', '+', '?', '#', '%', '/', '^', ',']);
        if counts || !self.rules.dynamic || !operator || matches!(self.ask(key), Found::Unknown) {
            return Ok("$".into());
        }
        self.at += 1 + length;
        if self.level >= limits::EXPANSION_LEVELS {
            return self.syntax(start, format!("more than {} levels of `${{…}}`", limits::EXPANSION_LEVELS));
        }
        self.level += 1;
        let result = self.operator(key, start);
        self.level -= 1;
        result
    }

    /// After the key of `${KEY…}`.
    fn operator(&mut self, key: &str, start: usize) -> Result<String, Mistake> {
        let colon = self.eat(":");
        let operator = self.peek().unwrap_or('\0');
        if matches!(operator, '-' | '=' | '+' | '?') {
            self.at += 1;
            return self.choose(key, colon, operator, start);
        }
        let value = match self.ask(key) {
            Found::Unset if self.rules.loose => {
                // Bash does not even look at what should be done with it.
                self.skip(colon, operator, start)?;
                return Ok(String::new());
            }
            Found::Unset => return self.mistake(start, MistakeKind::Unset(key.into())),
            Found::Value(text) => text,
            Found::Unknown => return self.mistake(start, MistakeKind::Unknown(key.into())),
            Found::Failed(why) => return self.mistake(start, MistakeKind::Failed { key: key.into(), why }),
        };
        let chars: Vec<char> = value.chars().collect();
        if colon {
            return self.part(&chars, start);
        }
        self.at += operator.len_utf8();
        let twice = operator != '/' && self.peek() == Some(operator);
        self.at += usize::from(twice);
        match operator {
            '#' | '%' => {
                let glob = self.pattern(&['}'], start)?;
                self.close(start)?;
                self.cost(&glob, &chars, start)?;
                Ok(if operator == '#' { cut_front(&chars, &glob, twice) } else { cut_end(&chars, &glob, twice) })
            }
            '^' | ',' => {
                let glob = self.pattern(&['}'], start)?;
                self.close(start)?;
                Ok(letters(&chars, &glob, operator == '^', twice))
            }
            '/' => self.replace(&chars, start),
            _ => self.syntax(start, "there is no such expansion"),
        }
    }

    /// Over what stands behind a key that has no value.
    fn skip(&mut self, colon: bool, operator: char, start: usize) -> Result<(), Mistake> {
        if !colon {
            self.at += operator.len_utf8();
        }
        let (lookup, kept) = (self.lookup.take(), self.set.clone());
        let word = self.word(start);
        (self.lookup, self.set) = (lookup, kept);
        word?;
        self.close(start)
    }

    /// `-`, `=`, `+`, `?`, whose word is read only when it is used.
    fn choose(&mut self, key: &str, colon: bool, operator: char, start: usize) -> Result<String, Mistake> {
        let found = match self.ask(key) {
            Found::Value(text) => Some(text),
            Found::Failed(why) => return self.mistake(start, MistakeKind::Failed { key: key.into(), why }),
            Found::Unset | Found::Unknown => None,
        };
        let set = found.as_ref().is_some_and(|text| !colon || !text.is_empty());
        let used = if operator == '+' { set } else { !set };
        let word = if used {
            self.word(start)?
        } else {
            let lookup = self.lookup.take();
            let kept = self.set.clone();
            let word = self.word(start);
            self.lookup = lookup;
            self.set = kept;
            word?
        };
        self.close(start)?;
        Ok(match operator {
            '+' if set => word,
            '+' => String::new(),
            _ if set => found.unwrap_or_default(),
            '=' => {
                self.set.insert(key.into(), word.clone());
                word
            }
            '?' if self.lookup.is_some() => {
                return self.mistake(start, MistakeKind::Required { key: key.into(), message: word });
            }
            _ => word,
        })
    }

    fn close(&mut self, start: usize) -> Result<(), Mistake> {
        if self.eat("}") {
            return Ok(());
        }
        self.at = self.text.len();
        self.syntax(start, "`${` without `}`")
    }

    /// Until `}`, which is not taken.
    fn word(&mut self, start: usize) -> Result<String, Mistake> {
        let mut out = String::new();
        while let Some(c) = self.peek() {
            match c {
                '}' => break,
                '$' => out.push_str(&self.dollar()?),
                '\\' => {
                    self.at += 1;
                    match self.peek() {
                        Some(next @ ('}' | '$' | '\\' | '"' | '`')) => {
                            self.at += 1;
                            out.push(next);
                        }
                        _ => out.push('\\'),
                    }
                }
                c => {
                    self.at += c.len_utf8();
                    out.push(c);
                }
            }
            self.grow(0, start)?;
        }
        self.grow(out.len(), start)?;
        Ok(out)
    }

    fn pattern(&mut self, stops: &[char], start: usize) -> Result<Glob, Mistake> {
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if stops.contains(&c) {
                break;
            }
            if c == '$' {
                // What a key stands for is part of the pattern, as in bash.
                let text = self.dollar()?;
                out.push_str(&text);
                continue;
            }
            self.at += c.len_utf8();
            out.push(c);
            if c == '\\'
                && let Some(next) = self.peek()
            {
                self.at += next.len_utf8();
                out.push(next);
            }
        }
        self.grow(out.len(), start)?;
        Ok(Glob::new(&out))
    }

    fn cost(&self, glob: &Glob, chars: &[char], start: usize) -> Result<(), Mistake> {
        if glob.steps(chars).saturating_mul(chars.len() + 1) > limits::PATTERN_STEPS {
            return self.syntax(start, "the pattern and the value are too long for each other");
        }
        Ok(())
    }

    /// After `${KEY/`.
    fn replace(&mut self, chars: &[char], start: usize) -> Result<String, Mistake> {
        let how = match self.peek() {
            Some(c @ ('/' | '#' | '%')) => {
                self.at += 1;
                c
            }
            _ => ' ',
        };
        let glob = self.pattern(&['/', '}'], start)?;
        let by = if self.eat("/") { self.word(start)? } else { String::new() };
        self.close(start)?;
        self.cost(&glob, chars, start)?;
        let value: String = chars.iter().collect();
        if glob.is_empty() {
            return Ok(match how {
                '#' => by + &value,
                '%' => value + &by,
                _ => value,
            });
        }
        match how {
            '#' => match glob.fronts(chars).last() {
                Some(length) => Ok(by + &chars[*length..].iter().collect::<String>()),
                None => Ok(value),
            },
            '%' => match (0..=chars.len()).find(|at| glob.matches(&chars[*at..])) {
                Some(at) => Ok(chars[..at].iter().collect::<String>() + &by),
                None => Ok(value),
            },
            how => {
                if chars.is_empty() {
                    return Ok(if glob.matches(chars) { by } else { value });
                }
                let (mut out, mut at) = (String::new(), 0);
                while at < chars.len() {
                    match glob.fronts(&chars[at..]).last().copied().filter(|length| *length > 0) {
                        Some(length) => {
                            out.push_str(&by);
                            self.grow(by.len(), start)?;
                            at += length;
                            if how != '/' {
                                break;
                            }
                        }
                        None => {
                            out.push(chars[at]);
                            at += 1;
                        }
                    }
                }
                out.extend(&chars[at..]);
                Ok(out)
            }
        }
    }

    /// After `${KEY:`: where a part begins, and how long it is.
    fn part(&mut self, chars: &[char], start: usize) -> Result<String, Mistake> {
        let from = self.number(start)?;
        let length = if self.eat(":") { Some(self.number(start)?) } else { None };
        self.close(start)?;
        let count = chars.len() as i64;
        let first = if from < 0 { count + from } else { from };
        if first < 0 || first > count {
            return Ok(String::new());
        }
        let last = match length {
            None => count,
            Some(length) if length < 0 => {
                if self.lookup.is_none() {
                    return Ok(String::new());
                }
                if count + length < first {
                    return self.syntax(start, "the part ends before it begins");
                }
                count + length
            }
            Some(length) => first.saturating_add(length).min(count),
        };
        Ok(chars[first as usize..last as usize].iter().collect())
    }

    fn number(&mut self, start: usize) -> Result<i64, Mistake> {
        let end = self.rest().find([':', '}']).unwrap_or(self.rest().len());
        let text = self.rest()[..end].trim();
        let text = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text).trim();
        self.at += end;
        if text.is_empty() {
            return Ok(0);
        }
        // Bash reads arithmetic there; a key in it, and a number, are what is written.
        let named = text.strip_prefix('$').unwrap_or(text);
        if key_length(named) == named.len()
            && let Found::Value(value) = self.ask(named)
        {
            return value.trim().parse().or_else(|_| self.syntax(start, format!("`{value}` is no whole number")));
        }
        text.parse().or_else(|_| self.syntax(start, format!("`{text}` is no whole number")))
    }

    /// After the dollar, at `(`.
    fn binding(&mut self, start: usize) -> Result<String, Mistake> {
        let Some(end) = self.rest().find(')') else {
            self.at = self.text.len();
            return self.syntax(start, "`$(` without `)`");
        };
        let path = &self.rest()[1..end];
        self.at += end + 1;
        if self.lookup.is_none() {
            return Ok(String::new());
        }
        let Some(payload) = self.rules.payload else {
            return self.syntax(start, "it is of an event's payload, and none is given");
        };
        match find(payload, path) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Null) | None => self.syntax(start, "the payload has no such value"),
            Some(other) => Ok(other.to_string()),
        }
    }
}

/// Whether what stands after `$(` is of a payload, and no command of a shell.
fn is_binding(text: &str) -> bool {
    let root = text.split(['.', '[', ')']).next().unwrap_or_default();
    matches!(root, "body" | "push" | "pull_request" | "csr") && text[root.len()..].starts_with(['.', '[', ')'])
}

/// `body.a["b c"][0]` in `payload`.
fn find<'a>(payload: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = payload;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (word, after) = inside.split_once(']')?;
            let name = word.trim_matches(['\'', '"']);
            value = match word.parse::<usize>() {
                Ok(number) => value.get(number)?,
                Err(_) => value.get(name)?,
            };
            rest = after;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        value = value.get(&rest[..end])?;
        rest = &rest[end..];
    }
    Some(value)
}

fn cut_front(chars: &[char], glob: &Glob, longest: bool) -> String {
    let fronts = glob.fronts(chars);
    let cut = if longest { fronts.last() } else { fronts.first() };
    chars[cut.copied().unwrap_or(0)..].iter().collect()
}

fn cut_end(chars: &[char], glob: &Glob, longest: bool) -> String {
    let matches = |at: &usize| glob.matches(&chars[*at..]);
    let keep = if longest { (0..=chars.len()).find(matches) } else { (0..=chars.len()).rev().find(matches) };
    chars[..keep.unwrap_or(chars.len())].iter().collect()
}

fn letters(chars: &[char], glob: &Glob, up: bool, all: bool) -> String {
    let mut out = String::new();
    for (number, c) in chars.iter().enumerate() {
        let matches = (all || number == 0) && (glob.is_empty() || glob.matches(&[*c]));
        match matches {
            true if up => out.extend(one(c.to_uppercase(), *c)),
            true => out.extend(one(c.to_lowercase(), *c)),
            false => out.push(*c),
        }
    }
    out
}

/// Bash changes a character to a character: `ß` stays.
fn one(mut changed: impl Iterator<Item = char>, kept: char) -> Option<char> {
    match (changed.next(), changed.next()) {
        (Some(c), None) => Some(c),
        _ => Some(kept),
    }
}
