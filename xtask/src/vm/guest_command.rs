//! A single command run in a virtual machine for the benchmark, with its output returned.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use filltop_init::Report;

use super::args::VmArgs;
use super::runner::{Runner, require_programs};
use crate::workspace::Workspace;

/// A command to run in one machine, and what that machine has in addition to the usual userland.
pub(crate) struct GuestCommand<'a> {
    /// The kernel's series.
    pub(crate) kernel: &'a str,
    /// Additional programs: the path in the machine, and the file here.
    pub(crate) programs: &'a [(String, PathBuf)],
    /// Names of programs installed here that are copied with their libraries.
    pub(crate) installed: &'a [String],
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The number of CPUs; `None` counts instructions instead of time, on one CPU.
    pub(crate) cpus: Option<u32>,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// The longest that the machine may run, in seconds.
    pub(crate) timeout: u64,
}

/// Runs a command in a machine and returns the kernel's release and the lines that the command printed.
///
/// # Errors
/// If the machine cannot be booted or stops early, or if the command fails.
pub(crate) fn output_of(
    workspace: &Workspace,
    filltop: &Path,
    guest: &GuestCommand<'_>,
) -> Result<(String, Vec<String>)> {
    require_programs()?;
    let arguments = VmArgs {
        kernel: vec![guest.kernel.to_owned()],
        smp: guest.cpus.unwrap_or(1),
        memory: guest.memory,
        icount: guest.cpus.is_none(),
        timeout: Some(guest.timeout),
        ..VmArgs::default()
    };
    let mut runner = Runner::with_tests(workspace, filltop, &arguments, &[])?;
    runner.programs.extend_from_slice(guest.programs);
    runner.installed = guest.installed.to_vec();
    let files = runner.boot_files(runner.kernels[0])?;
    let mut job = runner.job(&files.userland);
    job.commands.push(guest.command.clone());
    let name = format!("bench {}", guest.kernel);
    let outcome = runner.boot(&name, &files, &job, &mut |line| println!("{line}"))?;
    if let Some(failure) = outcome.failure {
        bail!("{name}: {failure}");
    }
    let (mut release, mut lines) = (String::new(), Vec::new());
    for report in outcome.reports {
        match report {
            Report::Booted { release: found, .. } => release = found,
            Report::Output(line) => lines.push(line),
            Report::End { status, .. } if status != 0 => {
                bail!("{name}: the command exited with status {status}");
            }
            Report::Warning(_) | Report::Begin(_) | Report::End { .. } | Report::Done => {}
        }
    }
    Ok((release, lines))
}
