//! Compiles the program that is first in containers with `--init`: static, without a library, whatever the rest is
//! linked with.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let program = PathBuf::from(variable("OUT_DIR")).join("ctk-init");
    if !["x86_64", "aarch64"].contains(&variable("CARGO_CFG_TARGET_ARCH").as_str()) {
        // `--init` says so.
        std::fs::write(&program, "").unwrap_or_else(|error| panic!("cannot write {}: {error}", program.display()));
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "ctk_init", "--crate-type", "bin", "init/main.rs"]);
    rustc.args(["--target", &variable("TARGET"), "-o"]).arg(&program);
    rustc.args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols", "-C", "debuginfo=0"]);
    rustc.args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"]);
    rustc.args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"]);
    rustc.args(["-C", "link-arg=-no-pie", "-C", "link-arg=-Wl,--build-id=none,-z,noseparate-code,-z,norelro"]);
    if variable("CARGO_CFG_TARGET_ENV") == "musl" {
        // Else rustc brings the beginning of a C program along.
        rustc.args(["-C", "link-self-contained=no"]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().unwrap_or_else(|error| panic!("cannot run rustc: {error}"));
    assert!(status.success(), "the program of --init cannot be compiled");
}
