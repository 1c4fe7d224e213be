//! Programs with fewer capabilities than root has.

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// Numbers of linux/capability.h of those that filltop has a use for.
pub const CAPABILITIES: &[(&str, u32)] = &[
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SETPCAP", 8),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// CAP_CHECKPOINT_RESTORE.
pub const LAST_CAPABILITY: u32 = 40;

/// Those that are left of filltop's where its types of modules are not to be had: a strict unit, a container.
pub const WITHOUT_SYS_ADMIN: &[u32] = &[2, 19, 38, 39];

/// Lets a command run as root with these capabilities alone, as systemd's `CapabilityBoundingSet=` and
/// `NoNewPrivileges=` do.
pub fn with_capabilities(command: &mut Command, kept: &[u32]) {
    let dropped: Vec<u32> = (0..=LAST_CAPABILITY).filter(|one| !kept.contains(one)).collect();
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
