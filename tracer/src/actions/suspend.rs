//! Suspending and resuming a target: with a cgroup's freezer if a cgroup contains exactly the target,
//! otherwise with SIGSTOP to each process until no new child appears. Or fencing it off one volume.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::executor::Executor;
use super::fence::FenceSpec;
use super::freezer;
use super::members::{Scope, Table, Tracker};
use tracer_host::cgroup::{Freezer, Hierarchies};
use tracer_host::process::pidfd::{PidHandle, ProcessId, is_gone};
use tracer_host::process::status::Status;
use tracer_host::{cgroup, clock};
use tracer_kernel::fence::{Fence, FenceCounts};

/// How long suspending may take before the processes that still run are reported.
const SUSPEND_TIMEOUT: Duration = Duration::from_millis(900);
/// Interval between two checks for processes that still run.
const SCAN_INTERVAL: Duration = Duration::from_millis(1);

/// How a target is suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SuspendMethod {
    /// With the freezer of a cgroup.
    Freezer(Freezer),
    /// With SIGSTOP to each process.
    Signals,
    /// With a fence: the target keeps running, but its calls that take space on one volume fail.
    Fence(FenceSpec),
}

impl SuspendMethod {
    /// Chooses a freezer whose cgroup contains exactly these processes, otherwise signals.
    #[must_use]
    pub(crate) fn choose(scope: &Scope, hierarchies: &Hierarchies) -> Self {
        freezer::of(scope, hierarchies).map_or(Self::Signals, Self::Freezer)
    }

    /// Describes the method, for plans and audit lines.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Freezer(Freezer::V2(dir)) => format!("cgroup v2 freezer {}", dir.display()),
            Self::Freezer(Freezer::V1(dir)) => format!("cgroup v1 freezer {}", dir.display()),
            Self::Signals => "SIGSTOP to each process until no new child appears".to_owned(),
            Self::Fence(fence_spec) => fence_spec.describe(),
        }
    }
}

/// Why a target could not be suspended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuspendError {
    /// The cgroup is frozen, but a process of the target had already moved to another one.
    #[error("process {0} left its cgroup while it was being frozen")]
    Escaped(u32),
    /// Another program froze the cgroup.
    #[error("{} is already frozen, but not by filltop", .0.display())]
    AlreadyFrozen(PathBuf),
    /// A system call failed, or a privilege is missing.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The result of suspending a target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SuspendReport {
    /// Number of suspended processes.
    pub processes: usize,
    /// Time until they were suspended, milliseconds.
    pub took_ms: f64,
    /// Processes that are not suspended yet, or that another process can resume; one sentence each.
    pub notes: Vec<String>,
}

/// Suspends and resumes one target, any number of times.
pub(crate) struct Suspender {
    tracker: Tracker,
    method: SuspendMethod,
    /// Processes to which filltop sent SIGSTOP. Those that were stopped before are not included.
    stopped: BTreeMap<ProcessId, PidHandle>,
    /// Processes that were already stopped before.
    others: BTreeSet<ProcessId>,
    /// Whether it was already checked that the freezer contains the whole target.
    is_checked: bool,
    /// The fence in force.
    fence: Option<Fence>,
}

impl Suspender {
    /// Creates a suspender for a target, which is not suspended yet.
    #[must_use]
    pub(crate) fn new(scope: Scope, method: SuspendMethod) -> Self {
        Self {
            tracker: Tracker::new(scope),
            method,
            stopped: BTreeMap::new(),
            others: BTreeSet::new(),
            is_checked: false,
            fence: None,
        }
    }

    /// Suspends the target. `before` is called for each process before a signal stops it, so that the
    /// process is on record whatever happens next.
    ///
    /// # Errors
    /// A process that escaped, system errors, and those of `before`; what was stopped until then stays on
    /// record.
    pub(crate) fn suspend(
        &mut self,
        executor: &mut dyn Executor,
        before: &mut dyn FnMut(ProcessId) -> io::Result<()>,
    ) -> Result<SuspendReport, SuspendError> {
        let start = clock::instant();
        let (processes, notes) = match self.method.clone() {
            SuspendMethod::Freezer(freezer) => self.freeze(&freezer, executor)?,
            SuspendMethod::Signals => self.stop_all(executor, before)?,
            SuspendMethod::Fence(fence_spec) => (self.fence(&fence_spec, executor)?, Vec::new()),
        };
        Ok(SuspendReport { processes, took_ms: start.elapsed().as_secs_f64() * 1e3, notes })
    }

    /// Resumes the target. If signals were used: only the processes that filltop stopped, children
    /// first.
    ///
    /// # Errors
    /// System errors.
    pub(crate) fn release(&mut self, executor: &mut dyn Executor) -> io::Result<()> {
        match &self.method {
            SuspendMethod::Freezer(freezer) => {
                let (file, word) = freezer.control_write(false);
                match executor.write(&file, word) {
                    Err(error) if cgroup::is_removed(&error) => Ok(()),
                    result => result,
                }
            }
            SuspendMethod::Signals => {
                self.others.clear();
                for handle in std::mem::take(&mut self.stopped).values().rev() {
                    match executor.signal(handle, Signal::CONT) {
                        Err(error) if !is_gone(&error) => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            }
            SuspendMethod::Fence(_) => {
                self.fence = None;
                Ok(())
            }
        }
    }

    /// Returns the counters of the fence, while it is in force.
    #[must_use]
    pub(crate) fn fence_counts(&self) -> Option<FenceCounts> {
        self.fence.as_ref().map(Fence::counts)
    }

    /// Returns the target's current processes.
    #[must_use]
    pub(crate) fn members(&mut self) -> Vec<ProcessId> {
        match &self.method {
            // Much less to read than all of /proc, and a throttle reads this often.
            SuspendMethod::Freezer(freezer) => cgroup::processes(freezer.dir())
                .into_iter()
                .map(|pid| ProcessId { pid, start_ticks: 0 })
                .collect(),
            SuspendMethod::Signals | SuspendMethod::Fence(_) => self.tracker.scan().1,
        }
    }

    fn fence(&mut self, fence_spec: &FenceSpec, executor: &mut dyn Executor) -> io::Result<usize> {
        let failed = |error: anyhow::Error| io::Error::other(format!("{error:#}"));
        let mut fence = fence_spec.load().map_err(failed)?;
        executor.fence(&mut fence, fence_spec)?;
        let count = fence_spec.add_members(&mut fence, &mut self.tracker)?;
        self.fence = Some(fence);
        Ok(count)
    }

    fn freeze(
        &mut self,
        freezer: &Freezer,
        executor: &mut dyn Executor,
    ) -> Result<(usize, Vec<String>), SuspendError> {
        let (file, word) = freezer.control_write(true);
        let start = clock::instant();
        executor.write(&file, word)?;
        while !executor.is_dry_run() && !freezer.is_frozen() {
            if start.elapsed() > SUSPEND_TIMEOUT {
                let count = cgroup::processes(freezer.dir()).len();
                return Ok((count, vec![self.unfrozen()]));
            }
            std::thread::sleep(SCAN_INTERVAL);
            // Version 1 can miss a task that is being forked; writing again freezes it.
            if matches!(freezer, Freezer::V1(_)) {
                executor.write(&file, word)?;
            }
        }
        let inside = cgroup::processes(freezer.dir());
        // A frozen process cannot move itself, but it may have done so right before. Checked only
        // once, because a throttle calls this many times a second.
        if !executor.is_dry_run() && !std::mem::replace(&mut self.is_checked, true) {
            let (_, members) = self.tracker.scan();
            if let Some(member) = members.iter().find(|member| !inside.contains(&member.pid)) {
                return Err(SuspendError::Escaped(member.pid));
            }
        }
        Ok((inside.len(), Vec::new()))
    }

    fn unfrozen(&mut self) -> String {
        let waiting: Vec<String> = self
            .members()
            .iter()
            .filter(|identity| {
                PidHandle::open(identity.pid).is_some_and(|(_, stat)| stat.state == 'D')
            })
            .map(|identity| identity.pid.to_string())
            .collect();
        format!(
            "not all processes are suspended yet (in uninterruptible sleep: {}); each stops when it \
             returns to user space",
            if waiting.is_empty() { "none seen".to_owned() } else { waiting.join(", ") }
        )
    }

    fn stop_all(
        &mut self,
        executor: &mut dyn Executor,
        before: &mut dyn FnMut(ProcessId) -> io::Result<()>,
    ) -> io::Result<(usize, Vec<String>)> {
        self.tracker.listen();
        let start = clock::instant();
        let mut scans_without_new = 0;
        loop {
            let (table, members) = self.tracker.scan();
            let new: Vec<ProcessId> = members
                .iter()
                .filter(|who| !self.stopped.contains_key(who) && !self.others.contains(who))
                .copied()
                .collect();
            for identity in &new {
                self.stop_one(*identity, &table, executor, before)?;
            }
            let running: Vec<String> = self.running();
            if new.is_empty() && running.is_empty() {
                scans_without_new += 1;
            } else {
                scans_without_new = 0;
            }
            // Two scans in a row, because a scan of /proc is not atomic.
            if scans_without_new == 2 || executor.is_dry_run() {
                break;
            }
            if start.elapsed() > SUSPEND_TIMEOUT {
                return Ok((self.stopped.len(), running));
            }
            if new.is_empty() {
                std::thread::sleep(SCAN_INTERVAL);
            }
        }
        let mut notes = Vec::new();
        if self.tracker.fork_events_unavailable() {
            notes.push(
                "fork events are unavailable (no process connector) or were lost: a child that \
                 called setsid while its parent exited may have been missed"
                    .to_owned(),
            );
        }
        for identity in self.stopped.keys() {
            notes.extend(tracer_note(identity.pid));
        }
        Ok((self.stopped.len() + self.others.len(), notes))
    }

    fn stop_one(
        &mut self,
        identity: ProcessId,
        table: &Table,
        executor: &mut dyn Executor,
        before: &mut dyn FnMut(ProcessId) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(seen) = table.get(&identity.pid) else { return Ok(()) };
        let Some(handle) = PidHandle::open_related(identity, seen) else {
            // A process that has exited is fine, and one that left its session while its parent exited
            // is found by the next scan. One that is skipped for lack of descriptors would escape.
            return if PidHandle::open(std::process::id()).is_none() {
                Err(io::Error::other("too many processes: file descriptor limit reached"))
            } else {
                Ok(())
            };
        };
        if seen.state == 'T' {
            self.others.insert(identity);
            return Ok(());
        }
        before(identity)?;
        match executor.signal(&handle, Signal::STOP) {
            Ok(()) => {
                self.stopped.insert(identity, handle);
                Ok(())
            }
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the processes that were sent SIGSTOP and are not stopped yet, one sentence each.
    fn running(&self) -> Vec<String> {
        self.stopped
            .values()
            .filter_map(|handle| {
                let stat = handle.stat()?;
                let (pid, state) = (handle.identity.pid, stat.state);
                match state {
                    'T' | 't' => None,
                    'D' => Some(format!(
                        "{pid} is in uninterruptible sleep; it stops when it returns to user space"
                    )),
                    _ => Some(format!("{pid} is still running (state {state})")),
                }
            })
            .collect()
    }
}

/// Returns a note if the process is traced, because its tracer can resume it.
fn tracer_note(pid: u32) -> Option<String> {
    let tracer = Status::read(pid)?.tracer_pid()?;
    Some(format!("{pid} is traced by {tracer}, which can resume it"))
}
