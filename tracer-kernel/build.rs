//! Passes the paths of the compiled eBPF objects to the crate, which embeds them into the binary.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    embed("FILLTOP_EBPF_OBJECT", "filltop.bpf.o");
    embed("FILLTOP_FENCE_OBJECT", "fence.bpf.o");
}

/// Sets `{variable}_PATH` to the object named by the environment variable, or to where
/// `cargo xtask build` puts it. A debug build without the object embeds an empty one, so that
/// `cargo check` and the tests that do not trace work without LLVM; such a filltop refuses to
/// trace. A release build fails instead.
fn embed(variable: &str, name: &str) {
    println!("cargo::rerun-if-env-changed={variable}");
    let mut object = env::var_os(variable).map_or_else(
        || {
            let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
            package.join("../target/ebpf").join(name)
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        let missing = format!(
            "the eBPF programs are not compiled: run `cargo xtask build` first (looked for {})",
            object.display()
        );
        if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
            println!("cargo::error={missing}");
            return;
        }
        println!("cargo::warning={missing}; this build cannot trace");
        object = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(name);
        fs::write(&object, []).expect("cargo's output directory is writable");
    }
    println!("cargo::rustc-env={variable}_PATH={}", object.display());
}
