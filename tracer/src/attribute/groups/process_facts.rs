//! Facts about a process from the eBPF side's record of it and from /proc.

use std::fs;
use std::path::{Path, PathBuf};

use tracer_common::{ProcKey, ProcRecord};
use tracer_model::sanitize;
use tracer_model::snapshot::imports_image;

use super::session;
use crate::attribute::paths::Names;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::stat::NS_PER_TICK;
use tracer_host::process::threads;

/// The host path of a process's root directory, if it is not the host's. Also `None` if it is not
/// on a volume of the host, such as a container's overlay. The path comes from the known names,
/// else from /proc.
pub(super) fn chroot(
    record: &ProcRecord,
    names: &mut Names,
    volumes: &[MountedVolume],
) -> Option<String> {
    let volume = volumes.iter().find(|volume| volume.dev == record.root.dev)?;
    let path = match names.path(&record.root).filter(|path| path.complete) {
        Some(path) => volume.host_path(&path.path)?,
        None => fs::read_link(format!("/proc/{}/root", threads::running(record.proc.tgid)))
            .ok()
            .filter(|_| is_running(&record.proc))?,
    };
    (path != Path::new("/")).then(|| sanitize::lossless_path(&path))
}

/// Whether the process still runs. A process that ends is shown in the root cgroup of v1, from
/// before its state changes until it is reaped; so check this after reading the cgroup, to know
/// whether that was really the process's own.
pub(super) fn is_running(proc: &ProcKey) -> bool {
    session::stat(proc.tgid)
        .is_some_and(|stat| !stat.ended && !stat.exiting && stat.start_ticks == start_ticks(proc))
}

pub(super) fn start_ticks(proc: &ProcKey) -> u64 {
    proc.start_ns / NS_PER_TICK
}

/// The inode number of a mount namespace: `/proc/PID/ns/mnt` links to `mnt:[4026531841]`.
pub(in crate::attribute) fn mount_namespace(pid: &str) -> Option<u32> {
    let link: PathBuf = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

/// A name as the kernel keeps it: at most 15 bytes and a NUL.
pub(super) fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    sanitize::lossless(&bytes[..end])
}

/// Whether the process unpacks a layer of an image for a container engine.
pub(super) fn is_image_import(record: &ProcRecord) -> bool {
    let program = record.cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = std::str::from_utf8(program).unwrap_or_default();
    imports_image(program, &comm(&record.parent_comm))
}
