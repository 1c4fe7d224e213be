//! Where things are: the workspace, its target directory, the machine's own target triple.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step::capture;

/// One checkout of filltop and where it is built.
pub(crate) struct Workspace {
    /// The directory of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where cargo builds (`CARGO_TARGET_DIR` and cargo's own configuration respected).
    pub(crate) target: PathBuf,
    /// The target triple of this machine, such as `x86_64-unknown-linux-gnu`.
    pub(crate) host: String,
    /// The end-to-end tests of the package `filltop-tests`.
    pub(crate) end_to_end: Vec<TestTarget>,
}

/// One test binary of the package `filltop-tests`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestTarget {
    /// Its name in `cargo test --test NAME`.
    pub(crate) name: String,
    /// Where it runs (`[package.metadata.xtask]` in tests/Cargo.toml).
    pub(crate) place: Place,
}

/// Where a test binary can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine and in virtual machines.
    Anywhere,
    /// It needs the checkout around it (`host-only = [NAME…]`).
    HostOnly,
    /// It changes the system that it runs on: only in a Debian that was booted for it
    /// (`booted-only = [NAME…]`).
    BootedOnly,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self> {
        let metadata =
            capture(cargo().args(["metadata", "--no-deps", "--offline", "--format-version=1"]))?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let path = |key: &str| -> Result<PathBuf> {
            Ok(metadata[key].as_str().with_context(|| format!("cargo metadata: no {key}"))?.into())
        };
        let root = path("workspace_root")?;
        let verbose =
            capture(Command::new(env_or("RUSTC", "rustc")).arg("-vV").current_dir(&root))?;
        let host = field(&verbose, "host").context("rustc -vV names no host")?.to_owned();
        Ok(Self { target: path("target_directory")?, root, host, end_to_end: targets(&metadata) })
    }

    /// Cargo, run for this workspace and its target directory.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        // A build script finds the kernel side at its usual place by itself; naming that place
        // would only make `cargo build` and `cargo xtask build` undo each other's work.
        if self.target != self.root.join("target") {
            command.env("FILLTOP_EBPF_OBJECT", self.object());
            command.env("FILLTOP_FENCE_OBJECT", self.fence_object());
        }
        command
    }

    /// The kernel side's object, which the userspace build embeds.
    pub(crate) fn object(&self) -> PathBuf {
        self.target.join("ebpf/filltop.bpf.o")
    }

    /// The object of the fence, which is embedded, too, and loaded when somebody asks for one.
    pub(crate) fn fence_object(&self) -> PathBuf {
        self.target.join("ebpf/fence.bpf.o")
    }

    /// The finished program.
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("release/filltop")
    }

    /// Where cargo puts release binaries that it builds for a named target.
    pub(crate) fn static_dir(&self) -> PathBuf {
        self.target.join(&self.host).join("release")
    }

    /// A path as people read it: from the workspace's root where it lies below that.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The cargo that runs us.
fn cargo() -> Command {
    Command::new(env_or("CARGO", "cargo"))
}

/// An environment variable, or this where it is not set.
pub(crate) fn env_or(key: &str, default: &str) -> String {
    env::var(key).unwrap_or_else(|_| default.to_owned())
}

/// The value of one `key: value` line.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

fn targets(metadata: &Value) -> Vec<TestTarget> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let Some(package) = packages.into_iter().find(|package| package["name"] == "filltop-tests")
    else {
        return Vec::new();
    };
    let listed = |key: &str, name: &str| {
        let names = package["metadata"]["xtask"][key].as_array();
        names.is_some_and(|names| names.iter().any(|other| other == name))
    };
    let targets = package["targets"].as_array().into_iter().flatten();
    targets
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str())
        .map(|name| TestTarget {
            name: name.to_owned(),
            place: match name {
                _ if listed("host-only", name) => Place::HostOnly,
                _ if listed("booted-only", name) => Place::BootedOnly,
                _ => Place::Anywhere,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_to_end_tests_are_found_and_told_apart() {
        let metadata = serde_json::json!({"packages": [
            {"name": "tracer", "targets": [{"kind": ["test"], "name": "unrelated"}]},
            {"name": "filltop-tests", "metadata": {"xtask": {"host-only": ["cli"],
                "booted-only": ["booted"]}}, "targets": [
                {"kind": ["lib"], "name": "filltop_tests"},
                {"kind": ["test"], "name": "accounting"},
                {"kind": ["test"], "name": "cli"},
                {"kind": ["test"], "name": "booted"},
            ]},
        ]});
        let expected = [
            ("accounting", Place::Anywhere),
            ("cli", Place::HostOnly),
            ("booted", Place::BootedOnly),
        ]
        .map(|(name, place)| TestTarget { name: name.into(), place });
        assert_eq!(targets(&metadata), expected);
    }

    #[test]
    fn fields_of_rustc_are_read() {
        let text = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(field(text, "LLVM version"), Some("22.1.2"));
        assert_eq!(field(text, "release"), None);
    }
}
