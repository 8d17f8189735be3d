//! `context "folder"`, `context "name" "source"`: where copies and stages find files.

use ctk_buildgraph::{BaseName, ContextName, ContextSource, OciLayout};
use ctk_syntax::{Diagnostic, Node, Reader, Spanned};

use super::{Image, base_name};
use crate::codes;
use crate::{ContextDecl, ImageDecl, RecipeSource};

impl Image<'_> {
    /// The node `context`.
    pub(super) fn context(&mut self, node: &Node, decl: &mut ImageDecl) {
        let mut reader = Reader::new(node, self.diagnostics);
        let Some(first) = reader.arg_str("a context") else { return };
        let second = reader.opt_arg_str("a context");
        let mut ignore = Vec::new();
        for child in reader.every("ignore") {
            let mut patterns = reader.child(child);
            ignore.extend(patterns.args_text_some("a pattern").into_iter().map(|p| p.value));
            patterns.finish();
        }
        reader.finish();
        let (name, place) = match second {
            None => (String::new(), first),
            Some(place) => (key(&first.value), place),
        };
        self.add_context(name, &place, ignore, decl);
    }

    /// The context `name`, which is `place`; `""` is the main one.
    pub(super) fn add_context(
        &mut self,
        name: String,
        place: &Spanned<String>,
        ignore: Vec<String>,
        decl: &mut ImageDecl,
    ) {
        let Some(mut context) = self.context_source(place) else { return };
        let mut refuse = |message: &str, label: &str| {
            self.diagnostics.push(Diagnostic::error(codes::BAD_CONTEXT, message).at(place.span, label));
        };
        let main = name.is_empty();
        match &mut context {
            ContextDecl::Directory { ignore: patterns, .. } => *patterns = ignore,
            _ if !ignore.is_empty() => return refuse("only a folder can `ignore` files", "this is no folder"),
            ContextDecl::Image(_) | ContextDecl::Scratch if main => {
                let label = "expected a folder, a repository or a URL";
                return refuse("an image can be a named context, but not the main one", label);
            }
            _ => {}
        }
        decl.contexts.insert(name, context);
    }

    fn context_source(&mut self, place: &Spanned<String>) -> Option<ContextDecl> {
        let refuse = |message: String, label: &str| {
            Err(Diagnostic::error(codes::BAD_CONTEXT, message).at(place.span, label.to_owned()))
        };
        let text = place.value.as_str();
        let decoded = if text.starts_with("image:") || text.starts_with("docker://") {
            self.project.resolve_from(self.resource, place, &[]).map(|from| base_name(from).map(ContextDecl::Image))
        } else {
            match ContextSource::parse(text) {
                Err(error) => refuse(error.to_string(), ""),
                Ok(ContextSource::Target(name)) => {
                    let message = format!("`target:{name}` is for the command line");
                    refuse(message, &format!("write `image:{name}`"))
                }
                Ok(ContextSource::Git(git)) if git.like_path => {
                    refuse(format!("`{text}` could be a folder"), "write `https://…` for the repository")
                }
                Ok(ContextSource::Local(path)) => {
                    let (path, origin) = (self.path(&path), Some(place.span));
                    Ok(Some(ContextDecl::Directory { path, ignore: Vec::new(), origin }))
                }
                Ok(ContextSource::OciLayout(layout)) => {
                    let path = self.path(&layout.path).display().to_string();
                    Ok(Some(ContextDecl::Image(BaseName::Layout(OciLayout { path, ..layout }))))
                }
                Ok(source) => match ContextDecl::from_source(source, Some(place.span)) {
                    Ok(context) => Ok(Some(context)),
                    Err(error) => refuse(error.to_string(), ""),
                },
            }
        };
        match decoded {
            Ok(context) => context,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }
}

/// A name as a Dockerfile's `FROM` would find it.
fn key(name: &str) -> String {
    name.parse::<ContextName>().map_or_else(|_| name.to_owned(), |name| name.to_string())
}

/// A Dockerfile: of this machine, or behind a URL.
pub(super) fn dockerfile(path: std::path::PathBuf, written: &Spanned<String>) -> RecipeSource {
    let origin = Some(written.span);
    match written.value.starts_with("http://") || written.value.starts_with("https://") {
        true => RecipeSource::Url { url: written.value.clone(), origin },
        false => RecipeSource::Dockerfile { path, origin },
    }
}

/// A relative Dockerfile of an image whose main context is no folder is in that context.
pub(super) fn dockerfile_in_context(decl: &mut ImageDecl, written: &Spanned<String>) {
    let elsewhere = matches!(decl.contexts.get(""), Some(ContextDecl::Git { .. } | ContextDecl::Http { .. }));
    if elsewhere && matches!(decl.source, RecipeSource::Dockerfile { .. }) && !written.value.starts_with('/') {
        let path = written.value.trim_start_matches("./").to_owned();
        decl.source = RecipeSource::InContext { path, origin: Some(written.span) };
    }
}
