//! The KDL tree as we keep it: owned, with the place of every part.

use crate::expand::{ExpandError, Expanded};
use crate::source::{Span, Spanned};

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Text, quoted or bare.
    String(String),
    /// A whole number.
    Integer(i128),
    /// A number with a point or exponent.
    Float(f64),
    /// `#true` or `#false`.
    Bool(bool),
    /// `#null`.
    Null,
}

/// An argument, or the right side of a property.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What.
    pub data: Data,
    /// Where.
    pub span: Span,
    /// Whether the text still holds a `${…}` that only a later stage can expand (see [`Node::expand`]).
    pub deferred: bool,
}

impl Value {
    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// Text, or a whole number as text.
    pub fn to_text(&self) -> Option<String> {
        match &self.data {
            Data::String(text) => Some(text.clone()),
            Data::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// For messages: `text`, `a number`…
    pub fn type_name(&self) -> &'static str {
        match self.data {
            Data::String(_) => "text",
            Data::Integer(_) => "a whole number",
            Data::Float(_) => "a number with a point",
            Data::Bool(_) => "a truth value",
            Data::Null => "`#null`",
        }
    }

    fn canonical(&self, out: &mut String) {
        match &self.data {
            // `${platform}` left for later is not the text `${platform}`.
            Data::String(text) if self.deferred => {
                out.push_str("(later)");
                quote(text, out);
            }
            Data::String(text) => quote(text, out),
            Data::Integer(number) => out.push_str(&number.to_string()),
            Data::Float(number) => out.push_str(&format!("{number:?}")),
            Data::Bool(true) => out.push_str("#true"),
            Data::Bool(false) => out.push_str("#false"),
            Data::Null => out.push_str("#null"),
        }
    }
}

/// `name=value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prop {
    /// The left side.
    pub name: Spanned<String>,
    /// The right side.
    pub value: Value,
}

/// A node: `name arg arg prop=value { children }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: Spanned<String>,
    /// Values without a name, in order.
    pub args: Vec<Value>,
    /// Values with a name, in order; a name may occur twice (the reader complains).
    pub props: Vec<Prop>,
    /// What stands in its block.
    pub children: Vec<Node>,
    /// The block with its brackets; None when it has none.
    pub block: Option<Span>,
    /// From the name to the last value or bracket.
    pub span: Span,
}

impl Node {
    /// The first property of that name.
    pub fn prop(&self, name: &str) -> Option<&Value> {
        self.props.iter().find(|p| p.name.value == name).map(|p| &p.value)
    }

    /// The text of the first argument.
    pub fn first_str(&self) -> Option<&str> {
        self.args.first().and_then(Value::as_str)
    }

    /// The children of that name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Node> + 'a {
        self.children.iter().filter(move |c| c.name.value == name)
    }

    /// The node on one line, whatever its layout, comments and the order of its properties: equal texts are equal
    /// nodes. Made for fingerprints; it is KDL 2.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut String) {
        word(&self.name, out);
        for value in &self.args {
            out.push(' ');
            value.canonical(out);
        }
        let mut props: Vec<&Prop> = self.props.iter().collect();
        props.sort_by(|a, b| a.name.value.cmp(&b.name.value));
        for prop in props {
            out.push(' ');
            word(&prop.name, out);
            out.push('=');
            prop.value.canonical(out);
        }
        if !self.children.is_empty() {
            out.push('{');
            for (nth, child) in self.children.iter().enumerate() {
                if nth > 0 {
                    out.push(';');
                }
                child.write_canonical(out);
            }
            out.push('}');
        }
    }

    /// A copy in which every text (arguments and values of properties, also of descendants) went through `expand`.
    /// Errors are given to `fail` with the value they are about, and the text stays as it is.
    pub fn expand(
        &self,
        expand: &mut dyn FnMut(&Value, &str) -> Result<Expanded, ExpandError>,
        fail: &mut dyn FnMut(&Value, ExpandError),
    ) -> Node {
        let mut one = |value: &Value| -> Value {
            let Data::String(text) = &value.data else { return value.clone() };
            match expand(value, text) {
                Ok(Expanded { text, deferred }) => Value { data: Data::String(text), span: value.span, deferred },
                Err(error) => {
                    fail(value, error);
                    value.clone()
                }
            }
        };
        let args = self.args.iter().map(&mut one).collect();
        let props = self.props.iter().map(|p| Prop { name: p.name.clone(), value: one(&p.value) }).collect();
        let children = self.children.iter().map(|c| c.expand(expand, fail)).collect();
        Node { name: self.name.clone(), args, props, children, block: self.block, span: self.span }
    }
}

fn word(text: &str, out: &mut String) {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !matches!(text, "true" | "false" | "null" | "inf" | "nan");
    if plain { out.push_str(text) } else { quote(text, out) }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200e}' | '\u{200f}'
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push_str(&format!("\\u{{{:x}}}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
