//! Debian packages: installing missing ones as root on Debian, printing the commands elsewhere.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::command::{capture, find_program, timed_step};
use crate::privileges::is_root;

/// Programs that make the filesystems of the tests, and their Debian packages.
pub(crate) const MKFS: &[(&str, &str)] =
    &[("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")];

/// Whether this process can install packages: it is root on Debian.
pub(crate) fn can_install() -> bool {
    is_root() && Path::new("/etc/debian_version").exists() && find_program("apt-get").is_some()
}

/// Updates apt's package lists.
pub(crate) fn update_lists() -> Result<()> {
    quiet_step("apt-get update", apt_get().args(["update", "-q"]))
}

/// Whether the package is in apt's lists.
pub(crate) fn is_available(package: &str) -> bool {
    capture(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_ok()
}

/// Whether to install packages without asking (`--yes`, or a question answered with yes).
static ASSUME_YES: AtomicBool = AtomicBool::new(false);

/// Makes [`install`] not ask from now on.
pub(crate) fn assume_yes() {
    ASSUME_YES.store(true, Ordering::Relaxed);
}

/// Installs packages without removing any. Prints what they are for, and asks on a terminal.
///
/// # Errors
/// If the answer is no, or if apt-get fails.
pub(crate) fn install(purpose: &str, packages: &[String]) -> Result<()> {
    let list = packages.join(" ");
    eprintln!("{purpose} needs Debian packages that are not installed: {list}");
    if !confirm_install()? {
        bail!("not installed; to install them, run:\n{}", install_commands(packages));
    }
    let mut command = apt_get();
    command.args(["install", "-q", "-y", "--no-install-recommends", "--no-remove"]).args(packages);
    quiet_step(&format!("apt-get install {list}"), &mut command)
}

/// Asks once whether to install packages. Without a terminal the answer is yes.
fn confirm_install() -> Result<bool> {
    let has_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if ASSUME_YES.load(Ordering::Relaxed) || !has_terminal {
        return Ok(true);
    }
    eprint!("Install them with apt-get? [Y/n] ");
    io::stderr().flush()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 || !is_yes(&line) {
        return Ok(false);
    }
    assume_yes();
    Ok(true)
}

/// Whether an answer means yes; the default is yes.
fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes")
}

/// Runs a step and shows its stderr only if it fails, because debconf prints many warnings.
fn quiet_step(label: &str, command: &mut Command) -> Result<()> {
    timed_step(label, || capture(command)).map(drop)
}

/// Makes sure that programs are installed: pairs of a program and its Debian package.
///
/// # Errors
/// If a program is missing and cannot be installed.
pub(crate) fn require(purpose: &str, programs: &[(&str, &str)]) -> Result<()> {
    let missing = |programs: &[(&str, &str)]| -> Vec<String> {
        let missing = programs.iter().filter(|(name, _)| find_program(name).is_none());
        missing.map(|(_, package)| (*package).to_owned()).collect()
    };
    let packages = missing(programs);
    if packages.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "{purpose} needs programs that are not installed; on Debian, run:\n{}",
            install_commands(&packages)
        );
    }
    update_lists()?;
    install(purpose, &packages)
}

/// Like [`require`], but does nothing where packages cannot be installed: tests without these programs are
/// skipped.
pub(crate) fn require_if_installable(purpose: &str, programs: &[(&str, &str)]) -> Result<()> {
    if can_install() { require(purpose, programs) } else { Ok(()) }
}

/// Debian's directory of PostgreSQL's programs, with one directory for each version.
const POSTGRES: &str = "/usr/lib/postgresql";
/// The file that configures whether PostgreSQL's package creates a cluster and starts it.
const POSTGRES_SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// Makes sure that PostgreSQL's programs are installed, where packages can be installed. Creates no cluster and
/// leaves no server running.
pub(crate) fn require_postgres_if_installable() -> Result<()> {
    if !can_install() || fs::read_dir(POSTGRES).is_ok_and(|mut versions| versions.next().is_some())
    {
        return Ok(());
    }
    update_lists()?;
    let purpose = "testing PostgreSQL";
    install(purpose, &["postgresql-common".to_owned()])?;
    let settings = fs::read_to_string(POSTGRES_SETTINGS).context(POSTGRES_SETTINGS)?;
    fs::write(POSTGRES_SETTINGS, format!("{settings}\ncreate_main_cluster = false\n"))?;
    let installed = install(purpose, &["postgresql".to_owned()]);
    fs::write(POSTGRES_SETTINGS, settings)?;
    installed
}

/// The commands that install packages, indented, one a line.
pub(crate) fn install_commands(packages: &[String]) -> String {
    format!(
        "    sudo apt-get update\n    sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_means_yes_and_unknown_answers_mean_no() {
        for (line, expected) in
            [("\n", true), ("y\n", true), ("YES\n", true), ("n\n", false), ("what?\n", false)]
        {
            assert_eq!(is_yes(line), expected, "{line:?}");
        }
    }
}
