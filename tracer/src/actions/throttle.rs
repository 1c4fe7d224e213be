//! Throttles a target: alternately resumed and suspended, in a closed loop on its measured writes
//! (`tracer_model::action::duty_cycle`).
//!
//! The measurement is `write_bytes` of /proc/PID/io: bytes that were dirtied or sent to a disk,
//! whichever way they were written. A child's bytes are added to its parent's when it is reaped.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

use tracer_model::action::duty_cycle::{DutyCycle, Next};

use super::supervisor::end_reason::EndReason;
use super::suspend::SuspendError;
use crate::attribute::groups::session;
use tracer_host::clock;
use tracer_host::process::pidfd::ProcessId;
use tracer_host::process::status::Status;

/// A target that can be throttled.
pub(crate) trait Throttled {
    /// Waits; returns the reason if the throttle has to end.
    fn wait(&mut self, time: Duration) -> Option<EndReason>;
    /// Resumes the target.
    ///
    /// # Errors
    /// System errors.
    fn resume(&mut self) -> io::Result<()>;
    /// Suspends the target.
    ///
    /// # Errors
    /// A process that escaped, and system errors.
    fn suspend(&mut self) -> Result<(), SuspendError>;
    /// Returns the target's current processes.
    fn members(&mut self) -> Vec<ProcessId>;
}

/// Throttles the target until it has to end, and returns the reason. The target must be suspended at
/// the start.
pub(crate) fn run(target: &mut impl Throttled, rate: u64) -> EndReason {
    let mut duty_cycle = DutyCycle::new(rate);
    let mut meter = Meter::default();
    let mut suspended = true;
    loop {
        let members = target.members();
        if members.is_empty() {
            return EndReason::TargetEnded;
        }
        let next = duty_cycle.next(clock::boottime_s(), meter.total(&members));
        let (suspend, time) = match next {
            Next::Run(time) => (false, time),
            Next::Suspend(time) => (true, time),
        };
        if suspend != suspended {
            let done = if suspend { target.suspend().is_ok() } else { target.resume().is_ok() };
            if !done {
                return EndReason::ThrottleFailed;
            }
            suspended = suspend;
        }
        if let Some(reason) = target.wait(Duration::from_secs_f64(time)) {
            return reason;
        }
    }
}

/// Counts the bytes written by a changing set of processes.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// By pid: bytes written, and whether they are added to the parent's when the process is reaped.
    last: BTreeMap<u32, (u64, bool)>,
    /// Bytes of exited processes that were not added to a parent's.
    gone: u64,
}

impl Meter {
    /// Returns the bytes written by these processes, by those that they have reaped, and by earlier
    /// members.
    pub(crate) fn total(&mut self, members: &[ProcessId]) -> u64 {
        let numbers: std::collections::BTreeSet<u32> = members.iter().map(|m| m.pid).collect();
        let mut now = BTreeMap::new();
        for pid in &numbers {
            let Some(bytes) = written(*pid) else { continue };
            let inherited = match self.last.get(pid) {
                Some((_, inherited)) => *inherited,
                None => session::stat(*pid)
                    .is_some_and(|stat| numbers.contains(&stat.ppid) && reaps(stat.ppid)),
            };
            now.insert(*pid, (bytes, inherited));
        }
        for (pid, (bytes, inherited)) in &self.last {
            if !now.contains_key(pid) && !inherited {
                self.gone += bytes;
            }
        }
        self.last = now;
        self.gone + self.last.values().map(|(bytes, _)| bytes).sum::<u64>()
    }
}

/// Reads `write_bytes` of proc_pid_io(5).
fn written(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Whether the process reaps its children. If it ignores SIGCHLD, their bytes are not added to its own.
fn reaps(pid: u32) -> bool {
    let ignored = Status::read(pid).and_then(|status| status.ignored_signals()).unwrap_or(0);
    ignored >> (libc::SIGCHLD - 1) & 1 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn written_bytes_are_counted_even_after_the_writer_has_exited() {
        let own = ProcessId { pid: std::process::id(), start_ticks: 0 };
        let mut meter = Meter::default();
        let before = meter.total(&[own]);
        // Not in /tmp, which may be a tmpfs.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut file = fs::File::create(dir.path().join("f")).unwrap();
        file.write_all(&vec![7; 3_000_000]).unwrap();
        let after = meter.total(&[own]);
        assert!(after - before >= 3_000_000, "{before} {after}");
        assert!(meter.total(&[]) >= after, "its bytes were lost");
    }
}
