//! Executors: the last system call of every action, and the dry run that stops right before it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::Signal;

use super::fence::Wall;
use tracer_host::process::pidfd::PidHandle;
use tracer_kernel::fence::Fence;

/// The last step of every action: makes the system call, or in a dry run records it.
pub trait Hands {
    /// Sends a signal to a process that was just verified.
    ///
    /// # Errors
    /// System errors, and [`Missing::Kill`].
    fn signal(&mut self, whom: &PidHandle, signal: Signal) -> io::Result<()>;
    /// Writes a word to a control file of the kernel.
    ///
    /// # Errors
    /// System errors, and [`Missing::Cgroups`].
    fn write(&mut self, file: &Path, word: &str) -> io::Result<()>;
    /// Attaches the loaded programs of a fence.
    ///
    /// # Errors
    /// System errors.
    fn fence(&mut self, fence: &mut Fence, wall: &Wall) -> io::Result<()>;
    /// Whether this is a dry run.
    fn dry(&self) -> bool;
}

/// A privilege that an action requires and this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
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
pub struct Real;

impl Hands for Real {
    fn signal(&mut self, whom: &PidHandle, signal: Signal) -> io::Result<()> {
        whom.signal(signal).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => io::Error::other(Missing::Kill(whom.identity.pid)),
            _ => error,
        })
    }

    fn write(&mut self, file: &Path, word: &str) -> io::Result<()> {
        fs::write(file, word).map_err(|error| match error.raw_os_error() {
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => {
                io::Error::other(Missing::Cgroups(file.to_owned()))
            }
            _ => error,
        })
    }

    fn fence(&mut self, fence: &mut Fence, _: &Wall) -> io::Result<()> {
        fence.attach().map_err(|error| io::Error::other(format!("{error:#}")))
    }

    fn dry(&self) -> bool {
        false
    }
}

/// Does everything except the last system call, and records that.
#[derive(Debug, Default)]
pub struct Dry {
    /// The system calls that were left out, one line each.
    pub would: Vec<String>,
}

impl Hands for Dry {
    fn signal(&mut self, whom: &PidHandle, signal: Signal) -> io::Result<()> {
        if whom.stat().is_none() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        self.would.push(format!("send {} to {}", signal_name(signal), whom.identity.pid));
        Ok(())
    }

    fn write(&mut self, file: &Path, word: &str) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(file)?;
        self.would.push(format!("write {word} to {}", file.display()));
        Ok(())
    }

    fn fence(&mut self, fence: &mut Fence, wall: &Wall) -> io::Result<()> {
        self.would.push(format!("attach {} loaded programs ({})", fence.programs(), wall.words()));
        Ok(())
    }

    fn dry(&self) -> bool {
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
