//! Debian packages: installing what is missing where we may, saying how where we may not.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::step::{capture, timed};

/// Whether we run with root's rights.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds a program as root's PATH would: mkfs and its like are in sbin, which people's PATH often
/// leaves out.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Whether this process has the right to install packages here.
pub(crate) fn can_install() -> bool {
    is_root() && Path::new("/etc/debian_version").exists() && program("apt-get").is_some()
}

/// Brings apt's lists up to date.
pub(crate) fn update() -> Result<()> {
    quietly("apt-get update", apt_get().args(["update", "-q"]))
}

/// Whether apt knows the package. Only as good as apt's lists are.
pub(crate) fn available(package: &str) -> bool {
    capture(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_ok()
}

/// Was it agreed on the command line (`--yes`) that packages may be installed?
static AGREED: AtomicBool = AtomicBool::new(false);

/// Installs what is missing without a question from here on.
pub(crate) fn agree() {
    AGREED.store(true, Ordering::Relaxed);
}

/// Installs packages, removing none for them: says what for, and asks on a terminal.
pub(crate) fn install(purpose: &str, packages: &[String]) -> Result<()> {
    let list = packages.join(" ");
    eprintln!("{purpose} needs Debian packages that are not installed: {list}");
    if !may_install()? {
        bail!("not installed; to install them by hand:\n{}", by_hand(packages));
    }
    let mut command = apt_get();
    command.args(["install", "-q", "-y", "--no-install-recommends", "--no-remove"]).args(packages);
    quietly(&format!("apt-get install {list}"), &mut command)
}

/// Asks, once for all, where there is somebody to ask.
fn may_install() -> Result<bool> {
    let has_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if AGREED.load(Ordering::Relaxed) || !has_terminal {
        return Ok(true);
    }
    eprint!("Install them with apt-get? [Y/n] ");
    io::stderr().flush()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 || !is_yes(&line) {
        return Ok(false);
    }
    agree();
    Ok(true)
}

/// Enter alone is yes.
fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes")
}

/// A step whose complaints only matter when it fails: debconf has many.
fn quietly(label: &str, command: &mut Command) -> Result<()> {
    timed(label, || capture(command)).map(drop)
}

/// Makes sure that these programs are here (name of the program, Debian package that has it).
pub(crate) fn need(purpose: &str, programs: &[(&str, &str)]) -> Result<()> {
    let missing = |programs: &[(&str, &str)]| -> Vec<String> {
        let missing = programs.iter().filter(|(name, _)| program(name).is_none());
        missing.map(|(_, package)| (*package).to_owned()).collect()
    };
    let packages = missing(programs);
    if packages.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!("{purpose} needs programs that are not here; on Debian:\n{}", by_hand(&packages));
    }
    update()?;
    install(purpose, &packages)
}

/// As [`need`], for what tests can do without by skipping: who may not install is not bothered.
pub(crate) fn need_if_root(purpose: &str, programs: &[(&str, &str)]) -> Result<()> {
    if can_install() { need(purpose, programs) } else { Ok(()) }
}

/// Where Debian keeps PostgreSQL's programs, a directory for each version.
const POSTGRES: &str = "/usr/lib/postgresql";
/// Says whether the server's package makes a database of its own and starts it.
const POSTGRES_SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// Makes sure that PostgreSQL's programs are here, where we may install; no server is left running, and
/// no database is made.
pub(crate) fn need_postgres_if_root() -> Result<()> {
    if !can_install() || fs::read_dir(POSTGRES).is_ok_and(|mut versions| versions.next().is_some())
    {
        return Ok(());
    }
    update()?;
    let purpose = "the test of PostgreSQL";
    install(purpose, &["postgresql-common".to_owned()])?;
    let settings = fs::read_to_string(POSTGRES_SETTINGS).context(POSTGRES_SETTINGS)?;
    fs::write(POSTGRES_SETTINGS, format!("{settings}\ncreate_main_cluster = false\n"))?;
    let installed = install(purpose, &["postgresql".to_owned()]);
    fs::write(POSTGRES_SETTINGS, settings)?;
    installed
}

/// The commands with which people install packages themselves.
pub(crate) fn by_hand(packages: &[String]) -> String {
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
    fn enter_is_yes_and_anything_unknown_is_no() {
        for (line, expected) in
            [("\n", true), ("y\n", true), ("YES\n", true), ("n\n", false), ("what?\n", false)]
        {
            assert_eq!(is_yes(line), expected, "{line:?}");
        }
    }
}
