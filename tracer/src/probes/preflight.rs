//! Checks whether filltop can run here. Each reason why not is one line, with the fix.

use std::fs;
use std::path::Path;

use aya::EbpfError;
use aya::maps::MapError;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

use super::error_chain;
use crate::host;

/// The kernel's type information (BTF).
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why tracing is impossible here.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Neither root nor the required capabilities.
    #[error("needs root, or the capabilities {missing}: {}", how_to_give(*.in_container))]
    Privileges {
        /// Names of the missing capabilities.
        missing: String,
        /// Whether to advise about a container.
        in_container: bool,
    },
    /// The kernel has no BTF.
    #[error(
        "this kernel has no type information ({VMLINUX_BTF}): boot a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y (the kernels of Debian, Ubuntu and Fedora have it since 2020)"
    )]
    NoBtf,
    /// Kernel lockdown in confidentiality mode.
    #[error(
        "kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory: boot \
         with `lockdown=integrity` or without lockdown"
    )]
    Lockdown,
    /// The bpf system call failed.
    #[error(
        "cannot use bpf(2): {0}; a container needs CAP_BPF and CAP_PERFMON, and a seccomp profile that \
         allows bpf (--security-opt seccomp=unconfined; in a pod seccompProfile: Unconfined)"
    )]
    NoBpf(String),
    /// Maps count as locked memory before 5.11, and this process's limit is too low.
    #[error(
        "before Linux 5.11 BPF maps count as locked memory, and this process may lock only {kib} KiB: \
         raise the limit (`ulimit -l unlimited` as root, LimitMEMLOCK=infinity in a unit, \
         --ulimit memlock=-1 for a container), or add CAP_SYS_RESOURCE ({error})"
    )]
    LockedMemory {
        /// RLIMIT_MEMLOCK, KiB.
        kib: u64,
        /// The kernel's error message.
        error: String,
    },
}

impl Refusal {
    /// Classifies an error of loading maps or programs. `charges_maps`: maps count as locked memory
    /// on this kernel.
    pub fn of_load(error: &EbpfError, charges_maps: bool) -> Self {
        let of_map = matches!(error, EbpfError::MapError(MapError::CreateError { .. }));
        // `None` means no limit.
        let limit = getrlimit(Resource::Memlock).current.filter(|_| of_map && charges_maps);
        let error = error_chain(error);
        match limit {
            Some(bytes) => Self::LockedMemory { kib: bytes >> 10, error },
            None => Self::NoBpf(error),
        }
    }
}

/// Returns advice on granting capabilities, for the environment that filltop runs in.
fn how_to_give(in_container: bool) -> &'static str {
    if in_container {
        host::CONTAINER_FLAGS
    } else {
        "run `sudo filltop`, or grant them with \
         `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin+ep filltop` \
         (the last one is dropped once tracing has started)"
    }
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Capabilities that filltop can use (include/uapi/linux/capability.h).
const USEFUL: &[(u32, &str)] = &[
    (2, "CAP_DAC_READ_SEARCH"),
    (5, "CAP_KILL"),
    (19, "CAP_SYS_PTRACE"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CAP_PERFMON, "CAP_PERFMON"),
    (CAP_BPF, "CAP_BPF"),
];

/// Checks what every backend needs.
///
/// # Errors
/// The first [`Refusal`].
pub fn check() -> Result<(), Refusal> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    check_capabilities(&status, host::in_container())?;
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    check_lockdown(&lockdown)?;
    if !Path::new(VMLINUX_BTF).exists() {
        return Err(Refusal::NoBtf);
    }
    Ok(())
}

/// Whether CAP_SYS_ADMIN is among this thread's effective capabilities.
#[must_use]
pub fn has_sys_admin() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status) >> CAP_SYS_ADMIN & 1 == 1
}

/// Returns the names of this thread's effective capabilities that filltop can use.
#[must_use]
pub fn held_capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = effective(&status);
    let had = USEFUL.iter().filter(|(cap, _)| effective >> cap & 1 == 1);
    had.map(|(_, name)| (*name).to_owned()).collect()
}

/// Returns the bits of `CapEff:` in /proc/PID/status.
fn effective(status: &str) -> u64 {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn check_capabilities(status: &str, in_container: bool) -> Result<(), Refusal> {
    let effective = effective(status);
    let has = |cap: u32| effective >> cap & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return Ok(());
    }
    let missing: Vec<&str> = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(cap, _)| !has(*cap))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Privileges { missing: missing.join(" and "), in_container })
    }
}

fn check_lockdown(text: &str) -> Result<(), Refusal> {
    if text.contains("[confidentiality]") { Err(Refusal::Lockdown) } else { Ok(()) }
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
pub fn drop_rights_of_the_start() -> std::io::Result<()> {
    let mut sets = capabilities(None)?;
    let for_the_start = CapabilitySet::SYS_ADMIN | CapabilitySet::SETPCAP;
    let bounding = bounding_set()?;
    // Before 5.8 there is no CAP_BPF; SYS_ADMIN replaces it.
    let replaces_bpf = !sets.permitted.contains(CapabilitySet::BPF);
    if bounding.contains(CapabilitySet::DAC_OVERRIDE) || replaces_bpf {
        return Ok(());
    }
    narrow_bounding_set(bounding - for_the_start)?;
    sets.effective -= for_the_start;
    sets.permitted -= for_the_start;
    sets.inheritable -= for_the_start;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_missing_capabilities() {
        let refused = |effective: &str, in_container| {
            let checked = check_capabilities(&format!("CapEff:\t{effective}\n"), in_container);
            checked.err().map(|refusal| refusal.to_string()).unwrap_or_default()
        };
        assert_eq!(refused("000001ffffffffff", false), "");
        assert_eq!(refused("000000c000000000", false), "");
        let perfmon_alone = refused("0000004000000000", false);
        assert!(perfmon_alone.starts_with("needs root, or the capabilities CAP_BPF: run `sudo"));
        let none = refused("0000000000000000", false);
        assert!(none.starts_with("needs root, or the capabilities CAP_BPF and CAP_PERFMON: "));
        // Advice for a host is useless in a container.
        let none = refused("0000000000000000", true);
        assert!(none.contains("--cap-add=SYS_ADMIN") && !none.contains("setcap"), "{none}");
    }

    #[test]
    fn only_confidentiality_forbids() {
        assert_eq!(check_lockdown("none [integrity] confidentiality\n"), Ok(()));
        assert_eq!(check_lockdown("none integrity [confidentiality]\n"), Err(Refusal::Lockdown));
        assert_eq!(check_lockdown(""), Ok(()));
    }
}
