//! Clocks of this process and of the kernel.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Returns the wall-clock time.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns the monotonic time, for measuring durations.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// Returns seconds since boot, including time suspended; never steps.
#[must_use]
pub fn boottime_s() -> f64 {
    let boot = clock_gettime(ClockId::Boottime);
    boot.tv_sec as f64 + boot.tv_nsec as f64 / 1e9
}

/// Returns how long the machine was suspended since boot, nanoseconds: boot time − monotonic time.
pub(crate) fn suspended_ns() -> u64 {
    let ns = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    u64::try_from(ns(ClockId::Boottime) - ns(ClockId::Monotonic)).unwrap_or(0)
}

/// Returns the CPU time of this process, all threads, user and kernel, in seconds.
#[must_use]
pub fn own_cpu_s() -> f64 {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9
}

/// Returns the length of a jiffy, milliseconds: the resolution of the coarse clock, which ticks
/// with them.
#[must_use]
pub fn jiffy_ms() -> f64 {
    let tick = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    tick.tv_sec as f64 * 1e3 + tick.tv_nsec as f64 / 1e6
}

/// Converts nanoseconds since boot (`start_boottime`) to wall-clock time.
///
/// The same input gives the same result at every call, because rows are identified by it: the
/// offset of the two clocks is measured once, and again only after the wall clock was stepped. A
/// step moves all results alike.
#[must_use]
pub fn at_boottime(ns: u64) -> Timestamp {
    static BOOTED: Mutex<Timestamp> = Mutex::new(Timestamp::UNIX_EPOCH);
    let boot = clock_gettime(ClockId::Boottime);
    let since_boot = Duration::new(
        u64::try_from(boot.tv_sec).unwrap_or(0),
        u32::try_from(boot.tv_nsec).unwrap_or(0),
    );
    let fresh = now().saturating_sub(since_boot).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut booted = BOOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if fresh.duration_since(*booted).unsigned_abs() > STEP {
        *booted = fresh;
    }
    booted.saturating_add(Duration::from_nanos(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The wall clock is slewed by up to 0.05 %; a larger difference means that it was set.
const STEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_time_converts_to_the_same_time_at_every_call() {
        let boot = (boottime_s() * 1e9) as u64;
        let first = at_boottime(boot);
        assert!(now().duration_since(first).unsigned_abs() < STEP);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(at_boottime(boot), first);
        assert_eq!(at_boottime(boot + 7).duration_since(first).as_nanos(), 7);
    }
}
