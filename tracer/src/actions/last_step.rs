//! The last step of every action, and the dry run that stops right before it.

use std::{fs, io, path::Path};

use rustix::process::Signal;

use super::{fence::Wall, handle::Handle};
use crate::probes::fence::Fence;

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

/// Really does it.
#[derive(Debug, Default)]
pub struct Real;

impl Hands for Real {
    fn signal(&mut self, whom: &Handle, signal: Signal) -> io::Result<()> {
        whom.signal(signal)
    }

    fn write(&mut self, file: &Path, word: &str) -> io::Result<()> {
        fs::write(file, word)
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
