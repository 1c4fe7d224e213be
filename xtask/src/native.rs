//! Running things on this machine's own kernel: the program itself, and the tests of it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::packages::{is_root, program};
use crate::step::{capture, follow};
use crate::tally::Tally;
use crate::workspace::{Place, TestTarget, Workspace};
use crate::{build, kubernetes, packages, vm};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// What the incidents run, and the Debian packages that have it: none of them starts a service.
const INCIDENTS: &[(&str, &str)] = &[
    ("apache2", "apache2-bin"),
    ("db_bench", "rocksdb-tools"),
    ("rclone", "rclone"),
    ("restic", "restic"),
];

/// A command that runs with root's rights, by sudo where we lack them; `Err` says why it cannot.
pub(crate) fn as_root(program_path: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program_path));
    }
    if program("sudo").is_none() {
        bail!(
            "filltop needs root's rights, and there is no sudo here: run {} as root",
            program_path.display()
        );
    }
    let mut command = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        if capture(Command::new("sudo").args(["-n", "true"])).is_err() {
            bail!("sudo wants a password, and there is no terminal to ask for it");
        }
        command.arg("-n");
    }
    command.arg("--").arg(program_path);
    Ok(command)
}

/// Becomes the program: its signals, terminal and exit status are ours from here on.
pub(crate) fn run(binary: &Path, arguments: &[OsString]) -> Result<()> {
    let mut command = as_root(binary)?;
    command.args(arguments);
    Err(command.exec().into())
}

/// Takes the pictures of the screen, in a mount namespace of their own.
pub(crate) fn pictures(workspace: &Workspace) -> Result<()> {
    let mut build = workspace.cargo();
    build.args(["build", "--package=tracer", "--example=pictures"]);
    if !build.status()?.success() {
        bail!("the example `pictures` does not build");
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
        bail!("no pictures were taken");
    }
    Ok(())
}

/// Unit tests of every package that is built for people's machines.
pub(crate) fn unit_tests(workspace: &Workspace) -> Result<Tally> {
    let mut tally = Tally::default();
    let groups: [&[&str]; 2] = [
        &["-ptracer-common", "-ptracer-model", "-ptracer", "-pxtask", "-pfilltop-init"],
        // Its integration tests are the end-to-end tests, which have to run as root.
        &["-pfilltop-tests", "--lib", "--bins"],
    ];
    for packages in groups {
        let mut command = workspace.cargo();
        command.args(["test", "--no-fail-fast"]).args(packages).args(["--", "--show-output"]);
        println!("== unit tests: {}", packages.join(" "));
        let started = Instant::now();
        let (success, lines) = follow(&mut command)?;
        let unit = Tally::read("unit", lines.iter().map(String::as_str), success);
        tally.add(unit.since("unit tests, with their build", started));
    }
    Ok(tally)
}

/// Builds the end-to-end tests and runs them on this machine's kernel.
pub(crate) fn end_to_end(workspace: &Workspace, filltop: &Path) -> Result<Tally> {
    let binaries = build::end_to_end(
        workspace,
        &names(&workspace.end_to_end, &[Place::Anywhere, Place::HostOnly]),
    )?;
    packages::need_if_root("the end-to-end tests' filesystems", vm::MKFS)?;
    let tools = tools(workspace);
    let mut tally = Tally::default();
    for (name, binary) in &binaries.tests {
        let suite = format!("native {name}");
        if !Path::new(BTF).exists() {
            tally.add(Tally::skip(format!("{suite}: this kernel has no BTF ({BTF})")));
            continue;
        }
        // sudo drops the environment, so that it has to be set behind it.
        let mut command = match as_root(Path::new("/usr/bin/env")) {
            Ok(command) => command,
            Err(error) => {
                tally.add(Tally::skip(format!("{suite}: {error:#}")));
                continue;
            }
        };
        command.args(&tools);
        test_binary(&mut command, workspace, filltop, &binaries.workload, binary);
        println!("== {suite}");
        let started = Instant::now();
        let (success, lines) = follow(&mut command)?;
        let run = Tally::read(&suite, lines.iter().map(String::as_str), success);
        tally.add(run.since(&suite, started));
    }
    Ok(tally)
}

/// Arguments of env(1) that name what was unpacked for the tests; those that miss it are skipped.
fn tools(workspace: &Workspace) -> Vec<OsString> {
    let complain = |error: &anyhow::Error| println!("the tests do without: {error:#}");
    let _ = packages::need_if_root("what the incidents run", INCIDENTS).inspect_err(complain);
    let _ = packages::need_postgres_if_root().inspect_err(complain);
    let unpacked = [
        ("FILLTOP_FLEET_TOOLS", vm::fleet(workspace)),
        ("FILLTOP_INCIDENT_TOOLS", vm::servers(workspace)),
        ("FILLTOP_RUNTIME_TOOLS", vm::runtimes(workspace)),
        ("FILLTOP_KUBERNETES_TOOLS", kubernetes::tools(workspace)),
    ];
    let found = unpacked
        .into_iter()
        .filter_map(|(key, path)| Some(variable(key, &path.inspect_err(complain).ok()?)));
    found.collect()
}

/// Runs the tests of one suite whose names hold one of `filters`, with further variables.
pub(crate) fn suite(
    workspace: &Workspace,
    filltop: &Path,
    test: &str,
    filters: &[String],
    variables: &[(&str, &Path)],
) -> Result<Tally> {
    let binaries = build::end_to_end(workspace, &[test])?;
    packages::need_if_root("the end-to-end tests' filesystems", vm::MKFS)?;
    let mut tally = Tally::default();
    for (_, binary) in &binaries.tests {
        let mut command = as_root(Path::new("/usr/bin/env"))?;
        command.args(tools(workspace));
        command.args(variables.iter().map(|(key, path)| variable(key, path)));
        test_binary(&mut command, workspace, filltop, &binaries.workload, binary);
        let (success, lines) = follow(command.args(filters))?;
        tally.add(Tally::read(test, lines.iter().map(String::as_str), success));
    }
    Ok(tally)
}

/// What tests of one binary print whose names contain `filter`, with a further variable if one is given.
pub(crate) fn lines_of(
    workspace: &Workspace,
    filltop: &Path,
    test: &str,
    filter: &str,
    further: Option<(&str, &str)>,
) -> Result<Vec<String>> {
    let binaries = build::end_to_end(workspace, &[test])?;
    packages::need_if_root("the end-to-end tests' filesystems", vm::MKFS)?;
    let mut lines = Vec::new();
    for (_, binary) in &binaries.tests {
        let mut command = as_root(Path::new("/usr/bin/env"))?;
        command.args(further.map(|(key, value)| variable(key, Path::new(value))));
        test_binary(&mut command, workspace, filltop, &binaries.workload, binary);
        lines.extend(follow(command.arg(filter))?.1);
    }
    Ok(lines)
}

/// Arguments of env(1) that run a test binary with all that it wants to know.
fn test_binary(
    command: &mut Command,
    workspace: &Workspace,
    filltop: &Path,
    workload: &Path,
    binary: &Path,
) {
    command
        .args(given())
        .arg(variable("FILLTOP_BIN", filltop))
        .arg(variable("FILLTOP_WORKLOAD", workload))
        .arg(variable("CARGO_MANIFEST_DIR", &workspace.root.join("tests")))
        .arg("RUST_BACKTRACE=1")
        .arg(binary)
        .args(["--test-threads=1", "--show-output"])
        .current_dir(workspace.root.join("tests"));
}

/// An argument of env(1).
fn variable(key: &str, path: &Path) -> OsString {
    [key.as_ref(), "=".as_ref(), path.as_os_str()].into_iter().collect()
}

/// `KEY=value` of what people set for the tests themselves, such as FILLTOP_BACKEND.
fn given() -> Vec<OsString> {
    let ours = std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FILLTOP_"));
    ours.map(|(key, value)| [key, "=".into(), value].into_iter().collect()).collect()
}

/// The names of the end-to-end tests that run in these places.
pub(crate) fn names<'a>(targets: &'a [TestTarget], places: &[Place]) -> Vec<&'a str> {
    let fitting = targets.iter().filter(|target| places.contains(&target.place));
    fitting.map(|target| target.name.as_str()).collect()
}
