//! The cargo workspace: its directories, its test binaries, and this machine's target triple.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::capture;

/// A checkout of filltop and its target directory.
pub(crate) struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// The target directory (`CARGO_TARGET_DIR` and cargo's configuration are respected).
    pub(crate) target: PathBuf,
    /// This machine's target triple, such as `x86_64-unknown-linux-gnu`.
    pub(crate) host: String,
    /// The end-to-end test binaries of the package `filltop-tests`.
    end_to_end_tests: Vec<TestTarget>,
}

/// A test binary of the package `filltop-tests`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TestTarget {
    /// The name in `cargo test --test NAME`.
    name: String,
    /// Where it runs, from `[package.metadata.xtask]` in tests/Cargo.toml.
    place: Place,
}

/// Where a test binary can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine and in virtual machines.
    Anywhere,
    /// On this machine only, because it needs the checkout (`host-only = [NAME…]`).
    HostOnly,
    /// In a Debian booted for the tests only, because it changes the system that it runs on
    /// (`booted-only = [NAME…]`).
    DebianVmOnly,
}

impl Workspace {
    /// Reads the workspace from cargo and rustc.
    pub(crate) fn find() -> Result<Self> {
        let metadata =
            capture(cargo().args(["metadata", "--no-deps", "--offline", "--format-version=1"]))?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let path = |key: &str| -> Result<PathBuf> {
            Ok(metadata[key]
                .as_str()
                .with_context(|| format!("no {key} in the output of cargo metadata"))?
                .into())
        };
        let root = path("workspace_root")?;
        let verbose =
            capture(Command::new(env_or("RUSTC", "rustc")).arg("-vV").current_dir(&root))?;
        let host =
            field(&verbose, "host").context("no host in the output of rustc -vV")?.to_owned();
        let end_to_end_tests = test_targets(&metadata);
        Ok(Self { target: path("target_directory")?, root, host, end_to_end_tests })
    }

    /// A cargo command that runs in this workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        // The build script finds the eBPF objects in the default target directory by itself. Setting the
        // variables there as well would make `cargo build` and `cargo xtask build` invalidate each other's output.
        if self.target != self.root.join("target") {
            command.env("FILLTOP_EBPF_OBJECT", self.ebpf_object());
            command.env("FILLTOP_FENCE_OBJECT", self.fence_ebpf_object());
        }
        command
    }

    /// The names of the end-to-end test binaries that run in one of these places.
    pub(crate) fn tests_in(&self, places: &[Place]) -> Vec<&str> {
        let tests = self.end_to_end_tests.iter().filter(|test| places.contains(&test.place));
        tests.map(|test| test.name.as_str()).collect()
    }

    /// The eBPF object, which filltop embeds.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/filltop.bpf.o")
    }

    /// The eBPF object of the fence, which filltop embeds as well and loads when a fence is requested.
    pub(crate) fn fence_ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/fence.bpf.o")
    }

    /// The final program.
    pub(crate) fn filltop(&self) -> PathBuf {
        self.target.join("release/filltop")
    }

    /// The directory of release binaries built with an explicit `--target`, all statically linked.
    pub(crate) fn static_dir(&self) -> PathBuf {
        self.target.join(&self.host).join("release")
    }

    /// A path relative to the workspace's root if it is below it, for messages.
    pub(crate) fn display(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The cargo that runs this process.
fn cargo() -> Command {
    Command::new(env_or("CARGO", "cargo"))
}

/// The value of an environment variable, or `default` if it is not set.
pub(crate) fn env_or(key: &str, default: &str) -> String {
    env::var(key).unwrap_or_else(|_| default.to_owned())
}

/// The value of the line `key: value` in a text.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

/// The version of this machine's kernel, without the suffix of its distribution.
pub(crate) fn kernel_version() -> Result<String> {
    let release = capture(Command::new("uname").arg("-r"))?;
    Ok(release.trim().split('-').next().unwrap_or_default().to_owned())
}

/// The test targets of `filltop-tests` in the output of `cargo metadata`.
fn test_targets(metadata: &Value) -> Vec<TestTarget> {
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
                _ if listed("booted-only", name) => Place::DebianVmOnly,
                _ => Place::Anywhere,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_to_end_tests_are_found_with_their_places() {
        let metadata = serde_json::json!({"packages": [
            {"name": "tracer", "targets": [{"kind": ["test"], "name": "unrelated"}]},
            {"name": "filltop-tests", "metadata": {"xtask": {"host-only": ["cli"],
                "booted-only": ["systemd"]}}, "targets": [
                {"kind": ["lib"], "name": "filltop_tests"},
                {"kind": ["test"], "name": "accounting"},
                {"kind": ["test"], "name": "cli"},
                {"kind": ["test"], "name": "systemd"},
            ]},
        ]});
        let expected = [
            ("accounting", Place::Anywhere),
            ("cli", Place::HostOnly),
            ("systemd", Place::DebianVmOnly),
        ]
        .map(|(name, place)| TestTarget { name: name.into(), place });
        assert_eq!(test_targets(&metadata), expected);
    }

    #[test]
    fn fields_of_rustc_are_read() {
        let text = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(field(text, "LLVM version"), Some("22.1.2"));
        assert_eq!(field(text, "release"), None);
    }
}
