//! Dockerfile in, [`Recipe`] out; and the matcher of `.dockerignore`.
//!
//! ```text
//! text ─ directives ─► logical lines (continuations joined, comments gone, here-documents taken)
//!      ─ instructions/<name>.rs ─► statements ─► Recipe { stages, globals }
//! ```
//!
//! Every mistake of a file is reported at once, with its place. Nothing is expanded here: what a variable means depends
//! on the stage, and that is the build graph's matter.

mod blank;
pub mod codes;
mod directives;
mod flags;
mod heredoc;
mod ignore;
mod instructions;
mod json;
pub mod limits;
mod line;
mod lint;
mod logical;
mod mount;
mod print;

use std::ops::Range;

use ctk_buildgraph::lint::{CHECK_ARG, Checks};
use ctk_buildgraph::{Arg, Escape, Expansion, From, Instruction, Recipe, RecipeStage, Statement};
use ctk_syntax::{Diagnostic, Diagnostics, SourceId, Sources, Span, nearest};

pub use codes::CODES;
pub use directives::Directives;
pub use ignore::{Above, BadPattern, Ignore};
pub use instructions::KEYWORDS;
pub use print::print;

use line::Line;

/// A Dockerfile that was read.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its stages.
    pub recipe: Recipe,
    /// The `# key=value` lines at its top.
    pub directives: Directives,
}

/// Reads the Dockerfile `id`. The diagnostics hold every mistake and warning; without an error among them the first
/// value can be built.
pub fn parse(sources: &Sources, id: SourceId) -> (Dockerfile, Diagnostics) {
    parse_checked(sources, id, None)
}

/// As [`parse`]; `check` is the build argument [`CHECK_ARG`], which takes the place of the file's own `# check=`.
pub fn parse_checked(sources: &Sources, id: SourceId, check: Option<&str>) -> (Dockerfile, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let text = sources.text(id);
    if text.len() > limits::FILE_BYTES {
        let message = format!("this Dockerfile is larger than {} bytes", limits::FILE_BYTES);
        diagnostics.push(Diagnostic::error(codes::TOO_LARGE, message).at(Span::new(id, 0, 0), ""));
    }
    for line in text.split_inclusive('\n').filter(|line| line.trim_end_matches('\n').len() > limits::LINE_BYTES) {
        let at = line.as_ptr() as usize - text.as_ptr() as usize;
        let message = format!("this line is longer than {} bytes", limits::LINE_BYTES);
        diagnostics.push(Diagnostic::error(codes::TOO_LARGE, message).at(Span::new(id, at, at), ""));
    }
    let text = text.get(..limits::FILE_BYTES).unwrap_or(text);
    let (directives, body) = directives::read(id, text, &mut diagnostics);
    let escape = directives.escape;
    let checks = checks(&directives, check, &mut diagnostics);
    let mut recipe =
        Recipe { expansion: Expansion::Dockerfile(escape), checks, source: text.to_owned(), ..Recipe::default() };
    // Directives are comments, too.
    let directive_lines = 0..body;
    let mut comments = vec![directive_lines];
    let logicals = logical::split(id, text, body, escape, &mut comments, &mut diagnostics);
    if text.len() == sources.text(id).len() {
        let wide = text.chars().take(4).any(|c| c == '\0');
        if let Some(diagnostic) = no_text(sources, id, &comments, wide) {
            diagnostics.push(diagnostic);
            if wide {
                // Every word of it would be a mistake.
                return (Dockerfile { recipe, directives }, diagnostics);
            }
        }
    }
    let mut keywords = Vec::new();
    for logical in &logicals {
        let mut line = Line::new(logical, escape, &mut diagnostics);
        let (keyword, place) = (line.keyword(), line.keyword_span());
        let parsed = instructions::parse(&mut line);
        if (keyword == "FROM" || !recipe.stages.is_empty()) && KEYWORDS.contains(&keyword.as_str()) {
            keywords.push((logical.keyword(), place));
        }
        match parsed {
            None => {}
            Some(instructions::Parsed::Stage(stage)) => begin(&mut recipe, stage, logical.span, &mut diagnostics),
            Some(instructions::Parsed::Instruction(Instruction::Arg(args))) if recipe.stages.is_empty() => {
                recipe.globals.extend(args);
            }
            Some(instructions::Parsed::Instruction(instruction)) => match recipe.stages.last_mut() {
                Some(stage) => {
                    stage.statements.push(Statement { instruction, text: logical.shown(), origin: Some(logical.span) });
                }
                None => {
                    let message = format!("{keyword} before the first FROM");
                    diagnostics.push(
                        Diagnostic::error(codes::BEFORE_FROM, message).at(logical.span, "only ARG may stand here"),
                    );
                }
            },
        }
    }
    lint::keywords(&keywords, &mut diagnostics);
    lint::recipe(&recipe, &mut diagnostics);
    if recipe.stages.is_empty() && !diagnostics.has_errors() {
        let end = Span::new(id, text.len(), text.len());
        diagnostics
            .push(Diagnostic::error(codes::NO_FROM, "this Dockerfile has no FROM").at(end, "expected `FROM image`"));
    }
    let mut diagnostics = recipe.checks.apply(diagnostics);
    diagnostics.sort();
    (Dockerfile { recipe, directives }, diagnostics)
}

/// What is to be said of the first bytes that are no text, if there are any. In comments they harm nobody. `wide` says
/// that the file looks like UTF-16.
fn no_text(sources: &Sources, id: SourceId, comments: &[Range<usize>], wide: bool) -> Option<Diagnostic> {
    let text = sources.text(id);
    let matters = |at: &usize| !comments.iter().any(|comment| comment.contains(at));
    let wrong = sources.wrong(id).iter().copied().find(matters);
    let nul = text.match_indices('\0').map(|(at, _)| at).find(matters);
    let (at, length, message, label, hint) = match (wrong, nul) {
        (None, None) => return None,
        (None, Some(nul)) if !wide => {
            let hint = "remove it: no argument, variable or path of a program can hold one";
            (nul, 1, "a NUL byte in this Dockerfile", "a NUL", hint)
        }
        (wrong, nul) => {
            let at = wrong.or(nul).expect("one of them");
            let hint = match wide {
                true => "save it as UTF-8; from UTF-16: `iconv -f UTF-16 -t UTF-8`",
                false => "save it as UTF-8; e.g. from Latin-1: `iconv -f LATIN1 -t UTF-8`",
            };
            let length = text[at..].chars().next().map_or(1, char::len_utf8);
            (at, length, "this Dockerfile is not UTF-8 text", "expected UTF-8", hint)
        }
    };
    Some(Diagnostic::error(codes::NOT_TEXT, message).at(Span::new(id, at, at + length), label).hint(hint))
}

fn checks(directives: &Directives, given: Option<&str>, diagnostics: &mut Diagnostics) -> Checks {
    let own = directives.check.as_ref().map(|check| (check.value.as_str(), Some(check.span)));
    let Some((text, span)) = given.map(|text| (text, None)).or(own) else { return Checks::default() };
    Checks::parse(text).unwrap_or_else(|message| {
        let label = "expected `skip=Rule,…|all;error=true|false;experimental=Rule,…|all`";
        diagnostics.push(match span {
            Some(span) => Diagnostic::error(codes::BAD_DIRECTIVE, message).at(span, label),
            None => {
                Diagnostic::error(codes::BAD_DIRECTIVE, format!("build argument {CHECK_ARG}: {message}")).hint(label)
            }
        });
        Checks::default()
    })
}

fn begin(recipe: &mut Recipe, stage: RecipeStage, span: Span, diagnostics: &mut Diagnostics) {
    if recipe.stages.len() >= limits::STAGES {
        let message = format!("more than {} stages", limits::STAGES);
        diagnostics.push(Diagnostic::error(codes::TOO_LARGE, message).at(span, ""));
        return;
    }
    recipe.stages.push(stage);
}

/// Reads one instruction without a file, as an `ONBUILD` trigger holds it. An error is one sentence.
pub fn parse_trigger(text: &str) -> Result<Statement, String> {
    let mut sources = Sources::new();
    let id = sources.add("ONBUILD", text);
    let mut diagnostics = Diagnostics::new();
    let logical = logical::split(id, text, 0, Escape::Backslash, &mut Vec::new(), &mut diagnostics);
    let mut found = None;
    for logical in &logical {
        let mut line = Line::new(logical, Escape::Backslash, &mut diagnostics);
        match instructions::parse(&mut line) {
            Some(instructions::Parsed::Instruction(instruction)) => {
                found = Some(Statement { instruction, text: logical.shown(), origin: None });
            }
            Some(instructions::Parsed::Stage(_)) => return Err("FROM cannot be triggered".into()),
            None => {}
        }
    }
    match diagnostics.into_result(found) {
        Ok(Some(statement)) => Ok(statement),
        Ok(None) => Err("there is no instruction in it".into()),
        Err(diagnostics) => Err(diagnostics.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("; ")),
    }
}

/// The nearest keyword to `word`, in upper case.
fn nearest_keyword(word: &str) -> Option<&'static str> {
    nearest(&word.to_ascii_uppercase(), KEYWORDS.iter().copied())
        .and_then(|n| KEYWORDS.iter().copied().find(|k| *k == n))
}

/// Shared by instructions that make a value of a name.
fn name_and_default(word: &str, origin: Option<Span>) -> Arg {
    match word.split_once('=') {
        Some((name, value)) => {
            Arg { name: name.to_owned(), default: Some(value.to_owned()), description: None, origin }
        }
        None => Arg { name: word.to_owned(), default: None, description: None, origin },
    }
}

/// `--from` as written.
fn from_text(text: Option<String>) -> From {
    text.map_or(From::Context, From::Text)
}
