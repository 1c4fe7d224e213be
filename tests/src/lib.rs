//! Shared by the end-to-end tests: filltop under test, volumes of a test's own, the workload's
//! truth.
//!
//! The same binaries run natively and in virtual machines; environment variables configure them:
//! `FILLTOP_BIN`, `FILLTOP_WORKLOAD`, `FILLTOP_BACKEND` (default: filltop's own choice),
//! `FILLTOP_RIGHTS` (`unit`: filltop measures with the unit's capabilities alone; `systemd`:
//! systemd starts it with the unit's settings), `FILLTOP_TEST_DISKS` (block devices that may be
//! formatted; by default loop images are created).

mod cgroup;
mod filling;
pub mod listeners;
mod postgres;
mod public;
pub mod rights;
mod running;
mod server;
mod volume;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

pub use cgroup::{Cgroup, unified};
pub use filling::{fill, fill_up_to, write_at};
pub use postgres::Postgres;
pub use public::Public;
pub use running::{Filltop, Measured, bpf_programs, has_rights_of_the_unit};
pub use server::Server;
pub use volume::{Overlay, TestVolume};
pub use wait::wait_until;
pub use watch::{Watch, command, is};

/// The report of `filltop-workload`.
#[derive(Debug, Deserialize)]
pub struct Truth {
    /// Pid of the workload.
    pub pid: u32,
    /// Bytes written, by path.
    pub written: BTreeMap<PathBuf, u64>,
    /// Failed writes by errno.
    pub errors: BTreeMap<String, u64>,
    /// Pids of the processes that it started.
    pub children: Vec<u32>,
}

impl Truth {
    /// Sum over all files.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.written.values().sum()
    }
}

/// Path of the filltop under test.
#[must_use]
pub fn filltop() -> PathBuf {
    program("FILLTOP_BIN", "filltop")
}

/// The workload program.
#[must_use]
pub fn workload() -> Command {
    Command::new(workload_program())
}

/// The workload program, at a path where every user can run it.
///
/// # Errors
/// If it cannot be copied.
pub fn public_workload() -> anyhow::Result<Public> {
    Public::new(&workload_program())
}

fn workload_program() -> PathBuf {
    program("FILLTOP_WORKLOAD", "filltop-workload")
}

/// Runs the workload to its end.
///
/// # Errors
/// If it fails or prints something else.
pub fn run_workload(command: &mut Command) -> anyhow::Result<Truth> {
    let output = command.output().context("cannot run the workload")?;
    anyhow::ensure!(
        output.status.success(),
        "workload failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A path from the environment, or next to the test binary's directory (`target/<profile>/`).
fn program(variable: &str, name: &str) -> PathBuf {
    env::var_os(variable).map_or_else(
        || {
            let own = env::current_exe().unwrap_or_default();
            own.ancestors().nth(2).unwrap_or(&own).join(name)
        },
        PathBuf::from,
    )
}

/// Why the end-to-end tests cannot run here, if they cannot.
#[must_use]
pub fn cannot_trace() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned())
}

/// Skips the test, with its name and the reason, where tracing is not possible.
#[macro_export]
macro_rules! need_tracing {
    () => {
        if let Some(reason) = $crate::cannot_trace() {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            println!("SKIP {name}: {reason}");
            return Ok(());
        }
    };
}
