//! A process that cannot be mistaken for another: a pidfd, and a start time that was read after it
//! was opened.

use std::{io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::attribute::groups::session::{self, Stat};

/// A process by its number and its start, clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Field 22 of /proc/PID/stat.
    pub start_ticks: u64,
}

/// A process that is pinned: signals sent through it reach it or nobody.
#[derive(Debug)]
pub struct Handle {
    /// Whom.
    pub identity: Identity,
    fd: OwnedFd,
}

impl Handle {
    /// Pins the process that has this number now, whatever it is.
    ///
    /// The order matters: the descriptor is opened first. If the process then has the start that was
    /// read, the descriptor is this one's or that of an earlier process with the number, which is
    /// dead; never of a later one.
    #[must_use]
    pub fn open(pid: u32) -> Option<(Self, Stat)> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let fd = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let stat = session::stat(pid)?;
        let identity = Identity { pid, start_ticks: stat.start_ticks };
        Some((Self { identity, fd }, stat))
    }

    /// Pins this very process; `None` if it has ended, or if another has its number.
    #[must_use]
    pub fn of(identity: Identity) -> Option<Self> {
        let (handle, stat) = Self::open(identity.pid)?;
        (handle.identity == identity && !stat.ended).then_some(handle)
    }

    /// What /proc says of it now; `None` once it is gone.
    #[must_use]
    pub fn stat(&self) -> Option<Stat> {
        let stat = session::stat(self.identity.pid)?;
        (stat.start_ticks == self.identity.start_ticks && !stat.ended).then_some(stat)
    }

    /// Sends a signal. The start is read once more right before: of a process that is pinned it
    /// cannot have changed unless the process has ended, and then nothing is sent.
    ///
    /// # Errors
    /// `ESRCH` if it has ended; what pidfd_send_signal(2) says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.stat().is_none() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }
}

/// Was there nobody left to signal?
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn another_start_is_another_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (handle, stat) = Handle::open(child.id()).unwrap();
        assert!(!stat.ended && handle.stat().is_some());
        let other = Identity { start_ticks: handle.identity.start_ticks + 1, ..handle.identity };
        assert!(Handle::of(other).is_none());
        handle.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(Handle::of(handle.identity).is_none());
        assert!(is_gone(&handle.signal(Signal::KILL).unwrap_err()));
    }
}
