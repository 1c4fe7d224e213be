//! Tells the crate where the compiled kernel side is, so that it is embedded into the binary.

use std::env;
use std::path::PathBuf;

fn main() {
    embed("FILLTOP_EBPF_OBJECT", "filltop.bpf.o");
    embed("FILLTOP_FENCE_OBJECT", "fence.bpf.o");
}

/// Looks for an object where the environment says, else where `cargo xtask build` puts it.
fn embed(variable: &str, name: &str) {
    println!("cargo::rerun-if-env-changed={variable}");
    let object = env::var_os(variable).map_or_else(
        || {
            let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
            package.join("../target/ebpf").join(name)
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    assert!(
        object.is_file(),
        "the kernel side is not compiled yet: run `cargo xtask build` first (looked for {})",
        object.display()
    );
    println!("cargo::rustc-env={variable}_PATH={}", object.display());
}
