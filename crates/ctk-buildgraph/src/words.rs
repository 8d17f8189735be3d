//! Words of a Dockerfile, by the grammar of [`ctk_syntax::shell_word`].

use ctk_syntax::{ExpandError, ExpandErrorKind, ShellSyntax, shell_word, shell_words};

use crate::Escape;

/// How variables look in one text.
pub(crate) struct Variables<'a> {
    /// What a name stands for.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The names that were asked for, with their values.
    pub asked: Vec<(String, Option<String>)>,
}

impl Variables<'_> {
    pub(crate) fn new(lookup: &dyn Fn(&str) -> Option<String>) -> Variables<'_> {
        Variables { lookup, asked: Vec::new() }
    }

    /// Whether a name without a value was asked for.
    pub(crate) fn unset(&self) -> bool {
        self.asked.iter().any(|(_, value)| value.is_none())
    }

    fn find(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        self.asked.push((name.to_owned(), value.clone()));
        value
    }

    /// One word: variables replaced, quotes and escapes taken away.
    pub(crate) fn word(&mut self, text: &str, escape: Escape) -> Result<String, ExpandError> {
        let syntax = ShellSyntax { escape: escape.char(), quotes: true };
        shell_word(text, syntax, &mut |name| self.find(name))
    }

    /// A here-document: quotes are characters like others, and only a backslash escapes.
    pub(crate) fn document(&mut self, text: &str) -> Result<String, ExpandError> {
        let syntax = ShellSyntax { escape: '\\', quotes: false };
        shell_word(text, syntax, &mut |name| self.find(name))
    }

    /// A list: split at blanks outside quotes.
    pub(crate) fn words(&mut self, text: &str, escape: Escape) -> Result<Vec<String>, ExpandError> {
        let syntax = ShellSyntax { escape: escape.char(), quotes: true };
        shell_words(text, syntax, &mut |name| self.find(name))
    }
}

/// Whether the mistake is that an author's `${NAME:?…}` has no value.
pub(crate) fn is_required(error: &ExpandError) -> bool {
    matches!(error.kind, ExpandErrorKind::Required { .. })
}
