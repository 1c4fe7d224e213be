//! Executors: the last system call of every action, and the dry run that stops right before it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::Signal;

use super::fence::FenceSpec;
use tracer_host::process::pidfd::PidHandle;
use tracer_kernel::fence::Fence;

/// The last step of every action: makes the system call, or in a dry run records it.
pub(crate) trait Executor {
    /// Sends a signal to a process that was just verified.
    ///
    /// # Errors
    /// System errors, and [`MissingPrivilege::Kill`].
    fn signal(&mut self, process: &PidHandle, signal: Signal) -> io::Result<()>;
    /// Writes a word to a control file of the kernel.
    ///
    /// # Errors
    /// System errors, and [`MissingPrivilege::Cgroups`].
    fn write(&mut self, file: &Path, word: &str) -> io::Result<()>;
    /// Attaches the loaded programs of a fence.
    ///
    /// # Errors
    /// System errors.
    fn fence(&mut self, fence: &mut Fence, fence_spec: &FenceSpec) -> io::Result<()>;
    /// Whether this is a dry run.
    fn is_dry_run(&self) -> bool;
}

/// A privilege that an action requires and this process lacks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MissingPrivilege {
    /// The privilege to signal another user's process, kill(2).
    #[error(
        "process {0} belongs to another user; signalling it requires CAP_KILL (in a container: --cap-add=kill)"
    )]
    Kill(u32),
    /// Write access to a control file of the target's cgroup.
    #[error(
        "cannot write to {}; run as root, and in a container mount the host's cgroups writable",
        .0.display()
    )]
    Cgroups(PathBuf),
}

/// Makes the system calls.
#[derive(Debug, Default)]
pub(crate) struct SystemExecutor;

impl Executor for SystemExecutor {
    fn signal(&mut self, process: &PidHandle, signal: Signal) -> io::Result<()> {
        process.signal(signal).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => io::Error::other(MissingPrivilege::Kill(process.identity.pid)),
            _ => error,
        })
    }

    fn write(&mut self, file: &Path, word: &str) -> io::Result<()> {
        fs::write(file, word).map_err(|error| match error.raw_os_error() {
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => {
                io::Error::other(MissingPrivilege::Cgroups(file.to_owned()))
            }
            _ => error,
        })
    }

    fn fence(&mut self, fence: &mut Fence, _: &FenceSpec) -> io::Result<()> {
        fence.attach().map_err(|error| io::Error::other(format!("{error:#}")))
    }

    fn is_dry_run(&self) -> bool {
        false
    }
}

/// Does everything except the last system call, and records that.
#[derive(Debug, Default)]
pub(crate) struct DryRun {
    /// The system calls that were left out, one line each.
    pub would: Vec<String>,
}

impl Executor for DryRun {
    fn signal(&mut self, process: &PidHandle, signal: Signal) -> io::Result<()> {
        if process.stat().is_none() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        self.would.push(format!("send {} to {}", signal_name(signal), process.identity.pid));
        Ok(())
    }

    fn write(&mut self, file: &Path, word: &str) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(file)?;
        self.would.push(format!("write {word} to {}", file.display()));
        Ok(())
    }

    fn fence(&mut self, fence: &mut Fence, fence_spec: &FenceSpec) -> io::Result<()> {
        self.would.push(format!(
            "attach {} loaded programs ({})",
            fence.programs(),
            fence_spec.describe()
        ));
        Ok(())
    }

    fn is_dry_run(&self) -> bool {
        true
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::STOP => "SIGSTOP",
        Signal::CONT => "SIGCONT",
        Signal::TERM => "SIGTERM",
        Signal::KILL => "SIGKILL",
        _ => "a signal",
    }
}
