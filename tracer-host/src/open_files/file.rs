//! An open file, and the result of one pass over all of them.

use std::path::PathBuf;

/// A descriptor of a regular file that is open for writing, or whose file has no name left.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// Pid of the process that has it open.
    pub pid: u32,
    /// File descriptor number.
    pub fd: i32,
    /// Target of the link in /proc/PID/fd, with ` (deleted)` if the file has no name left.
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
    /// Sorted by process, then by descriptor.
    pub files: Vec<OpenFile>,
    /// Number of descriptors of all kinds.
    pub descriptors: usize,
    /// Number of processes whose descriptors were read.
    pub processes: usize,
    /// Number of processes whose descriptors could not be read for lack of privileges.
    pub unreadable: usize,
}

impl OpenFile {
    /// Returns the key that distinguishes it from other files of the same pass.
    #[must_use]
    pub const fn key(&self) -> (u32, u64, Option<u64>) {
        (self.dev, self.ino, self.overlay)
    }
}

impl OpenFiles {
    pub(super) fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.descriptors += other.descriptors;
        self.processes += other.processes;
        self.unreadable += other.unreadable;
    }
}
