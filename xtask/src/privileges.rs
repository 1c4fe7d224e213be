//! Root privileges: whether this process has them, and sudo where it does not.

use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{capture, find_program};

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs a program as root, through sudo if this process is not root.
///
/// # Errors
/// If there is no sudo, or if sudo needs a password and there is no terminal.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find_program("sudo").is_none() {
        bail!("filltop needs root, and sudo is not installed; run {} as root", program.display());
    }
    let mut command = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        if capture(Command::new("sudo").args(["-n", "true"])).is_err() {
            bail!("sudo needs a password, and there is no terminal to enter it; run as root");
        }
        command.arg("-n");
    }
    command.arg("--").arg(program);
    Ok(command)
}
