//! `cache-from "registry.example/app:cache"`, `cache-to type="local" dest="cache" mode="max"`: caches that travel, with
//! the settings of the command line as properties.

use ctk_cache::{BadSetting, Export, Import, KINDS, Place};
use ctk_project::CacheNode;
use ctk_syntax::{Data, Diagnostic, Diagnostics, Node, Reader, Spanned, Value};

use super::Image;
use crate::{ImageDecl, codes};

/// Settings that let in, and the variables that have them instead.
const SECRETS: &[(&str, &str)] = &[
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("session_token", "AWS_SESSION_TOKEN"),
];

impl Image<'_> {
    /// The nodes `cache-from` and `cache-to`.
    pub(super) fn caches(&mut self, decl: &mut ImageDecl) {
        for CacheNode { node, directory } in &self.resource.caches {
            let path = |path: &mut Place| {
                if let Place::Local { path, .. } = path {
                    *path = directory.join(&*path);
                }
            };
            // An image that declines the project's.
            if node.first_str() == Some("none") && node.props.is_empty() && node.args.len() == 1 {
                continue;
            }
            match node.name.value.as_str() {
                "cache-from" => {
                    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| *kind != "inline").collect();
                    let import = read(node, self.diagnostics, &kinds, Import::keys, Import::from_settings);
                    if let Some(mut import) = import {
                        path(&mut import.place);
                        decl.cache_from.push(import);
                    }
                }
                _ => {
                    let export = read(node, self.diagnostics, &KINDS, Export::keys, Export::from_settings);
                    if let Some(mut export) = export {
                        path(&mut export.place);
                        decl.cache_to.push(Spanned::new(export, node.span));
                    }
                }
            }
        }
        // As on the command line.
        let inline = decl.args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        if inline && let Ok(export) = Export::parse("type=inline") {
            decl.cache_to.push(Spanned::new(export, self.resource.span));
        }
    }
}

type FromSettings<T> = fn(&str, Vec<(String, String)>) -> Result<T, BadSetting>;

fn read<T>(
    node: &Node,
    diagnostics: &mut Diagnostics,
    kinds: &[&str],
    keys: fn(&str) -> Vec<&'static str>,
    from_settings: FromSettings<T>,
) -> Option<T> {
    let mut reader = Reader::new(node, diagnostics);
    let reference = reader.opt_arg_str("a reference");
    let allowed: Vec<(&str, &str)> = kinds.iter().map(|kind| (*kind, *kind)).collect();
    let kind = reader.opt_prop_one_of("type", &allowed);
    if kind.is_none() && node.prop("type").is_some() {
        return None;
    }
    if let Some(text) = reference.as_ref().filter(|text| text.value.contains('=')) {
        let message = format!("`{text}` is written as on the command line");
        let words: Vec<String> = text
            .value
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| format!("{k}=\"{v}\""))
            .collect();
        let hint = format!("write `{} {}`", node.name, words.join(" "));
        let diagnostic = Diagnostic::error(codes::BAD_CACHE, message).at(text.span, "settings are properties here");
        reader.diagnostics().push(diagnostic.hint(hint));
        return None;
    }
    let kind = match (&reference, kind) {
        (Some(text), Some(kind)) if kind.value != "registry" => {
            let message = format!("a cache of type `{}` has no reference", kind.value);
            let label = format!("leave this or `type=\"{}\"` out", kind.value);
            reader.error(codes::BAD_CACHE, text.span, message, label);
            return None;
        }
        (_, Some(kind)) => kind.value,
        (Some(_), None) => "registry",
        (None, None) => {
            reader.arg("a reference or a `type`");
            return None;
        }
    };
    let mut sound = true;
    let mut settings = Vec::new();
    if let Some(text) = &reference {
        settings.push(("ref".to_owned(), text.value.clone()));
    }
    for key in keys(kind) {
        if key == "ref" && reference.is_some() {
            continue;
        }
        let Some(value) = reader.opt_prop(key) else { continue };
        if let Some((_, variable)) = SECRETS.iter().find(|(name, _)| *name == key) {
            let message = format!("`{key}` does not belong in a file");
            reader.error(codes::BAD_CACHE, value.span, message, format!("`{variable}` in the environment says it"));
            sound = false;
            continue;
        }
        match setting(&mut reader, key, value) {
            Some(text) => settings.push((key.to_owned(), text)),
            None => sound = false,
        }
    }
    let later = node.args.iter().chain(node.props.iter().map(|prop| &prop.value)).find(|value| value.deferred);
    if let Some(value) = later {
        let label = "`${platform}` cannot stand here";
        reader.error(codes::BAD_CACHE, value.span, "all platforms of an image share a cache", label);
        sound = false;
    }
    reader.finish();
    if !sound {
        return None;
    }
    match from_settings(kind, settings) {
        Ok(cache) => Some(cache),
        Err(BadSetting { key, message }) => {
            let reference = reference.map(|text| text.span).filter(|_| key == "ref");
            let place = node.prop(key).map(|value| value.span).or(reference).unwrap_or(node.name.span);
            diagnostics.push(Diagnostic::error(codes::BAD_CACHE, message).at(place, ""));
            None
        }
    }
}

/// A setting as the command line would have it.
fn setting<'n>(reader: &mut Reader<'n, '_>, key: &str, value: &'n Value) -> Option<String> {
    match value.data {
        Data::Bool(truth) => Some(truth.to_string()),
        _ => reader.scalar(value, &format!("`{key}`")).map(|text| text.value),
    }
}
