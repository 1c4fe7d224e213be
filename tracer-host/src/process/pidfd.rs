//! A process that cannot be confused with another: a pidfd, and a start time that was read after the
//! pidfd was opened.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{fstat, fstatfs};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::process::stat::{self, Stat};

/// Identifies a process by its pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of /proc/PID/stat.
    pub start_ticks: u64,
}

/// Identifies a process that a plan or record names by everything that the kernel provides. Two processes can have the same
/// pid and start within one tick of 10 ms; since Linux 6.9 each has its own inode number on pidfs,
/// which is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UniqueProcessId {
    /// Pid and start time.
    #[serde(flatten)]
    pub identity: ProcessId,
    /// Inode number on pidfs; `None` on older kernels.
    pub inode: Option<u64>,
}

/// A handle to a process: a signal sent through it reaches that process or none.
#[derive(Debug)]
pub struct PidHandle {
    /// The process.
    pub identity: ProcessId,
    fd: OwnedFd,
}

/// f_type of pidfs: PID_FS_MAGIC of linux/magic.h.
const PIDFS: u64 = 0x5049_4446;

impl PidHandle {
    /// Opens the process that currently has this pid.
    ///
    /// The order matters: first the descriptor is opened, then the start time is read, then the process
    /// behind the descriptor is checked to be running. So the start time belongs to this process.
    #[must_use]
    pub fn open(pid: u32) -> Option<(Self, Stat)> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let fd = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let stat = stat::stat(pid)?;
        let identity = ProcessId { pid, start_ticks: stat.start_ticks };
        let handle = Self { identity, fd };
        handle.is_running().then_some((handle, stat))
    }

    /// Opens exactly this process; `None` if it has exited or its pid was reused.
    #[must_use]
    pub fn open_exact(identity: ProcessId) -> Option<Self> {
        let (handle, _) = Self::open(identity.pid)?;
        (handle.identity == identity).then_some(handle)
    }

    /// Opens a process that was just seen in /proc. The process with its pid must still have the same
    /// parent or session, so that even within one tick only a relative could be confused with it.
    #[must_use]
    pub fn open_related(identity: ProcessId, seen: &Stat) -> Option<Self> {
        let (handle, stat) = Self::open(identity.pid)?;
        let related = stat.ppid == seen.ppid || stat.session == seen.session;
        (handle.identity == identity && related).then_some(handle)
    }

    /// Returns the full identity of the process.
    #[must_use]
    pub fn unique_id(&self) -> UniqueProcessId {
        let on_pidfs = fstatfs(&self.fd).is_ok_and(|fs| fs.f_type as u64 == PIDFS);
        let inode = fstat(&self.fd).ok().filter(|_| on_pidfs).map(|stat| stat.st_ino);
        UniqueProcessId { identity: self.identity, inode }
    }

    /// Whether the process is running. A zombie is not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
    }

    /// Reads the current /proc/PID/stat; `None` once the process has exited.
    #[must_use]
    pub fn stat(&self) -> Option<Stat> {
        let stat = stat::stat(self.identity.pid)?;
        (stat.start_ticks == self.identity.start_ticks && self.is_running()).then_some(stat)
    }

    /// Sends a signal. Checks right before that the process is still running with the same start time.
    /// If it exits in between, no process gets the signal, even if its pid was reused.
    ///
    /// # Errors
    /// `ESRCH` if the process has exited, and those of pidfd_send_signal(2).
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.stat().is_none() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }
}

impl UniqueProcessId {
    /// Opens the process; `None` if it has exited or its pid was reused.
    #[must_use]
    pub fn open(&self) -> Option<PidHandle> {
        let handle = PidHandle::open_exact(self.identity)?;
        (self.inode.is_none() || handle.unique_id().inode == self.inode).then_some(handle)
    }
}

/// Whether the error means that the process has exited (`ESRCH`).
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_different_start_time_is_a_different_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (handle, _) = PidHandle::open(child.id()).unwrap();
        assert!(handle.stat().is_some());
        let other = ProcessId { start_ticks: handle.identity.start_ticks + 1, ..handle.identity };
        assert!(PidHandle::open_exact(other).is_none());
        handle.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(PidHandle::open_exact(handle.identity).is_none());
        assert!(is_gone(&handle.signal(Signal::KILL).unwrap_err()));
    }

    /// Calls clone3(2) with a chosen pid; the child sleeps until it is killed.
    fn start_as(pid: i32) -> io::Result<i32> {
        #[repr(C)]
        #[derive(Default)]
        struct CloneArgs {
            flags: u64,
            pidfd: u64,
            child_tid: u64,
            parent_tid: u64,
            exit_signal: u64,
            stack: u64,
            stack_size: u64,
            tls: u64,
            set_tid: u64,
            set_tid_size: u64,
        }
        let wanted = [pid];
        // Other tests in this process catch signals; the child must not.
        const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
        let arguments = CloneArgs {
            flags: CLONE_CLEAR_SIGHAND,
            exit_signal: libc::SIGCHLD as u64,
            set_tid: if pid == 0 { 0 } else { wanted.as_ptr() as u64 },
            set_tid_size: u64::from(pid != 0),
            ..CloneArgs::default()
        };
        // SAFETY: like fork(2), the child runs on a copy of this memory; it only waits until it is
        // killed.
        let result = unsafe {
            libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments))
        };
        match result {
            0 => loop {
                // SAFETY: pause(2) takes no arguments.
                unsafe { libc::pause() };
            },
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid as i32),
        }
    }

    fn reap(pid: i32, signal: i32) -> i32 {
        let mut status = 0;
        // SAFETY: the child is ours, and `status` is an integer.
        unsafe {
            libc::kill(pid, signal);
            libc::waitpid(pid, &raw mut status, 0);
        }
        status
    }

    /// Each pid is reused immediately, often within the same tick: no later process gets the signal
    /// that was meant for the earlier one.
    #[test]
    fn ten_thousand_reused_pids_are_never_hit() {
        // In a separate process: children would inherit the descriptors of tests that run in parallel.
        if std::env::var_os("FILLTOP_REUSED_PIDS").is_none() {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["ten_thousand_reused_pids_are_never_hit", "--nocapture"])
                .env("FILLTOP_REUSED_PIDS", "here")
                .output()
                .unwrap();
            print!("{}", String::from_utf8_lossy(&output.stdout));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        let pid = match start_as(0) {
            Ok(pid) => pid,
            Err(error) => return println!("SKIP ten_thousand_reused_pids_are_never_hit: {error}"),
        };
        let named = PidHandle::open(pid as u32).unwrap().0.unique_id();
        reap(pid, libc::SIGKILL);
        if named.inode.is_none() {
            return println!("SKIP ten_thousand_reused_pids_are_never_hit: no pidfs here (6.9)");
        }
        let (mut attempts, mut same_tick, mut pinned) = (0, 0, 0);
        while attempts < 10_000 {
            // Another program may have taken the pid.
            let Ok(target) = start_as(pid) else { continue };
            let (handle, _) = PidHandle::open(target as u32).unwrap();
            let root = handle.unique_id();
            reap(target, libc::SIGKILL);
            let Ok(innocent) = start_as(pid) else { continue };
            attempts += 1;
            same_tick += u32::from(PidHandle::open_exact(root.identity).is_some());
            // Both through the identity that a plan contains, and through a handle opened in time.
            if let Some(wrong) = root.open() {
                wrong.signal(Signal::KILL).unwrap();
            }
            pinned += u32::from(handle.signal(Signal::KILL).is_ok());
            let status = reap(innocent, libc::SIGTERM);
            assert_eq!(libc::WTERMSIG(status), libc::SIGTERM, "attempt {attempts} hit it");
        }
        println!("10,000 attempts, {same_tick} within one tick, 0 hit");
        assert_eq!(pinned, 0);
        assert!(same_tick > 100, "too few pids were reused within one tick: {same_tick}");
    }
}
