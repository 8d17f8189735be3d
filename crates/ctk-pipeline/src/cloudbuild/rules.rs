//! Limits and rules of single values.

use std::collections::HashSet;

use ctk_syntax::{Diagnostic, Diagnostics, Spanned, short};

use super::value::Object;
use crate::{codes, limits};

/// Says when a list is longer than Cloud Build takes; the place is the first that is too much.
pub(super) fn count<T>(list: &[Spanned<T>], limit: usize, what: &str, diagnostics: &mut Diagnostics) {
    if let Some(first) = list.get(limit) {
        let said = format!("{} {what}; Cloud Build takes {limit}", list.len());
        diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(first.span, "from here on too many"));
    }
}

/// Says when a text is longer than Cloud Build takes.
pub(super) fn length(text: &Spanned<String>, limit: usize, what: &str, diagnostics: &mut Diagnostics) {
    let characters = text.chars().count();
    if characters > limit {
        let said = format!("{what} of {characters} characters; Cloud Build takes {limit}");
        diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(text.span, "too long"));
    }
}

/// Says when a name cannot be one of an image.
pub(super) fn image(image: &Spanned<String>, what: &str, diagnostics: &mut Diagnostics) {
    let mut wrong = |said: String, label: &str| {
        diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(image.span, label));
    };
    let (name, _) = image.split_once('@').unwrap_or((image.as_str(), ""));
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match name[slash..].find(':') {
        Some(at) => (&name[..slash + at], Some(&name[slash + at + 1..])),
        None => (name, None),
    };
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => repository,
    };
    if image.is_empty() {
        wrong(format!("{what} has no name"), "it is empty");
    } else if path.chars().any(char::is_uppercase) {
        wrong(format!("image `{}` has capitals", short(image)), "names of images are in small letters");
    } else if path.is_empty()
        || path.split('/').any(str::is_empty)
        || !path.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c))
    {
        wrong(format!("`{}` is no name of an image", short(image)), "expected `HOST/PATH:TAG`");
    } else if tag.is_some_and(|tag| !is_tag(tag)) {
        let said = format!("`{}` has no tag of an image", short(image));
        wrong(said, "expected letters, digits, `_`, `.`, `-` behind the colon");
    }
}

/// What an image's tag may be.
fn is_tag(tag: &str) -> bool {
    let first = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    first && tag.len() <= limits::TAG_CHARACTERS && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

pub(super) fn images(images: &[Spanned<String>], diagnostics: &mut Diagnostics) {
    count(images, limits::IMAGES, "images", diagnostics);
    for one in images {
        length(one, limits::IMAGE_CHARACTERS, "an image's name", diagnostics);
        image(one, "an image", diagnostics);
        if one.contains('@') {
            let said = format!("`{}` has a digest, which nothing can be pushed to", short(one));
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(one.span, "name a tag"));
        }
    }
}

/// The tags of a build: those that are empty or there already are left out, as Cloud Build does it.
pub(super) fn tags(tags: &[Spanned<String>], diagnostics: &mut Diagnostics) -> Vec<String> {
    let mut kept: Vec<Spanned<String>> = Vec::new();
    for tag in tags.iter().filter(|tag| !tag.is_empty()) {
        if !is_tag(tag) {
            let said = format!("`{}` is no tag", short(tag));
            let label = "expected at most 128 letters, digits, `_`, `.`, `-`";
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(tag.span, label));
        } else if !kept.iter().any(|known| known.value == tag.value) {
            kept.push(tag.clone());
        }
    }
    count(&kept, limits::TAGS, "tags", diagnostics);
    kept.into_iter().map(|tag| tag.value).collect()
}

/// Paths of artifacts.
pub(super) fn paths(paths: &[Spanned<String>], diagnostics: &mut Diagnostics) {
    count(paths, limits::ARTIFACT_PATHS, "paths", diagnostics);
    let mut known = HashSet::new();
    for path in paths {
        let wrong = match path.as_str() {
            "" => Some("is empty"),
            text if text.contains(char::is_whitespace) => Some("has white space"),
            text if !known.insert(text.to_owned()) => Some("is there twice"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let said = format!("path `{}` {wrong}", short(path));
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(path.span, "here"));
        }
    }
}

/// A path that must stay below the workspace if it is relative.
pub(super) fn inside_workspace(path: &Spanned<String>, what: &str, diagnostics: &mut Diagnostics) {
    if path.starts_with('/') {
        return;
    }
    let mut level = 0i64;
    for part in path.split('/') {
        level += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if level < 0 {
            let said = format!("{what} `{}` leaves the workspace", short(path));
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(path.span, "too many `..`"));
            return;
        }
    }
}

/// `NAME=VALUE`s; the list without those that are wrong.
pub(super) fn environment(list: &[Spanned<String>], diagnostics: &mut Diagnostics) -> Vec<(String, String)> {
    count(list, limits::ENVIRONMENT, "variables", diagnostics);
    let mut found = Vec::new();
    for variable in list {
        length(variable, limits::ENVIRONMENT_CHARACTERS, "a variable", diagnostics);
        match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() => found.push((name.to_owned(), value.to_owned())),
            Some(_) => {
                let said = format!("variable `{}` has no name", short(variable));
                diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(variable.span, "expected `NAME=VALUE`"));
            }
            None => {
                let said = format!("variable `{}` has no `=`", short(variable));
                diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(variable.span, "expected `NAME=VALUE`"));
            }
        }
    }
    found
}

/// Rules of single options.
pub(super) fn options(options: &Object, diagnostics: &mut Diagnostics) {
    for disk in options.whole("diskSizeGb") {
        if !(0..=limits::DISK_GIGABYTES).contains(&disk.value) {
            let said = format!("a disk of {} GB; Cloud Build has 0 to {}", disk.value, limits::DISK_GIGABYTES);
            diagnostics.push(Diagnostic::error(codes::OVER_LIMIT, said).at(disk.span, "another size"));
        }
    }
    let pool = options.record("pool").and_then(|pool| pool.text("name")).or_else(|| options.text("workerPool"));
    if let Some(pool) = pool {
        let parts: Vec<&str> = pool.split('/').collect();
        let fits = matches!(
            parts.as_slice(),
            ["projects", _, "locations", _, "workerPools", _] | ["projects", _, "workerPools", _]
        ) && parts.iter().all(|part| !part.is_empty());
        if !fits {
            let said = format!("`{}` is no private pool", short(&pool));
            let label = "expected `projects/PROJECT/locations/REGION/workerPools/POOL`";
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, said).at(pool.span, label));
        }
    }
}
