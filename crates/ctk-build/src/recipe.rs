//! From a declaration to something that can be lowered: the Dockerfile read, contexts opened.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Mutex;

use ctk_buildgraph::lint::{self, CHECK_ARG};
use ctk_buildgraph::{Bases, ContextKind, LowerRequest, Read, Recipe, Remote, Selection, Sources as KeySources};
use ctk_dockerfile::{BadPattern, Ignore};
use ctk_oci::Platform;
use ctk_syntax::{Diagnostic, Diagnostics, Severity, Sources, Span};

use crate::codes;
use crate::context::{Context, Found, digest_of};
use crate::error::Place;
use crate::limits::NAMED_FILES;
use crate::observe;
use crate::remote::{self, Given, MainDockerfile};
use crate::{BuildError, ContextDecl, ImageDecl, RecipeSource, StatIndex, World};

/// An image's stages and the texts they stand in.
pub(crate) struct Loaded {
    recipes: BTreeMap<String, Recipe>,
    any: Option<Recipe>,
    /// The Dockerfile's text; none for native stages.
    pub sources: Option<Sources>,
    /// The Dockerfile's path and content.
    pub dockerfile: Option<(String, String)>,
    /// What the Dockerfile's author should know that keeps nothing from being built.
    pub warnings: Diagnostics,
}

/// A Dockerfile that was read.
#[derive(Clone, Debug)]
pub struct Linted {
    /// Its stages; those that could be read, if it has mistakes.
    pub recipe: Recipe,
    /// What its author should know: errors where `# check=error=true` makes breaches of rules errors.
    pub warnings: Diagnostics,
    /// What keeps it from being built.
    pub mistakes: Diagnostics,
    /// Whether every instruction could be read.
    pub readable: bool,
    /// Where the warnings' places are.
    pub sources: Sources,
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a look at a Dockerfile gave.
#[derive(Clone, Debug)]
pub enum Looked {
    /// It was read.
    Linted(Box<Linted>),
    /// There is none: the stages are native.
    Native,
    /// It is elsewhere and was not fetched. What: for people.
    Elsewhere(String),
}

/// Reads the image's Dockerfile; an error is what keeps it from being read. Builds nothing. With a `world`, one that is
/// elsewhere is read if it was brought already; if that is wanted, it is fetched. What a base says of itself counts as far
/// as the base is there.
pub fn lint(
    decl: &ImageDecl,
    project_directory: &Path,
    world: Option<(&World<'_>, bool)>,
) -> Result<Looked, BuildError> {
    let given = world.map(|(world, fetch)| (Given::new(decl, world), fetch));
    let elsewhere = given.as_ref().map(|(given, fetch)| (given, *fetch));
    let loaded = match Loaded::parse(decl, project_directory, elsewhere)? {
        Ok(loaded) => loaded,
        Err(what) => return Ok(Looked::Elsewhere(what)),
    };
    let is_mistake = |one: &Diagnostic| one.severity == Severity::Error && lint::Rule::of(one).is_none();
    let readable = !loaded.warnings.iter().any(is_mistake);
    let bases = |request: &LowerRequest<'_>, recipe: &Recipe| match world {
        Some((world, _)) => observe::bases_here(recipe, request, world),
        None => BTreeMap::new(),
    };
    let mut found = if readable { loaded.lint(decl, project_directory, &bases)? } else { loaded.warnings.clone() };
    if !found.iter().any(is_mistake) && readable {
        for platform in &decl.platforms {
            let request = lower_request(decl, platform, None);
            let read = ctk_buildgraph::reads(loaded.recipe(platform), &request);
            found.extend(read.err().unwrap_or_default());
        }
    }
    let (mut warnings, mut mistakes) = (found.clone(), found);
    warnings.retain(|one| !is_mistake(one));
    mistakes.retain(is_mistake);
    if loaded.dockerfile.is_none() && mistakes.has_errors() {
        return Err(loaded.invalid(mistakes));
    }
    let Loaded { any, sources, dockerfile, .. } = loaded;
    let linted = any.zip(sources).zip(dockerfile);
    Ok(linted.map_or(Looked::Native, |((recipe, sources), (name, text))| {
        Looked::Linted(Box::new(Linted { recipe, warnings, mistakes, readable, sources, name, text }))
    }))
}

impl Linted {
    /// Nothing, if it can be built; else all that keeps it from that.
    pub fn refused(&self) -> Result<(), BuildError> {
        let mut diagnostics = self.mistakes.clone();
        diagnostics.extend(self.warnings.clone());
        diagnostics.retain(|one| one.severity == Severity::Error);
        match diagnostics.is_empty() {
            true => Ok(()),
            false => Err(BuildError::Invalid { diagnostics, sources: Some(Box::new(self.sources.clone())) }),
        }
    }
}

/// What `.dockerignore`, or the one of the Dockerfile's own, leaves out of a context.
fn ignored(decl: &ImageDecl, project: &Path, root: &Path, name: &str) -> Result<Ignore, BuildError> {
    let read = |directory: &Path, name: &Path| {
        let Some(text) = Context::small_file(directory, name)? else { return Ok(None) };
        Ignore::parse(&String::from_utf8_lossy(&text)).map(Some).map_err(|bad| bad_pattern(&directory.join(name), bad))
    };
    if let (RecipeSource::Dockerfile { path: dockerfile, .. }, "") = (&decl.source, name) {
        let mut own = dockerfile.clone().into_os_string();
        own.push(".dockerignore");
        if let Some(patterns) = read(project, Path::new(&own))? {
            return Ok(patterns);
        }
    }
    Ok(read(root, Path::new(".dockerignore"))?.unwrap_or_default())
}

fn bad_pattern(path: &Path, bad: BadPattern) -> BuildError {
    let BadPattern { line, text: pattern, error: reason } = bad;
    BuildError::IgnorePattern { path: path.to_owned(), line, pattern, reason }
}

impl Loaded {
    /// What can be read without asking anybody; the error says what has to be fetched first.
    pub fn look(decl: &ImageDecl, given: &Given<'_>) -> Result<Result<Loaded, String>, BuildError> {
        Loaded::read(decl, given.world.project_directory, Some((given, false)))
    }

    /// All of it, fetched where it has to be.
    pub fn fetch(decl: &ImageDecl, given: &Given<'_>) -> Result<Loaded, BuildError> {
        let loaded = Loaded::read(decl, given.world.project_directory, Some((given, true)))?;
        Ok(loaded.expect("what was fetched is known"))
    }

    fn read(
        decl: &ImageDecl,
        project: &Path,
        elsewhere: Option<(&Given<'_>, bool)>,
    ) -> Result<Result<Loaded, String>, BuildError> {
        let parsed = Loaded::parse(decl, project, elsewhere)?;
        match parsed {
            Ok(loaded) if loaded.warnings.has_errors() => Err(loaded.invalid(loaded.warnings.clone())),
            parsed => Ok(parsed),
        }
    }

    /// The same with its mistakes among the warnings.
    fn parse(
        decl: &ImageDecl,
        project: &Path,
        elsewhere: Option<(&Given<'_>, bool)>,
    ) -> Result<Result<Loaded, String>, BuildError> {
        let (name, text) = match &decl.source {
            RecipeSource::Native(recipes) => {
                let warnings = Diagnostics::new();
                let recipes = recipes.clone();
                return Ok(Ok(Loaded { recipes, any: None, sources: None, dockerfile: None, warnings }));
            }
            RecipeSource::Text { name, text } => (name.clone(), text.clone()),
            RecipeSource::Dockerfile { path, origin } => match remote::local(project, path)? {
                Some((name, text)) => (name.strip_prefix("./").unwrap_or(&name).to_owned(), text),
                None => return Err(missing(&format!("Dockerfile `{}` does not exist", path.display()), *origin)),
            },
            RecipeSource::InContext { path, origin } => {
                let Some((given, fetch)) = elsewhere else { return Ok(Err(path.clone())) };
                match remote::dockerfile(decl, path, given, fetch)? {
                    MainDockerfile::Found(name, text) => (name, text),
                    MainDockerfile::Unknown(what) => return Ok(Err(what)),
                    MainDockerfile::Missing => {
                        return Err(missing(&format!("Dockerfile `{path}` does not exist in the context"), *origin));
                    }
                }
            }
            RecipeSource::Url { url, .. } => {
                let Some((given, fetch)) = elsewhere else { return Ok(Err(url.clone())) };
                match remote::text(url, given, fetch)? {
                    Some(text) => (url.clone(), text),
                    None => return Ok(Err(url.clone())),
                }
            }
        };
        let mut sources = Sources::new();
        let id = sources.add_bytes(name.clone(), &text);
        let text = sources.text(id).to_owned();
        let (file, diagnostics) =
            ctk_dockerfile::parse_checked(&sources, id, decl.args.get(CHECK_ARG).map(String::as_str));
        Ok(Ok(Loaded {
            recipes: BTreeMap::new(),
            any: Some(file.recipe),
            sources: Some(sources),
            dockerfile: Some((name, text)),
            warnings: diagnostics,
        }))
    }

    /// The parser's warnings, those of lowering in all stages, and the mistakes in them.
    fn lint(
        &self,
        decl: &ImageDecl,
        project: &Path,
        bases: &dyn Fn(&LowerRequest<'_>, &Recipe) -> Bases,
    ) -> Result<Diagnostics, BuildError> {
        let mut warnings = self.warnings.clone();
        let Some(recipe) = &self.any else { return Ok(warnings) };
        let ignore = match decl.contexts.get("") {
            Some(ContextDecl::Directory { path, .. }) => Some(ignored(decl, project, &project.join(path), "")?),
            _ => None,
        };
        let leaves_out = |path: &str| {
            let path = path.as_bytes();
            ignore.as_ref().is_some_and(|ignore| ignore.matches(path) && ignore.prunes(path))
        };
        for platform in &decl.platforms {
            let mut request = lower_request(decl, platform, None);
            request.bases = bases(&request, recipe);
            warnings.extend(lint::check(recipe, &request, &leaves_out));
        }
        warnings.sort();
        Ok(warnings)
    }

    pub fn recipe(&self, platform: &Platform) -> &Recipe {
        let own = || self.recipes.get(&platform.to_string()).or_else(|| self.recipes.values().next());
        self.any.as_ref().or_else(own).expect("a declaration has a recipe for each of its platforms")
    }

    /// Where that is.
    pub fn place(&self, span: Option<Span>, project: &Sources) -> Option<Place> {
        let sources = self.sources.as_ref().unwrap_or(project);
        span.map(|span| {
            let shown = Diagnostic::error(codes::NO_DOCKERFILE, "").at(span, "").render(sources, false);
            let excerpt = shown.split_once('\n').map(|(_, lines)| lines.to_owned()).unwrap_or_default();
            Place { text: sources.place(span), excerpt }
        })
    }

    /// `source` with the step and the place where it happened.
    pub fn at(&self, step: String, origin: Option<Span>, project: &Sources, source: BuildError) -> BuildError {
        BuildError::Step { step, place: self.place(origin, project), shell: false, source: Box::new(source) }
    }

    pub fn invalid(&self, diagnostics: Diagnostics) -> BuildError {
        BuildError::Invalid { diagnostics, sources: self.sources.clone().map(Box::new) }
    }
}

fn missing(message: &str, origin: Option<Span>) -> BuildError {
    let diagnostic = Diagnostic::error(codes::NO_DOCKERFILE, message);
    BuildError::invalid(match origin {
        Some(span) => diagnostic.at(span, "expected a file here").into(),
        None => diagnostic.into(),
    })
}

/// What lowering is asked, before anything of the world is known.
pub(crate) fn lower_request<'a>(decl: &ImageDecl, platform: &Platform, target: Option<&str>) -> LowerRequest<'a> {
    let kind = |name: &str, context: &ContextDecl| match context {
        ContextDecl::Directory { .. } => ContextKind::Local,
        ContextDecl::Image(base) => ContextKind::Base(base.clone()),
        ContextDecl::Scratch => ContextKind::Scratch,
        ContextDecl::Git { source, .. } => ContextKind::Git(remote::with_args(decl, name, source)),
        ContextDecl::Http { url, .. } => ContextKind::Http(url.clone()),
        ContextDecl::Archive { digest } => ContextKind::Archive(digest.clone()),
    };
    LowerRequest {
        platform: platform.clone(),
        platform_asked: decl.platforms_asked,
        build_platform: Platform::host(),
        args: decl.args.clone(),
        target: target.map(str::to_owned).or_else(|| decl.target.clone()),
        contexts: decl.contexts.iter().map(|(name, context)| (name.clone(), kind(name, context))).collect(),
        bases: BTreeMap::new(),
        packages: BTreeMap::new(),
        remote: Remote::default(),
        context_epoch: None,
        parse_trigger: &ctk_dockerfile::parse_trigger,
    }
}

/// The image's contexts, opened when first asked for, and what was found in them.
pub(crate) struct Contexts<'a> {
    decl: &'a ImageDecl,
    project: &'a Path,
    index: &'a StatIndex,
    now_nanoseconds: i64,
    /// Where the store is: in no context.
    store: &'a Path,
    open: Mutex<BTreeMap<String, std::sync::Arc<Context>>>,
    found: Mutex<BTreeMap<Selection, std::sync::Arc<Vec<Found>>>>,
}

impl<'a> Contexts<'a> {
    pub fn new(decl: &'a ImageDecl, world: &World<'a>) -> Contexts<'a> {
        Contexts {
            decl,
            project: world.project_directory,
            store: world.store.root(),
            index: world.index,
            now_nanoseconds: world.now_seconds.saturating_mul(1_000_000_000),
            open: Mutex::default(),
            found: Mutex::default(),
        }
    }

    pub fn get(&self, name: &str) -> Result<std::sync::Arc<Context>, BuildError> {
        let mut open = self.open.lock().expect("no panic while locked");
        if let Some(context) = open.get(name) {
            return Ok(context.clone());
        }
        let Some(ContextDecl::Directory { path, ignore, origin }) = self.decl.contexts.get(name) else {
            return Err(missing(&format!("there is no context `{name}`"), None));
        };
        let root = self.project.join(path);
        if !root.is_dir() {
            return Err(missing(&format!("context `{}` is no directory", path.display()), *origin));
        }
        // A pattern of a declaration is one line of such a file.
        let own = Ignore::parse(&ignore.join("\n")).map_err(|bad| bad_pattern(Path::new("ignore"), bad))?;
        let patterns = ignored(self.decl, self.project, &root, name)?.and(own);
        let inside = |output: &std::path::PathBuf| {
            let whole = self.project.join(output);
            let plain =
                |path: &Path| path.components().filter(|c| *c != Component::CurDir).collect::<std::path::PathBuf>();
            plain(&whole).strip_prefix(plain(&root)).ok().and_then(Path::to_str).map(str::to_owned)
        };
        let mut outputs: Vec<String> = self.decl.outputs.iter().filter_map(inside).collect();
        // What is written while it is read could never be copied.
        if let (Ok(store), Ok(root)) = (self.store.canonicalize(), root.canonicalize())
            && let Some(store) = store.strip_prefix(root).ok().and_then(Path::to_str)
            && !store.is_empty()
        {
            outputs.push(store.to_owned());
        }
        let context = std::sync::Arc::new(Context::open(&root, patterns)?.without(outputs));
        open.insert(name.to_owned(), context.clone());
        Ok(context)
    }

    /// What a selection gives; looked up once.
    pub fn find(&self, selection: &Selection) -> Result<std::sync::Arc<Vec<Found>>, BuildError> {
        if let Some(found) = self.found.lock().expect("no panic while locked").get(selection) {
            return Ok(found.clone());
        }
        let found = self.get(&selection.context)?.look(selection, self.index, self.now_nanoseconds, NAMED_FILES)?;
        let found = std::sync::Arc::new(found);
        self.found.lock().expect("no panic while locked").insert(selection.clone(), found.clone());
        Ok(found)
    }

    /// The same with every entry, however many: for copying it.
    pub fn find_all(&self, selection: &Selection) -> Result<std::sync::Arc<Vec<Found>>, BuildError> {
        let found = self.find(selection)?;
        if found.iter().all(|source| source.entries.is_some()) {
            return Ok(found);
        }
        let all = self.get(&selection.context)?.find(selection, self.index, self.now_nanoseconds)?;
        self.same(selection, &found, &all)?;
        Ok(std::sync::Arc::new(all))
    }

    /// An error if what a selection gives is no longer what keys were made of: a copy of it may be of neither.
    pub fn unchanged(&self, selection: &Selection) -> Result<(), BuildError> {
        let found = self.find(selection)?;
        let now = self.get(&selection.context)?.look(selection, self.index, self.now_nanoseconds, 0)?;
        self.same(selection, &found, &now)
    }

    fn same(&self, selection: &Selection, before: &[Found], after: &[Found]) -> Result<(), BuildError> {
        match digest_of(before) == digest_of(after) {
            true => Ok(()),
            false => {
                let shown = |path: &String| if path.is_empty() { ".".to_owned() } else { path.clone() };
                let what = selection.paths.iter().map(shown).collect::<Vec<_>>().join(" ");
                Err(BuildError::ContextChanged { what })
            }
        }
    }
}

/// Digests of selections, all known before.
pub(crate) struct SelectionDigests(pub BTreeMap<Selection, String>);

impl SelectionDigests {
    /// `at` says of an error in which step it came up.
    pub fn new(
        reads: Vec<Read>,
        contexts: &Contexts<'_>,
        at: impl Fn(String, Option<Span>, BuildError) -> BuildError,
    ) -> Result<SelectionDigests, BuildError> {
        let mut digests = BTreeMap::new();
        for Read { selection, step, origin } in reads {
            let found = contexts.find(&selection).map_err(|source| at(step, origin, source))?;
            digests.insert(selection, digest_of(&found));
        }
        Ok(SelectionDigests(digests))
    }
}

impl KeySources for SelectionDigests {
    fn selection(&self, selection: &Selection) -> String {
        // Vertices that the target does not need were not looked at; nobody asks for their keys.
        self.0.get(selection).cloned().unwrap_or_default()
    }
}
