//! What a hook hands to the counting body: who did what to which file.

use tracer_common::{Counters, FileKey, ProcKey};

use crate::kernel_read::KernelPtr;

/// Who did something to which file.
#[derive(Clone, Copy)]
pub struct WriteTarget {
    /// The process.
    pub proc: ProcKey,
    /// The file.
    pub file: FileKey,
    /// For its name.
    pub dentry: KernelPtr,
    /// The file's own inode, if the dentry may be another's; else null.
    pub inode: KernelPtr,
}

/// A write that returned.
#[derive(Clone, Copy)]
pub struct WriteEvent {
    /// Who wrote into what.
    pub who: WriteTarget,
    /// `offsets::gauge_kind`.
    pub kind: u32,
    /// What it returned: bytes that went in, or an error.
    pub result: i64,
    /// Where it ended, if that is known: else 0.
    pub end: u64,
}

/// [`Write::end`] of one that is known by the return of its system call alone, and [`Slot::to`] of its pair:
/// nothing tells of the end of its inode, so that the generation is to be compared, and its space is not
/// looked at. What is counted otherwise is not counted at the system call, and the other way round.
pub const BY_SYSCALL: u64 = u64::MAX - 1;

/// A [`Counters`] without anything in it, for struct updates.
pub const ZERO: Counters = Counters { written: 0, allocated: 0, freed: 0, unlinked: 0, flags: 0 };
