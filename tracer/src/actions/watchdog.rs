//! The keeper's second: a process that waits for the keeper's end, and lets go in its place.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::audit::Audit;
use super::record;
use super::supervisor::become_small;
use tracer_host::clock;

/// How long after its time the second waits for the keeper to end it, seconds.
const GRACE_S: f64 = 2.0;

/// The second process: waits until the keeper has ended, or should have, and lets go what it left.
pub(super) fn watch(pid: Pid, keeper: &OwnedFd, path: &Path, until_s: f64, socket: i32) {
    // SAFETY: the descriptor is this process's own copy, and `watch` never returns to its owner.
    drop(unsafe { OwnedFd::from_raw_fd(socket) });
    close_all_but(keeper.as_raw_fd());
    // Whoever ends the keeper by its name leaves the second.
    become_small(c"fill-second");
    let _ = rustix::process::setsid();
    loop {
        let left = until_s + GRACE_S - clock::boottime_s();
        let mut fds = [PollFd::new(keeper, PollFlags::IN)];
        let left = Duration::from_secs_f64(left.max(0.0));
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    let Some((record, _)) = record::read(path) else { return };
    // Another keeper may have taken over: its own second answers for it.
    if Pid::from_raw(record.keeper.pid as i32) != Some(pid) {
        return;
    }
    let outcome = match record::undo(path) {
        Ok(_) => "its keeper was killed".to_owned(),
        Err(error) => format!("its keeper was killed; failed: {error}"),
    };
    let mut audit =
        Audit::new(record.how, &record.name, "the keeper's second".to_owned(), &outcome);
    audit.what = format!("end of {}", record.how.name());
    audit.id = Some(record.id);
    let _ = audit.write(None);
}

/// Closes what was inherited beyond the standard three: the keeper's descriptors of a fence would keep
/// it in force.
fn close_all_but(kept: i32) {
    const STANDARD: u32 = 3;
    let kept = kept as u32;
    for (first, last) in [(STANDARD, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: nothing of this process owns them any more but what never returns here.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
