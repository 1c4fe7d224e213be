//! Who belongs to a target, now: a process, a tree, or all that live in a cgroup.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{cgroups, forks::Forks, handle::Identity};
use crate::attribute::groups::session::{self, Stat};

/// What an action is about, in a form that another process can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One process alone.
    Alone(Identity),
    /// Processes and all that descend from them.
    Tree(Vec<Identity>),
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
    /// `known` are more of them that /proc alone does not show to belong: children whose parents are
    /// gone.
    #[must_use]
    pub fn members(&self, table: &Table, known: &BTreeSet<Identity>) -> Vec<Identity> {
        let alive = |pid: u32| {
            let stat = table.get(&pid).filter(|stat| !stat.ended)?;
            Some(Identity { pid, start_ticks: stat.start_ticks })
        };
        match self {
            Self::Alone(identity) => {
                alive(identity.pid).filter(|now| now == identity).into_iter().collect()
            }
            Self::Tree(roots) => tree(table, roots, known).into_iter().filter_map(alive).collect(),
            Self::Cgroup(dirs) => dirs
                .iter()
                .flat_map(|dir| cgroups::processes(dir))
                .collect::<BTreeSet<u32>>()
                .into_iter()
                .filter_map(alive)
                .collect(),
        }
    }

    /// Does `other` concern some of the same processes?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let table = table();
        let ours: BTreeSet<Identity> = self.members(&table, &BTreeSet::new()).into_iter().collect();
        other.members(&table, &BTreeSet::new()).iter().any(|identity| ours.contains(identity))
    }
}

/// Follows a target while it forks.
pub struct Tracker {
    scope: Scope,
    /// Children that were heard of, whose parents may be gone.
    known: BTreeSet<Identity>,
    /// Everybody who was a member, by number: who forks is told by that alone.
    ever: BTreeSet<u32>,
    forks: Option<Forks>,
}

impl Tracker {
    /// For a target; not yet listening.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, known: BTreeSet::new(), ever: BTreeSet::new(), forks: None }
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

    /// All processes, and those of the target.
    pub fn look(&mut self) -> (Table, Vec<Identity>) {
        let table = table();
        self.hear();
        let members = self.scope.members(&table, &self.known);
        self.ever.extend(members.iter().map(|who| who.pid));
        (table, members)
    }

    /// Children of members, even if their parents are gone by now.
    fn hear(&mut self) {
        let (Scope::Tree(roots), Some(forks)) = (&self.scope, &mut self.forks) else { return };
        for fork in forks.heard() {
            let ours = self.ever.contains(&fork.parent)
                || roots.iter().any(|root| root.pid == fork.parent);
            // Whoever had the child's number before has ended.
            self.ever.remove(&fork.child);
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

    fn pids(scope: &Scope, table: &Table, known: &[u32]) -> Vec<u32> {
        let known = known
            .iter()
            .map(|pid| Identity { pid: *pid, start_ticks: u64::from(*pid) * 10 })
            .collect();
        scope.members(table, &known).iter().map(|identity| identity.pid).collect()
    }

    #[test]
    fn a_tree_is_all_below_and_whoever_is_in_its_sessions() {
        // 30 leads a session; 31 forked 32 and is gone; 40 was forked twice and left the session.
        let table = table_of(&[(10, 1, 10), (20, 10, 10), (30, 20, 30), (32, 1, 30), (40, 1, 40)]);
        let tree = Scope::Tree(vec![Identity { pid: 20, start_ticks: 200 }]);
        assert_eq!(pids(&tree, &table, &[]), [20, 30, 32]);
        assert_eq!(pids(&tree, &table, &[40]), [20, 40, 30, 32]);
        let reused = Scope::Tree(vec![Identity { pid: 20, start_ticks: 201 }]);
        assert!(pids(&reused, &table, &[]).is_empty());
        let alone = Scope::Alone(Identity { pid: 20, start_ticks: 200 });
        assert_eq!(pids(&alone, &table, &[40]), [20]);
    }
}
