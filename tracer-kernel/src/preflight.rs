//! Checks whether filltop can run here. Each reason why not is one line, with the fix.

use std::fs;
use std::path::Path;

use aya::EbpfError;
use aya::maps::MapError;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use thiserror::Error;

use tracer_model::remedy::CONTAINER_FLAGS;

use crate::attach::error::error_chain;
use crate::btf::VMLINUX_BTF;
use crate::capabilities::effective;
use crate::object::OBJECT;

/// Why tracing is impossible here.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PreflightError {
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
         CONFIG_DEBUG_INFO_BTF=y (the kernels of Debian, Ubuntu and Fedora have had it since 2020)"
    )]
    NoBtf,
    /// A debug build without the eBPF programs (see build.rs).
    #[error("this build has no eBPF programs and cannot trace; run `cargo xtask build`")]
    NotEmbedded,
    /// Kernel lockdown in confidentiality mode.
    #[error(
        "kernel lockdown is in confidentiality mode, which keeps BPF from reading kernel memory: \
         boot with `lockdown=integrity` or without lockdown"
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

impl PreflightError {
    /// Classifies an error of loading maps or programs. `charges_maps`: maps count as locked memory
    /// on this kernel.
    pub(crate) fn from_load(error: &EbpfError, charges_maps: bool) -> Self {
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
        CONTAINER_FLAGS
    } else {
        "run `sudo filltop`, or grant them with \
         `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin+ep filltop` \
         (the last one is dropped once tracing has started)"
    }
}

/// Checks what every backend needs.
///
/// `in_container`: whether filltop runs in a container, which then needs to be given capabilities.
///
/// # Errors
/// The first [`PreflightError`].
pub(crate) fn check(in_container: bool) -> Result<(), PreflightError> {
    if OBJECT.is_empty() {
        return Err(PreflightError::NotEmbedded);
    }
    check_capabilities(effective(), in_container)?;
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    check_lockdown(&lockdown)?;
    if !Path::new(VMLINUX_BTF).exists() {
        return Err(PreflightError::NoBtf);
    }
    Ok(())
}

fn check_capabilities(effective: CapabilitySet, in_container: bool) -> Result<(), PreflightError> {
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(());
    }
    let missing: Vec<&str> =
        [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::PERFMON, "CAP_PERFMON")]
            .into_iter()
            .filter(|(capability, _)| !effective.contains(*capability))
            .map(|(_, name)| name)
            .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(PreflightError::Privileges { missing: missing.join(" and "), in_container })
    }
}

fn check_lockdown(text: &str) -> Result<(), PreflightError> {
    if text.contains("[confidentiality]") { Err(PreflightError::Lockdown) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_missing_capabilities() {
        let refused = |effective: u64, in_container| {
            let checked =
                check_capabilities(CapabilitySet::from_bits_retain(effective), in_container);
            checked.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(0x0000_01ff_ffff_ffff, false), "");
        assert_eq!(refused(0x0000_00c0_0000_0000, false), "");
        let perfmon_alone = refused(0x0000_0040_0000_0000, false);
        assert!(perfmon_alone.starts_with("needs root, or the capabilities CAP_BPF: run `sudo"));
        let none = refused(0, false);
        assert!(none.starts_with("needs root, or the capabilities CAP_BPF and CAP_PERFMON: "));
        // Advice for a host is useless in a container.
        let none = refused(0, true);
        assert!(none.contains("--cap-add=SYS_ADMIN") && !none.contains("setcap"), "{none}");
    }

    #[test]
    fn only_confidentiality_mode_is_refused() {
        assert_eq!(check_lockdown("none [integrity] confidentiality\n"), Ok(()));
        assert_eq!(
            check_lockdown("none integrity [confidentiality]\n"),
            Err(PreflightError::Lockdown)
        );
        assert_eq!(check_lockdown(""), Ok(()));
    }
}
