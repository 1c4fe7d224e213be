//! `cargo xtask run` and `pictures`, and the unit and end-to-end tests on this machine's kernel.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::command::tee;
use crate::privileges::as_root;
use crate::tally::Tally;
use crate::workspace::{Place, Workspace};
use crate::{build, suite};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Replaces this process by filltop, as root. Returns only if that fails.
pub(crate) fn run(binary: &Path, arguments: &[OsString]) -> Result<()> {
    let mut command = as_root(binary)?;
    command.args(arguments);
    Err(command.exec().into())
}

/// Takes the pictures of the screen, in a separate mount namespace.
pub(crate) fn pictures(workspace: &Workspace) -> Result<()> {
    let mut build = workspace.cargo();
    build.args(["build", "--package=tracer", "--example=pictures"]);
    if !build.status()?.success() {
        bail!("building the example `pictures` failed");
    }
    let into = workspace.root.join("docs/pictures");
    std::fs::create_dir_all(&into)?;
    let mut command = as_root(Path::new("/usr/bin/unshare"))?;
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(workspace.target.join("debug/examples/pictures"))
        .arg(into)
        .arg(workspace.target.join("pictures.img"));
    if !command.status()?.success() {
        bail!("taking the pictures failed");
    }
    Ok(())
}

/// The package that embeds the eBPF objects.
pub(crate) const EBPF_USER: &str = "tracer-kernel";

/// Checks that `cargo fmt` would change nothing.
pub(crate) fn formatting(workspace: &Workspace) -> Result<Tally> {
    let started = Instant::now();
    println!("== formatting");
    let mut command = workspace.cargo();
    let (success, _) = tee(command.args(["fmt", "--all", "--check"]))?;
    let tally = if success { Tally::default() } else { Tally::failure("format: run `cargo fmt`") };
    Ok(tally.with_duration("formatting", started))
}

/// Runs the unit tests of all packages except the eBPF programs and those in `without`.
pub(crate) fn unit_tests(workspace: &Workspace, without: &[&str]) -> Result<Tally> {
    const PACKAGES: [&str; 7] = [
        "tracer-common",
        "tracer-host",
        EBPF_USER,
        "tracer-model",
        "tracer",
        "xtask",
        "filltop-init",
    ];
    let packages = PACKAGES.iter().filter(|name| !without.contains(name));
    let all: Vec<String> = packages.map(|name| format!("-p{name}")).collect();
    // Its integration tests are the end-to-end tests, which run as root.
    let tests = ["-pfilltop-tests", "--lib", "--bins"].map(str::to_owned).to_vec();
    let mut tally = Tally::default();
    for packages in [all, tests] {
        let mut command = workspace.cargo();
        command.args(["test", "--no-fail-fast"]).args(&packages).args(["--", "--show-output"]);
        println!("== unit tests: {}", packages.join(" "));
        let started = Instant::now();
        let (success, lines) = tee(&mut command)?;
        let unit = Tally::parse("unit", lines.iter().map(String::as_str), success);
        tally.add(unit.with_duration("unit tests, with their build", started));
    }
    Ok(tally)
}

/// Builds the end-to-end tests and runs them on this machine's kernel.
pub(crate) fn end_to_end(workspace: &Workspace, filltop: &Path) -> Result<Tally> {
    let binaries =
        build::end_to_end(workspace, &workspace.tests_in(&[Place::Anywhere, Place::HostOnly]))?;
    suite::require_mkfs()?;
    let tools = suite::tool_variables(workspace);
    let mut tally = Tally::default();
    for (name, binary) in &binaries.tests {
        let label = format!("native {name}");
        if !Path::new(BTF).exists() {
            tally.add(Tally::skip(format!("{label}: this kernel has no BTF ({BTF})")));
            continue;
        }
        // The environment is set by env(1) because sudo does not keep it.
        let mut command = match as_root(Path::new("/usr/bin/env")) {
            Ok(command) => command,
            Err(error) => {
                tally.add(Tally::skip(format!("{label}: {error:#}")));
                continue;
            }
        };
        command.args(&tools);
        suite::add_test_binary(&mut command, workspace, filltop, &binaries.workload, binary);
        println!("== {label}");
        let started = Instant::now();
        let (success, lines) = tee(&mut command)?;
        let run = Tally::parse(&label, lines.iter().map(String::as_str), success);
        tally.add(run.with_duration(&label, started));
    }
    Ok(tally)
}
