//! What must be green.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{codegen, run, tidy};

/// Format, lints, tidy, tests, documentation, generated pages, end-to-end cases; the cheap ones first.
pub fn ci(root: &Path) -> Result<(), String> {
    run(cargo(root).args(["fmt", "--all", "--check"]))?;
    tidy::tidy(root)?;
    run(cargo(root).args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    run(tests(root).args(["--workspace", "--exclude", "ctk-e2e"]))?;
    run(cargo(root).args(["test", "--workspace", "--doc", "--locked", "--quiet"]))?;
    run(cargo(root)
        .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    codegen::codegen(root, &release_binary(root)?, true)?;
    e2e(root, None)
}

/// The release binary, then every case of `e2e/` with it.
pub fn e2e(root: &Path, filter: Option<&str>) -> Result<(), String> {
    let binary = release_binary(root)?;
    run(tests(root).args(["--package", "ctk-e2e"]).args(filter).env("CTK_BINARY", binary))
}

/// Builds `ctk` for release and returns its path.
pub fn release_binary(root: &Path) -> Result<PathBuf, String> {
    run(cargo(root).args(["build", "--release", "--locked", "--package", "ctk"]))?;
    Ok(target(root).join("release/ctk"))
}

/// Builds `ctk` for development and returns its path.
pub fn dev_binary(root: &Path) -> Result<PathBuf, String> {
    run(cargo(root).args(["build", "--locked", "--package", "ctk"]))?;
    Ok(target(root).join("debug/ctk"))
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// `cargo nextest run` where it is installed, else `cargo test`: the same tests either way.
fn tests(root: &Path) -> Command {
    let has_nextest = cargo(root).args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = cargo(root);
    match has_nextest {
        true => command.args(["nextest", "run", "--locked", "--no-fail-fast", "--no-tests", "pass"]),
        false => command.args(["test", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"]),
    };
    command
}
