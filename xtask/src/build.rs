//! `cargo xtask build`: the kernel side, and the one static binary that carries it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::compiler;
use crate::compiler::{Compiler, Llvm};
use crate::step::{capture, step};
use crate::workspace::Workspace;

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";

/// Builds everything and returns where the program is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let (compiler, llvm) = compiler::ensure()?;
    let linker = linker(workspace, &llvm)?;
    kernel_side(workspace, &compiler, &linker)?;
    program(workspace)
}

/// Builds bpf-linker for this LLVM unless that was done before.
fn linker(workspace: &Workspace, llvm: &Llvm) -> Result<PathBuf> {
    let major = llvm.major;
    let tools = workspace.target.join("tools");
    let root = tools.join(format!("{LINKER}-{LINKER_VERSION}-llvm-{major}"));
    let linker = root.join("bin").join(LINKER);
    // Run, not only looked for: it is linked to LLVM's shared library, which can be gone.
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
    step(&format!("{LINKER} {LINKER_VERSION} for LLVM {major}, once"), &mut install)?;
    fs::remove_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    Ok(linker)
}

/// Compiles `tracer-ebpf` and publishes those of its objects that changed.
fn kernel_side(workspace: &Workspace, compiler: &Compiler, linker: &Path) -> Result<()> {
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
        // What the workspace's release profile wants of a program for people harms an object
        // that bpf-linker has to read whole.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    let label =
        format!("kernel side ({} {}, LLVM {})", compiler.name, compiler.release, compiler.llvm);
    step(&label, &mut command)?;
    let built = directory.join(triple).join("release");
    publish(&built.join("filltop-ebpf"), &workspace.object())?;
    publish(&built.join("filltop-fence-ebpf"), &workspace.fence_object())
}

/// Copies a file unless its copy is the same already: a new time stamp would have everything
/// that embeds it built again.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| from.display().to_string())?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let scratch = to.with_extension("new");
    fs::write(&scratch, new)?;
    fs::rename(&scratch, to).with_context(|| to.display().to_string())
}

/// Builds the program `filltop` and puts it where people look for it.
fn program(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package=tracer", "--bin=filltop"]);
    step("filltop, static", &mut command)?;
    let built = workspace.static_dir().join("filltop");
    let shown = workspace.binary();
    link(&built, &shown)?;
    eprintln!("{} ({:.1} MB)", workspace.shown(&shown), megabytes(&shown)?);
    Ok(shown)
}

#[expect(clippy::cast_precision_loss, reason = "a size for people, with one decimal")]
fn megabytes(path: &Path) -> Result<f64> {
    Ok(fs::metadata(path)?.len() as f64 / 1e6)
}

/// Makes `to` another name of `from`, in one step: at no time is there no such file.
fn link(from: &Path, to: &Path) -> Result<()> {
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    if inode(from).is_some() && inode(from) == inode(to) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    let scratch = to.with_extension("new");
    let _ = fs::remove_file(&scratch);
    fs::hard_link(from, &scratch).with_context(|| from.display().to_string())?;
    fs::rename(&scratch, to).with_context(|| to.display().to_string())
}

/// Cargo, set to build statically linked release binaries: they run in a virtual machine that
/// has no libraries, and on every distribution.
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

/// What the end-to-end tests run.
pub(crate) struct EndToEnd {
    /// `filltop-workload`.
    pub(crate) workload: PathBuf,
    /// Test binaries by their names, in the order of names.
    pub(crate) tests: Vec<(String, PathBuf)>,
}

/// Builds the workload and the named tests of `filltop-tests`.
pub(crate) fn end_to_end(workspace: &Workspace, names: &[&str]) -> Result<EndToEnd> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package=filltop-tests", "--bin=filltop-workload"]);
    step("filltop-workload, static", &mut command)?;
    let mut tests = Vec::new();
    if !names.is_empty() {
        let mut command = static_cargo(workspace, "test");
        command.args(["--no-run", "--message-format=json", "--package=filltop-tests"]);
        for name in names {
            command.args(["--test", name]);
        }
        tests = executables(&step("end-to-end tests, static", &mut command)?);
        tests.sort();
    }
    Ok(EndToEnd { workload: workspace.static_dir().join("filltop-workload"), tests })
}

/// Builds PID 1 of the virtual machines.
pub(crate) fn init(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package=filltop-init", "--bin=filltop-init"]);
    step("filltop-init, static", &mut command)?;
    Ok(workspace.static_dir().join("filltop-init"))
}

/// Builds an example of the package `tracer`, statically.
pub(crate) fn example(workspace: &Workspace, package: &str, name: &str) -> Result<PathBuf> {
    let mut command = static_cargo(workspace, "build");
    command.args(["--package", package, "--example", name]);
    step(&format!("example {name}, static"), &mut command)?;
    Ok(workspace.static_dir().join("examples").join(name))
}

/// The test executables that cargo's JSON messages name.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
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
        publish(&from, &to).unwrap();
        let before = fs::metadata(&to).unwrap();
        publish(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().ino(), before.ino());
        fs::write(&from, "two").unwrap();
        publish(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }

    #[test]
    fn a_link_follows_a_rebuilt_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("sub/to"));
        fs::write(&from, "one").unwrap();
        link(&from, &to).unwrap();
        link(&from, &to).unwrap();
        fs::remove_file(&from).unwrap();
        fs::write(&from, "two").unwrap();
        link(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert!(!dir.path().join("sub/to.new").exists());
    }

    #[test]
    fn only_test_executables_are_taken() {
        let messages = concat!(
            r#"{"profile":{"test":false},"target":{"name":"libc"},"executable":null}"#,
            "\n",
            r#"{"profile":{"test":true},"target":{"name":"accounting"},"executable":"/t/a-1"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), [("accounting".to_owned(), "/t/a-1".into())]);
    }
}
