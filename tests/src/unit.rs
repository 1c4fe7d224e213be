//! The rights of the systemd unit, for a filltop that tests start without systemd.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use anyhow::Context as _;

/// The unit that is given to those who install.
pub const UNIT: &str = include_str!("../../contrib/systemd/filltop.service");

/// Numbers of linux/capability.h of those that the unit may have.
const NUMBERS: &[(&str, u32)] = &[
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SETPCAP", 8),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];
/// CAP_CHECKPOINT_RESTORE.
pub const LAST_CAPABILITY: u32 = 40;

/// The capabilities that the unit may have, names and numbers.
///
/// # Errors
/// If it bounds none, or has one that no number is known of.
pub fn unit_capabilities() -> anyhow::Result<Vec<(&'static str, u32)>> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    line.context("the unit bounds its capabilities")?
        .split_whitespace()
        .map(|name| {
            let known = NUMBERS.iter().find(|(known, _)| *known == name);
            known.copied().with_context(|| format!("no number for {name}"))
        })
        .collect()
}

/// Lets a command of root's start with these capabilities alone and no new privileges, as systemd would.
pub fn bound(command: &mut Command, kept: &[u32]) {
    let dropped: Vec<u32> = (0..=LAST_CAPABILITY).filter(|number| !kept.contains(number)).collect();
    // SAFETY: prctl is a system call that may be made between fork and exec, and takes numbers here.
    unsafe {
        command.pre_exec(move || {
            for number in &dropped {
                if libc::prctl(libc::PR_CAPBSET_DROP, *number, 0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
