//! Here-documents: what introduces them on a line, and their texts in the lines that follow.
//!
//! BuildKit reads the line as words of a shell, always with `\` as the escape, and takes each word that begins with
//! `<<` (perhaps after a number). So `<<EOF;` ends at a line `EOF;`, and a line with an open quote introduces nothing.

use std::ops::Range;

use ctk_buildgraph::{Heredoc, RunHeredoc};
use ctk_syntax::{ShellSyntax, shell_word};

use crate::blank::quoted_words;

/// A word that introduces a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    /// The line that ends it.
    pub name: String,
    /// Whether tabs at the front of its lines go.
    pub strip: bool,
    /// Whether variables in it are expanded.
    pub expand: bool,
}

impl Introduction {
    /// `<<NAME`, `<<-"NAME"`, `3<<NAME`.
    pub fn parse(word: &str) -> Option<Introduction> {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (strip, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let rest = rest.trim_start();
        if rest.contains('<') {
            return None;
        }
        let (name, quoted) = unquoted(rest)?;
        (!name.is_empty()).then_some(Introduction { name, strip, expand: !quoted })
    }
}

/// One word without its quotes and escapes, and whether any part of it was quoted; none if it is more than one word or
/// a quote stays open.
fn unquoted(text: &str) -> Option<(String, bool)> {
    let mut name = String::new();
    let mut any = false;
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (None | Some('"'), '\\') => match chars.next() {
                Some(next) if quote.is_some() && !matches!(next, '"' | '$' | '\\') => name.extend(['\\', next]),
                Some(next) => name.push(next),
                None => name.push('\\'),
            },
            (None, '"' | '\'') => (quote, any) = (Some(char), true),
            (Some(open), char) if open == char => quote = None,
            (None, char) if char.is_whitespace() => return None,
            (_, char) => name.push(char),
        }
    }
    quote.is_none().then_some((name, any))
}

/// The words of a line that introduce documents, with their places.
pub(crate) fn introductions(line: &str) -> Vec<(Range<usize>, Introduction)> {
    if !line.contains("<<") || !readable(line) {
        return Vec::new();
    }
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut joins = false;
    for (at, word) in quoted_words(line, '\\') {
        // A blank after a bare `<<` belongs to the word.
        match words.last_mut().filter(|_| joins) {
            Some((start, last)) => {
                last.clear();
                last.push_str(&line[*start..at + word.len()]);
            }
            None => words.push((at, word)),
        }
        joins = words.last().is_some_and(|(_, word)| word.ends_with("<<") && !word.ends_with("<<<"));
    }
    let found = |(at, word): (usize, String)| Some((at..at + word.len(), Introduction::parse(&word)?));
    words.into_iter().filter_map(found).collect()
}

/// Whether a shell could read the line: all quotes closed, all `${…}` understood.
fn readable(line: &str) -> bool {
    let syntax = ShellSyntax { escape: '\\', quotes: true };
    shell_word(line, syntax, &mut |_| Some("x".into())).is_ok()
}

/// Takes the documents' texts from `lines`, which gives lines with their ends. Gives those that were found, and the
/// first one that never ended.
pub(crate) fn take<'a>(
    line: &str,
    found: Vec<(Range<usize>, Introduction)>,
    mut lines: impl FnMut() -> Option<&'a str>,
) -> (Vec<RunHeredoc>, Option<(Range<usize>, Introduction)>) {
    let mut documents = Vec::new();
    for (range, introduction) in found {
        let (mut content, mut raw) = (String::new(), String::new());
        loop {
            let Some(line) = lines() else { return (documents, Some((range, introduction))) };
            let body = if introduction.strip { line.trim_start_matches('\t') } else { line };
            if body.trim_end_matches(['\r', '\n']) == introduction.name {
                break;
            }
            content.push_str(body);
            raw.push_str(line);
        }
        let document = Heredoc { name: introduction.name, content, expand: introduction.expand };
        documents.push(RunHeredoc { document, word: line[range].to_owned(), raw });
    }
    (documents, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[(&str, bool, bool)]) {
        let seen = introductions(line);
        let seen: Vec<_> = seen.iter().map(|(_, i)| (i.name.as_str(), i.strip, i.expand)).collect();
        assert_eq!(seen, expected, "{line}");
    }

    #[test]
    fn words_that_introduce_documents() {
        check("RUN cat <<EOF", &[("EOF", false, true)]);
        check("RUN cat <<-'EOF' 3<<E\"O\"G > x", &[("EOF", true, false), ("EOG", false, false)]);
        check("RUN cat <<EOF; x", &[("EOF;", false, true)]);
        check("RUN (cat <<EOF)", &[("EOF)", false, true)]);
        check("RUN cat << EOF > x", &[("EOF", false, true)]);
        check("RUN cat 3<< EOF", &[("EOF", false, true)]);
        check("RUN cat <<\"E F\"", &[("E F", false, false)]);
        check("RUN cat <<\\EOF", &[("EOF", false, true)]);
        check("RUN cat <<$EOF <<${EOF}", &[("$EOF", false, true), ("${EOF}", false, true)]);
        check("RUN echo \\\" <<EOF", &[("EOF", false, true)]);
        check("RUN echo ${x:?y} ${x:-a b} <<EOF", &[("EOF", false, true)]);
    }

    #[test]
    fn words_that_only_look_like_it() {
        for line in [
            "RUN cat <<",
            "RUN cat <<- EOF",
            "RUN cat <<<EOF",
            "RUN cat <<< EOF",
            "RUN cat << <<EOF",
            "RUN cat <<EOF<<EOG",
            "RUN echo a<<EOF",
            "RUN echo a<< EOF",
            "RUN echo \\<<EOF",
            "RUN echo '<<EOF'",
            "RUN sh -c 'cat <<EOF'",
            "RUN cat <<\"\"",
            "RUN echo don't <<EOF",
            "RUN echo ${x@Q} <<EOF",
            "RUN echo ${x <<EOF",
            "RUN echo $((1<<2))",
            "COPY --chown=<<EOF a b",
        ] {
            check(line, &[]);
        }
    }
}
