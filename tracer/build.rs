//! Tells the crate where the compiled kernel side is, so that it is embedded into the binary.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=FILLTOP_EBPF_OBJECT");
    let object = env::var_os("FILLTOP_EBPF_OBJECT").map_or_else(
        || {
            let workspace =
                PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
            workspace.join("../target/ebpf/filltop.bpf.o")
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    assert!(
        object.is_file(),
        "the kernel side is not compiled yet: run `cargo xtask build` first (looked for {})",
        object.display()
    );
    println!("cargo::rustc-env=FILLTOP_EBPF_OBJECT_PATH={}", object.display());
}
