//! Can it run here? Each reason why not is one line, with the fix.

use std::{fs, path::Path};

use thiserror::Error;

/// Where the kernel describes its types.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the tracer cannot run here at all.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Neither root nor the capabilities.
    #[error(
        "needs root, or the capabilities {missing}: run `sudo filltop`, or give them with \
         `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep filltop`"
    )]
    Privileges {
        /// The capabilities that are not there.
        missing: String,
    },
    /// The kernel keeps its types to itself.
    #[error(
        "this kernel has no type information ({VMLINUX_BTF}): boot a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y, as all of Debian's, Ubuntu's and Fedora's are since 2020"
    )]
    NoBtf,
    /// Lockdown.
    #[error(
        "kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory: boot \
         with `lockdown=integrity`, or without it"
    )]
    Lockdown,
    /// The bpf system call is not to be had.
    #[error(
        "the kernel refuses bpf(2): {0}; a container needs CAP_BPF and CAP_PERFMON, and a \
             seccomp profile that lets bpf through"
    )]
    NoBpf(String),
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Capabilities that filltop has a use for (include/uapi/linux/capability.h).
const USEFUL: &[(u32, &str)] = &[
    (2, "CAP_DAC_READ_SEARCH"),
    (5, "CAP_KILL"),
    (19, "CAP_SYS_PTRACE"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CAP_PERFMON, "CAP_PERFMON"),
    (CAP_BPF, "CAP_BPF"),
];

/// Looks for what every backend needs.
///
/// # Errors
/// The first [`Refusal`].
pub fn check() -> Result<(), Refusal> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    check_capabilities(&status)?;
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    check_lockdown(&lockdown)?;
    if !Path::new(VMLINUX_BTF).exists() {
        return Err(Refusal::NoBtf);
    }
    Ok(())
}

/// Is CAP_SYS_ADMIN among this thread's effective capabilities?
#[must_use]
pub fn has_sys_admin() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status) >> CAP_SYS_ADMIN & 1 == 1
}

/// Those of this thread's effective capabilities that filltop has a use for, by name.
#[must_use]
pub fn capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = effective(&status);
    let had = USEFUL.iter().filter(|(cap, _)| effective >> cap & 1 == 1);
    had.map(|(_, name)| (*name).to_owned()).collect()
}

/// The bits of `CapEff:` in /proc/PID/status.
fn effective(status: &str) -> u64 {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn check_capabilities(status: &str) -> Result<(), Refusal> {
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
        Err(Refusal::Privileges { missing: missing.join(" and ") })
    }
}

fn check_lockdown(text: &str) -> Result<(), Refusal> {
    if text.contains("[confidentiality]") { Err(Refusal::Lockdown) } else { Ok(()) }
}

/// Gives up every capability that is not needed once everything is attached, for this thread and
/// those that it starts. Kept: BPF and PERFMON to read maps and to attach to filesystems that are
/// mounted later; SYS_PTRACE and DAC_READ_SEARCH to read other users' /proc/PID/fd. Where the kernel
/// has no CAP_BPF (before 5.8), SYS_ADMIN stands for it and stays.
///
/// # Errors
/// What the kernel says.
pub fn drop_capabilities() -> std::io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs};
    let mut sets = capabilities(None)?;
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let mut keep = bpf | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    if !sets.permitted.contains(bpf) {
        keep |= CapabilitySet::SYS_ADMIN;
    }
    sets.effective &= keep;
    sets.permitted &= keep;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_missing_capabilities() {
        assert_eq!(check_capabilities("CapEff:\t000001ffffffffff\n"), Ok(()));
        assert_eq!(check_capabilities("CapEff:\t000000c000000000\n"), Ok(()));
        let perfmon_alone = check_capabilities("CapEff:\t0000004000000000\n");
        assert_eq!(perfmon_alone, Err(Refusal::Privileges { missing: "CAP_BPF".to_owned() }));
        let none = check_capabilities("CapEff:\t0000000000000000\n").unwrap_err();
        assert_eq!(
            none.to_string().split(':').next().unwrap(),
            "needs root, or the capabilities CAP_BPF and CAP_PERFMON"
        );
    }

    #[test]
    fn only_confidentiality_forbids() {
        assert_eq!(check_lockdown("none [integrity] confidentiality\n"), Ok(()));
        assert_eq!(check_lockdown("none integrity [confidentiality]\n"), Err(Refusal::Lockdown));
        assert_eq!(check_lockdown(""), Ok(()));
    }
}
