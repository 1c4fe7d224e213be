//! Keys and counters that the eBPF programs keep and the daemon reads.

use crate::pod;

/// A process: thread group id and start time, so a reused pid is a different process.
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

/// A file. Inode numbers are reused immediately, so the generation is part of the key.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct FileKey {
    /// `inode::i_ino`.
    pub ino: u64,
    /// `inode::i_generation`.
    pub generation: u32,
    /// `super_block::s_dev`: major << 20 | minor, the kernel's internal encoding.
    pub dev: u32,
}

impl FileKey {
    /// Major device number, from [`FileKey::dev`].
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.dev >> 20
    }

    /// Minor device number, from [`FileKey::dev`].
    #[must_use]
    pub const fn minor(&self) -> u32 {
        self.dev & 0xf_ffff
    }
}

/// Key of the activity of one process on one file.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ProcFileKey {
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

impl ProcFileKey {
    /// Combines a process and a file.
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

    /// Returns the process part of the key.
    #[must_use]
    #[inline]
    pub const fn process(&self) -> ProcKey {
        ProcKey { start_ns: self.start_ns, tgid: self.tgid, pad: 0 }
    }

    /// Returns the file part of the key.
    #[must_use]
    #[inline]
    pub const fn file(&self) -> FileKey {
        FileKey { ino: self.ino, generation: self.generation, dev: self.dev }
    }
}

/// Cumulative counts of one [`ProcFileKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes that writes really put into the file: return values, not requests.
    pub written: u64,
    /// Bytes newly charged to the file on its volume.
    pub allocated: u64,
    /// Bytes given back to the volume.
    pub freed: u64,
    /// Number of times the process removed the file's last name.
    pub unlinked: u32,
    /// [`slot_flags`], combined with OR.
    pub flags: u32,
}

impl Counters {
    /// Whether nothing was counted; `flags` are ignored.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.written == 0 && self.allocated == 0 && self.freed == 0 && self.unlinked == 0
    }

    /// Adds `other`; wraps on overflow, as the kernel's counters do.
    pub const fn add(&mut self, other: &Self) {
        self.written = self.written.wrapping_add(other.written);
        self.allocated = self.allocated.wrapping_add(other.allocated);
        self.freed = self.freed.wrapping_add(other.freed);
        self.unlinked = self.unlinked.wrapping_add(other.unlinked);
        self.flags |= other.flags;
    }

    /// Returns the increase over `earlier`. Counters of one occupancy never shrink; a torn pair of
    /// reads gives 0, not a huge number.
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
    /// Some of the bytes are counted per page (mmap).
    pub const APPROXIMATE: u32 = 1;
}

/// One slot of the direct-mapped slot table: index = cpu × slots per CPU + a hash of the pair.
///
/// Two cache lines; a write to a known file into space it already has touches only the first. Only
/// the slot's own CPU writes it; the daemon reads it through mmap. `seq` is odd while the slot
/// changes occupants and grows by 2 with each occupant, so it is both a seqlock and the occupant's
/// number.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// [`ProcKey::start_ns`].
    pub start_ns: u64,
    /// [`FileKey::ino`].
    pub ino: u64,
    /// Address of the inode, so its device need not be looked up; 0 if unknown. Addresses are
    /// reused; `epoch` detects that.
    pub inode: u64,
    /// [`Counters::written`].
    pub written: u64,
    /// [`FileKey::generation`].
    pub generation: u32,
    /// Occupant number × 2, + 1 while the slot changes occupants.
    pub seq: u32,
    /// The inode's blocks as this process last saw them (lower half of `i_blocks`). While they and
    /// `parts` are unchanged, nothing was allocated and the shared usage record need not be read.
    pub blocks: u32,
    /// Grows whenever the inode may have lost space, and when the inode is evicted.
    pub epoch: u32,
    /// Start of the range in which the file is known to have space because the occupant wrote
    /// there, in bytes from the start of the file. Valid as long as `epoch` is the inode's.
    pub from: u64,
    /// End of that range.
    pub to: u64,
    /// [`Counters::allocated`].
    pub allocated: u64,
    /// [`Counters::freed`].
    pub freed: u64,
    /// [`ProcKey::tgid`].
    pub tgid: u32,
    /// [`FileKey::dev`].
    pub dev: u32,
    /// Hash of the space that the filesystem charges to the inode in addition to its blocks.
    pub parts: u32,
    /// [`Counters::unlinked`].
    pub unlinked: u32,
    /// [`slot_flags`].
    pub flags: u32,
    /// Padding to the end of the cache line.
    pub pad: [u32; 7],
}

const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    /// Returns the (process, file) whose counts these are.
    #[must_use]
    pub const fn key(&self) -> ProcFileKey {
        ProcFileKey {
            start_ns: self.start_ns,
            ino: self.ino,
            tgid: self.tgid,
            dev: self.dev,
            generation: self.generation,
            pad: 0,
        }
    }

    /// Whether the slot belongs to this process and file.
    #[must_use]
    #[inline(always)]
    pub const fn is_of(&self, proc: &ProcKey, file: &FileKey) -> bool {
        self.ino == file.ino
            && self.start_ns == proc.start_ns
            && self.tgid == proc.tgid
            && self.dev == file.dev
            && self.generation == file.generation
    }

    /// Returns the occupant's counters.
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

/// Space charged to an inode, as last accounted. Keyed by [`FileKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeSpace {
    /// Bytes charged to the inode.
    pub usage: u64,
    /// Part of `usage`, in bytes, that is not taken from the volume because it was compressed.
    pub saved: u64,
    /// Process that changed it last; credited when a kernel thread changes it later.
    pub owner: ProcKey,
}

/// A btrfs file as identified by btrfs's own events, which do not carry a [`FileKey`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BtrfsFile {
    /// UUID of the filesystem, in memory order.
    pub fsid: [u64; 2],
    /// Id of the subvolume's tree.
    pub root: u64,
    /// Inode number within that tree.
    pub ino: u64,
}

/// Key of failed writes: process and volume.
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
    /// Any other error except EAGAIN and interruptions.
    pub other: u64,
    /// Writes that returned fewer bytes than requested. Not only for lack of space: also when a signal
    /// interrupts a write, or a part of its source cannot be read.
    pub short: u64,
    /// Accesses to a mapping of a file, within the file, that the filesystem refused (SIGBUS): for lack
    /// of space, or because of an input/output error.
    pub faults: u64,
}

/// What a process did in a directory: cumulative numbers of inodes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entries {
    /// Files, directories, symbolic links and others that it created.
    pub created: u64,
    /// Those whose last name it removed, without the regular files that [`Counters::unlinked`] counts.
    pub removed: u64,
    /// Its renames of which it is not known whether they removed an inode that had the new name.
    pub renamed: u64,
}

impl Entries {
    /// One inode created.
    pub const CREATED: Self = Self { created: 1, removed: 0, renamed: 0 };
    /// One inode removed.
    pub const REMOVED: Self = Self { created: 0, removed: 1, renamed: 0 };
    /// One rename.
    pub const RENAMED: Self = Self { created: 0, removed: 0, renamed: 1 };
    /// Nothing.
    pub const NONE: Self = Self { created: 0, removed: 0, renamed: 0 };

    /// Adds `other`; wraps on overflow, as the kernel's counters do.
    pub const fn add(&mut self, other: &Self) {
        self.created = self.created.wrapping_add(other.created);
        self.removed = self.removed.wrapping_add(other.removed);
        self.renamed = self.renamed.wrapping_add(other.renamed);
    }
}

/// Index into the per-CPU `HEALTH` array: what the eBPF side knows it lost or could not break down.
/// All values are cumulative.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelfStat {
    /// Written bytes whose (process, file) found the spill map full: counted in the total, in no
    /// row.
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
    /// Directories deeper than one walk goes: the daemon completes their paths later or not at all.
    PathTooDeep = 6,
    /// Changes of an inode's space that could not be recorded: its growth is not attributed.
    SpaceFull = 7,
    /// Waits and created files that found their map full.
    OtherWaits = 8,
    /// Number of insertions into the map SPILL_A; likewise for the maps below. The daemon drains
    /// only maps that were used.
    UsedSpillA = 9,
    /// Insertions into SPILL_B.
    UsedSpillB = 10,
    /// Insertions into WAITS_A.
    UsedWaitsA = 11,
    /// Insertions into WAITS_B.
    UsedWaitsB = 12,
    /// Insertions into CREATED_A.
    UsedCreatedA = 13,
    /// Insertions into CREATED_B.
    UsedCreatedB = 14,
    /// Insertions into ERRORS_A.
    UsedErrorsA = 15,
    /// Insertions into ERRORS_B.
    UsedErrorsB = 16,
    /// Insertions into SHARED. Incremented after the map was changed, because it is read while in
    /// use.
    UsedShared = 17,
    /// Insertions into SAVED_A.
    UsedSavedA = 18,
    /// Insertions into SAVED_B.
    UsedSavedB = 19,
}

/// Number of [`SelfStat`] cells per CPU, with spare ones.
pub const SELF_STAT_CELLS: u32 = 24;

pod!(
    ProcKey,
    FileKey,
    ProcFileKey,
    Counters,
    Slot,
    BtrfsFile,
    ErrorKey,
    Errors,
    Entries,
    InodeSpace
);
const _: () = assert!(size_of::<ProcKey>() == 16 && size_of::<FileKey>() == 16);
const _: () = assert!(size_of::<ProcFileKey>() == 32 && size_of::<Counters>() == 32);
const _: () = assert!(size_of::<BtrfsFile>() == 32);
const _: () = assert!(size_of::<ErrorKey>() == 16 && size_of::<Errors>() == 48);
const _: () = assert!(size_of::<Entries>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_splits_into_major_and_minor() {
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
