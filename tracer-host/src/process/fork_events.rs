//! Fork events from the kernel's process connector (linux/cn_proc.h), while a tree is suspended: a
//! child whose parent exits immediately cannot be found through /proc.
//!
//! Needs the initial pid namespace and CAP_NET_ADMIN. Where it is unavailable, only parents and
//! sessions show which processes belong to a tree.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::pidfd::ProcessId;
use crate::clock;
use crate::process::stat;
use crate::process::stat::NS_PER_TICK;

const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_EVENT_FORK: u32 = 1;
const NLMSG_DONE: u16 = 3;
/// Size of struct nlmsghdr and struct cn_msg, bytes.
const HEADERS: usize = 16 + 20;
/// Size of the receive buffer, bytes: holds about 50,000 forks between two reads.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A fork event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkEvent {
    /// Pid of the parent.
    pub parent: u32,
    /// Pid of the child.
    pub child: u32,
    /// Time of the fork, nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
}

/// Largest difference between a process's start time (in ticks) and the event's time, nanoseconds.
const TOLERANCE_NS: u64 = 2 * NS_PER_TICK;

impl ForkEvent {
    /// Returns the child if it is still running; a later process with its pid has a later start time.
    #[must_use]
    pub fn process_id(&self) -> Option<ProcessId> {
        let stat = stat::stat(self.child)?;
        let suspended = clock::suspended_ns();
        let started = (stat.start_ticks * NS_PER_TICK).checked_sub(suspended)?;
        let same = !stat.ended && started.abs_diff(self.at_ns) <= TOLERANCE_NS;
        same.then_some(ProcessId { pid: self.child, start_ticks: stat.start_ticks })
    }
}

/// A listener for fork events.
pub struct ForkEvents {
    socket: OwnedFd,
    /// Whether the kernel dropped events because they were read too slowly.
    lost: bool,
}

impl ForkEvents {
    /// Starts listening.
    ///
    /// # Errors
    /// System errors, in particular without CAP_NET_ADMIN or CONFIG_PROC_EVENTS.
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::CONNECTOR);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, CN_IDX_PROC))?;
        // Without the privilege for a larger buffer, the default size is used.
        let _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
        send(&socket, &listen_message(), SendFlags::empty())?;
        Ok(Self { socket, lost: false })
    }

    /// Returns every process that was forked since the last call, in order.
    pub fn read(&mut self) -> Vec<ForkEvent> {
        let mut events = Vec::new();
        let mut buffer = [0u8; 4096];
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return events,
                Ok((length, _)) => events.extend(parse_fork(&buffer[..length])),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => self.lost = true,
                Err(_) => return events,
            }
        }
    }

    /// Whether events were lost.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.lost
    }
}

/// Builds the subscription message: nlmsghdr, cn_msg and the operation.
fn listen_message() -> Vec<u8> {
    let length = (HEADERS + 4) as u32;
    let mut message = Vec::with_capacity(HEADERS + 4);
    message.extend(length.to_ne_bytes());
    message.extend(NLMSG_DONE.to_ne_bytes());
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
fn parse_fork(datagram: &[u8]) -> Option<ForkEvent> {
    let word = |at: usize| {
        let bytes = datagram.get(HEADERS + at..HEADERS + at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (child, child_tgid) = (word(24)?, word(28)?);
    let time = datagram.get(HEADERS + 8..HEADERS + 16)?;
    let at_ns = u64::from_ne_bytes(time.try_into().ok()?);
    let process = word(0)? == PROC_EVENT_FORK && child == child_tgid;
    process.then_some(ForkEvent { parent: word(20)?, child: child_tgid, at_ns })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_fork_is_reported() {
        let mut forks = match ForkEvents::listen() {
            Ok(forks) => forks,
            Err(error) => return println!("SKIP a_fork_is_reported: {error}"),
        };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let events = forks.read();
        if events.is_empty() {
            child.kill().unwrap();
            child.wait().unwrap();
            return println!("SKIP a_fork_is_reported: not in the initial pid namespace");
        }
        let ours = events.iter().find(|fork| fork.child == child.id()).unwrap();
        assert_eq!(ours.parent, std::process::id());
        assert_eq!(ours.process_id().map(|identity| identity.pid), Some(child.id()));
        let earlier = ForkEvent { at_ns: ours.at_ns - 10 * TOLERANCE_NS, ..*ours };
        assert_eq!(earlier.process_id(), None, "the pid belonged to another process then");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ours.process_id(), None);
        assert!(!forks.has_lost());
    }

    #[test]
    fn new_threads_and_other_events_are_ignored() {
        let mut event = vec![0u8; HEADERS + 32];
        for (at, word) in [(0, PROC_EVENT_FORK), (16, 7), (20, 7), (24, 9), (28, 9)] {
            event[HEADERS + at..HEADERS + at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(parse_fork(&event), Some(ForkEvent { parent: 7, child: 9, at_ns: 0 }));
        event[HEADERS + 28] = 7;
        assert_eq!(parse_fork(&event), None, "a thread");
        event[HEADERS + 28] = 9;
        event[HEADERS] = 2;
        assert_eq!(parse_fork(&event), None, "an exec");
        assert_eq!(parse_fork(&event[..40]), None);
    }
}
