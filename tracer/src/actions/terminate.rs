//! Terminating a target: SIGTERM once to each of its processes, or SIGKILL until none is left.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::executor::Hands;
use super::freezer;
use super::members::{Scope, Table, Tracker};
use tracer_host::cgroup::Hierarchies;
use tracer_host::clock;
use tracer_host::process::pidfd::{PidHandle, ProcessId, is_gone};

/// How long to wait for signalled processes to exit.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval between two scans.
const LOOK: Duration = Duration::from_millis(2);

/// The control file of a cgroup v2 that kills all processes in it (Linux 5.14).
pub const KILL_FILE: &str = "cgroup.kill";

/// The result of terminating a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Number of processes that were signalled.
    pub signalled: usize,
    /// Processes that are still there, as `pid (name, state X)`.
    pub left: Vec<String>,
    /// Pids of new processes of the same unit, container or pod; `None` if nothing is known to restart
    /// it, so this was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back: Option<Vec<u32>>,
}

impl Ended {
    /// Whether no process of the target is left, and none was restarted.
    #[must_use]
    pub fn for_good(&self) -> bool {
        self.left.is_empty() && self.back.as_ref().is_none_or(Vec::is_empty)
    }
}

/// Returns the `cgroup.kill` file of a cgroup that contains exactly the target, if there is one.
#[must_use]
pub fn kill_file(scope: &Scope, hierarchies: &Hierarchies) -> Option<PathBuf> {
    let dir = freezer::cgroup_v2(scope, hierarchies)?;
    Some(dir.join(KILL_FILE)).filter(|file| file.exists())
}

/// Sends SIGTERM to each process and waits up to 5 s for them to exit. `thaw` is called once all are
/// signalled, because a suspended process cannot exit.
///
/// # Errors
/// System errors.
pub fn terminate(
    scope: &Scope,
    hands: &mut dyn Hands,
    thaw: &mut dyn FnMut(),
) -> io::Result<Ended> {
    let mut tracker = Tracker::new(scope.clone());
    let (table, members) = tracker.look();
    let mut signalled = 0;
    for identity in &members {
        signalled += usize::from(send(*identity, &table, Signal::TERM, hands)?);
    }
    if !hands.dry() {
        thaw();
        wait_for_end(&members);
    }
    Ok(Ended { signalled, left: left(&members, hands), back: None })
}

/// Sends SIGKILL until no process is left: through `file`, a cgroup.kill, if given, otherwise to each
/// process, parents first, and to every child that was forked meanwhile. `thaw` is called at the end,
/// because a process in the freezer of cgroup v1 cannot even die.
///
/// # Errors
/// System errors.
pub fn kill(
    scope: &Scope,
    file: Option<&Path>,
    hands: &mut dyn Hands,
    thaw: &mut dyn FnMut(),
) -> io::Result<Ended> {
    let mut tracker = Tracker::new(scope.clone());
    tracker.listen();
    let mut all = BTreeSet::new();
    if let Some(file) = file {
        all.extend(tracker.look().1);
        hands.write(file, "1")?;
    } else {
        let start = clock::instant();
        let mut quiet = 0;
        while quiet < 2 && start.elapsed() < PATIENCE {
            let (table, members) = tracker.look();
            let new: Vec<ProcessId> =
                members.into_iter().filter(|who| !all.contains(who)).collect();
            quiet = if new.is_empty() { quiet + 1 } else { 0 };
            for identity in new {
                // A process that left its session while its parent exited is found by the next scan.
                if send(identity, &table, Signal::KILL, hands)? {
                    all.insert(identity);
                }
            }
            if hands.dry() {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    let all: Vec<ProcessId> = all.into_iter().collect();
    if !hands.dry() {
        thaw();
        wait_for_end(&all);
    }
    Ok(Ended { signalled: all.len(), left: left(&all, hands), back: None })
}

fn send(
    identity: ProcessId,
    table: &Table,
    signal: Signal,
    hands: &mut dyn Hands,
) -> io::Result<bool> {
    let seen = table.get(&identity.pid);
    let Some(handle) = seen.and_then(|seen| PidHandle::open_seen(identity, seen)) else {
        return Ok(false);
    };
    match hands.signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn wait_for_end(members: &[ProcessId]) {
    wait(members, PATIENCE);
}

/// Waits for the exit of processes that a service manager was told to stop. Returns those that are
/// still there, as `pid (name, state X)`.
#[must_use]
pub fn outlasted(members: &[ProcessId], patience: Duration) -> Vec<String> {
    wait(members, patience);
    left_of(members)
}

fn wait(members: &[ProcessId], patience: Duration) {
    let start = clock::instant();
    while start.elapsed() < patience && members.iter().any(|who| PidHandle::of(*who).is_some()) {
        std::thread::sleep(LOOK);
    }
}

fn left(members: &[ProcessId], hands: &dyn Hands) -> Vec<String> {
    if hands.dry() { Vec::new() } else { left_of(members) }
}

fn left_of(members: &[ProcessId]) -> Vec<String> {
    members
        .iter()
        .filter_map(|identity| PidHandle::of(*identity)?.stat().map(|stat| (identity.pid, stat)))
        .map(|(pid, stat)| format!("{pid} ({}, state {})", stat.comm, stat.state))
        .collect()
}
