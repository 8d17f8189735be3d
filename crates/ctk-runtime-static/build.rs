//! How the programs are linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Position-independent programs are relocated by the dynamic loader page by page at each start, which takes longer
    // than everything else that a small command does.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
