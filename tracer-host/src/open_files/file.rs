//! An open file, and the result of one pass over all of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tracer_model::snapshot::HeldBy;

/// A regular file that is open, or mapped and shared, for writing, or that has no name left.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// Pid of the process that has it open; 0 if the kernel itself has.
    pub pid: u32,
    /// By what it is held.
    pub held_by: HeldBy,
    /// File descriptor number; `None` unless it is held by one.
    pub fd: Option<i32>,
    /// Name of the device, if the kernel has it open.
    pub device: Option<String>,
    /// Target of the link in /proc/PID/fd, with ` (deleted)` if the file has no name left; empty if
    /// unknown.
    pub link: PathBuf,
    /// `s_dev` of its volume; for a file of an overlay, that of the file behind it.
    pub dev: u32,
    /// Inode number; for a file of an overlay, that of the file behind it.
    pub ino: u64,
    /// The device number that stat shows, if `ino` is an overlay's own. After a copy-up, such a
    /// number is still that of the lower layer's file.
    pub overlay: Option<u64>,
    /// st_blocks × 512, bytes.
    pub bytes: u64,
    /// Number of names left.
    pub links: u64,
    /// Whether it is open for writing.
    pub writable: bool,
}

/// The result of one pass over all open files.
#[derive(Debug, Default)]
pub struct OpenFiles {
    /// Sorted by process, then by what holds it, then by descriptor.
    pub files: Vec<OpenFile>,
    /// Number of descriptors of all kinds.
    pub descriptors: usize,
    /// Number of processes whose descriptors were read.
    pub processes: usize,
    /// Processes whose descriptors or mappings could not be read completely for lack of privileges.
    /// Kernel threads have none, and do not count.
    pub unreadable: BTreeSet<u32>,
}

impl OpenFile {
    /// The same file, held by this process: one of its threads was read.
    pub(super) fn of(self, pid: u32) -> Self {
        Self { pid, ..self }
    }

    /// Returns the key that distinguishes it from other files of the same pass.
    #[must_use]
    pub const fn key(&self) -> (u32, u64, Option<u64>) {
        (self.dev, self.ino, self.overlay)
    }
}

impl OpenFiles {
    /// Adds the result of another pass.
    pub fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.descriptors += other.descriptors;
        self.processes += other.processes;
        self.unreadable.extend(other.unreadable);
    }

    /// Restores the order of [`OpenFiles::files`].
    pub fn sort(&mut self) {
        self.files.sort_by_key(|file| (file.pid, file.held_by, file.fd));
    }
}
