//! One suite of the end-to-end tests on this machine's kernel, as root.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::tee;
use crate::packages::{self, MKFS};
use crate::privileges::as_root;
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{build, test_tools};

/// Runs the tests of a suite whose names contain one of `filters`, or all if there is none, with additional
/// environment variables.
pub(crate) fn run(
    workspace: &Workspace,
    filltop: &Path,
    suite: &str,
    filters: &[String],
    variables: &[(&str, &Path)],
) -> Result<Tally> {
    let binaries = build::end_to_end(workspace, &[suite])?;
    require_mkfs()?;
    let mut tally = Tally::default();
    for (_, binary) in &binaries.tests {
        let mut command = as_root(Path::new("/usr/bin/env"))?;
        command.args(tool_variables(workspace));
        command.args(variables.iter().map(|(key, path)| env_argument(key, path)));
        add_test_binary(&mut command, workspace, filltop, &binaries.workload, binary);
        let (success, lines) = tee(command.args(filters))?;
        tally.add(Tally::parse(suite, lines.iter().map(String::as_str), success));
    }
    Ok(tally)
}

/// Runs the tests of a suite whose names contain `filter`, with one more environment variable if given, and
/// returns the lines that they print.
pub(crate) fn output_of(
    workspace: &Workspace,
    filltop: &Path,
    suite: &str,
    filter: &str,
    variable: Option<(&str, &str)>,
) -> Result<Vec<String>> {
    let binaries = build::end_to_end(workspace, &[suite])?;
    require_mkfs()?;
    let mut lines = Vec::new();
    for (_, binary) in &binaries.tests {
        let mut command = as_root(Path::new("/usr/bin/env"))?;
        command.args(variable.map(|(key, value)| env_argument(key, value)));
        add_test_binary(&mut command, workspace, filltop, &binaries.workload, binary);
        lines.extend(tee(command.arg(filter))?.1);
    }
    Ok(lines)
}

/// Installs the programs that make the tests' filesystems, where packages can be installed.
pub(crate) fn require_mkfs() -> Result<()> {
    packages::require_if_installable("making the end-to-end tests' filesystems", MKFS)
}

/// Prepares the software that tests run, and returns the arguments of env(1) with its directories.
pub(crate) fn tool_variables(workspace: &Workspace) -> Vec<OsString> {
    let variables = test_tools::prepare(workspace);
    variables.into_iter().map(|(key, path)| env_argument(key, path)).collect()
}

/// Adds the arguments of env(1) that run a test binary with the environment it needs.
pub(crate) fn add_test_binary(
    command: &mut Command,
    workspace: &Workspace,
    filltop: &Path,
    workload: &Path,
    binary: &Path,
) {
    command
        .args(inherited_variables())
        .arg(env_argument("FILLTOP_BIN", filltop))
        .arg(env_argument("FILLTOP_WORKLOAD", workload))
        .arg(env_argument("CARGO_MANIFEST_DIR", workspace.root.join("tests")))
        .arg("RUST_BACKTRACE=1")
        .arg(binary)
        .args(["--test-threads=1", "--show-output"])
        .current_dir(workspace.root.join("tests"));
}

/// `KEY=value`, as an argument of env(1).
fn env_argument(key: &str, value: impl AsRef<OsStr>) -> OsString {
    [key.as_ref(), "=".as_ref(), value.as_ref()].into_iter().collect()
}

/// The variables that the caller set for the tests, such as FILLTOP_BACKEND, as arguments of env(1): sudo does
/// not keep the environment.
fn inherited_variables() -> Vec<OsString> {
    let ours = std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FILLTOP_"));
    ours.map(|(key, value)| [key, "=".into(), value].into_iter().collect()).collect()
}
