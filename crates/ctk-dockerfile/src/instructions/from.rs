//! `FROM [--platform=…] image [AS name]`

use ctk_buildgraph::{From, RecipeStage};

use super::Parsed;
use crate::line::Line;
use crate::{codes, lint};

pub(super) fn parse(line: &mut Line<'_>) -> Option<Parsed> {
    let platform = line.flag_text("platform");
    let words = line.some_plain_words("an image")?;
    let mut stage = RecipeStage {
        name: None,
        description: None,
        from: From::Text(words[0].1.clone()),
        platform,
        statements: Vec::new(),
        origin: Some(line.logical.span),
    };
    lint::from(line);
    match &words[1..] {
        [] => {}
        [(_, word), (range, name)] if word.eq_ignore_ascii_case("AS") => {
            let lower = name.to_ascii_lowercase();
            let plain = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if plain {
                stage.description = line.logical.description(&lower);
                stage.name = Some(lower);
            } else {
                let label = "expected a letter, then letters, digits, `-`, `_`, `.`";
                line.error(codes::BAD_ARGUMENT, format!("`{name}` cannot name a stage"), range.clone(), label);
            }
        }
        [(range, _), ..] => {
            let last = words.last().map_or(range.end, |(r, _)| r.end);
            let range = range.start..last;
            line.error(
                codes::UNEXPECTED_ARGUMENT,
                "FROM takes an image and perhaps `AS name`",
                range,
                "expected `AS name`",
            );
        }
    }
    if let Some(name) = &stage.name {
        lint::description(line, &[name]);
    }
    Some(Parsed::Stage(stage))
}
