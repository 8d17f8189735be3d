//! Files, includes and the order of everything.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use ctk_oci::Platform;
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Sources, Spanned, parse_kdl};

use crate::caches::{CACHE_NODES, is_cache};
use crate::codes;
use crate::declare;
use crate::files::{Files, Inputs};
use crate::infer;
use crate::limits;
use crate::model::Project;
use crate::scope::{Binding, Scope, World};

/// Nodes that may stand at the top of a file.
pub(crate) const TOP: &[&str] = &[
    "project", "include", "var", "template", "use", "group", "image", "test", "push", "service", "registry", "pipeline",
];

/// One file.
pub(crate) struct Unit {
    pub nodes: Vec<Node>,
    /// Its folder, relative to the project's; empty at the top.
    pub directory: String,
    /// The file that included it.
    pub parent: Option<usize>,
    /// Its variables within those of the file that included it.
    pub scope: Rc<Scope>,
    /// Its templates: where each node is.
    pub templates: HashMap<String, usize>,
}

/// The project that a file and its includes declare, and every mistake in them, in the order of the files.
///
/// `path` is the file's name relative to the project's folder (`containers.kdl`), `text` its content. The project is
/// what could be understood; use it only when no diagnostic is an error. Nothing is looked up besides what `files`
/// and `inputs` answer. In an included file the names of resources get its folder as prefix (`services/cart:api`),
/// its own references find its own resources first, and of its `project` node only `include` counts, so that it can
/// also stand alone.
pub fn parse(
    sources: &mut Sources,
    path: &str,
    text: impl Into<String>,
    files: &dyn Files,
    inputs: &Inputs<'_>,
) -> (Project, Diagnostics) {
    let mut loader = Loader {
        sources,
        files,
        inputs,
        diagnostics: Diagnostics::new(),
        units: Vec::new(),
        read: Vec::new(),
        seen_vars: Vec::new(),
        broken: false,
    };
    let mut project = Project::new(inputs.default_name.clone());
    loader.file(path, text.into(), None, &mut project);
    let Loader { mut diagnostics, units, read, seen_vars, broken, .. } = loader;
    for name in inputs.vars.keys().filter(|name| !broken && !seen_vars.contains(name)) {
        let near = ctk_syntax::nearest(name, seen_vars.iter().map(String::as_str));
        let mut diagnostic = Diagnostic::error(codes::UNKNOWN_VARIABLE, format!("no variable `{name}` is declared"));
        if let Some(near) = near {
            diagnostic = diagnostic.hint(format!("did you mean `--var {near}=…`?"));
        }
        diagnostics.push(diagnostic);
    }
    project.files = read;
    let world = World::new(inputs, project.name.clone());
    settings(sources, &world, &units, &mut project, &mut diagnostics);
    let drafts = declare::resources(sources, &world, &units, &mut diagnostics);
    infer::connect(sources, &world, &units, drafts, &mut project, &mut diagnostics);
    if broken {
        // What is unknown may stand in the file that could not be read.
        diagnostics.retain(|d| d.code != codes::UNKNOWN_RESOURCE && d.code != codes::UNKNOWN_TEMPLATE);
    }
    diagnostics.sort();
    (project, diagnostics)
}

struct Loader<'a> {
    sources: &'a mut Sources,
    files: &'a dyn Files,
    inputs: &'a Inputs<'a>,
    diagnostics: Diagnostics,
    units: Vec<Unit>,
    read: Vec<String>,
    seen_vars: Vec<String>,
    /// A file could not be read: what it declares is not known.
    broken: bool,
}

impl Loader<'_> {
    fn file(&mut self, path: &str, text: String, parent: Option<usize>, project: &mut Project) {
        self.read.push(path.to_string());
        let id = self.sources.add(path, text);
        let nodes = match parse_kdl(self.sources, id) {
            Ok(nodes) => nodes,
            Err(found) => {
                self.diagnostics.extend(found);
                self.broken = true;
                return;
            }
        };
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_string();
        if parent.is_none() {
            self.name(&nodes, project);
        }
        let scope = self.variables(&nodes, parent, project);
        let mut templates: HashMap<String, usize> = HashMap::new();
        for (nth, node) in nodes.iter().enumerate() {
            match node.name.value.as_str() {
                "template" => {
                    let mut r = Reader::new(node, &mut self.diagnostics);
                    let name = r.arg_str("a name");
                    r.children();
                    r.finish();
                    let Some(name) = name else { continue };
                    if let Some(first) = templates.get(&name.value) {
                        let message = format!("template `{name}` is declared twice");
                        self.diagnostics.push(
                            Diagnostic::error(codes::DUPLICATE_NAME, message)
                                .at(name.span, "again here")
                                .at(nodes[*first].name.span, "first here"),
                        );
                        continue;
                    }
                    templates.insert(name.value, nth);
                }
                known if TOP.contains(&known) => {}
                later @ "deploy" => self.diagnostics.push(
                    Diagnostic::error(
                        ctk_syntax::codes::UNKNOWN_NODE,
                        format!("`{later}` is not known to this version"),
                    )
                    .at(node.name.span, "take this away for now"),
                ),
                _ => self.diagnostics.unknown_node(node, None, TOP),
            }
        }
        let includes: Vec<Spanned<String>> = self.includes(&nodes, parent.is_none());
        self.units.push(Unit { nodes, directory: directory.clone(), parent, scope, templates });
        let this = self.units.len() - 1;
        for include in includes {
            self.include(&include, &directory, this, project);
        }
    }

    fn name(&mut self, nodes: &[Node], project: &mut Project) {
        let mut first: Option<&Node> = None;
        for node in nodes.iter().filter(|n| n.name.value == "project") {
            match first {
                None => {
                    first = Some(node);
                    if let Some(name) = node.first_str() {
                        project.name = name.to_string();
                    }
                }
                Some(first) => self.diagnostics.push(
                    Diagnostic::error(ctk_syntax::codes::DUPLICATE_NODE, "`project` is given twice")
                        .at(node.name.span, "again here")
                        .at(first.name.span, "first here"),
                ),
            }
        }
    }

    /// Patterns of the `include` nodes, at the top or inside `project`.
    fn includes(&mut self, nodes: &[Node], root: bool) -> Vec<Spanned<String>> {
        let mut out = Vec::new();
        for node in nodes {
            match node.name.value.as_str() {
                "include" => {
                    let mut r = Reader::new(node, &mut self.diagnostics);
                    out.extend(r.args_text_some("a path or pattern"));
                    r.finish();
                }
                "project" => {
                    let mut r = Reader::new(node, &mut self.diagnostics);
                    r.opt_arg_str("a name");
                    for include in r.every("include") {
                        let mut i = r.child(include);
                        out.extend(i.args_text_some("a path or pattern"));
                        i.finish();
                    }
                    r.opt_child("platforms");
                    r.opt_child("registry");
                    // Read for each image.
                    CACHE_NODES.iter().for_each(|name| drop(r.every(name)));
                    // Of an included file's `project` the rest is for when it stands alone.
                    if root {
                        r.finish();
                    }
                }
                _ => {}
            }
        }
        out
    }

    fn include(&mut self, pattern: &Spanned<String>, directory: &str, parent: usize, project: &mut Project) {
        let Some(path) = joined(directory, pattern) else {
            let message = format!("`{pattern}` leads out of the project's folder");
            self.diagnostics.push(
                Diagnostic::error(codes::UNREADABLE_INCLUDE, message)
                    .at(pattern.span, "includes stay below the project's own file"),
            );
            return;
        };
        let fail = |this: &mut Self, path: &str, error: std::io::Error| {
            let message = format!("`{path}` cannot be read");
            this.broken = true;
            this.diagnostics
                .push(Diagnostic::error(codes::UNREADABLE_INCLUDE, message).at(pattern.span, error.to_string()));
        };
        let paths = match path.contains(['*', '?', '[']) {
            false => vec![path.clone()],
            true => match self.files.glob(&path) {
                Ok(paths) => paths,
                Err(error) => return fail(self, &path, error),
            },
        };
        if paths.is_empty() {
            self.diagnostics.push(
                Diagnostic::warning(codes::EMPTY_INCLUDE, format!("`{pattern}` matches no file"))
                    .at(pattern.span, "nothing is included"),
            );
        }
        for path in paths {
            if self.read.contains(&path) {
                continue;
            }
            if self.read.len() >= limits::FILES {
                let message = format!("the project has more than {} files", limits::FILES);
                self.diagnostics.push(Diagnostic::error(codes::TOO_MANY, message).at(pattern.span, "by this"));
                return;
            }
            match self.files.read(&path) {
                Ok(text) => self.file(&path, text, Some(parent), project),
                Err(error) => fail(self, &path, error),
            }
        }
    }

    /// The scope of a file: its `var` nodes, each of which may use those before it.
    fn variables(&mut self, nodes: &[Node], parent: Option<usize>, project: &Project) -> Rc<Scope> {
        let outer = parent.map(|n| self.units[n].scope.clone());
        let world = World::new(self.inputs, project.name.clone());
        let mut names: BTreeMap<String, Binding> = BTreeMap::new();
        let mut places = HashMap::new();
        for node in nodes.iter().filter(|n| n.name.value == "var") {
            let scope = Scope::within(outer.clone(), names.clone());
            let head = {
                let mut head = world.head(self.sources, &scope, node, &mut |d| self.diagnostics.push(d));
                head.children = node.children.clone();
                head
            };
            let mut r = Reader::new(&head, &mut self.diagnostics);
            let name = r.arg_str("a name");
            let default = r.opt_prop_text("default");
            let env = r.opt_prop_str("env");
            // A pattern is no place for `${…}`.
            let matches = node.prop("matches").and_then(|raw| r.opt_prop("matches").and(r.text(raw, "`matches`")));
            r.opt_prop("description");
            let mut allow = Vec::new();
            for child in r.every("allow") {
                let mut c = r.child(child);
                allow.extend(c.args_text_some("the values that are allowed"));
                c.finish();
            }
            r.finish();
            let Some(name) = name else { continue };
            if !is_variable_name(&name) {
                self.diagnostics.push(
                    Diagnostic::error(codes::BAD_NAME, format!("`{name}` cannot be the name of a variable"))
                        .at(name.span, "letters, digits and `_`, not beginning with a digit"),
                );
                continue;
            }
            if let Some(first) = places.insert(name.value.clone(), name.span) {
                let message = format!("variable `{name}` is declared twice");
                self.diagnostics.push(
                    Diagnostic::error(codes::DUPLICATE_NAME, message)
                        .at(name.span, "again here")
                        .at(first, "first here"),
                );
                continue;
            }
            self.seen_vars.push(name.value.clone());
            let given = self.inputs.vars.get(&name.value).map(|v| (v.clone(), format!("by `--var {name}=…`")));
            let from_env = || {
                let env = env.as_ref()?;
                Some(((self.inputs.env)(&env.value)?, format!("by the environment variable `{env}`")))
            };
            let value = given.or_else(from_env);
            let value = value.or_else(|| Some((default.as_ref()?.value.clone(), "by default".to_string())));
            let binding = match value {
                Some((text, how)) => {
                    let place =
                        if how == "by default" { default.as_ref().map_or(name.span, |d| d.span) } else { name.span };
                    self.check_value(&name, &text, &how, place, &allow, matches.as_ref());
                    Binding::Text(text)
                }
                None => {
                    let by_env = env.map(|e| format!(" or set {e} in the environment")).unwrap_or_default();
                    Binding::Missing(format!("give it by `--var {name}=…`{by_env}"))
                }
            };
            names.insert(name.value, binding);
        }
        Scope::within(outer, names)
    }

    fn check_value(
        &mut self,
        name: &str,
        text: &str,
        how: &str,
        place: ctk_syntax::Span,
        allow: &[Spanned<String>],
        matches: Option<&Spanned<String>>,
    ) {
        if !allow.is_empty() && !allow.iter().any(|a| a.value == text) {
            let words: Vec<&str> = allow.iter().map(|a| a.value.as_str()).collect();
            let near = ctk_syntax::nearest(text, words.iter().copied());
            let otherwise = format!("expected one of `{}`", words.join("`, `"));
            self.diagnostics.push(
                Diagnostic::error(codes::BAD_VARIABLE, format!("`{name}` is `{text}` {how}"))
                    .at_or_nearest(place, near, otherwise),
            );
        }
        let Some(pattern) = matches else { return };
        match regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() {
            Ok(regex) if regex.is_match(text) => {}
            Ok(_) => self.diagnostics.push(
                Diagnostic::error(codes::BAD_VARIABLE, format!("`{name}` is `{text}` {how}"))
                    .at(pattern.span, "which does not match this"),
            ),
            Err(error) => {
                let reason = error.to_string();
                let last = reason.lines().last().unwrap_or("").trim_start_matches("error: ");
                self.diagnostics.push(
                    Diagnostic::error(codes::BAD_PATTERN, "this regular expression cannot be read")
                        .at(pattern.span, last),
                );
            }
        }
    }
}

/// `${matrix.x}` and parameters follow the same rule.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(name, "project" | "image" | "platform" | "git" | "matrix")
}

/// `path` seen from `directory`, without `.` and `..`; None when it leaves the project.
pub(crate) fn joined(directory: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The `project` node's platforms and registry.
fn settings(
    sources: &Sources,
    world: &World<'_>,
    units: &[Unit],
    project: &mut Project,
    diagnostics: &mut Diagnostics,
) {
    let Some(root) = units.first() else { return };
    let Some(node) = root.nodes.iter().find(|n| n.name.value == "project") else { return };
    for child in node.children.iter().filter(|child| !is_cache(child)) {
        let head = world.head(sources, &root.scope, child, &mut |d| diagnostics.push(d));
        match child.name.value.as_str() {
            "platforms" => project.platforms = platforms(&head, diagnostics),
            "registry" => {
                let mut r = Reader::new(&head, diagnostics);
                project.registry = r.arg_str("a registry, perhaps with a path");
                r.finish();
            }
            _ => {}
        }
    }
}

/// The platforms that a `platforms` node lists.
pub(crate) fn platforms(node: &Node, diagnostics: &mut Diagnostics) -> Vec<Spanned<Platform>> {
    let mut r = Reader::new(node, diagnostics);
    let words = r.args_text_some("a platform such as `linux/amd64`");
    r.finish();
    let mut out: Vec<Spanned<Platform>> = Vec::new();
    for word in words {
        match word.parse::<Platform>() {
            Ok(platform) if word.contains('/') => out.push(Spanned::new(platform, word.span)),
            // Half of one means the rest of this machine's, and a project means the same on every machine.
            Ok(_) => {
                let message = format!("platform `{}` is only half of one; expected `os/architecture`", word.value);
                diagnostics.push(Diagnostic::error(codes::BAD_PLATFORM, message).at(word.span, "e.g. `linux/arm64`"));
            }
            Err(error) => diagnostics
                .push(Diagnostic::error(codes::BAD_PLATFORM, error.to_string()).at(word.span, "e.g. `linux/arm64`")),
        }
    }
    out
}
