//! Signals that are waited for instead of being handled.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Blocks these signals and returns a descriptor from which they can be read.
///
/// # Errors
/// Those of sigprocmask(2) and signalfd(2).
pub(crate) fn block(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: `set` is filled by sigemptyset before it is read, and all pointers are to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
