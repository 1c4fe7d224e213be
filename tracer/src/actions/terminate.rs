//! Terminating a target: SIGTERM once to each of its processes, or SIGKILL until none is left.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::executor::Executor;
use super::freezer;
use super::members::{Scope, Table, Tracker};
use tracer_host::cgroup::Hierarchies;
use tracer_host::clock;
use tracer_host::process::pidfd::{PidHandle, ProcessId, is_gone};

/// How long to wait for signalled processes to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between two scans.
const SCAN_INTERVAL: Duration = Duration::from_millis(2);

/// The control file of a cgroup v2 that kills all processes in it (Linux 5.14).
pub(crate) const KILL_FILE: &str = "cgroup.kill";

/// The result of terminating a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TerminateReport {
    /// Number of processes that were signalled.
    pub signalled: usize,
    /// Processes that are still there, as `pid (name, state X)`.
    pub left: Vec<String>,
    /// Pids of new processes of the same unit, container or pod; `None` if nothing is known to restart
    /// it, so this was not checked.
    #[serde(rename = "back", skip_serializing_if = "Option::is_none")]
    pub restarted: Option<Vec<u32>>,
}

impl TerminateReport {
    /// Whether no process of the target is left, and none was restarted.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.left.is_empty() && self.restarted.as_ref().is_none_or(Vec::is_empty)
    }
}

/// Returns the `cgroup.kill` file of a cgroup that contains exactly the target, if there is one.
#[must_use]
pub(crate) fn kill_file(scope: &Scope, hierarchies: &Hierarchies) -> Option<PathBuf> {
    let dir = freezer::cgroup_v2(scope, hierarchies)?;
    Some(dir.join(KILL_FILE)).filter(|file| file.exists())
}

/// Sends SIGTERM to each process and waits up to 5 s for them to exit. `thaw` is called once all are
/// signalled, because a suspended process cannot exit.
///
/// # Errors
/// System errors.
pub(crate) fn terminate(
    scope: &Scope,
    executor: &mut dyn Executor,
    thaw: &mut dyn FnMut(),
) -> io::Result<TerminateReport> {
    let mut tracker = Tracker::new(scope.clone());
    let (table, members) = tracker.scan();
    let mut signalled = 0;
    for identity in &members {
        signalled += usize::from(send(*identity, &table, Signal::TERM, executor)?);
    }
    if !executor.is_dry_run() {
        thaw();
        wait_for_end(&members);
    }
    Ok(TerminateReport { signalled, left: left(&members, executor), restarted: None })
}

/// Sends SIGKILL until no process is left: through `file`, a cgroup.kill, if given, otherwise to each
/// process, parents first, and to every child that was forked meanwhile. `thaw` is called at the end,
/// because a process in the freezer of cgroup v1 cannot even die.
///
/// # Errors
/// System errors.
pub(crate) fn kill(
    scope: &Scope,
    file: Option<&Path>,
    executor: &mut dyn Executor,
    thaw: &mut dyn FnMut(),
) -> io::Result<TerminateReport> {
    let mut tracker = Tracker::new(scope.clone());
    tracker.listen();
    let mut all = BTreeSet::new();
    if let Some(file) = file {
        all.extend(tracker.scan().1);
        executor.write(file, "1")?;
    } else {
        let start = clock::instant();
        let mut scans_without_new = 0;
        while scans_without_new < 2 && start.elapsed() < EXIT_TIMEOUT {
            let (table, members) = tracker.scan();
            let new: Vec<ProcessId> =
                members.into_iter().filter(|who| !all.contains(who)).collect();
            scans_without_new = if new.is_empty() { scans_without_new + 1 } else { 0 };
            for identity in new {
                // A process that left its session while its parent exited is found by the next scan.
                if send(identity, &table, Signal::KILL, executor)? {
                    all.insert(identity);
                }
            }
            if executor.is_dry_run() {
                break;
            }
            std::thread::sleep(SCAN_INTERVAL);
        }
    }
    let all: Vec<ProcessId> = all.into_iter().collect();
    if !executor.is_dry_run() {
        thaw();
        wait_for_end(&all);
    }
    Ok(TerminateReport { signalled: all.len(), left: left(&all, executor), restarted: None })
}

fn send(
    identity: ProcessId,
    table: &Table,
    signal: Signal,
    executor: &mut dyn Executor,
) -> io::Result<bool> {
    let seen = table.get(&identity.pid);
    let Some(handle) = seen.and_then(|seen| PidHandle::open_related(identity, seen)) else {
        return Ok(false);
    };
    match executor.signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn wait_for_end(members: &[ProcessId]) {
    wait_for_exit(members, EXIT_TIMEOUT);
}

/// Waits up to `timeout` for processes to exit that a service manager was requested to stop. Returns
/// those that are still there, as `pid (name, state X)`.
#[must_use]
pub(crate) fn remaining_after(members: &[ProcessId], timeout: Duration) -> Vec<String> {
    wait_for_exit(members, timeout);
    remaining(members)
}

fn wait_for_exit(members: &[ProcessId], timeout: Duration) {
    let start = clock::instant();
    while start.elapsed() < timeout
        && members.iter().any(|who| PidHandle::open_exact(*who).is_some())
    {
        std::thread::sleep(SCAN_INTERVAL);
    }
}

fn left(members: &[ProcessId], executor: &dyn Executor) -> Vec<String> {
    if executor.is_dry_run() { Vec::new() } else { remaining(members) }
}

fn remaining(members: &[ProcessId]) -> Vec<String> {
    members
        .iter()
        .filter_map(|identity| {
            PidHandle::open_exact(*identity)?.stat().map(|stat| (identity.pid, stat))
        })
        .map(|(pid, stat)| format!("{pid} ({}, state {})", stat.comm, stat.state))
        .collect()
}
