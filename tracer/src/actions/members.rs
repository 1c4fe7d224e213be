//! The current processes of a target: one process, a tree, or all processes of a cgroup.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attribute::groups::session;
use tracer_host::cgroup;
use tracer_host::process::fork_events::ForkEvents;
use tracer_host::process::pidfd::{PidHandle, ProcessId, UniqueProcessId};
use tracer_host::process::stat::Stat;
use tracer_host::process::status::Status;

/// The extent of a target, in a form that can be passed to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// A single process.
    Alone(UniqueProcessId),
    /// Processes and all their descendants.
    Tree(Vec<UniqueProcessId>),
    /// The processes in these directories (one cgroup, in one or more hierarchies) and below.
    Cgroup(Vec<PathBuf>),
}

/// All processes, keyed by pid.
pub(crate) type Table = BTreeMap<u32, Stat>;

/// Reads all processes from /proc, including kernel threads and zombies.
#[must_use]
pub(crate) fn table() -> Table {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, session::stat(pid)?))
        })
        .collect()
}

impl Scope {
    /// Returns the running processes; in a tree, parents come before their children.
    #[must_use]
    pub(crate) fn members(&self) -> Vec<ProcessId> {
        Tracker::new(self.clone()).scan().1
    }

    /// Whether `other` contains some of the same processes.
    #[must_use]
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let ours: BTreeSet<ProcessId> = self.members().into_iter().collect();
        other.members().iter().any(|identity| ours.contains(identity))
    }
}

/// Follows a target while it forks.
pub(crate) struct Tracker {
    scope: Scope,
    /// Handles of the named processes: while one of these runs, its pid is not reused.
    roots: Vec<PidHandle>,
    /// Children from fork events, and members from earlier scans; their parents may have exited.
    known: BTreeSet<ProcessId>,
    /// Pids of all processes that ever were members, because a fork event has only the parent's pid.
    ever: BTreeSet<u32>,
    forks: Option<ForkEvents>,
}

impl Tracker {
    /// Creates a tracker for a target, without listening for fork events.
    #[must_use]
    pub(crate) fn new(scope: Scope) -> Self {
        let roots = match &scope {
            Scope::Alone(root) => root.open().into_iter().collect(),
            Scope::Tree(roots) => roots.iter().filter_map(UniqueProcessId::open).collect(),
            Scope::Cgroup(_) => Vec::new(),
        };
        Self { scope, roots, known: BTreeSet::new(), ever: BTreeSet::new(), forks: None }
    }

    /// Starts to listen for fork events, if they are available. Only trees need them.
    pub(crate) fn listen(&mut self) {
        if self.forks.is_none() && matches!(self.scope, Scope::Tree(_)) {
            self.forks = ForkEvents::listen().ok();
        }
    }

    /// Whether fork events are unavailable or were lost, so that a fork may have been missed.
    #[must_use]
    pub(crate) fn fork_events_unavailable(&self) -> bool {
        matches!(self.scope, Scope::Tree(_)) && self.forks.as_ref().is_none_or(ForkEvents::has_lost)
    }

    /// Scans /proc. Returns all processes, and the running processes of the target.
    pub(crate) fn scan(&mut self) -> (Table, Vec<ProcessId>) {
        let table = table();
        // Before more events are read: a process that was forked after the scan is not in the table.
        let there = |who: &ProcessId| {
            table.get(&who.pid).is_some_and(|stat| stat.start_ticks == who.start_ticks)
        };
        self.known.retain(there);
        self.read_fork_events();
        let roots: Vec<ProcessId> =
            self.roots.iter().filter(|root| root.is_running()).map(|root| root.identity).collect();
        let alive = |pid: u32| {
            let stat = table.get(&pid).filter(|stat| !stat.ended)?;
            Some(ProcessId { pid, start_ticks: stat.start_ticks })
        };
        let members: Vec<ProcessId> = match &self.scope {
            Scope::Alone(_) => roots,
            Scope::Tree(_) => {
                tree(&table, &roots, &self.known).into_iter().filter_map(alive).collect()
            }
            Scope::Cgroup(dirs) => dirs
                .iter()
                .flat_map(|dir| cgroup::processes(dir))
                .collect::<BTreeSet<u32>>()
                .into_iter()
                .filter_map(alive)
                .collect(),
        };
        self.ever.extend(members.iter().map(|who| who.pid));
        if matches!(self.scope, Scope::Tree(_)) {
            // A process that was a member stays one, even if its parents exit and it leaves its session.
            self.known.extend(&members);
        }
        (table, members)
    }

    /// Reads fork events and adds the children of members, even if their parents have exited by now.
    fn read_fork_events(&mut self) {
        let Some(forks) = &mut self.forks else { return };
        for fork in forks.read() {
            let ours = self.ever.contains(&fork.parent)
                || self.roots.iter().any(|root| root.identity.pid == fork.parent);
            // An earlier process with the child's pid has exited.
            self.ever.remove(&fork.child);
            self.known.retain(|who| who.pid != fork.child);
            self.roots.retain(|root| root.identity.pid != fork.child);
            if ours {
                self.known.extend(fork.process_id());
                self.ever.insert(fork.child);
            }
        }
    }
}

/// Returns the roots that are still the same processes, their descendants, and all processes in a
/// session that one of them leads. A session cannot be joined, only inherited, so its processes descend
/// from the leader even if the processes in between have exited. Breadth first.
fn tree(table: &Table, roots: &[ProcessId], known: &BTreeSet<ProcessId>) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut sessions: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in table {
        children.entry(stat.ppid).or_default().push(*pid);
        sessions.entry(stat.session).or_default().push(*pid);
    }
    let same = |root: &&ProcessId| {
        table.get(&root.pid).is_some_and(|stat| stat.start_ticks == root.start_ticks)
    };
    let mut order: Vec<u32> = roots.iter().chain(known).filter(same).map(|root| root.pid).collect();
    let mut seen: BTreeSet<u32> = BTreeSet::new();
    order.retain(|pid| seen.insert(*pid));
    let mut at = 0;
    while let Some(pid) = order.get(at).copied() {
        at += 1;
        let below = children.get(&pid).into_iter().chain(sessions.get(&pid)).flatten();
        order.extend(below.copied().filter(|pid| seen.insert(*pid)));
    }
    order
}

/// Returns device and inode of the executable, which are the same for processes that run the same
/// program.
#[must_use]
pub(crate) fn executable(pid: u32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(Path::new("/proc").join(pid.to_string()).join("exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Returns the pids of this process and all its ancestors.
#[must_use]
pub(super) fn ancestors() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut pid = std::process::id();
    while pid > 0 && found.insert(pid) {
        pid = session::stat(pid).map_or(0, |stat| stat.ppid);
    }
    found
}

/// Whether the process is the first of a nested pid namespace.
pub(super) fn is_namespace_init(pid: u32) -> bool {
    Status::read(pid).is_some_and(|status| status.is_namespace_init())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(rows: &[(u32, u32, u32)]) -> Table {
        rows.iter()
            .map(|(pid, ppid, session)| {
                let stat = Stat {
                    comm: "x".to_owned(),
                    state: 'S',
                    ended: false,
                    exiting: false,
                    ppid: *ppid,
                    pgrp: *pid,
                    session: *session,
                    tty: 0,
                    kernel_thread: false,
                    threads: 1,
                    start_ticks: u64::from(*pid) * 10,
                    start_stack: 0,
                };
                (*pid, stat)
            })
            .collect()
    }

    fn pids(roots: &[u32], table: &Table, known: &[u32]) -> Vec<u32> {
        let identity = |pid: &u32| ProcessId { pid: *pid, start_ticks: u64::from(*pid) * 10 };
        let roots: Vec<ProcessId> = roots.iter().map(identity).collect();
        tree(table, &roots, &known.iter().map(identity).collect())
    }

    #[test]
    fn a_tree_has_all_descendants_and_all_processes_of_their_sessions() {
        // 30 leads a session; 31 forked 32 and exited; 40 was double-forked and left the session.
        let mut table =
            table_of(&[(10, 1, 10), (20, 10, 10), (30, 20, 30), (32, 1, 30), (40, 1, 40)]);
        assert_eq!(pids(&[20], &table, &[]), [20, 30, 32]);
        assert_eq!(pids(&[20], &table, &[40]), [20, 40, 30, 32]);
        table.get_mut(&20).unwrap().start_ticks = 201;
        assert!(pids(&[20], &table, &[]).is_empty(), "its pid was reused");
    }

    #[test]
    fn a_single_process_does_not_include_its_children() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let (handle, _) = PidHandle::open(shell.id()).unwrap();
        let alone = Scope::Alone(handle.unique_id());
        let tree = Scope::Tree(vec![handle.unique_id()]);
        let start = std::time::Instant::now();
        while tree.members().len() < 2 && start.elapsed().as_secs() < 5 {}
        assert_eq!(alone.members(), [handle.identity]);
        assert!(tree.overlaps(&alone) && tree.members().len() == 2);
        // The shell exits by itself when it no longer has to wait.
        for handle in
            tree.members().iter().rev().filter_map(|member| PidHandle::open_exact(*member))
        {
            let _ = handle.signal(rustix::process::Signal::KILL);
        }
        shell.wait().unwrap();
        assert!(tree.members().is_empty() && alone.members().is_empty());
    }
}
