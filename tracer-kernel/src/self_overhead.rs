//! Measures the cost that tracing adds to each write, using the kernel's BPF run-time statistics.
//!
//! The statistics cost two clock readings around every BPF program on the machine, so they are
//! enabled only at startup, until enough writes were seen. Enabling them requires CAP_SYS_ADMIN,
//! which is dropped afterwards.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};

use crate::loader::Tracer;
use crate::sys::RunTime;

/// Minimum duration of the measurement, and the interval at which it checks whether it has seen
/// enough.
const MIN_DURATION: Duration = Duration::from_secs(1);
/// Maximum duration of the measurement.
const MAX_DURATION: Duration = Duration::from_secs(30);
/// Minimum number of writes for a result.
const MIN_WRITES: u64 = 20;

/// Measures once and keeps the result.
#[derive(Default)]
pub struct SelfOverhead {
    running: Option<Measurement>,
    ns_per_write: Option<f64>,
}

struct Measurement {
    /// The statistics are enabled while this is open.
    _enabled: OwnedFd,
    before: HashMap<String, RunTime>,
    began: Instant,
    checked: Instant,
}

impl SelfOverhead {
    /// Starts the measurement; call this before dropping privileges. If it cannot start (before
    /// 5.8, or without CAP_SYS_ADMIN), the cost stays unknown.
    #[must_use]
    pub fn start(now: Instant, tracer: &Tracer) -> Self {
        let running = enable_stats(Stats::RunTime)
            .inspect_err(|error| tracing::info!("cannot measure the cost per write: {error}"))
            .ok()
            .map(|enabled| Measurement {
                _enabled: enabled,
                before: tracer.run_times().into_iter().collect(),
                began: now,
                checked: now,
            });
        Self { running, ns_per_write: None }
    }

    /// Ends the measurement once it has seen enough. Call this several times a second.
    pub fn tick(&mut self, now: Instant, tracer: &Tracer) {
        let Some(running) = &mut self.running else { return };
        if now.duration_since(running.checked) < MIN_DURATION {
            return;
        }
        running.checked = now;
        // Read this before dropping the descriptor, which disables the statistics.
        self.ns_per_write = per_write(&running.before, &tracer.run_times());
        if self.ns_per_write.is_some() || now.duration_since(running.began) >= MAX_DURATION {
            self.running = None;
        }
    }

    /// Returns nanoseconds per write; `None` while too few writes were seen.
    #[must_use]
    pub fn ns_per_write(&self, tracer: &Tracer) -> Option<f64> {
        let so_far = || per_write(&self.running.as_ref()?.before, &tracer.run_times());
        self.ns_per_write.or_else(so_far)
    }
}

/// When a program runs, judging by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// Once at the end of each write.
    PerWrite,
    /// At some point of some writes.
    InWrites,
    /// At every system call, so also at every write.
    PerCall,
    /// Not part of writes.
    Elsewhere,
}

fn runs(program: &str) -> Runs {
    let writes = ["write_iter", "vfs_write", "readv_writev"];
    let is_write = writes.iter().any(|part| program.contains(part));
    match program {
        "tp_ext4_write_end" => Runs::PerWrite,
        "tp_ext4_da_reserve_space" | "tp_iomap_dio_rw_begin" | "tp_iomap_dio_complete" => {
            Runs::InWrites
        }
        "tp_sys_exit" => Runs::PerCall,
        _ if is_write && (program.starts_with("fexit_") || program.starts_with("kretprobe_")) => {
            Runs::PerWrite
        }
        _ if is_write => Runs::InWrites,
        _ => Runs::Elsewhere,
    }
}

/// Returns the run time of all programs that run in writes divided by the number of writes, plus
/// one run of the program that runs at every system call.
fn per_write(before: &HashMap<String, RunTime>, after: &[(String, RunTime)]) -> Option<f64> {
    let (mut in_writes, mut writes, mut per_call) = (0, 0, 0.0);
    for (name, now) in after {
        let then = before.get(name).copied().unwrap_or_default();
        let ns = now.ns.saturating_sub(then.ns);
        let count = now.runs.saturating_sub(then.runs);
        match runs(name) {
            Runs::PerWrite => {
                in_writes += ns;
                writes += count;
            }
            Runs::InWrites => in_writes += ns,
            Runs::PerCall if count > 0 => per_call = ns as f64 / count as f64,
            Runs::PerCall | Runs::Elsewhere => {}
        }
    }
    (writes >= MIN_WRITES).then(|| in_writes as f64 / writes as f64 + per_call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(ns: u64, runs: u64) -> RunTime {
        RunTime { ns, runs }
    }

    #[test]
    fn the_cost_of_a_write_includes_every_program_in_it() {
        let before = HashMap::from([("kretprobe_write_iter".to_owned(), time(500, 10))]);
        let after = [
            ("kprobe_write_iter".to_owned(), time(10_000, 100)),
            ("kretprobe_write_iter".to_owned(), time(20_500, 110)),
            ("kprobe_evict".to_owned(), time(99_999, 9)),
        ];
        assert_eq!(per_write(&before, &after), Some(300.0));
        let after = [
            ("tp_ext4_write_end".to_owned(), time(20_000, 100)),
            ("tp_ext4_da_reserve_space".to_owned(), time(5_000, 50)),
            ("tp_sys_exit".to_owned(), time(4_000, 400)),
        ];
        assert_eq!(per_write(&HashMap::new(), &after), Some(260.0));
        let after = [("fexit_ext4_file_write_iter".to_owned(), time(900, MIN_WRITES - 1))];
        assert_eq!(per_write(&HashMap::new(), &after), None, "too few");
    }
}
