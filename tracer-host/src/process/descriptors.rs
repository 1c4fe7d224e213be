//! The open descriptors of a process, by inode number: /proc/PID/fd (proc_pid_fd(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_common::FileKey;

use crate::process::threads;

/// Finds the path of a file through an open descriptor of `pid`, for a name that the eBPF side
/// could not send: the ring buffer was full, or the path is very deep.
#[must_use]
pub fn path_of(pid: u32, file: &FileKey) -> Option<PathBuf> {
    paths_by_inode(pid, |ino| ino == file.ino).next().map(|(_, path)| path)
}

/// Returns inode numbers and paths of the files that `pid` has open, for `wanted` numbers. Empty
/// if the process has exited.
pub fn paths_by_inode(
    pid: u32,
    wanted: impl Fn(u64) -> bool,
) -> impl Iterator<Item = (u64, PathBuf)> {
    in_proc(pid, wanted).filter_map(|(ino, descriptor)| {
        let link = std::fs::read_link(descriptor).ok()?;
        Some((ino, strip_deleted(&link).to_path_buf()))
    })
}

/// Returns the descriptor of `pid` on the file, as a path: `/proc/PID/fd/N`.
#[must_use]
pub fn fd_path(pid: u32, file: &FileKey) -> Option<PathBuf> {
    in_proc(pid, |ino| ino == file.ino).next().map(|(_, descriptor)| descriptor)
}

fn in_proc(pid: u32, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = (u64, PathBuf)> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = |tid: u32| std::fs::read_dir(format!("/proc/{tid}/fd")).into_iter().flatten();
    let mut found = entries(pid).flatten().peekable();
    if found.peek().is_none() {
        found = entries(threads::running(pid)).flatten().peekable();
    }
    found.filter_map(move |entry| {
        let ino = std::fs::metadata(entry.path()).ok()?.ino();
        wanted(ino).then(|| (ino, entry.path()))
    })
}

/// Removes ` (deleted)` from a link in `/proc/PID/fd`: the mark of a file without a name.
#[must_use]
pub fn strip_deleted(link: &Path) -> &Path {
    let bytes = link.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)))
}
