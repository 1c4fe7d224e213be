//! Capabilities of this thread: which it has, and giving up those that are no longer needed
//! (capabilities(7)).

use std::fs;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

pub(crate) const CAP_SYS_ADMIN: u32 = 21;
pub(crate) const CAP_PERFMON: u32 = 38;
pub(crate) const CAP_BPF: u32 = 39;

/// Capabilities that filltop can use (include/uapi/linux/capability.h).
const USEFUL: &[(u32, &str)] = &[
    (2, "CAP_DAC_READ_SEARCH"),
    (5, "CAP_KILL"),
    (19, "CAP_SYS_PTRACE"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CAP_PERFMON, "CAP_PERFMON"),
    (CAP_BPF, "CAP_BPF"),
];

/// Whether CAP_SYS_ADMIN is among this thread's effective capabilities.
#[must_use]
pub fn has_sys_admin() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status) >> CAP_SYS_ADMIN & 1 == 1
}

/// Returns the names of this thread's effective capabilities that filltop can use.
#[must_use]
pub fn effective_capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = effective(&status);
    let had = USEFUL.iter().filter(|(cap, _)| effective >> cap & 1 == 1);
    had.map(|(_, name)| (*name).to_owned()).collect()
}

/// Returns the bits of `CapEff:` in /proc/PID/status.
pub(crate) fn effective(status: &str) -> u64 {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Drops every capability that is not needed once everything is attached, for this thread and those
/// that it starts, including the bounding set. Kept: BPF and PERFMON to read maps and to attach to
/// filesystems that are mounted later (`types_helper` keeps what else that requires); SYS_PTRACE
/// and DAC_READ_SEARCH to read other users' /proc/PID/fd. If the kernel has no CAP_BPF (before
/// 5.8), SYS_ADMIN replaces it and stays.
///
/// # Errors
/// The kernel's error.
pub fn drop_capabilities() -> std::io::Result<()> {
    let mut sets = capabilities(None)?;
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let mut keep = bpf | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    if !sets.permitted.contains(bpf) {
        keep |= CapabilitySet::SYS_ADMIN;
    }
    // First, because it requires CAP_SETPCAP.
    narrow_bounding_set(keep)?;
    sets.effective &= keep;
    sets.permitted &= keep;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Drops what only startup needs, for this thread and those that it starts: CAP_SYS_ADMIN and
/// CAP_SETPCAP. For processes next to the tracer that act and run programs, and only if filltop was
/// started with bounded capabilities, as in the unit: root without CAP_DAC_OVERRIDE is not
/// all-powerful. Otherwise root's programs run with all of root's privileges.
///
/// # Errors
/// The kernel's error.
pub fn drop_startup_capabilities() -> std::io::Result<()> {
    let mut sets = capabilities(None)?;
    let for_startup = CapabilitySet::SYS_ADMIN | CapabilitySet::SETPCAP;
    let bounding = bounding_set()?;
    // Before 5.8 there is no CAP_BPF; SYS_ADMIN replaces it.
    let replaces_bpf = !sets.permitted.contains(CapabilitySet::BPF);
    if bounding.contains(CapabilitySet::DAC_OVERRIDE) || replaces_bpf {
        return Ok(());
    }
    narrow_bounding_set(bounding - for_startup)?;
    sets.effective -= for_startup;
    sets.permitted -= for_startup;
    sets.inheritable -= for_startup;
    Ok(set_capabilities(None, sets)?)
}

/// Returns this thread's bounding set.
fn bounding_set() -> std::io::Result<CapabilitySet> {
    let mut bounding = CapabilitySet::empty();
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) => bounding |= one,
            Ok(false) => {}
            // The kernel has no more capabilities.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bounding)
}

/// Removes all capabilities but `keep` from this thread's bounding set, so no program that it
/// starts can gain them. Without CAP_SETPCAP the set stays as it is, and only no_new_privs has that
/// effect. Allocates nothing.
///
/// # Errors
/// The kernel's error.
pub fn narrow_bounding_set(keep: CapabilitySet) -> std::io::Result<()> {
    for one in (bounding_set()? - keep).iter() {
        match remove_capability_from_bounding_set(one) {
            Err(Errno::PERM) => break,
            result => result?,
        }
    }
    Ok(())
}
