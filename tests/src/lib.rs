//! What the end-to-end tests share: filltop under test, volumes of its own, the workload's truth.
//!
//! The same binaries run natively and in virtual machines; the environment says where they are:
//! `FILLTOP_BIN`, `FILLTOP_WORKLOAD`, `FILLTOP_BACKEND` (else the ladder decides), `FILLTOP_RIGHTS`
//! (`unit`: filltop measures with the unit's capabilities alone; `systemd`: systemd starts it under its lines),
//! `FILLTOP_TEST_DISKS` (block devices that may be formatted; else loop images are made).

mod cgroup;
mod filling;
pub mod listeners;
mod postgres;
mod public;
pub mod rights;
mod running;
mod server;
mod volume;
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
pub use watch::{Watch, command, is};

/// What `filltop-workload` says that it did.
#[derive(Debug, Deserialize)]
pub struct Truth {
    /// Its process.
    pub pid: u32,
    /// Bytes by path.
    pub written: BTreeMap<PathBuf, u64>,
    /// Failed writes by errno.
    pub errors: BTreeMap<String, u64>,
    /// Processes that it started.
    pub children: Vec<u32>,
}

impl Truth {
    /// Sum over all files.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.written.values().sum()
    }
}

/// The filltop under test.
#[must_use]
pub fn filltop() -> PathBuf {
    program("FILLTOP_BIN", "filltop")
}

/// The workload program.
#[must_use]
pub fn workload() -> Command {
    Command::new(workload_program())
}

/// The workload program where every user can run it.
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

/// From the environment, else beside the test binary's folder (`target/<profile>/`).
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

/// Ends the test as skipped, with its name and the reason, where tracing is not to be had.
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
