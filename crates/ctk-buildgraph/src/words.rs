//! Words of a Dockerfile, by the grammar of [`ctk_syntax::expand`].

use ctk_syntax::{ExpandError, ExpandErrorKind, ExpandSyntax, Expanded, Found, Quotes, expand, expand_words};

use crate::Escape;

/// How variables look in one text.
pub(crate) struct Variables<'a> {
    /// What a name stands for.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a name without a value was asked for.
    pub unset: bool,
}

impl Variables<'_> {
    pub(crate) fn new(lookup: &dyn Fn(&str) -> Option<String>) -> Variables<'_> {
        Variables { lookup, unset: false }
    }

    fn find(&mut self, name: &str) -> Found {
        match (self.lookup)(name) {
            Some(value) => Found::Value(value),
            None => {
                self.unset = true;
                Found::Undefined
            }
        }
    }

    /// One word: variables replaced, quotes and escapes taken away.
    pub(crate) fn word(&mut self, text: &str, escape: Escape) -> Result<String, ExpandError> {
        let syntax = ExpandSyntax::dockerfile(escape.char(), Quotes::Shell);
        expand(text, &syntax, &mut |name| self.find(name)).map(|Expanded { text, .. }| text)
    }

    /// A here-document: quotes are characters like others.
    pub(crate) fn document(&mut self, text: &str, escape: Escape) -> Result<String, ExpandError> {
        let syntax = ExpandSyntax::dockerfile(escape.char(), Quotes::Plain);
        expand(text, &syntax, &mut |name| self.find(name)).map(|Expanded { text, .. }| text)
    }

    /// A list: split at blanks outside quotes.
    pub(crate) fn words(&mut self, text: &str, escape: Escape) -> Result<Vec<String>, ExpandError> {
        let syntax = ExpandSyntax::dockerfile(escape.char(), Quotes::Shell);
        expand_words(text, &syntax, &mut |name| self.find(name))
    }
}

/// Whether the mistake is that an author's `${NAME:?…}` has no value.
pub(crate) fn is_required(error: &ExpandError) -> bool {
    matches!(error.kind, ExpandErrorKind::Required { .. })
}
