//! Passes the paths of the compiled eBPF objects to the crate, which embeds them into the binary.

use std::env;
use std::path::PathBuf;

fn main() {
    embed("FILLTOP_EBPF_OBJECT", "filltop.bpf.o");
    embed("FILLTOP_FENCE_OBJECT", "fence.bpf.o");
}

/// Sets `{variable}_PATH` to the object named by the environment variable, or to where
/// `cargo xtask build` puts it.
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
        "the eBPF programs are not compiled yet: run `cargo xtask build` first (looked for {})",
        object.display()
    );
    println!("cargo::rustc-env={variable}_PATH={}", object.display());
}
