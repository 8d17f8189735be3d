//! A cursor over one node: asks for what it should hold, and complains well about everything else.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::codes;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::nearest::nearest;
use crate::node::{Data, Node, Value};
use crate::quantity::{parse_duration, parse_size};
use crate::source::{Span, Spanned};

/// Reads one node. Ask for arguments in their order, for properties and children by name, then call
/// [`Reader::finish`]: whatever nobody asked for is reported, with the nearest name that was asked for.
///
/// Methods that give None have already reported why, except those that begin with `opt_`, which are also None when
/// the thing is absent.
pub struct Reader<'n, 'd> {
    node: &'n Node,
    diagnostics: &'d mut Diagnostics,
    next_arg: usize,
    asked_props: Vec<String>,
    any_prop: bool,
    asked_children: Vec<String>,
    /// Children are read by the caller, or may not exist.
    children: Children,
}

#[derive(PartialEq)]
enum Children {
    None,
    Named,
    All,
}

impl<'n, 'd> Reader<'n, 'd> {
    /// A cursor at the start of `node` that reports to `diagnostics`.
    pub fn new(node: &'n Node, diagnostics: &'d mut Diagnostics) -> Reader<'n, 'd> {
        for (nth, prop) in node.props.iter().enumerate() {
            if let Some(first) = node.props[..nth].iter().find(|p| p.name.value == prop.name.value) {
                let message = format!("property `{}` is given twice on `{}`", prop.name, node.name);
                diagnostics.push(
                    Diagnostic::error(codes::DUPLICATE_PROPERTY, message)
                        .at(prop.name.span, "again here")
                        .at(first.name.span, "first here"),
                );
            }
        }
        Reader {
            node,
            diagnostics,
            next_arg: 0,
            asked_props: Vec::new(),
            any_prop: false,
            asked_children: Vec::new(),
            children: Children::None,
        }
    }

    /// The node it reads.
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// The place of the node's name.
    pub fn span(&self) -> Span {
        self.node.name.span
    }

    /// A cursor over a child (or any other node) that reports to the same place.
    pub fn child<'c>(&mut self, node: &'c Node) -> Reader<'c, '_> {
        Reader::new(node, self.diagnostics)
    }

    /// Where it reports to.
    pub fn diagnostics(&mut self) -> &mut Diagnostics {
        self.diagnostics
    }

    /// Reports an error.
    pub fn error(&mut self, code: &'static str, at: Span, message: impl Into<String>, label: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(code, message).at(at, label));
    }

    // Arguments.

    /// The next argument, whatever it is.
    pub fn opt_arg(&mut self) -> Option<&'n Value> {
        let value = self.node.args.get(self.next_arg)?;
        self.next_arg += 1;
        Some(value)
    }

    /// The next argument; `what` names it in the complaint.
    pub fn arg(&mut self, what: &str) -> Option<&'n Value> {
        let found = self.opt_arg();
        if found.is_none() {
            let message = format!("`{}` needs {what}", self.node.name);
            let place = self.node.args.last().map_or(self.node.name.span, |v| v.span);
            self.error(codes::MISSING_ARGUMENT, place, message, format!("{what} is missing after this"));
        }
        found
    }

    /// The next argument as text.
    pub fn arg_str(&mut self, what: &str) -> Option<Spanned<String>> {
        let value = self.arg(what)?;
        self.text(value, what)
    }

    /// The next argument as text, if there is one.
    pub fn opt_arg_str(&mut self, what: &str) -> Option<Spanned<String>> {
        let value = self.opt_arg()?;
        self.text(value, what)
    }

    /// The next argument as text; a whole number is text too (`expose 8080`).
    pub fn arg_text(&mut self, what: &str) -> Option<Spanned<String>> {
        let value = self.arg(what)?;
        self.scalar(value, what)
    }

    /// The next argument as a whole number in `range`.
    pub fn arg_int(&mut self, what: &str, range: RangeInclusive<i128>) -> Option<Spanned<i128>> {
        let value = self.arg(what)?;
        self.int(value, what, range)
    }

    /// The next argument as a truth value; absent means `#true`: `prune` and `prune #true` are the same.
    pub fn arg_flag(&mut self, what: &str) -> bool {
        match self.opt_arg() {
            None => true,
            Some(value) => self.bool(value, what).is_some_and(|b| b.value),
        }
    }

    /// The next argument as a duration such as `10s`.
    pub fn arg_duration(&mut self, what: &str) -> Option<Spanned<Duration>> {
        let value = self.arg(what)?;
        self.duration(value, what)
    }

    /// The next argument as a size in bytes such as `80MiB`.
    pub fn arg_size(&mut self, what: &str) -> Option<Spanned<u64>> {
        let value = self.arg(what)?;
        self.size(value, what)
    }

    /// The next argument as one of `allowed`.
    pub fn arg_one_of<T: Clone>(&mut self, what: &str, allowed: &[(&str, T)]) -> Option<Spanned<T>> {
        let value = self.arg(what)?;
        self.one_of(value, what, allowed)
    }

    /// The other arguments as texts (whole numbers too); may be none.
    pub fn args_text(&mut self, what: &str) -> Vec<Spanned<String>> {
        let mut out = Vec::new();
        while let Some(value) = self.opt_arg() {
            out.extend(self.scalar(value, what));
        }
        out
    }

    /// The other arguments as texts (whole numbers too); at least one.
    pub fn args_text_some(&mut self, what: &str) -> Vec<Spanned<String>> {
        match self.arg_text(what) {
            Some(first) => std::iter::once(first).chain(self.args_text(what)).collect(),
            None => Vec::new(),
        }
    }

    // Properties.

    /// A property, whatever it is.
    pub fn opt_prop(&mut self, name: &str) -> Option<&'n Value> {
        if !self.asked_props.iter().any(|n| n == name) {
            self.asked_props.push(name.to_string());
        }
        self.node.prop(name)
    }

    /// A property that must be there.
    pub fn prop(&mut self, name: &str) -> Option<&'n Value> {
        let found = self.opt_prop(name);
        if found.is_none() {
            let message = format!("`{}` needs the property `{name}`", self.node.name);
            self.error(codes::MISSING_PROPERTY, self.node.name.span, message, format!("add `{name}=…`"));
        }
        found
    }

    /// A property that must be there, as text.
    pub fn prop_str(&mut self, name: &str) -> Option<Spanned<String>> {
        let value = self.prop(name)?;
        self.text(value, &format!("`{name}`"))
    }

    /// A property as text, if there.
    pub fn opt_prop_str(&mut self, name: &str) -> Option<Spanned<String>> {
        let value = self.opt_prop(name)?;
        self.text(value, &format!("`{name}`"))
    }

    /// A property as text or whole number, if there.
    pub fn opt_prop_text(&mut self, name: &str) -> Option<Spanned<String>> {
        let value = self.opt_prop(name)?;
        self.scalar(value, &format!("`{name}`"))
    }

    /// A property as a truth value, if there.
    pub fn opt_prop_bool(&mut self, name: &str) -> Option<Spanned<bool>> {
        let value = self.opt_prop(name)?;
        self.bool(value, &format!("`{name}`"))
    }

    /// A property as a whole number in `range`, if there.
    pub fn opt_prop_int(&mut self, name: &str, range: RangeInclusive<i128>) -> Option<Spanned<i128>> {
        let value = self.opt_prop(name)?;
        self.int(value, &format!("`{name}`"), range)
    }

    /// A property as a duration such as `10s`, if there.
    pub fn opt_prop_duration(&mut self, name: &str) -> Option<Spanned<Duration>> {
        let value = self.opt_prop(name)?;
        self.duration(value, &format!("`{name}`"))
    }

    /// A property as a size in bytes such as `80MiB`, if there.
    pub fn opt_prop_size(&mut self, name: &str) -> Option<Spanned<u64>> {
        let value = self.opt_prop(name)?;
        self.size(value, &format!("`{name}`"))
    }

    /// A property as one of `allowed`, if there.
    pub fn opt_prop_one_of<T: Clone>(&mut self, name: &str, allowed: &[(&str, T)]) -> Option<Spanned<T>> {
        let value = self.opt_prop(name)?;
        self.one_of(value, &format!("`{name}`"), allowed)
    }

    /// Every property as texts, whatever their names (`env A="1" B="2"`).
    pub fn all_props_text(&mut self) -> Vec<(Spanned<String>, Spanned<String>)> {
        self.any_prop = true;
        let mut out = Vec::new();
        for prop in &self.node.props {
            if let Some(text) = self.scalar(&prop.value, &format!("`{}`", prop.name)) {
                out.push((prop.name.clone(), text));
            }
        }
        out
    }

    // Children.

    /// All children; the caller reads (and complains about) each.
    pub fn children(&mut self) -> &'n [Node] {
        self.children = Children::All;
        &self.node.children
    }

    /// The child of that name; a second one is reported.
    pub fn opt_child(&mut self, name: &str) -> Option<&'n Node> {
        let mut all = self.every(name).into_iter();
        let first = all.next()?;
        for again in all {
            let message = format!("`{name}` is given twice inside `{}`", self.node.name);
            self.diagnostics.push(
                Diagnostic::error(codes::DUPLICATE_NODE, message)
                    .at(again.name.span, "again here")
                    .at(first.name.span, "first here"),
            );
        }
        Some(first)
    }

    /// The child of that name, which must be there.
    pub fn required_child(&mut self, name: &str) -> Option<&'n Node> {
        let found = self.opt_child(name);
        if found.is_none() {
            let message = format!("`{}` needs a `{name}` inside", self.node.name);
            self.error(codes::MISSING_NODE, self.node.name.span, message, format!("add `{name}` to its block"));
        }
        found
    }

    /// Every child of that name, in order.
    pub fn every(&mut self, name: &str) -> Vec<&'n Node> {
        if self.children == Children::None {
            self.children = Children::Named;
        }
        self.asked_children.push(name.to_string());
        self.node.children.iter().filter(|c| c.name.value == name).collect()
    }

    /// Reports a child that is not known here.
    pub fn unknown_child<'a>(&mut self, child: &Node, known: impl IntoIterator<Item = &'a str>) {
        let known: Vec<&str> = known.into_iter().collect();
        unknown_node(self.diagnostics, child, Some(&self.node.name), &known);
    }

    /// Reports everything that nobody asked for.
    pub fn finish(mut self) {
        let name = &self.node.name;
        if let Some(extra) = self.node.args.get(self.next_arg) {
            let message = match self.next_arg {
                0 => format!("`{name}` takes no argument"),
                1 => format!("`{name}` takes one argument"),
                n => format!("`{name}` takes {n} arguments"),
            };
            self.error(codes::UNEXPECTED_ARGUMENT, extra.span, message, "one too many");
        }
        if !self.any_prop {
            for prop in &self.node.props {
                if self.asked_props.contains(&prop.name.value) {
                    continue;
                }
                let known: Vec<&str> = self.asked_props.iter().map(String::as_str).collect();
                let near = nearest(&prop.name, known.iter().copied());
                let message = format!("no property `{}` on `{name}`", prop.name);
                let otherwise = match known.is_empty() {
                    true => format!("`{name}` has no properties"),
                    false => format!("expected one of {}", listed(&known)),
                };
                self.diagnostics.push(Diagnostic::error(codes::UNKNOWN_PROPERTY, message).at_or_nearest(
                    prop.name.span,
                    near,
                    otherwise,
                ));
            }
        }
        match self.children {
            Children::All => {}
            Children::None => {
                if let (Some(block), false) = (self.node.block, self.node.children.is_empty()) {
                    let message = format!("`{name}` takes no block");
                    self.error(codes::UNEXPECTED_BLOCK, block, message, "take this away");
                }
            }
            Children::Named => {
                let known: Vec<&str> = self.asked_children.iter().map(String::as_str).collect();
                for child in &self.node.children {
                    if !known.contains(&child.name.value.as_str()) {
                        unknown_node(self.diagnostics, child, Some(name), &known);
                    }
                }
            }
        }
    }

    // Values.

    fn wrong_type(&mut self, value: &Value, what: &str, expected: &str) -> Diagnostic {
        let message = format!("{what} of `{}` must be {expected}", self.node.name);
        Diagnostic::error(codes::WRONG_TYPE, message).at(value.span, format!("this is {}", value.type_name()))
    }

    /// A value as text.
    pub fn text(&mut self, value: &'n Value, what: &str) -> Option<Spanned<String>> {
        match &value.data {
            Data::String(text) => Some(Spanned::new(text.clone(), value.span)),
            _ => {
                let diagnostic = self.wrong_type(value, what, "text").hint("put it between quotes");
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    /// A value as text or whole number.
    pub fn scalar(&mut self, value: &'n Value, what: &str) -> Option<Spanned<String>> {
        match value.to_text() {
            Some(text) => Some(Spanned::new(text, value.span)),
            None => self.text(value, what),
        }
    }

    /// A value as a truth value.
    pub fn bool(&mut self, value: &'n Value, what: &str) -> Option<Spanned<bool>> {
        match value.data {
            Data::Bool(truth) => Some(Spanned::new(truth, value.span)),
            _ => {
                let diagnostic = self.wrong_type(value, what, "`#true` or `#false`");
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    /// A value as a whole number in `range`; text of digits counts, so that `${…}` can give numbers.
    pub fn int(&mut self, value: &'n Value, what: &str, range: RangeInclusive<i128>) -> Option<Spanned<i128>> {
        let number = match &value.data {
            Data::Integer(number) => Some(*number),
            Data::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            let diagnostic = self.wrong_type(value, what, "a whole number");
            self.diagnostics.push(diagnostic);
            return None;
        };
        if !range.contains(&number) {
            let message = format!("{what} of `{}` is out of range", self.node.name);
            let label = match (*range.start(), *range.end()) {
                (low, i128::MAX) => format!("must be at least {low}"),
                (low, high) => format!("must be from {low} to {high}"),
            };
            self.error(codes::OUT_OF_RANGE, value.span, message, label);
            return None;
        }
        Some(Spanned::new(number, value.span))
    }

    /// A value as a duration.
    pub fn duration(&mut self, value: &'n Value, what: &str) -> Option<Spanned<Duration>> {
        let text = self.scalar(value, what)?;
        let found = parse_duration(&text);
        if found.is_none() {
            let message = format!("`{text}` is no duration");
            self.error(codes::BAD_VALUE, value.span, message, "expected e.g. `250ms`, `10s`, `5m`, `1h30m`");
        }
        found.map(|d| Spanned::new(d, value.span))
    }

    /// A value as a size in bytes.
    pub fn size(&mut self, value: &'n Value, what: &str) -> Option<Spanned<u64>> {
        let text = self.scalar(value, what)?;
        let found = parse_size(&text);
        if found.is_none() {
            let message = format!("`{text}` is no size");
            self.error(codes::BAD_VALUE, value.span, message, "expected e.g. `512`, `64KiB`, `80MiB`, `1GB`");
        }
        found.map(|n| Spanned::new(n, value.span))
    }

    /// A value as one of `allowed`.
    pub fn one_of<T: Clone>(&mut self, value: &'n Value, what: &str, allowed: &[(&str, T)]) -> Option<Spanned<T>> {
        let text = self.scalar(value, what)?;
        if let Some((_, found)) = allowed.iter().find(|(word, _)| *word == text.value) {
            return Some(Spanned::new(found.clone(), value.span));
        }
        let words: Vec<&str> = allowed.iter().map(|(word, _)| *word).collect();
        let near = nearest(&text, words.iter().copied());
        let message = format!("{what} of `{}` cannot be `{text}`", self.node.name);
        let diagnostic = Diagnostic::error(codes::BAD_VALUE, message).at_or_nearest(
            value.span,
            near,
            format!("expected one of {}", listed(&words)),
        );
        self.diagnostics.push(diagnostic);
        None
    }
}

/// Reports a node that is not known inside `parent` (None: at the top of the file).
pub(crate) fn unknown_node(diagnostics: &mut Diagnostics, child: &Node, parent: Option<&str>, known: &[&str]) {
    let message = match parent {
        Some(parent) => format!("no node `{}` inside `{parent}`", child.name),
        None => format!("no node `{}` at the top of a file", child.name),
    };
    let near = nearest(&child.name, known.iter().copied());
    let otherwise = match known.is_empty() {
        true => "nothing can stand here".to_string(),
        false => format!("expected one of {}", listed(known)),
    };
    diagnostics.push(Diagnostic::error(codes::UNKNOWN_NODE, message).at_or_nearest(child.name.span, near, otherwise));
}

impl Diagnostics {
    /// Reports a node that is not known inside `parent` (None: at the top of the file), with the nearest of `known`.
    pub fn unknown_node(&mut self, child: &Node, parent: Option<&str>, known: &[&str]) {
        unknown_node(self, child, parent, known);
    }
}

/// `` `a`, `b` ``; a long list is cut.
fn listed(words: &[&str]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for word in words {
        if !seen.contains(word) {
            seen.push(word);
        }
    }
    let shown: Vec<String> = seen.iter().take(12).map(|w| format!("`{w}`")).collect();
    let more = if seen.len() > 12 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
