//! Sessions: what processes are rolled up to if they are in no cgroup of their own.

use std::collections::HashMap;
use std::fs;

use tracer_common::ProcKey;
use tracer_model::sanitize;

/// Maximum number of sessions that are remembered.
const MAX_SESSIONS: usize = 16_384;

/// Process flags, from the kernel's include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;
const PF_EXITING: u64 = 0x4;

/// Fields of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name, at most 15 bytes, escaped by [`sanitize::lossless`].
    pub comm: String,
    /// State: `R`, `S`, `D`, `T` (stopped), `t` (by a tracer), `Z`, …
    pub state: char,
    /// Whether it has ended and only waits to be reaped.
    pub ended: bool,
    /// Whether it is exiting (PF_EXITING). It leaves its cgroups before its state changes.
    pub exiting: bool,
    /// Pid of the parent.
    pub ppid: u32,
    /// Process group id.
    pub pgrp: u32,
    /// Session id.
    pub session: u32,
    /// Device number of the controlling terminal; 0 for none.
    pub tty: i32,
    /// Whether it is a kernel thread (PF_KTHREAD).
    pub kernel_thread: bool,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads /proc/PID/stat; `None` if the process does not exist.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses /proc/PID/stat. The name may contain spaces and parentheses: fields are counted from the
/// last one.
fn parse(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let flags: u64 = fields.get(6)?.parse().ok()?;
    Some(Stat {
        comm: sanitize::lossless(stat.get(open + 1..close)?),
        state: fields.first()?.chars().next()?,
        ended: matches!(*fields.first()?, "Z" | "X" | "x"),
        exiting: flags & PF_EXITING != 0,
        ppid: fields.get(1)?.parse().ok()?,
        pgrp: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        tty: fields.get(4)?.parse().ok()?,
        kernel_thread: flags & PF_KTHREAD != 0,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// A process to be assigned to a session, as described by the eBPF side.
pub struct Member<'a> {
    /// The process.
    pub proc: ProcKey,
    /// Its name.
    pub comm: &'a str,
    /// Its session id.
    pub session: u32,
    /// Its parent, with the parent's name.
    pub parent: (ProcKey, &'a str),
}

/// Names of sessions. Keyed by session id, with the leader's start time in ticks (0 if unknown).
#[derive(Default)]
pub struct Sessions {
    known: HashMap<u32, (u64, String)>,
}

impl Sessions {
    /// The name of a process's session: `bash[1234]` with a terminal, so that users can distinguish
    /// their sessions; otherwise only the leader's name, with its parent unless that is init,
    /// because a service manager that restarts its server gives it a new session each time.
    pub fn name(&mut self, member: &Member<'_>) -> String {
        if member.session == member.proc.tgid {
            // A session leader: the eBPF side sent everything but the terminal.
            let tty = stat(member.session).map_or(0, |stat| stat.tty);
            let name = name(member.comm, member.session, tty, member.parent.0.tgid, || {
                member.parent.1.to_owned()
            });
            return self.remember(member.session, 0, name);
        }
        match stat(member.session) {
            Some(leader) if leader.session == member.session => {
                if let Some((start, name)) = self.known.get(&member.session)
                    && (*start == leader.start_ticks || *start == 0)
                {
                    return name.clone();
                }
                let name = name(&leader.comm, member.session, leader.tty, leader.ppid, || {
                    stat(leader.ppid).map(|parent| parent.comm).unwrap_or_default()
                });
                self.remember(member.session, leader.start_ticks, name)
            }
            // The leader has ended, such as a daemon's first process or a job's shell.
            _ => match self.known.get(&member.session) {
                Some((_, name)) => name.clone(),
                None => member.comm.to_owned(),
            },
        }
    }

    fn remember(&mut self, session: u32, start: u64, name: String) -> String {
        if self.known.len() >= MAX_SESSIONS {
            self.known.clear();
        }
        self.known.insert(session, (start, name.clone()));
        name
    }
}

fn name(comm: &str, session: u32, tty: i32, ppid: u32, parent: impl Fn() -> String) -> String {
    if tty != 0 {
        return format!("{comm}[{session}]");
    }
    let parent = if ppid > 1 { parent() } else { String::new() };
    if parent.is_empty() || parent == comm {
        comm.to_owned()
    } else {
        format!("{comm} by {parent}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_do_not_shift_the_fields() {
        let line = b"77 (a) S 1 (b) S 12 77 70 34816 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = parse(line).unwrap();
        assert_eq!((stat.comm.as_str(), stat.ppid, stat.session), ("a) S 1 (b", 12, 70));
        assert!(
            !stat.ended && parse(b"7 (a) Z 1 7 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9").unwrap().ended
        );
        assert_eq!((stat.tty, stat.start_ticks), (34816, 4242));
        let exiting = parse(b"7 (a) R 1 7 7 0 0 4194564 0 0 0 0 0 0 0 0 0 0 0 0 0 9").unwrap();
        assert!(exiting.exiting && !exiting.ended && !stat.exiting);
        assert_eq!(parse(b"77 (cut"), None);
        assert_eq!(parse(b"77 (a) S 1"), None);
    }

    #[test]
    fn a_session_with_a_terminal_is_told_apart() {
        let parent = || "sshd".to_owned();
        assert_eq!(name("bash", 70, 34816, 12, parent), "bash[70]");
        assert_eq!(name("server", 70, 0, 12, parent), "server by sshd");
        assert_eq!(name("server", 70, 0, 1, parent), "server");
        assert_eq!(name("sshd", 70, 0, 12, parent), "sshd");
    }

    #[test]
    fn a_leader_that_is_gone_leaves_its_name() {
        let mut sessions = Sessions::default();
        // Larger than any pid can be.
        let gone = 0x7fff_ffff;
        let proc = |tgid| ProcKey { start_ns: 1, tgid, pad: 0 };
        let mut name_of = |tgid, comm| {
            let parent = (proc(1), "init");
            sessions.name(&Member { proc: proc(tgid), comm, session: gone, parent })
        };
        assert_eq!(name_of(gone, "leader"), "leader");
        assert_eq!(name_of(5, "worker"), "leader");
    }
}
