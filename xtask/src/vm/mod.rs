//! `cargo xtask vm`: Debian kernels in QEMU without KVM, with a userland packed by xtask.

mod args;
mod boot;
mod cpio;
mod debian_image;
mod guest_command;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod qemu;
mod queue;
mod results;
mod runner;
mod test_machines;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::tally::Tally;
use crate::workspace::Workspace;
pub(crate) use args::VmArgs;
use debian_image::Software;
pub(crate) use guest_command::{GuestCommand, output_of};
pub(crate) use runner::UNIT_CAPABILITIES;
use runner::{Runner, require_programs};
pub(crate) use test_machines::run_tests;

/// Boots the machines that the arguments describe, and runs the tests or the command in each.
pub(crate) fn run(workspace: &Workspace, filltop: &Path, arguments: &VmArgs) -> Result<ExitCode> {
    require_programs()?;
    let runner = Runner::new(workspace, filltop, arguments)?;
    if arguments.command.is_empty() {
        return Ok(runner.run_tests(&mut |line| println!("{line}"))?.finish());
    }
    let mut status = 0;
    for series in &runner.kernels {
        status = status.max(runner.run_command(series)?);
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// In MiB. The upload sink keeps the parts it has drained in memory.
const INCIDENTS_MEMORY: u32 = 4096;
/// An emulated machine takes about five times as long as a real one.
const INCIDENTS_TIMEOUT_SECONDS: u64 = 3600;

/// Runs the tests of one suite whose names contain one of `filters`, in a Debian with the software of the
/// incidents.
pub(crate) fn run_incidents(
    workspace: &Workspace,
    filltop: &Path,
    suite: &str,
    filters: &[String],
) -> Result<Tally> {
    require_programs()?;
    // They take minutes each, so their output is shown as it is printed.
    let filter = filters.iter().cloned().chain(["--nocapture".to_owned()]).collect();
    let arguments = VmArgs {
        debian: true,
        software: Software::Incidents,
        filter,
        memory: INCIDENTS_MEMORY,
        timeout: Some(INCIDENTS_TIMEOUT_SECONDS),
        ..VmArgs::default()
    };
    Runner::with_tests(workspace, filltop, &arguments, &[suite])?
        .run_tests(&mut |line| println!("{line}"))
}
