//! Starts a single-purpose process: forked from this one, without exec.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, setsid, waitpid};

/// Runs `body` in a detached process: its parent exits immediately, so init reaps it, and it is in
/// its own session, out of reach of a terminal's signals. All signals that can be blocked are
/// blocked, because the handlers of this process would write into its pipes. It exits when `body`
/// returns.
///
/// Other threads may hold locks at that moment, and the new process never gets them: `body` may
/// only make system calls and must not allocate.
///
/// # Errors
/// If no process can be created.
pub(crate) fn spawn_detached(body: impl FnOnce()) -> io::Result<()> {
    let before = block_signals()?;
    // SAFETY: the child only makes system calls until it exits, as fork(2) requires for a program
    // with threads.
    let forked = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = setsid();
            // SAFETY: as above.
            match unsafe { libc::fork() } {
                // SAFETY: the errno of this thread.
                -1 => end(unsafe { *libc::__errno_location() }),
                0 => {
                    body();
                    end(0)
                }
                _ => end(0),
            }
        }
        child => wait(child),
    };
    // SAFETY: the mask that the kernel returned.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    forked
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: plain integers, which sigfillset and pthread_sigmask write.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before) {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Exits without the usual cleanup, which is up to the original process.
fn end(status: i32) -> ! {
    // SAFETY: it takes a number.
    unsafe { libc::_exit(status) }
}

/// Waits for the first child, whose exit status is the error of the second fork.
fn wait(child: libc::pid_t) -> io::Result<()> {
    loop {
        return match waitpid(Pid::from_raw(child), WaitOptions::empty()) {
            Ok(status) => match status.and_then(|(_, status)| status.exit_status()) {
                None | Some(0) => Ok(()),
                Some(error) => Err(io::Error::from_raw_os_error(error)),
            },
            Err(Errno::INTR) => continue,
            // filltop's parent ignored SIGCHLD, which filltop inherits: the status is lost. If the fork
            // failed, no message comes from the new process.
            Err(Errno::CHILD) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
}

/// Closes all descriptors of this process except one (close_range(2), 5.9).
///
/// # Errors
/// The kernel's error.
pub(crate) fn close_all_except(kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = kept.as_raw_fd() as libc::c_uint;
    let ranges = [(0, kept.checked_sub(1)), (kept + 1, Some(libc::c_uint::MAX))];
    for (first, last) in ranges.into_iter().filter_map(|(first, last)| Some((first, last?))) {
        // SAFETY: only numbers. The owners of these descriptors do not run in this process.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
