//! Debian packages: installing what is missing where we may, saying how where we may not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Whether packages can be installed here without asking anybody.
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

/// Installs packages, removing none for them.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let label = format!("apt-get install {}", packages.join(" "));
    let mut command = apt_get();
    command.args(["install", "-q", "-y", "--no-install-recommends", "--no-remove"]).args(packages);
    quietly(&label, &mut command)
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
    install(&packages)
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
    install(&["postgresql-common".to_owned()])?;
    let settings = fs::read_to_string(POSTGRES_SETTINGS).context(POSTGRES_SETTINGS)?;
    fs::write(POSTGRES_SETTINGS, format!("{settings}\ncreate_main_cluster = false\n"))?;
    let installed = install(&["postgresql".to_owned()]);
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
