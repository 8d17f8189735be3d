//! Lint rules that need no more than the text.

use ctk_buildgraph::lint::codes;
use ctk_buildgraph::{Instruction, Recipe};
use ctk_syntax::{Diagnostic, Diagnostics, Span};

use crate::blank::plain_words;
use crate::line::Line;

/// Stage names that mean something else already.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// What a `FROM … AS name` may better do.
pub(crate) fn from(line: &mut Line<'_>) {
    let words = plain_words(line.rest());
    let [_, (as_at, word), (name_at, name)] = words.as_slice() else { return };
    let (keyword, start) = (line.keyword_written(), line.rest_range().start);
    let cased = match () {
        () if is_lower(keyword) => is_lower(word),
        () if is_upper(keyword) => is_upper(word),
        () => true,
    };
    if !cased {
        let range = start + as_at..start + as_at + word.len();
        let label = if is_lower(keyword) { word.to_ascii_lowercase() } else { word.to_ascii_uppercase() };
        let message = format!("`{word}` and `{keyword}` are not of the same case");
        line.warning(codes::FROM_AS_CASING, message, range, format!("write `{label}`"));
    }
    let range = start + name_at..start + name_at + name.len();
    let lower = name.to_lowercase();
    if lower != *name {
        let message = format!("stage name `{name}` is not in lower case");
        line.warning(codes::STAGE_NAME_CASING, message, range.clone(), format!("it is known as `{lower}`"));
    }
    if RESERVED.contains(&lower.as_str()) {
        let message = format!("stage name `{lower}` means something else already");
        line.warning(codes::RESERVED_STAGE_NAME, message, range, "choose another name");
    }
}

/// Keywords of stages in another case than most of them. Each comes with its place.
pub(crate) fn keywords(keywords: &[(&str, Span)], diagnostics: &mut Diagnostics) {
    let lower = keywords.iter().filter(|(keyword, _)| is_lower(keyword)).count();
    let upper = keywords.iter().filter(|(keyword, _)| is_upper(keyword)).count();
    let (fits, shown): (fn(&str) -> bool, _) = if lower > upper { (is_lower, "lower") } else { (is_upper, "upper") };
    for (keyword, span) in keywords.iter().filter(|(keyword, _)| !fits(keyword)) {
        let message = format!("`{keyword}` is not in {shown} case as most instructions are");
        let wanted = if lower > upper { keyword.to_ascii_lowercase() } else { keyword.to_ascii_uppercase() };
        let diagnostic = Diagnostic::warning(codes::CONSISTENT_INSTRUCTION_CASING, message);
        diagnostics.push(diagnostic.at(*span, format!("write `{wanted}`")));
    }
}

/// What needs the whole file.
pub(crate) fn recipe(recipe: &Recipe, diagnostics: &mut Diagnostics) {
    for (index, stage) in recipe.stages.iter().enumerate() {
        let first = recipe.stages[..index].iter().find(|s| s.name.is_some() && s.name == stage.name);
        if let (Some(name), Some(span), Some(first)) = (&stage.name, stage.origin, first.and_then(|s| s.origin)) {
            let message = format!("stage `{name}` is defined twice");
            let diagnostic = Diagnostic::warning(codes::DUPLICATE_STAGE_NAME, message);
            diagnostics.push(diagnostic.at(span, "this one counts from here on").at(first, "first defined here"));
        }
        for keyword in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
            let statements = stage.statements.iter().filter(|s| single(&s.instruction) == Some(keyword));
            let places: Vec<Span> = statements.filter_map(|s| s.origin).collect();
            for pair in places.windows(2) {
                let message = format!("this {keyword} has no effect: a stage has one, the last");
                let diagnostic = Diagnostic::warning(codes::MULTIPLE_INSTRUCTIONS_DISALLOWED, message);
                diagnostics.push(diagnostic.at(pair[0], "").at(pair[1], "this one takes its place"));
            }
        }
    }
}

/// The keyword of an instruction of which only the last one counts.
fn single(instruction: &Instruction) -> Option<&'static str> {
    match instruction {
        Instruction::Cmd(_) => Some("CMD"),
        Instruction::Entrypoint(_) => Some("ENTRYPOINT"),
        Instruction::Healthcheck(_) => Some("HEALTHCHECK"),
        _ => None,
    }
}

/// A comment just above a FROM or ARG that describes none of `names`.
pub(crate) fn description(line: &mut Line<'_>, names: &[&str]) {
    let Some(comment) = line.logical.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let message = format!("the comment above this {} describes something else", line.keyword());
    let label = format!("expected `# {} description`", names[0]);
    let span = line.logical.span;
    let diagnostic = Diagnostic::warning(codes::INVALID_DEFINITION_DESCRIPTION, message);
    let hint = "an empty comment `#` between the two keeps them apart";
    line.diagnostics.push(diagnostic.at(span, label).hint(hint));
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}
