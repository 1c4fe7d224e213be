//! What a hook passes to the accounting core: which process did what to which file.

use tracer_common::{Counters, FileKey, ProcKey};

use crate::kernel_read::KernelPtr;

/// The process that did something, and the file it was done to.
#[derive(Clone, Copy)]
pub struct WriteTarget {
    /// The process.
    pub proc: ProcKey,
    /// The file.
    pub file: FileKey,
    /// For the file's name.
    pub dentry: KernelPtr,
    /// The file's own inode if `dentry` may belong to another one, else null.
    pub inode: KernelPtr,
}

/// A write that returned.
#[derive(Clone, Copy)]
pub struct WriteEvent {
    /// The writing process, and the file.
    pub target: WriteTarget,
    /// `offsets::usage_kind`.
    pub kind: u32,
    /// Return value: the bytes that were written, or a negative error number.
    pub result: i64,
    /// Position in the file after the write; 0 if not known.
    pub end: u64,
}

/// [`WriteEvent::end`] of a write of which only the return of its system call (or of its io_uring
/// request) is known, and [`Slot::to`](tracer_common::Slot::to) of its pair. No hook reports the
/// eviction of such an inode, so the generation is compared too, and its space is not read. A file
/// counted this way is counted nowhere else, and the other way round.
pub const BY_SYSCALL: u64 = u64::MAX - 1;

/// [`Counters`] that are all 0, for struct updates.
pub const ZERO: Counters = Counters { written: 0, allocated: 0, freed: 0, unlinked: 0, flags: 0 };
