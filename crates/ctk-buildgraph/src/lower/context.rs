//! Contexts that a build was given, and repositories that `ADD` names.

use ctk_oci::Platform;
use ctk_syntax::Span;

use super::from::Origin;
use super::{ContextKind, Need, RemoteFile, Walk};
use crate::{ContextName, GitSource, Op, VertexId};

impl Walk<'_> {
    /// The key of the context that `name` means for `platform`: as it is written, or as the image it could be.
    pub(super) fn context_named(&self, name: &str, platform: &Platform) -> Option<String> {
        let contexts = &self.request.contexts;
        if name.is_empty() || contexts.len() < 2 {
            return None;
        }
        let short = ContextName::short(name);
        let keys = [name, &short].into_iter().flat_map(|name| [format!("{name}::{platform}"), name.to_owned()]);
        keys.into_iter().find(|key| contexts.contains_key(key))
    }

    /// The context that takes the place of a Dockerfile's stage, as in BuildKit: the one that is called like it.
    pub(super) fn instead(&self, index: usize, platform: &Platform) -> Option<String> {
        let name = self.recipe.stages[index].name.as_deref().filter(|_| self.escape().is_some())?;
        self.context_named(name, platform)
    }

    /// The same, with a context as what it is.
    pub(super) fn concrete(&mut self, from: Origin, origin: Option<Span>) -> Option<Origin> {
        match from {
            Origin::Context(key) => self.context_origin(key, origin),
            other => Some(other),
        }
    }

    /// Where the files of the context with this key come from.
    fn context_origin(&mut self, key: String, origin: Option<Span>) -> Option<Origin> {
        let kind = self.request.contexts.get(&key).cloned()?;
        let shown = if key.is_empty() { "context".to_owned() } else { format!("context {key}") };
        Some(match kind {
            ContextKind::Local => Origin::Local(key),
            ContextKind::Base(base) => Origin::Base(base),
            ContextKind::Scratch => Origin::Scratch,
            ContextKind::Git(source) => Origin::Tree(self.git(source, |_| shown, origin)),
            ContextKind::Archive(digest) => {
                Origin::Tree(self.source(Op::Blob { digest, file_name: None }, shown, None))
            }
            ContextKind::Http(url) => match self.file(&url, origin) {
                Some(file) => {
                    let unpack = file.archive && key.is_empty();
                    let file_name = (!unpack).then(|| "context".to_owned());
                    Origin::Tree(self.source(Op::Blob { digest: file.digest, file_name }, shown, None))
                }
                None => Origin::Scratch,
            },
        })
    }

    /// The vertex of a checkout; an empty tree as long as its commit is not known.
    pub(super) fn git(
        &mut self,
        source: GitSource,
        name: impl FnOnce(&GitSource) -> String,
        origin: Option<Span>,
    ) -> VertexId {
        let asked = (source.url.clone(), source.wanted().to_owned());
        let commit = source.commit().or_else(|| self.request.remote.commits.get(&asked).map(String::as_str));
        match commit.map(str::to_owned) {
            Some(commit) => {
                let name = name(&source);
                self.source(Op::Git { source, commit }, name, origin)
            }
            None => {
                self.need(Need::Git { source, origin });
                self.scratch()
            }
        }
    }

    /// What the URL gives; asked for if that is not known.
    pub(super) fn file(&mut self, url: &str, origin: Option<Span>) -> Option<RemoteFile> {
        let known = self.request.remote.files.get(url).cloned();
        if known.is_none() {
            self.need(Need::Http { url: url.to_owned(), origin });
        }
        known
    }

    fn need(&mut self, need: Need) {
        let same = |other: &Need| match (other, &need) {
            (Need::Git { source: a, .. }, Need::Git { source: b, .. }) => a == b,
            (Need::Http { url: a, .. }, Need::Http { url: b, .. }) => a == b,
            _ => false,
        };
        if !self.needs.iter().any(same) {
            self.needs.push(need);
        }
    }
}
