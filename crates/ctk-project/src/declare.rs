//! Declarations of all files: templates used, matrices spread.

use std::collections::BTreeMap;
use std::rc::Rc;

use ctk_plan::Kind;
use ctk_syntax::{Diagnostic, Diagnostics, Node, Prop, Reader, Sources, Value, nearest};

use crate::caches::CacheNode;
use crate::codes;
use crate::limits;
use crate::load::{Unit, is_variable_name};
use crate::scope::{Binding, Scope, World};

/// A resource as declared, nothing expanded yet.
#[derive(Clone)]
pub(crate) struct Decl {
    pub kind: Kind,
    pub unit: usize,
    /// Its own scope, for its arguments.
    pub scope: Rc<Scope>,
    /// `name`, `args` and `span` of it; properties and children are below.
    pub node: Node,
    pub props: Vec<(Rc<Scope>, Prop)>,
    pub parts: Vec<(Rc<Scope>, Node)>,
}

/// A resource with everything expanded but its references.
pub(crate) struct Draft {
    pub kind: Kind,
    pub unit: usize,
    /// Without the prefix.
    pub name: String,
    pub node: Node,
    /// `needs` as written.
    pub needs: Vec<Value>,
    /// Of an image: its caches, or the project's.
    pub caches: Vec<CacheNode>,
}

pub(crate) struct Cx<'a> {
    pub sources: &'a Sources,
    pub world: &'a World<'a>,
    pub units: &'a [Unit],
    pub diagnostics: &'a mut Diagnostics,
}

pub(crate) fn resources(
    sources: &Sources,
    world: &World<'_>,
    units: &[Unit],
    diagnostics: &mut Diagnostics,
) -> Vec<Draft> {
    let mut cx = Cx { sources, world, units, diagnostics };
    let mut decls = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        for node in &unit.nodes {
            cx.collect(number, &unit.scope, node, 0, &mut decls);
        }
    }
    crate::evaluate::drafts(&mut cx, &decls)
}

impl Cx<'_> {
    pub fn fail(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn collect(&mut self, unit: usize, scope: &Rc<Scope>, node: &Node, depth: usize, out: &mut Vec<Decl>) {
        let word = node.name.value.as_str();
        if let Some(kind) = Kind::ALL.into_iter().find(|k| k.word() == word) {
            if out.len() >= limits::RESOURCES {
                let message = format!("the project declares more than {} resources", limits::RESOURCES);
                self.fail(Diagnostic::error(codes::TOO_MANY, message).at(node.name.span, "this is one too many"));
                return;
            }
            out.push(Decl {
                kind,
                unit,
                scope: scope.clone(),
                node: Node { props: Vec::new(), children: Vec::new(), ..node.clone() },
                props: node.props.iter().map(|p| (scope.clone(), p.clone())).collect(),
                parts: node.children.iter().map(|c| (scope.clone(), c.clone())).collect(),
            });
        } else if word == "use" {
            let Some((scope, body)) = self.apply_template(unit, scope, node, depth) else { return };
            for inner in &body {
                self.collect(unit, &scope, inner, depth + 1, out);
            }
        } else if depth > 0 {
            let message = format!("`{word}` cannot stand at the top of a file");
            self.fail(
                Diagnostic::error(ctk_syntax::codes::UNKNOWN_NODE, message)
                    .at(node.name.span, "a template that is used at the top holds resources"),
            );
        }
    }

    /// The scope and the nodes that a `use` stands for.
    pub fn apply_template(
        &mut self,
        unit: usize,
        scope: &Rc<Scope>,
        node: &Node,
        depth: usize,
    ) -> Option<(Rc<Scope>, Vec<Node>)> {
        let mut errors = Vec::new();
        let mut head = self.world.head(self.sources, scope, node, &mut |d| errors.push(d));
        head.children = node.children.clone();
        let failed = !errors.is_empty();
        errors.into_iter().for_each(|d| self.fail(d));
        let mut r = Reader::new(&head, self.diagnostics);
        let name = r.arg_str("the name of a template");
        let given = r.all_props_text();
        r.finish();
        let name = name?;
        if failed {
            return None;
        }
        if depth >= limits::TEMPLATE_DEPTH_LEVELS {
            let message = format!("templates use each other more than {} levels deep", limits::TEMPLATE_DEPTH_LEVELS);
            self.fail(Diagnostic::error(codes::ENDLESS, message).at(name.span, "does it use itself?"));
            return None;
        }
        let units = self.units;
        let (mut at, mut known) = (Some(unit), Vec::new());
        let mut found = None;
        while let Some(number) = at {
            if let Some(nth) = units[number].templates.get(&name.value) {
                found = Some((number, *nth));
                break;
            }
            known.extend(units[number].templates.keys().map(String::as_str));
            at = units[number].parent;
        }
        let Some((home, nth)) = found else {
            known.sort_unstable();
            let otherwise = match known.is_empty() {
                true => "no template is declared".to_string(),
                false => format!("there is {}", known.join(", ")),
            };
            let message = format!("no template `{name}`");
            self.fail(Diagnostic::error(codes::UNKNOWN_TEMPLATE, message).at_or_nearest(
                name.span,
                nearest(&name, known.iter().copied()),
                otherwise,
            ));
            return None;
        };
        let template = &units[home].nodes[nth];
        let mut names: BTreeMap<String, Binding> = BTreeMap::new();
        let mut params: Vec<String> = Vec::new();
        let mut complete = true;
        for param in template.named("param") {
            let base = Scope::within(Some(units[home].scope.clone()), names.clone());
            let mut errors = Vec::new();
            let head = self.world.head(self.sources, &base, param, &mut |d| errors.push(d));
            errors.into_iter().for_each(|d| self.fail(d));
            let mut r = Reader::new(&head, self.diagnostics);
            let default = r.opt_prop_text("default");
            let words = r.args_text_some("a name");
            r.finish();
            for word in words {
                if !is_variable_name(&word) || params.contains(&word.value) {
                    let message = format!("`{word}` cannot be the name of a parameter");
                    self.fail(
                        Diagnostic::error(codes::BAD_NAME, message)
                            .at(word.span, "letters, digits and `_`, each name once"),
                    );
                    complete = false;
                    continue;
                }
                let value = given.iter().find(|(n, _)| n.value == word.value).map(|(_, v)| v.value.clone());
                match value.or_else(|| default.as_ref().map(|d| d.value.clone())) {
                    Some(text) => drop(names.insert(word.value.clone(), Binding::Text(text))),
                    None => {
                        let message = format!("template `{name}` needs `{word}`");
                        self.fail(
                            Diagnostic::error(ctk_syntax::codes::MISSING_PROPERTY, message)
                                .at(node.name.span, format!("add `{word}=…`"))
                                .at(word.span, "declared here"),
                        );
                        complete = false;
                    }
                }
                params.push(word.value);
            }
        }
        for (left, _) in given.iter().filter(|(left, _)| !params.contains(&left.value)) {
            let message = format!("template `{name}` has no parameter `{left}`");
            let otherwise = match params.is_empty() {
                true => "it has none".to_string(),
                false => format!("it has {}", params.join(", ")),
            };
            let near = nearest(left, params.iter().map(String::as_str));
            self.fail(
                Diagnostic::error(ctk_syntax::codes::UNKNOWN_PROPERTY, message)
                    .at_or_nearest(left.span, near, otherwise),
            );
            complete = false;
        }
        let body = template.children.iter().filter(|c| c.name.value != "param").cloned().collect();
        complete.then(|| (Scope::within(Some(units[home].scope.clone()), names), body))
    }
}
