//! Detects changes of the mount table.

use std::fs::File;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host_root;

/// The host's mountinfo, kept open: poll(2) reports when it changes (proc_pid_mountinfo(5)).
pub struct MountEvents(Option<File>);

impl MountEvents {
    /// Starts watching. If the file cannot be opened, no change is ever reported.
    #[must_use]
    pub fn watch() -> Self {
        Self(File::open(host_root::mountinfo()).ok())
    }

    /// Whether something was mounted or unmounted since the last call.
    #[must_use]
    pub fn changed(&self) -> bool {
        let Some(list) = &self.0 else { return false };
        let mut fds = [PollFd::new(list, PollFlags::PRI)];
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&no_wait)).is_ok()
            && fds[0].revents().intersects(PollFlags::PRI | PollFlags::ERR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_reported_where_nothing_changes() {
        let events = MountEvents::watch();
        let _ = events.changed();
        assert!(!events.changed());
        assert!(!MountEvents(None).changed());
    }
}
