//! Fork events from the kernel's process connector (linux/cn_proc.h), while a tree is suspended: a
//! child whose parent exits immediately cannot be found through /proc.
//!
//! Needs the initial pid namespace and CAP_NET_ADMIN. Where it is unavailable, only parents and
//! sessions show which processes belong to a tree.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::pidfd::ProcessId;
use crate::clock;
use crate::process::stat;
use crate::process::stat::NS_PER_TICK;

const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_EVENT_FORK: u32 = 1;
/// Size of struct nlmsghdr and struct cn_msg, bytes.
const HEADERS: usize = 16 + 20;
/// Size of the receive buffer, bytes: holds about 50,000 forks between two reads.
static RECEIVE_BUFFER: libc::c_int = 8 << 20;

/// A fork event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Pid of the parent.
    pub parent: u32,
    /// Pid of the child.
    pub child: u32,
    /// Time of the fork, nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
}

/// Largest difference between a process's start time (in ticks) and the event's time, nanoseconds.
const APART_NS: u64 = 2 * NS_PER_TICK;

impl Fork {
    /// Returns the child if it is still running; a later process with its pid has a later start time.
    #[must_use]
    pub fn identity(&self) -> Option<ProcessId> {
        let stat = stat::stat(self.child)?;
        let suspended = clock::suspended_ns();
        let started = (stat.start_ticks * NS_PER_TICK).checked_sub(suspended)?;
        let same = !stat.ended && started.abs_diff(self.at_ns) <= APART_NS;
        same.then_some(ProcessId { pid: self.child, start_ticks: stat.start_ticks })
    }
}

/// A listener for fork events.
pub struct Forks {
    socket: OwnedFd,
    /// Whether the kernel dropped events because they were read too slowly.
    lost: bool,
}

impl Forks {
    /// Starts listening.
    ///
    /// # Errors
    /// System errors, in particular without CAP_NET_ADMIN or CONFIG_PROC_EVENTS.
    pub fn listen() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes no pointers.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: all zeroes is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = CN_IDX_PROC;
        // SAFETY: the pointer and the length are those of `address`.
        let bound = unsafe {
            libc::bind(raw, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        // Without the privilege for a larger buffer, the default size is used.
        // SAFETY: the pointer and the length are those of the constant.
        unsafe {
            libc::setsockopt(
                raw,
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const RECEIVE_BUFFER).cast(),
                size_of_val(&RECEIVE_BUFFER) as libc::socklen_t,
            );
        }
        let message = listen_message();
        // SAFETY: the pointer and the length are those of `message`.
        let sent = unsafe { libc::send(raw, message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, lost: false })
    }

    /// Returns every process that was forked since the last call, in order.
    pub fn drain(&mut self) -> Vec<Fork> {
        let mut heard = Vec::new();
        let mut buffer = [0u8; 4096];
        loop {
            // SAFETY: the pointer and the length are those of `buffer`.
            let length = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(length) {
                Ok(0) => return heard,
                Ok(length) => heard.extend(fork(&buffer[..length])),
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => self.lost = true,
                    _ => return heard,
                },
            }
        }
    }

    /// Whether events were lost.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }
}

/// Builds the subscription message: nlmsghdr, cn_msg and the operation.
fn listen_message() -> Vec<u8> {
    let length = (HEADERS + 4) as u32;
    let mut message = Vec::with_capacity(HEADERS + 4);
    message.extend(length.to_ne_bytes());
    message.extend((libc::NLMSG_DONE as u16).to_ne_bytes());
    for zero in [0u16.to_ne_bytes().as_slice(), &[0; 8]] {
        message.extend(zero);
    }
    for word in [CN_IDX_PROC, CN_VAL_PROC, 0, 0] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(4u16.to_ne_bytes());
    message.extend(0u16.to_ne_bytes());
    message.extend(PROC_CN_MCAST_LISTEN.to_ne_bytes());
    message
}

/// Parses an event; `None` unless it reports a new process (not a new thread). struct proc_event:
/// what, cpu, timestamp (8 bytes), then for a fork parent_pid, parent_tgid, child_pid, child_tgid.
fn fork(datagram: &[u8]) -> Option<Fork> {
    let word = |at: usize| {
        let bytes = datagram.get(HEADERS + at..HEADERS + at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (child, child_tgid) = (word(24)?, word(28)?);
    let time = datagram.get(HEADERS + 8..HEADERS + 16)?;
    let at_ns = u64::from_ne_bytes(time.try_into().ok()?);
    let process = word(0)? == PROC_EVENT_FORK && child == child_tgid;
    process.then_some(Fork { parent: word(20)?, child: child_tgid, at_ns })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_fork_is_heard_of() {
        let mut forks = match Forks::listen() {
            Ok(forks) => forks,
            Err(error) => return println!("SKIP a_fork_is_heard_of: {error}"),
        };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let heard = forks.drain();
        if heard.is_empty() {
            child.kill().unwrap();
            child.wait().unwrap();
            return println!("SKIP a_fork_is_heard_of: not in the initial pid namespace");
        }
        let ours = heard.iter().find(|fork| fork.child == child.id()).unwrap();
        assert_eq!(ours.parent, std::process::id());
        assert_eq!(ours.identity().map(|identity| identity.pid), Some(child.id()));
        let earlier = Fork { at_ns: ours.at_ns - 10 * APART_NS, ..*ours };
        assert_eq!(earlier.identity(), None, "the pid belonged to another process then");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ours.identity(), None);
        assert!(!forks.lost());
    }

    #[test]
    fn threads_and_other_events_are_none() {
        let mut event = vec![0u8; HEADERS + 32];
        for (at, word) in [(0, PROC_EVENT_FORK), (16, 7), (20, 7), (24, 9), (28, 9)] {
            event[HEADERS + at..HEADERS + at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(fork(&event), Some(Fork { parent: 7, child: 9, at_ns: 0 }));
        event[HEADERS + 28] = 7;
        assert_eq!(fork(&event), None, "a thread");
        event[HEADERS + 28] = 9;
        event[HEADERS] = 2;
        assert_eq!(fork(&event), None, "an exec");
        assert_eq!(fork(&event[..40]), None);
    }
}
