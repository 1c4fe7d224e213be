//! Who belongs to a target, now: a process, a tree, or all that live in a cgroup.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attribute::groups::session;
use tracer_host::cgroup;
use tracer_host::process::fork_events::Forks;
use tracer_host::process::pidfd::{Handle, Identity, Root};
use tracer_host::process::stat::Stat;

/// What an action is about, in a form that another process can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One process alone.
    Alone(Root),
    /// Processes and all that descend from them.
    Tree(Vec<Root>),
    /// Who lives in these directories (one cgroup, in one or more hierarchies) and below.
    Cgroup(Vec<PathBuf>),
}

/// All processes by number.
pub type Table = BTreeMap<u32, Stat>;

/// Reads /proc. Threads of the kernel and processes that have ended are in it, too.
#[must_use]
pub fn table() -> Table {
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
    /// Its processes that run now, those that fork before those that are forked where it is a tree.
    #[must_use]
    pub fn members(&self) -> Vec<Identity> {
        Tracker::new(self.clone()).look().1
    }

    /// Does `other` concern some of the same processes?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let ours: BTreeSet<Identity> = self.members().into_iter().collect();
        other.members().iter().any(|identity| ours.contains(identity))
    }
}

/// Follows a target while it forks.
pub struct Tracker {
    scope: Scope,
    /// Those that were named, pinned: for as long as they run, nobody else has their numbers.
    roots: Vec<Handle>,
    /// Children that were heard of and members that were seen, whose parents may be gone.
    known: BTreeSet<Identity>,
    /// Everybody who was a member, by number: who forks is told by that alone.
    ever: BTreeSet<u32>,
    forks: Option<Forks>,
}

impl Tracker {
    /// For a target; not yet listening.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        let roots = match &scope {
            Scope::Alone(root) => root.handle().into_iter().collect(),
            Scope::Tree(roots) => roots.iter().filter_map(Root::handle).collect(),
            Scope::Cgroup(_) => Vec::new(),
        };
        Self { scope, roots, known: BTreeSet::new(), ever: BTreeSet::new(), forks: None }
    }

    /// Hears of every fork from now on, where that is to be had. Only trees need it.
    pub fn listen(&mut self) {
        if self.forks.is_none() && matches!(self.scope, Scope::Tree(_)) {
            self.forks = Forks::listen().ok();
        }
    }

    /// Could it have missed a fork?
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        matches!(self.scope, Scope::Tree(_)) && self.forks.as_ref().is_none_or(Forks::lost)
    }

    /// All processes, and those of the target that run.
    pub fn look(&mut self) -> (Table, Vec<Identity>) {
        let table = table();
        // Before more is heard: who was forked after the table was read is not in it.
        let there = |who: &Identity| {
            table.get(&who.pid).is_some_and(|stat| stat.start_ticks == who.start_ticks)
        };
        self.known.retain(there);
        self.hear();
        let roots: Vec<Identity> =
            self.roots.iter().filter(|root| root.runs()).map(|root| root.identity).collect();
        let alive = |pid: u32| {
            let stat = table.get(&pid).filter(|stat| !stat.ended)?;
            Some(Identity { pid, start_ticks: stat.start_ticks })
        };
        let members: Vec<Identity> = match &self.scope {
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
            // Whoever was seen once stays, also when his parents are gone and he has left his session.
            self.known.extend(&members);
        }
        (table, members)
    }

    /// Children of members, even if their parents are gone by now.
    fn hear(&mut self) {
        let Some(forks) = &mut self.forks else { return };
        for fork in forks.heard() {
            let ours = self.ever.contains(&fork.parent)
                || self.roots.iter().any(|root| root.identity.pid == fork.parent);
            // Whoever had the child's number before has ended.
            self.ever.remove(&fork.child);
            self.known.retain(|who| who.pid != fork.child);
            self.roots.retain(|root| root.identity.pid != fork.child);
            if ours {
                self.known.extend(fork.identity());
                self.ever.insert(fork.child);
            }
        }
    }
}

/// Roots that are still the same, their descendants, and everybody in a session that one of them
/// leads: a session cannot be joined, only inherited, so that these descend from its leader even when
/// those between are gone. Breadth first.
fn tree(table: &Table, roots: &[Identity], known: &BTreeSet<Identity>) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut sessions: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in table {
        children.entry(stat.ppid).or_default().push(*pid);
        sessions.entry(stat.session).or_default().push(*pid);
    }
    let same = |root: &&Identity| {
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

/// The executable's file, by device and inode: two processes that run the same program share it.
#[must_use]
pub fn executable(pid: u32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(Path::new("/proc").join(pid.to_string()).join("exe")).ok()?;
    Some((file.dev(), file.ino()))
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
                    start_ticks: u64::from(*pid) * 10,
                };
                (*pid, stat)
            })
            .collect()
    }

    fn pids(roots: &[u32], table: &Table, known: &[u32]) -> Vec<u32> {
        let identity = |pid: &u32| Identity { pid: *pid, start_ticks: u64::from(*pid) * 10 };
        let roots: Vec<Identity> = roots.iter().map(identity).collect();
        tree(table, &roots, &known.iter().map(identity).collect())
    }

    #[test]
    fn a_tree_is_all_below_and_whoever_is_in_its_sessions() {
        // 30 leads a session; 31 forked 32 and is gone; 40 was forked twice and left the session.
        let mut table =
            table_of(&[(10, 1, 10), (20, 10, 10), (30, 20, 30), (32, 1, 30), (40, 1, 40)]);
        assert_eq!(pids(&[20], &table, &[]), [20, 30, 32]);
        assert_eq!(pids(&[20], &table, &[40]), [20, 40, 30, 32]);
        table.get_mut(&20).unwrap().start_ticks = 201;
        assert!(pids(&[20], &table, &[]).is_empty(), "its number was given again");
    }

    #[test]
    fn one_process_alone_is_no_tree() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let (handle, _) = Handle::open(shell.id()).unwrap();
        let alone = Scope::Alone(handle.root());
        let tree = Scope::Tree(vec![handle.root()]);
        let start = std::time::Instant::now();
        while tree.members().len() < 2 && start.elapsed().as_secs() < 5 {}
        assert_eq!(alone.members(), [handle.identity]);
        assert!(tree.overlaps(&alone) && tree.members().len() == 2);
        // The shell ends by itself once it need not wait any more.
        for handle in tree.members().iter().rev().filter_map(|member| Handle::of(*member)) {
            let _ = handle.signal(rustix::process::Signal::KILL);
        }
        shell.wait().unwrap();
        assert!(tree.members().is_empty() && alone.members().is_empty());
    }
}
