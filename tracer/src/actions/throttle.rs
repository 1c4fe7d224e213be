//! Holding a target to a rate: let run and halted in turn, in a closed loop on what it was measured
//! to write (`tracer_model::action::duty_cycle`).
//!
//! What is measured is `write_bytes` of /proc/PID/io: bytes that were dirtied or sent to a disk,
//! whichever way they were written; what a child wrote moves to its parent when it is reaped.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

use tracer_model::action::duty_cycle::{Duty, Next};

use crate::attribute::groups::session;
use tracer_host::clock;
use tracer_host::process::pidfd::Identity;

/// What is held to the rate.
pub trait Held {
    /// Waits; why it is to end, if it is.
    fn wait(&mut self, time: Duration) -> Option<&'static str>;
    /// Lets it run.
    ///
    /// # Errors
    /// What the kernel says.
    fn run(&mut self) -> io::Result<()>;
    /// Halts it.
    ///
    /// # Errors
    /// What the kernel says.
    fn halt(&mut self) -> io::Result<()>;
    /// Its processes now.
    fn members(&mut self) -> Vec<Identity>;
}

/// Goes on until it is to end; why. Begins with the target halted.
pub fn run(held: &mut impl Held, rate: u64) -> &'static str {
    let mut duty = Duty::new(rate);
    let mut meter = Meter::default();
    let mut halted = true;
    loop {
        let members = held.members();
        if members.is_empty() {
            return "nothing of it is left";
        }
        let next = duty.next(clock::boottime_s(), meter.total(&members));
        let (halt, time) = match next {
            Next::Run(time) => (false, time),
            Next::Halt(time) => (true, time),
        };
        if halt != halted {
            let done = if halt { held.halt() } else { held.run() };
            if done.is_err() {
                return "the kernel would not halt it or let it go on";
            }
            halted = halt;
        }
        if let Some(reason) = held.wait(Duration::from_secs_f64(time)) {
            return reason;
        }
    }
}

/// Bytes written by a changing set of processes.
#[derive(Debug, Default)]
pub struct Meter {
    /// Of each process: bytes, and whether its parent takes them over when it ends.
    last: BTreeMap<u32, (u64, bool)>,
    /// Of processes that are gone and whose bytes nobody took over.
    gone: u64,
}

impl Meter {
    /// Bytes written by these processes, by those that they have reaped, and by those that were
    /// among them before.
    pub fn total(&mut self, members: &[Identity]) -> u64 {
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

/// `write_bytes` of proc_pid_io(5).
fn written(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Does it wait for its children? With SIGCHLD ignored they vanish without passing anything on.
fn reaps(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    ignored >> (libc::SIGCHLD - 1) & 1 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_written_is_counted_even_when_its_writer_is_gone() {
        let own = Identity { pid: std::process::id(), start_ticks: 0 };
        let mut meter = Meter::default();
        let before = meter.total(&[own]);
        // Not in /tmp, which may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut file = fs::File::create(dir.path().join("f")).unwrap();
        file.write_all(&vec![7; 3_000_000]).unwrap();
        let after = meter.total(&[own]);
        assert!(after - before >= 3_000_000, "{before} {after}");
        assert!(meter.total(&[]) >= after, "nobody took its bytes over");
    }
}
