//! Sessions: what processes are rolled up to if they are in no cgroup of their own.

use std::collections::HashMap;

use tracer_common::ProcKey;
pub(crate) use tracer_host::process::stat::stat;

/// Maximum number of sessions that are remembered.
const MAX_SESSIONS: usize = 16_384;

/// A process to be assigned to a session, as described by the eBPF side.
pub struct SessionMember<'a> {
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
    pub fn name(&mut self, member: &SessionMember<'_>) -> String {
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
    fn sessions_with_a_terminal_are_distinguished() {
        let parent = || "sshd".to_owned();
        assert_eq!(name("bash", 70, 34816, 12, parent), "bash[70]");
        assert_eq!(name("server", 70, 0, 12, parent), "server by sshd");
        assert_eq!(name("server", 70, 0, 1, parent), "server");
        assert_eq!(name("sshd", 70, 0, 12, parent), "sshd");
    }

    #[test]
    fn a_session_keeps_its_name_after_its_leader_has_ended() {
        let mut sessions = Sessions::default();
        // Larger than any pid can be.
        let gone = 0x7fff_ffff;
        let proc = |tgid| ProcKey { start_ns: 1, tgid, pad: 0 };
        let mut name_of = |tgid, comm| {
            let parent = (proc(1), "init");
            sessions.name(&SessionMember { proc: proc(tgid), comm, session: gone, parent })
        };
        assert_eq!(name_of(gone, "leader"), "leader");
        assert_eq!(name_of(5, "worker"), "leader");
    }
}
