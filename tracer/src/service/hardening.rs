//! Hardening of the service: it should keep running when the machine is out of memory.

use std::{fs, io};

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Other processes are killed long before this one. -1000 would mean never, which is wrong for a
/// program whose memory can grow.
const OOM_SCORE_ADJ: &str = "-900";

/// Protects the process from the OOM killer and from swapping, as far as permitted: each of the two
/// is useful without the other.
pub(crate) fn harden() {
    // The quick one first: locking memory may take long when memory is short.
    if let Err(error) = spare_from_oom() {
        tracing::info!("cannot lower the OOM score: {error}");
    }
    if let Err(error) = lock_memory() {
        tracing::info!("cannot lock memory: {error}");
    }
}

/// Locks the process's memory, so that it can still report when the machine swaps. Pages are locked
/// when they are first used, so that unused address space costs nothing.
///
/// # Errors
/// If the limit on locked memory cannot be removed: with a limit, a later allocation would fail.
pub(crate) fn lock_memory() -> io::Result<()> {
    let none = Rlimit { current: None, maximum: None };
    if getrlimit(Resource::Memlock) != none {
        setrlimit(Resource::Memlock, none)?;
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Makes the kernel's OOM killer prefer other processes. Children inherit the setting.
///
/// # Errors
/// If not permitted; the unit's `OOMScoreAdjust=` does the same from outside.
pub(crate) fn spare_from_oom() -> io::Result<()> {
    let path = "/proc/self/oom_score_adj";
    let lower = |now: &str| now.trim().parse().is_ok_and(|now: i32| now <= -900);
    if fs::read_to_string(path).is_ok_and(|now| lower(&now)) {
        return Ok(());
    }
    fs::write(path, OOM_SCORE_ADJ)
}

/// Drops all capabilities of this thread and of the threads that it starts.
///
/// # Errors
/// If capset(2) fails.
pub(crate) fn drop_all_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(set_capabilities(None, sets)?)
}

/// Resident memory, bytes: the second number of /proc/self/statm.
#[must_use]
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_plausible() {
        let bytes = resident_bytes().unwrap();
        assert!((1 << 20..1 << 34).contains(&bytes), "{bytes}");
    }
}
