//! kaniko's executor: a build that pushes.

use super::options::{Known, line, switch, value};
use super::{Action, Build};

const KNOWN: &[Known] = &[
    value('c', &["context"]),
    value('f', &["dockerfile"]),
    value('d', &["destination"]),
    value('\0', &["build-arg"]),
    value('\0', &["target"]),
    value('\0', &["custom-platform", "customPlatform"]),
    value('\0', &["context-sub-path"]),
    value('\0', &["label"]),
    switch('\0', &["no-push"]),
    switch('\0', &["no-push-cache"]),
    switch('\0', &["cache"]),
    value('\0', &["cache-repo"]),
    value('\0', &["cache-ttl"]),
    value('\0', &["cache-dir"]),
    switch('\0', &["cache-copy-layers"]),
    switch('\0', &["cache-run-layers"]),
    switch('\0', &["compressed-caching"]),
    value('\0', &["compression"]),
    value('\0', &["compression-level"]),
    switch('\0', &["cleanup"]),
    value('\0', &["digest-file"]),
    value('\0', &["image-name-with-digest-file"]),
    value('\0', &["image-name-tag-with-digest-file"]),
    value('\0', &["oci-layout-path"]),
    value('\0', &["tar-path", "tarPath"]),
    switch('\0', &["force"]),
    value('\0', &["git"]),
    value('\0', &["image-fs-extract-retry"]),
    value('\0', &["image-download-retry"]),
    switch('\0', &["insecure"]),
    switch('\0', &["insecure-pull"]),
    value('\0', &["insecure-registry"]),
    switch('\0', &["skip-tls-verify"]),
    switch('\0', &["skip-tls-verify-pull"]),
    value('\0', &["skip-tls-verify-registry"]),
    value('\0', &["registry-mirror"]),
    value('\0', &["registry-certificate"]),
    value('\0', &["registry-map"]),
    switch('\0', &["skip-default-registry-fallback"]),
    switch('\0', &["skip-push-permission-check"]),
    switch('\0', &["skip-unused-stages"]),
    value('\0', &["ignore-path"]),
    switch('\0', &["ignore-var-run"]),
    value('\0', &["kaniko-dir"]),
    value('\0', &["log-format"]),
    switch('\0', &["log-timestamp"]),
    value('\0', &["push-retry"]),
    switch('\0', &["push-ignore-immutable-tag-errors"]),
    switch('\0', &["reproducible"]),
    switch('\0', &["single-snapshot"]),
    value('\0', &["snapshot-mode", "snapshotMode"]),
    switch('\0', &["use-new-run"]),
    value('v', &["verbosity"]),
];

/// Those that say how kaniko works, not what it makes.
const IGNORED: &[&str] = &[
    "no-push-cache",
    "cache-ttl",
    "cache-dir",
    "cache-copy-layers",
    "cache-run-layers",
    "compressed-caching",
    "compression",
    "compression-level",
    "cleanup",
    "force",
    "git",
    "image-fs-extract-retry",
    "image-download-retry",
    "insecure",
    "insecure-pull",
    "insecure-registry",
    "skip-tls-verify",
    "skip-tls-verify-pull",
    "skip-tls-verify-registry",
    "registry-mirror",
    "registry-certificate",
    "registry-map",
    "skip-default-registry-fallback",
    "skip-push-permission-check",
    "skip-unused-stages",
    "ignore-path",
    "ignore-var-run",
    "kaniko-dir",
    "log-format",
    "log-timestamp",
    "push-retry",
    "push-ignore-immutable-tag-errors",
    "reproducible",
    "single-snapshot",
    "snapshot-mode",
    "use-new-run",
    "verbosity",
];

/// What the executor is asked for.
pub(super) fn read(args: &[String]) -> Result<Action, String> {
    let line = line("executor", args, KNOWN, false)?;
    if let Some(word) = line.words.first() {
        return Err(format!("`executor` takes no word such as `{word}`"));
    }
    for (name, why) in [
        ("image-name-with-digest-file", "a file with the image's name and digest"),
        ("image-name-tag-with-digest-file", "a file with the image's name and digest"),
    ] {
        if line.last(name).is_some() {
            return Err(format!("`executor --{name}`: {why} is not written here"));
        }
    }
    let context = line.last("context").unwrap_or_else(|| "/workspace".into());
    let context = context.strip_prefix("dir://").unwrap_or(&context).to_owned();
    if ["s3://", "https://storage", "gs://", "tar://"].iter().any(|start| context.starts_with(start)) {
        return Err(format!("`executor` with the context `{context}`; a folder or a repository is built here"));
    }
    let context = match line.last("context-sub-path") {
        Some(path) => format!("{}/{}", context.trim_end_matches('/'), path.trim_start_matches('/')),
        None => context,
    };
    let destinations = line.all("destination");
    let push = !line.is("no-push");
    if destinations.is_empty() && push {
        return Err("`executor` without `--destination` or `--no-push`".into());
    }
    let mut options = line.among(KNOWN, &["label"]);
    options.extend(line.last("digest-file").map(|file| format!("--iidfile={file}")));
    options.extend(line.last("tar-path").map(|file| format!("--output=type=docker,dest={file}")));
    options.extend(line.last("oci-layout-path").map(|path| format!("--output=type=oci,tar=false,dest={path}")));
    if line.is("cache")
        && let Some(repository) = line.last("cache-repo")
    {
        options.push(format!("--cache-from=type=registry,ref={repository}"));
        options.push(format!("--cache-to=type=registry,ref={repository}"));
    }
    let split = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    };
    Ok(Action::Build(Box::new(Build {
        context,
        file: line.last("dockerfile"),
        tags: destinations,
        args: line.all("build-arg").into_iter().map(split).collect(),
        target: line.last("target"),
        platforms: line.all("custom-platform"),
        push,
        cache: true,
        options,
        ignored: line.among(KNOWN, IGNORED),
    })))
}
