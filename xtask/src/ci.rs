//! What must be green.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{codegen, run, tidy};

/// Format, lints, tidy, tests, documentation, generated pages, end-to-end cases; the cheap ones first.
///
/// All of it in one profile and for all packages at once: dependencies are then compiled once, whoever uses them with
/// whichever features.
pub fn ci(root: &Path) -> Result<(), String> {
    let all = |command: &str| {
        let mut cargo = cargo(root);
        cargo.args([command, "--profile", PROFILE, "--workspace", "--features", "xtask/whole", "--locked"]);
        cargo
    };
    run(cargo(root).args(["fmt", "--all", "--check"]))?;
    tidy::tidy(root)?;
    run(all("clippy").args(["--all-targets", "--", "-D", "warnings"]))?;
    run(all("build").arg("--all-targets"))?;
    run(&mut tests(root, PROFILE, Which::Units))?;
    run(all("test").args(["--doc", "--quiet"]))?;
    run(all("doc").args(["--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    let binary = target(root).join(PROFILE).join("ctk");
    codegen::codegen(root, &binary, true)?;
    let example = binary.with_file_name("example-xtask");
    // What the README's first command builds, for the size that the project promises of it.
    let release = build_release(root)?;
    let mut cases = tests(root, PROFILE, Which::Cases);
    run(cases.env("CTK_BINARY", binary).env("CTK_EXAMPLE_XTASK", example).env("CTK_RELEASE", release))
}

/// The profile of everything that must be green.
const PROFILE: &str = "ci";

/// The release binary, then every case of `e2e/` with it.
pub fn e2e(root: &Path, filter: Option<&str>) -> Result<(), String> {
    let binary = release_binary(root)?;
    run(tests(root, "dev", Which::CasesAlone).args(filter).env("CTK_BINARY", binary))
}

/// Builds `ctk` for release, and `ctk-runtime` beside it, and returns the path of the first.
pub fn release_binary(root: &Path) -> Result<PathBuf, String> {
    let binary = build_release(root)?;
    runtime_program(root)?;
    Ok(binary)
}

fn build_release(root: &Path) -> Result<PathBuf, String> {
    run(cargo(root).args(["build", "--release", "--locked", "--package", "ctk", "--bin", "ctk"]))?;
    Ok(target(root).join("release/ctk"))
}

/// Builds `ctk-runtime` as a program of its own, for release: linked statically, so that it needs no loader and can seal
/// itself before its C library begins; with musl where its target is installed, since glibc asks the processor about its
/// caches some seventy times at each start, which a virtual machine answers in 6 µs each.
fn runtime_program(root: &Path) -> Result<(), String> {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(root).args(["--print", "target-libdir", "--target", &triple]);
    let library = command.output().ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let has_musl = library.is_some_and(|path| !path.is_empty() && Path::new(&path).is_dir());
    let flags =
        ["-C", "target-feature=+crt-static", "-C", "relocation-model=static", "-C", "link-arg=-Wl,-e,ctk_start"];
    let mut command = cargo(root);
    command.args(["rustc", "--release", "--locked", "--package", "ctk-runtime-static", "--bin", "ctk-runtime-static"]);
    let built = match has_musl {
        true => target(root).join(&triple).join("release/ctk-runtime-static"),
        false => target(root).join("release/ctk-runtime-static"),
    };
    if has_musl {
        command.args(["--target", &triple]);
    } else {
        eprintln!("ctk-runtime is built with glibc: `rustup target add {triple}` makes one that starts sooner");
    }
    run(command.arg("--").args(flags))?;
    let place = target(root).join("release/ctk-runtime");
    std::fs::copy(&built, &place)
        .map(drop)
        .map_err(|e| format!("cannot copy {} to {}: {e}", built.display(), place.display()))
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

/// Tests to run.
enum Which {
    /// Those of the crates; built is the whole workspace, since with fewer packages dependencies have other features and
    /// are compiled again.
    Units,
    /// Those of `e2e/`, built likewise.
    Cases,
    /// The same, with nothing else built.
    CasesAlone,
}

/// `cargo nextest run` where it is installed, else `cargo test`: the same tests either way.
fn tests(root: &Path, profile: &str, which: Which) -> Command {
    let has_nextest = cargo(root).args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = cargo(root);
    match has_nextest {
        true => command.args(["nextest", "run", "--locked", "--no-fail-fast", "--no-tests", "pass", "--cargo-profile"]),
        false => command.args(["test", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests", "--profile"]),
    };
    command.arg(profile).args(match (which, has_nextest) {
        (Which::Units, true) => {
            ["--workspace", "--features", "xtask/whole", "--filterset", "not package(ctk-e2e)"].as_slice()
        }
        (Which::Units, false) => &["--workspace", "--features", "xtask/whole", "--exclude", "ctk-e2e"],
        (Which::Cases, true) => &["--workspace", "--features", "xtask/whole", "--filterset", "package(ctk-e2e)"],
        (Which::Cases, false) | (Which::CasesAlone, _) => &["--package", "ctk-e2e"],
    });
    command
}
