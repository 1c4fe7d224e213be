//! The last step of every action, and the dry run that stops right before it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::Signal;

use super::fence::Wall;
use tracer_host::process::pidfd::Handle;
use tracer_kernel::fence::Fence;

/// The last step of every action: the system call that really does it, or the word that it would be.
pub trait Hands {
    /// Sends a signal to a process that was just verified.
    ///
    /// # Errors
    /// What the kernel says.
    fn signal(&mut self, whom: &Handle, signal: Signal) -> io::Result<()>;
    /// Writes a word into a file of the kernel's.
    ///
    /// # Errors
    /// What the kernel says.
    fn write(&mut self, file: &Path, word: &str) -> io::Result<()>;
    /// Puts up a fence whose programs are loaded.
    ///
    /// # Errors
    /// What the kernel says.
    fn fence(&mut self, fence: &mut Fence, wall: &Wall) -> io::Result<()>;
    /// Is nothing really done?
    fn dry(&self) -> bool;
}

/// A right that an action takes and this process does not have.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// kill(2).
    #[error(
        "process {0} is another user's: signalling it takes CAP_KILL (in a container: --cap-add=kill)"
    )]
    Kill(u32),
    /// A control file of the target's cgroup.
    #[error(
        "{} cannot be written to: it takes root, and in a container the host's cgroups mounted writable",
        .0.display()
    )]
    Cgroups(PathBuf),
}

/// Really does it.
#[derive(Debug, Default)]
pub struct Real;

impl Hands for Real {
    fn signal(&mut self, whom: &Handle, signal: Signal) -> io::Result<()> {
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

/// Does all but the last system call, and remembers which that would have been.
#[derive(Debug, Default)]
pub struct Dry {
    /// One line each.
    pub would: Vec<String>,
}

impl Hands for Dry {
    fn signal(&mut self, whom: &Handle, signal: Signal) -> io::Result<()> {
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
        self.would.push(format!("attach {} loaded programs of {}", fence.programs(), wall.words()));
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
