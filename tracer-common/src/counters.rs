//! What is counted, and by what key.

use crate::pod;

/// A process: thread group id and start time, so that a reused pid is another process.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ProcKey {
    /// `task_struct::group_leader->start_boottime`, nanoseconds since boot.
    pub start_ns: u64,
    /// `task_struct::tgid` in the initial pid namespace.
    pub tgid: u32,
    /// Always 0.
    pub pad: u32,
}

/// A file: inode numbers are reused at once, so the generation belongs to the key.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct FileKey {
    /// `inode::i_ino`.
    pub ino: u64,
    /// `inode::i_generation`.
    pub generation: u32,
    /// `super_block::s_dev`: major << 20 | minor, as the kernel has it.
    pub dev: u32,
}

impl FileKey {
    /// Major device number.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.dev >> 20
    }

    /// Minor device number.
    #[must_use]
    pub const fn minor(&self) -> u32 {
        self.dev & 0xf_ffff
    }
}

/// What one process did to one file.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct PairKey {
    /// [`ProcKey::start_ns`].
    pub start_ns: u64,
    /// [`FileKey::ino`].
    pub ino: u64,
    /// [`ProcKey::tgid`].
    pub tgid: u32,
    /// [`FileKey::dev`].
    pub dev: u32,
    /// [`FileKey::generation`].
    pub generation: u32,
    /// Always 0.
    pub pad: u32,
}

impl PairKey {
    /// Joins a process and a file.
    #[must_use]
    #[inline]
    pub const fn new(proc: ProcKey, file: FileKey) -> Self {
        Self {
            start_ns: proc.start_ns,
            ino: file.ino,
            tgid: proc.tgid,
            dev: file.dev,
            generation: file.generation,
            pad: 0,
        }
    }

    /// The process.
    #[must_use]
    #[inline]
    pub const fn process(&self) -> ProcKey {
        ProcKey { start_ns: self.start_ns, tgid: self.tgid, pad: 0 }
    }

    /// The file.
    #[must_use]
    #[inline]
    pub const fn file(&self) -> FileKey {
        FileKey { ino: self.ino, generation: self.generation, dev: self.dev }
    }
}

/// Cumulative counts of one [`PairKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes that writes really put into the file.
    pub written: u64,
    /// Bytes newly charged to the file on its volume.
    pub allocated: u64,
    /// Bytes given back.
    pub freed: u64,
    /// Times the process removed the file's last name.
    pub unlinked: u32,
    /// [`slot_flags`], or-ed.
    pub flags: u32,
}

impl Counters {
    /// Nothing happened?
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.written == 0 && self.allocated == 0 && self.freed == 0 && self.unlinked == 0
    }

    /// Adds `other`; wraps as the kernel's counters do.
    pub const fn add(&mut self, other: &Self) {
        self.written = self.written.wrapping_add(other.written);
        self.allocated = self.allocated.wrapping_add(other.allocated);
        self.freed = self.freed.wrapping_add(other.freed);
        self.unlinked = self.unlinked.wrapping_add(other.unlinked);
        self.flags |= other.flags;
    }

    /// What came on top of `earlier`. Counters of one tenancy never shrink; a torn pair of reads
    /// gives 0, not a huge number.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            written: self.written.saturating_sub(earlier.written),
            allocated: self.allocated.saturating_sub(earlier.allocated),
            freed: self.freed.saturating_sub(earlier.freed),
            unlinked: self.unlinked.saturating_sub(earlier.unlinked),
            flags: self.flags,
        }
    }
}

/// Bits of [`Slot::flags`].
pub mod slot_flags {
    /// Some of the bytes are counted by page (mmap).
    pub const APPROXIMATE: u32 = 1;
}

/// One cell of the direct-mapped table: index = cpu × slots per CPU + a hash of the pair.
///
/// Two cache lines, of which a write to a known file into space that it has touches the first alone. Only
/// its own CPU writes it; the daemon reads it through mmap. `seq` is odd while the cell changes hands and
/// grows by 2 with each tenant, so it is both a seqlock and the tenant's number.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// [`ProcKey::start_ns`].
    pub start_ns: u64,
    /// [`FileKey::ino`].
    pub ino: u64,
    /// Address of the inode, so that it need not be followed to its device; 0 if not known. Addresses are
    /// reused: `epoch` tells.
    pub inode: u64,
    /// [`Counters::written`].
    pub written: u64,
    /// [`FileKey::generation`].
    pub generation: u32,
    /// Tenant number × 2, + 1 while it changes.
    pub seq: u32,
    /// The inode's blocks as this process last saw them (lower half of `i_blocks`): while they and `parts`
    /// are unchanged nothing was allocated, and the shared gauge need not be looked at.
    pub blocks: u32,
    /// Grows whenever space may have been taken from the inode, and with its end.
    pub epoch: u32,
    /// Where the file has space, in bytes from its start, as long as `epoch` is the inode's: there the
    /// tenant wrote.
    pub from: u64,
    /// End of that.
    pub to: u64,
    /// [`Counters::allocated`].
    pub allocated: u64,
    /// [`Counters::freed`].
    pub freed: u64,
    /// [`ProcKey::tgid`].
    pub tgid: u32,
    /// [`FileKey::dev`].
    pub dev: u32,
    /// What the filesystem counts as used for the inode beside its blocks, mixed.
    pub parts: u32,
    /// [`Counters::unlinked`].
    pub unlinked: u32,
    /// [`slot_flags`].
    pub flags: u32,
    /// Nothing: to the end of the line.
    pub pad: [u32; 7],
}

const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    /// Whose counts these are.
    #[must_use]
    pub const fn key(&self) -> PairKey {
        PairKey {
            start_ns: self.start_ns,
            ino: self.ino,
            tgid: self.tgid,
            dev: self.dev,
            generation: self.generation,
            pad: 0,
        }
    }

    /// Is it theirs?
    #[must_use]
    #[inline(always)]
    pub const fn is_of(&self, proc: &ProcKey, file: &FileKey) -> bool {
        self.ino == file.ino
            && self.start_ns == proc.start_ns
            && self.tgid == proc.tgid
            && self.dev == file.dev
            && self.generation == file.generation
    }

    /// The counts.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        Counters {
            written: self.written,
            allocated: self.allocated,
            freed: self.freed,
            unlinked: self.unlinked,
            flags: self.flags,
        }
    }
}

/// Space that is charged to an inode, as last accounted. Keyed by [`FileKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeSpace {
    /// Bytes.
    pub gauge: u64,
    /// So many of them are not taken from the volume, for they were compressed.
    pub saved: u64,
    /// Who changed it last: credited when a kernel thread changes it later.
    pub owner: ProcKey,
}

/// A file of a btrfs as that filesystem's own events tell it, which know nothing of a [`FileKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BtrfsFile {
    /// UUID of the filesystem, as it lies in memory.
    pub fsid: [u64; 2],
    /// Number of the subvolume's tree.
    pub root: u64,
    /// Number of the inode within it.
    pub ino: u64,
}

/// Failed writes are counted by process and volume.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ErrorKey {
    /// [`ProcKey::start_ns`].
    pub start_ns: u64,
    /// [`ProcKey::tgid`].
    pub tgid: u32,
    /// [`FileKey::dev`].
    pub dev: u32,
}

/// Cumulative failed writes of one [`ErrorKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Errors {
    /// No space left on device.
    pub enospc: u64,
    /// Disk quota exceeded.
    pub edquot: u64,
    /// Input/output error.
    pub eio: u64,
    /// Any other error but EAGAIN and interruptions.
    pub other: u64,
}

/// Index into the per-CPU `HEALTH` array: what the kernel side knows that it lost or could not
/// break down. All are cumulative.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Written bytes whose (process, file) found the spill map full: in the total, in no row.
    OtherWritten = 0,
    /// The same for allocated bytes.
    OtherAllocated = 1,
    /// The same for freed bytes.
    OtherFreed = 2,
    /// Failed writes that found the error map full.
    OtherErrors = 3,
    /// Name and process records that found the ring full.
    RingFull = 4,
    /// Entries that found the map for calls in flight full: their result is not counted.
    InFlightFull = 5,
    /// Directories deeper than one walk goes: the daemon completes their path later or not at all.
    PathTooDeep = 6,
    /// Changes of an inode's space that could not be remembered: its growth is not attributed.
    SpaceFull = 7,
    /// Waits and created files that found their map full.
    OtherWaits = 8,
    /// How often something was put into the map SPILL_A; so for the others below. The daemon looks through
    /// those that were used alone.
    UsedSpillA = 9,
    /// SPILL_B.
    UsedSpillB = 10,
    /// WAITS_A.
    UsedWaitsA = 11,
    /// WAITS_B.
    UsedWaitsB = 12,
    /// CREATED_A.
    UsedCreatedA = 13,
    /// CREATED_B.
    UsedCreatedB = 14,
    /// ERRORS_A.
    UsedErrorsA = 15,
    /// ERRORS_B.
    UsedErrorsB = 16,
    /// SHARED. Counted after the map was changed, for it is read while it is used.
    UsedShared = 17,
    /// SAVED_A.
    UsedSavedA = 18,
    /// SAVED_B.
    UsedSavedB = 19,
}

/// Number of [`Health`] cells.
pub const HEALTH_CELLS: u32 = 24;

pod!(ProcKey, FileKey, PairKey, Counters, Slot, BtrfsFile, ErrorKey, Errors, InodeSpace);
const _: () = assert!(size_of::<ProcKey>() == 16 && size_of::<FileKey>() == 16);
const _: () = assert!(size_of::<PairKey>() == 32 && size_of::<Counters>() == 32);
const _: () = assert!(size_of::<BtrfsFile>() == 32);
const _: () = assert!(size_of::<ErrorKey>() == 16 && size_of::<Errors>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_splits_as_the_kernel_has_it() {
        let key = FileKey { ino: 1, generation: 0, dev: (259 << 20) | 5 };
        assert_eq!((key.major(), key.minor()), (259, 5));
    }

    #[test]
    fn since_never_goes_below_zero() {
        let later = Counters { written: 5, ..Counters::default() };
        let earlier = Counters { written: 9, ..Counters::default() };
        assert_eq!(later.since(&earlier).written, 0);
    }
}
