//! Capabilities of this thread: which it has, and giving up those that are no longer needed
//! (capabilities(7)).

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Capabilities that filltop can use.
const USEFUL: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::BPF, "CAP_BPF"),
];

/// Whether CAP_SYS_ADMIN is among this thread's effective capabilities.
#[must_use]
pub fn has_sys_admin() -> bool {
    effective().contains(CapabilitySet::SYS_ADMIN)
}

/// Returns the names of this thread's effective capabilities that filltop can use.
#[must_use]
pub fn effective_capabilities() -> Vec<String> {
    let effective = effective();
    let had = USEFUL.iter().filter(|(capability, _)| effective.contains(*capability));
    had.map(|(_, name)| (*name).to_owned()).collect()
}

/// Returns this thread's effective capabilities; none if the kernel does not report them.
pub(crate) fn effective() -> CapabilitySet {
    capabilities(None).map_or_else(|_| CapabilitySet::empty(), |sets| sets.effective)
}

/// Drops every capability that is not needed once everything is attached, for this thread and those
/// that it starts, including the bounding set. Kept: BPF and PERFMON to read maps and to attach to
/// filesystems that are mounted later (`btf::helper` keeps what else that requires); SYS_PTRACE
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
pub(crate) fn narrow_bounding_set(keep: CapabilitySet) -> std::io::Result<()> {
    for one in (bounding_set()? - keep).iter() {
        match remove_capability_from_bounding_set(one) {
            Err(Errno::PERM) => break,
            result => result?,
        }
    }
    Ok(())
}
