//! A command that stays in the foreground as long as its target is suspended: in a container, whose
//! end would also end the supervisor.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::resume;
use super::supervisor::client::SupervisorHandle;
use super::supervisor::signals;

/// Keeps a command in the foreground as long as its target is suspended.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: OwnedFd,
}

impl Foreground {
    /// Blocks SIGTERM, SIGINT and SIGHUP from now on, so that they can be waited for.
    ///
    /// # Errors
    /// Those of sigprocmask(2) and signalfd(2).
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self { signals: signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])? })
    }

    /// Waits until the supervisor has exited. On a signal, resumes the target first.
    ///
    /// # Errors
    /// System errors.
    pub(crate) fn wait(&self, mut supervisor: SupervisorHandle) -> anyhow::Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
            let interval = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let signalled = matches!(poll(&mut fds, Some(&interval)), Ok(count) if count > 0);
            if signalled {
                for (record, path) in resume::find(&supervisor.id) {
                    resume::release(&record, &path)?;
                }
            }
            if signalled || supervisor.child.try_wait()?.is_some() {
                return Ok(());
            }
        }
    }
}
