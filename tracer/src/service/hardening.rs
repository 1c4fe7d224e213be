//! What a service does so that it lives on when the rest of the machine does not.

use std::{fs, io};

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Others are killed long before: -1000 is never, which a program that grows must not be.
const OOM_SCORE_ADJ: &str = "-900";

/// As far as we may: each is worth having alone.
pub fn harden() {
    // First what takes no time: to lock what is in memory may take long where it is short.
    if let Err(error) = spare_from_oom() {
        tracing::info!("the OOM killer was not told to take others first: {error}");
    }
    if let Err(error) = lock_memory() {
        tracing::info!("memory is not locked: {error}");
    }
}

/// Keeps what is in memory there: a machine that swaps is slow to say why. Pages are locked when they
/// are used, so that address space alone costs nothing.
///
/// # Errors
/// If the limit on locked memory cannot be lifted: with one, an allocation would fail some day.
pub fn lock_memory() -> io::Result<()> {
    let none = Rlimit { current: None, maximum: None };
    if getrlimit(Resource::Memlock) != none {
        setrlimit(Resource::Memlock, none)?;
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Makes the kernel's OOM killer take others first. Children inherit it.
///
/// # Errors
/// If we may not: the unit's `OOMScoreAdjust=` does the same from outside.
pub fn spare_from_oom() -> io::Result<()> {
    let path = "/proc/self/oom_score_adj";
    let lower = |now: &str| now.trim().parse().is_ok_and(|now: i32| now <= -900);
    if fs::read_to_string(path).is_ok_and(|now| lower(&now)) {
        return Ok(());
    }
    fs::write(path, OOM_SCORE_ADJ)
}

/// Gives up everything, for this thread and those that it starts.
///
/// # Errors
/// What the kernel says.
pub fn drop_all_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(set_capabilities(None, sets)?)
}

/// Memory that is really in use, bytes: the second number of /proc/self/statm.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_in_memory() {
        let bytes = resident_bytes().unwrap();
        assert!((1 << 20..1 << 34).contains(&bytes), "{bytes}");
    }
}
