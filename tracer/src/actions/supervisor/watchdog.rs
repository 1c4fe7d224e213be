//! The watchdog: a process that waits for the end of the supervisor, and then resumes the target in its
//! place.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::harden::harden_process;
use crate::actions::audit::Audit;
use crate::actions::record;
use crate::actions::record::Suspension;
use tracer_host::clock;

/// Time that the watchdog gives the supervisor to finish after the time limit, seconds.
const GRACE_S: f64 = 2.0;

/// Runs the watchdog: waits until the supervisor has exited, or should have, and undoes its record.
pub(super) fn run(pid: Pid, supervisor: &OwnedFd, path: &Path, until_s: f64, socket: i32) {
    // SAFETY: the descriptor is this process's own copy, and `run` never returns to its owner.
    drop(unsafe { OwnedFd::from_raw_fd(socket) });
    close_all_but(supervisor.as_raw_fd());
    // A name of its own, so that killing the supervisor by name spares the watchdog.
    harden_process(c"fill-watchdog");
    let _ = rustix::process::setsid();
    loop {
        let left = until_s + GRACE_S - clock::boottime_s();
        let mut fds = [PollFd::new(supervisor, PollFlags::IN)];
        let left = Duration::from_secs_f64(left.max(0.0));
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    let Some((record, _)) = record::read(path) else { return };
    // The record may belong to another supervisor by now, which has its own watchdog.
    if Pid::from_raw(record.supervisor.pid as i32) != Some(pid) {
        return;
    }
    let outcome = match record::undo(path) {
        Ok(_) => "the supervisor was killed or hung".to_owned(),
        Err(error) => format!("the supervisor was killed or hung; failed: {error}"),
    };
    let Suspension { how, id, name, .. } = &record.suspension;
    let audit = Audit::end(*how, id, name, "the watchdog", &outcome);
    let _ = audit.write(None);
}

/// Closes all inherited descriptors except the standard three and `kept`: descriptors of a fence would
/// keep it in force after the supervisor has exited.
fn close_all_but(kept: i32) {
    const STANDARD: u32 = 3;
    let kept = kept as u32;
    for (first, last) in [(STANDARD, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: the only owners of these descriptors in this process never run again.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
