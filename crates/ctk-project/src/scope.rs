//! What names stand for at a place of the file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ctk_oci::Platform;
use ctk_syntax::{
    Data, Diagnostic, ExpandError, ExpandErrorKind, Expanded, Found, Node, Prop, Sources, Span, Value,
    codes as syntax_codes, expand, nearest,
};

use crate::codes;
use crate::files::Inputs;

const GIT: [&str; 5] = ["git.sha", "git.short", "git.branch", "git.tag", "git.dirty"];
const PLATFORM: [&str; 4] = ["platform", "platform.os", "platform.arch", "platform.variant"];

#[derive(Clone, Debug)]
pub(crate) enum Binding {
    Text(String),
    /// Declared, but without a value; says why.
    Missing(String),
}

/// Names bound at a place, and the place around it.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    parent: Option<Rc<Scope>>,
    names: BTreeMap<String, Binding>,
}

impl Scope {
    pub fn within(parent: Option<Rc<Scope>>, names: BTreeMap<String, Binding>) -> Rc<Scope> {
        Rc::new(Scope { parent, names })
    }

    /// The same scope where `names` are known as well, unless it knows them itself.
    pub fn beside(&self, names: &BTreeMap<String, Binding>) -> Rc<Scope> {
        let mut all = names.clone();
        all.extend(self.names.clone());
        Rc::new(Scope { parent: self.parent.clone(), names: all })
    }

    fn find(&self, name: &str) -> Option<&Binding> {
        self.names.get(name).or_else(|| self.parent.as_ref().and_then(|p| p.find(name)))
    }

    fn all_names(&self, out: &mut Vec<String>) {
        out.extend(self.names.keys().cloned());
        if let Some(parent) = &self.parent {
            parent.all_names(out);
        }
    }
}

/// What every scope knows.
pub(crate) struct World<'a> {
    pub inputs: &'a Inputs<'a>,
    pub project: String,
    git: RefCell<BTreeMap<String, Result<String, String>>>,
}

impl<'a> World<'a> {
    pub fn new(inputs: &'a Inputs<'a>, project: String) -> World<'a> {
        World { inputs, project, git: RefCell::default() }
    }

    fn lookup(&self, scope: &Scope, name: &str) -> Found {
        if let Some(binding) = scope.find(name) {
            return match binding {
                Binding::Text(text) => Found::Value(text.clone()),
                Binding::Missing(reason) => Found::Failed(reason.clone()),
            };
        }
        if PLATFORM.contains(&name) {
            return Found::Later;
        }
        if name == "project" {
            return Found::Value(self.project.clone());
        }
        if GIT.contains(&name) {
            let mut git = self.git.borrow_mut();
            let answer = git.entry(name.to_string()).or_insert_with(|| (self.inputs.git)(&name["git.".len()..]));
            return match answer {
                Ok(text) => Found::Value(text.clone()),
                Err(reason) => Found::Failed(reason.clone()),
            };
        }
        Found::Undefined
    }

    /// The text expanded.
    pub fn expand(&self, scope: &Scope, text: &str) -> Result<Expanded, ExpandError> {
        expand(text, &mut |name| self.lookup(scope, name))
    }

    /// The value expanded; on an error the value as it was and the diagnostic.
    pub fn value(&self, sources: &Sources, scope: &Scope, value: &Value) -> (Value, Option<Diagnostic>) {
        let Data::String(text) = &value.data else { return (value.clone(), None) };
        if !text.contains('$') {
            return (value.clone(), None);
        }
        match self.expand(scope, text) {
            Ok(Expanded { text, deferred }) => (Value { data: Data::String(text), span: value.span, deferred }, None),
            Err(error) => (value.clone(), Some(self.explain(sources, scope, text, value.span, error))),
        }
    }

    fn explain(&self, sources: &Sources, scope: &Scope, text: &str, span: Span, error: ExpandError) -> Diagnostic {
        // Inside the text's own spelling, when the spelling is the text (no escapes before it).
        let place = match sources.slice(span).find(text) {
            Some(offset) if !text.is_empty() => {
                Span::new(span.source, span.start + offset + error.at.start, span.start + offset + error.at.end)
            }
            _ => span,
        };
        let message = error.to_string();
        match &error.kind {
            ExpandErrorKind::Undefined(name) => {
                let mut known: Vec<String> = Vec::new();
                scope.all_names(&mut known);
                known.extend(GIT.iter().chain(&PLATFORM).chain(&["project"]).map(|n| n.to_string()));
                let near = nearest(name, known.iter().map(String::as_str));
                let shell = near.is_none();
                let diagnostic = Diagnostic::error(syntax_codes::UNDEFINED_NAME, message).at_or_nearest(
                    place,
                    near,
                    "nothing has this name here",
                );
                match shell {
                    true => diagnostic.hint(format!(
                        "declare it with `var \"{name}\"`; for a variable of the shell write `$${{{name}}}`"
                    )),
                    false => diagnostic,
                }
            }
            ExpandErrorKind::Required { .. } => Diagnostic::error(syntax_codes::REQUIRED_NAME, message).at(place, ""),
            ExpandErrorKind::Failed { .. } => {
                Diagnostic::error(codes::MISSING_VARIABLE, message).at(place, "used here")
            }
            _ => Diagnostic::error(syntax_codes::BAD_EXPANSION, message)
                .at(place, "")
                .hint("for a dollar that means nothing write `$$`"),
        }
    }

    /// Arguments and properties of a node expanded; children left out.
    pub fn head(&self, sources: &Sources, scope: &Scope, node: &Node, fail: &mut dyn FnMut(Diagnostic)) -> Node {
        let mut one = |value: &Value| {
            let (value, error) = self.value(sources, scope, value);
            if let Some(error) = error {
                fail(error);
            }
            value
        };
        Node {
            name: node.name.clone(),
            args: node.args.iter().map(&mut one).collect(),
            props: node.props.iter().map(|p| Prop { name: p.name.clone(), value: one(&p.value) }).collect(),
            children: Vec::new(),
            block: node.block,
            span: node.span,
        }
    }
}

/// The texts that were left for later, for one platform.
pub(crate) fn expand_platform(node: &Node, platform: &Platform) -> Node {
    let mut one = |value: &Value, text: &str| {
        if !value.deferred {
            return Ok(Expanded { text: text.to_string(), deferred: false });
        }
        expand(text, &mut |name| match name {
            "platform" => Found::Value(platform.to_string()),
            "platform.os" => Found::Value(platform.os.clone()),
            "platform.arch" => Found::Value(platform.architecture.clone()),
            "platform.variant" => Found::Value(platform.variant.clone().unwrap_or_default()),
            _ => Found::Undefined,
        })
    };
    node.expand(&mut one, &mut |_, _| {})
}
