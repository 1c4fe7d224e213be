//! `cargo xtask build`: the eBPF objects, and the static binary that embeds them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{capture, run_step};
use crate::compiler::{self, Compiler, Llvm};
use crate::workspace::Workspace;

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";

/// Builds filltop and everything it needs, and returns the path of the program.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    ebpf_objects(workspace)?;
    filltop(workspace)
}

/// Compiles the eBPF objects, with the compiler and the linker that they need.
pub(crate) fn ebpf_objects(workspace: &Workspace) -> Result<()> {
    let (compiler, llvm) = compiler::ensure()?;
    let linker = ensure_linker(workspace, &llvm)?;
    compile_ebpf(workspace, &compiler, &linker)
}

/// Returns bpf-linker for this LLVM, and builds it the first time.
fn ensure_linker(workspace: &Workspace, llvm: &Llvm) -> Result<PathBuf> {
    let major = llvm.major;
    let tools = workspace.target.join("tools");
    let root = tools.join(format!("{LINKER}-{LINKER_VERSION}-llvm-{major}"));
    let linker = root.join("bin").join(LINKER);
    // Run, not only checked for existence: LLVM's shared library, to which it is linked, may have been removed.
    if capture(Command::new(&linker).arg("--version")).is_ok() {
        return Ok(linker);
    }
    let scratch = tools.join("build");
    let mut install = workspace.cargo();
    install
        .args(["install", LINKER, "--version", LINKER_VERSION, "--locked", "--quiet", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{major}"), "--root"])
        .arg(&root)
        .env("LLVM_PREFIX", &llvm.prefix)
        .env("CARGO_TARGET_DIR", &scratch);
    run_step(
        &format!("{LINKER} {LINKER_VERSION} for LLVM {major} (first time only)"),
        &mut install,
    )?;
    fs::remove_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    Ok(linker)
}

/// Compiles `tracer-ebpf` and replaces the objects that changed.
fn compile_ebpf(workspace: &Workspace, compiler: &Compiler, linker: &Path) -> Result<()> {
    let triple =
        if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let directory = workspace.target.join("ebpf");
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker);
    flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Cpanic=abort");

    let mut command = workspace.cargo();
    if let Some(cargo) = &compiler.cargo {
        command = Command::new(cargo);
        command.current_dir(&workspace.root);
    }
    command
        .args(["build", "--quiet", "--release", "--package=tracer-ebpf", "--bins"])
        .args(["-Zbuild-std=core", "--target", triple, "--target-dir"])
        .arg(&directory)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // bpf-linker needs whole objects: the workspace's release profile strips and uses LTO.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    let label =
        format!("eBPF objects ({} {}, LLVM {})", compiler.name, compiler.release, compiler.llvm);
    run_step(&label, &mut command)?;
    let built = directory.join(triple).join("release");
    copy_if_changed(&built.join("filltop-ebpf"), &workspace.ebpf_object())?;
    copy_if_changed(&built.join("filltop-fence-ebpf"), &workspace.fence_ebpf_object())
}

/// Copies a file if the copy differs: a new time stamp would rebuild everything that embeds it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| from.display().to_string())?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let scratch = to.with_extension("new");
    fs::write(&scratch, new)?;
    fs::rename(&scratch, to).with_context(|| to.display().to_string())
}

/// Builds the program `filltop` and links it to `target/release/filltop`.
fn filltop(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package=tracer", "--bin=filltop"]);
    run_step("filltop, static", &mut command)?;
    let built = workspace.static_dir().join("filltop");
    let filltop = workspace.filltop();
    hard_link(&built, &filltop)?;
    eprintln!("{} ({:.1} MB)", workspace.display(&filltop), megabytes(&filltop)?);
    Ok(filltop)
}

#[expect(clippy::cast_precision_loss, reason = "displayed with one decimal")]
fn megabytes(path: &Path) -> Result<f64> {
    Ok(fs::metadata(path)?.len() as f64 / 1e6)
}

/// Makes `to` a hard link to `from`, atomically: `to` never ceases to exist.
fn hard_link(from: &Path, to: &Path) -> Result<()> {
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    if inode(from).is_some() && inode(from) == inode(to) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file without a directory")?)?;
    let scratch = to.with_extension("new");
    let _ = fs::remove_file(&scratch);
    fs::hard_link(from, &scratch).with_context(|| from.display().to_string())?;
    fs::rename(&scratch, to).with_context(|| to.display().to_string())
}

/// A cargo command that builds statically linked release binaries, which run on every distribution and in a
/// virtual machine without libraries.
fn static_cargo(workspace: &Workspace, verb: &str) -> Command {
    let mut flags = Vec::new();
    if let Ok(encoded) = std::env::var("CARGO_ENCODED_RUSTFLAGS") {
        flags.extend(encoded.split('\x1f').map(str::to_owned));
    } else if let Ok(plain) = std::env::var("RUSTFLAGS") {
        flags.extend(plain.split_whitespace().map(str::to_owned));
    }
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    let mut command = workspace.cargo();
    command
        .args([verb, "--quiet", "--release", "--target", &workspace.host])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// The binaries of the end-to-end tests.
pub(crate) struct EndToEnd {
    /// The path of `filltop-workload`.
    pub(crate) workload: PathBuf,
    /// Names and paths of test binaries, sorted by name.
    pub(crate) tests: Vec<(String, PathBuf)>,
}

/// Builds the workload and the named tests of `filltop-tests`.
pub(crate) fn end_to_end(workspace: &Workspace, names: &[&str]) -> Result<EndToEnd> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package=filltop-tests", "--bin=filltop-workload"]);
    run_step("filltop-workload, static", &mut command)?;
    let mut tests = Vec::new();
    if !names.is_empty() {
        let mut command = static_cargo(workspace, "test");
        command.args(["--no-run", "--message-format=json", "--package=filltop-tests"]);
        for name in names {
            command.args(["--test", name]);
        }
        tests = test_executables(&run_step("end-to-end tests, static", &mut command)?);
        tests.sort();
    }
    Ok(EndToEnd { workload: workspace.static_dir().join("filltop-workload"), tests })
}

/// Builds PID 1 of the virtual machines.
pub(crate) fn vm_init(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package=filltop-init", "--bin=filltop-init"]);
    run_step("filltop-init, static", &mut command)?;
    Ok(workspace.static_dir().join("filltop-init"))
}

/// Builds an example of the package `tracer`, statically.
pub(crate) fn example(workspace: &Workspace, package: &str, name: &str) -> Result<PathBuf> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package", package, "--example", name]);
    run_step(&format!("example {name}, static"), &mut command)?;
    Ok(workspace.static_dir().join("examples").join(name))
}

/// Names and paths of the test executables in cargo's JSON messages.
fn test_executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, message["executable"].as_str()?.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let before = fs::metadata(&to).unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().ino(), before.ino());
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }

    #[test]
    fn the_link_is_replaced_after_a_rebuild() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("sub/to"));
        fs::write(&from, "one").unwrap();
        hard_link(&from, &to).unwrap();
        hard_link(&from, &to).unwrap();
        fs::remove_file(&from).unwrap();
        fs::write(&from, "two").unwrap();
        hard_link(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert!(!dir.path().join("sub/to.new").exists());
    }

    #[test]
    fn only_test_executables_are_listed() {
        let messages = concat!(
            r#"{"profile":{"test":false},"target":{"name":"libc"},"executable":null}"#,
            "\n",
            r#"{"profile":{"test":true},"target":{"name":"accounting"},"executable":"/t/a-1"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(test_executables(messages), [("accounting".to_owned(), "/t/a-1".into())]);
    }
}
