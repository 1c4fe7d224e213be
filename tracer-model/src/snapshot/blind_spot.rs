//! What a backend cannot see, as a kind that programs can compare and a sentence for people.

use serde::{Deserialize, Serialize};

/// A blind spot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlindSpot {
    /// The kind; stable across versions.
    pub kind: BlindSpotKind,
    /// One sentence, without a full stop; may be reworded.
    pub text: String,
}

/// The kinds of blind spots, by the events that are missed or counted coarsely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlindSpotKind {
    /// Calls that arrive while filltop's program is preempted.
    SkippedCalls,
    /// Renames, except of displayed files in some cases.
    Renames,
    /// fsync, replaced files and the places of created directories on filesystems other than ext4.
    FsyncAndCreates,
    /// Short-lived changes of space that is sampled once a second.
    SampledSpace,
    /// Stores through mmap: counted by page.
    MmapByPage,
    /// Stores through mmap: counted by folio, and not on tmpfs.
    MmapByFolio,
    /// Stores through mmap: only the space they allocate on ext4 is counted.
    MmapWrites,
    /// Stores through mmap: not counted.
    Mmap,
    /// Stores into mappings with MADV_RANDOM or MADV_SEQUENTIAL.
    MmapAdvised,
    /// Writes through overlayfs.
    Overlay,
    /// Space of reflinked files.
    Reflinks,
    /// What btrfs compression saved before filltop started.
    Compression,
    /// io_uring requests without a completion, on filesystems other than ext4.
    IoUringSilent,
    /// io_uring on filesystems other than ext4.
    IoUringExceptExt4,
    /// io_uring.
    IoUring,
    /// libaio and 32-bit programs on filesystems other than ext4.
    LibaioExceptExt4,
    /// libaio, 32-bit programs and writes by the kernel itself.
    KernelWrites,
    /// Removed files on filesystems other than ext4.
    RemovedFiles,
    /// Errors of libaio writes.
    LibaioErrors,
    /// Errors of io_uring and libaio writes.
    IoUringErrors,
    /// A descriptor that another thread closes during a write.
    ClosedDescriptors,
    /// A kind of a newer version of filltop.
    #[serde(other)]
    Unknown,
}
