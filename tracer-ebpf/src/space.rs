//! Space: what a filesystem charges to an inode, and how it changed.
//!
//! The usage of an inode is what its filesystem counts as used for it, including blocks that are
//! only reserved (delayed allocation). It is read wherever it may have changed. The difference to
//! the usage that was accounted last, kept per inode in [`INODES`], is charged to the current
//! process, or for a kernel thread to the process that changed the inode last ([`crate::charge`]).

use core::cell::UnsafeCell;

use tracer_common::offsets::{InodeUsageLayout, usage_kind};
use tracer_common::{Counters, FileKey, InodeSpace, ProcKey, SelfStat};

use crate::atomic::{atomic_add, exchange};
use crate::event::ZERO;
use crate::filesystem::kind_of;
use crate::inode_usage::{GAUGES, usage};
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, config, current_proc, file_key, is_regular, load_u32, magic,
};
use crate::maps::flags::BPF_NOEXIST;
use crate::maps::health::self_stat_add;
use crate::maps::inodes::INODES;

/// The lower half of `i_blocks`.
#[inline(always)]
pub fn blocks<R: Read>(inode: KernelPtr) -> u64 {
    // Allocation is in units of 512 bytes or more, so i_bytes never changes alone.
    load_u32!(R, inode, inode_blocks)
}

/// Hash of what else the filesystem counts, in its own inode; 0 if nothing.
#[inline(always)]
pub fn parts(kind: u32, inode: KernelPtr) -> u32 {
    if kind == usage_kind::TMPFS || kind >= usage_kind::NONE {
        return 0;
    }
    hash_of_parts(kind, inode.number())
}

#[unsafe(no_mangle)]
extern "C" fn hash_of_parts(kind: u32, inode: u64) -> u32 {
    let Some(layout) = GAUGES.get(kind) else { return 0 };
    let layout: &InodeUsageLayout = layout;
    let own = KernelPtr::from_addr(inode.wrapping_sub(u64::from(layout.vfs_inode)));
    let mut mixed = 0u32;
    for part in &layout.parts {
        if part.size != 0 {
            // The lower halves are enough; in a little-endian word, they are at the same offset.
            let value = ProbeRead::read::<u32>(own, part.offset);
            mixed = mixed.wrapping_mul(0x9E37_79B1).wrapping_add(value);
        }
    }
    mixed
}

/// Counters that grow whenever space may have been taken from an inode, or when it is evicted (or
/// another inode with the same hash). A range that was written since the last change has space.
static EPOCHS: Epochs = Epochs(UnsafeCell::new([0; EPOCH_CELLS]));

const EPOCH_CELLS: usize = 512;

struct Epochs(UnsafeCell<[u64; EPOCH_CELLS]>);

// SAFETY: read as a whole, changed by atomic adds.
unsafe impl Sync for Epochs {}

/// Lower 32 bits of the inode's counter in [`EPOCHS`].
#[inline(always)]
pub fn epoch(inode: KernelPtr) -> u64 {
    // SAFETY: half a cell of the static.
    u64::from(unsafe { core::ptr::read_volatile(epoch_cell(inode).cast::<u32>()) })
}

/// Advances the inode's epoch: space may have been taken from the inode, or it is evicted.
#[inline(always)]
pub fn advance_epoch(inode: KernelPtr) {
    atomic_add(epoch_cell(inode), 1);
}

#[inline(always)]
fn epoch_cell(inode: KernelPtr) -> *mut u64 {
    // An inode is several hundred bytes long.
    let cell = (inode.low() >> 8) as usize & (EPOCH_CELLS - 1);
    // SAFETY: within the array.
    unsafe { EPOCHS.0.get().cast::<u64>().add(cell) }
}

/// Accounts for the change of the inode's usage, and returns it: positive if space was allocated.
/// `before` is the presumed earlier usage, if the inode is not known.
#[inline(never)]
pub fn reconcile<R: Read>(file: &FileKey, inode: KernelPtr, before: u64, proc: &ProcKey) -> i64 {
    const TRIES: u32 = 4;
    let kind = kind_of(magic::<R>(inode));
    let Some(entry) = entry(file, before, proc) else { return 0 };
    for _ in 0..TRIES {
        // SAFETY: a field of a map value; volatile because other CPUs change it.
        let old = unsafe { core::ptr::read_volatile(&raw const entry.usage) };
        // Read after the usage that was accounted last, so it is never older than that. Otherwise,
        // threads that write to one file would free and take the same block in turns.
        let Some(now) = usage::<R>(kind, inode) else { return 0 };
        if config!(has_cmpxchg) == 0 {
            // Two CPUs may both be charged for the same change. The next reconciliation gives back
            // the excess, because the recorded value is the sum of all charges.
            atomic_add(&raw mut entry.usage, now.wrapping_sub(old));
            return update_entry(entry, old, now, proc);
        }
        if exchange(&raw mut entry.usage, old, now) {
            return update_entry(entry, old, now, proc);
        }
    }
    // Other CPUs account for this inode all the time, and will account for this change.
    0
}

/// Accounts for the removal of all the inode's space, and returns the change.
#[inline(never)]
pub fn reconcile_to_zero(file: &FileKey, before: u64, proc: &ProcKey) -> i64 {
    let Some(entry) = entry(file, before, proc) else { return 0 };
    let old = entry.usage;
    entry.usage = 0;
    update_entry(entry, old, 0, proc)
}

#[inline(always)]
fn entry(file: &FileKey, before: u64, proc: &ProcKey) -> Option<&'static mut InodeSpace> {
    let mut found = INODES.get_ptr_mut(file);
    if found.is_none() {
        // BPF_NOEXIST: if two CPUs meet a new inode, one of them sets the earlier usage, and both
        // account for what they find.
        let _ =
            INODES.insert(file, InodeSpace { usage: before, saved: 0, owner: *proc }, BPF_NOEXIST);
        found = INODES.get_ptr_mut(file);
    }
    if found.is_none() {
        self_stat_add(SelfStat::SpaceFull, 1);
    }
    // SAFETY: a valid pointer from the map.
    found.map(|entry| unsafe { &mut *entry })
}

#[inline(always)]
fn update_entry(entry: &mut InodeSpace, old: u64, now: u64, proc: &ProcKey) -> i64 {
    entry.owner = *proc;
    let change = now.wrapping_sub(old) as i64;
    if change < 0 && entry.saved != 0 {
        // In proportion, because it is not known which extents were freed. In pages, to avoid an
        // overflow.
        let kept = if now == 0 {
            0
        } else {
            ((entry.saved >> 12) * (now >> 12) / (old >> 12).max(1)) << 12
        };
        let released = entry.saved.saturating_sub(kept);
        entry.saved = kept;
        return change + released as i64;
    }
    change
}

/// Converts a change of space into counters.
#[inline(always)]
pub fn counts(change: i64) -> Counters {
    if change >= 0 {
        Counters { allocated: change as u64, ..ZERO }
    } else {
        Counters { freed: change.unsigned_abs(), ..ZERO }
    }
}

/// Records the usage of an inode that is not known yet, and the process that is about to change it.
/// Charges no process.
#[inline(always)]
pub fn record_baseline<R: Read>(inode: KernelPtr) {
    if is_regular::<R>(inode) {
        record_baseline_regular::<R>(inode, &current_proc());
    }
}

/// Records the usage of an inode that is not known yet, and the process that has it open.
#[inline(always)]
pub fn record_baseline_of(inode: KernelPtr, owner: &ProcKey) {
    if is_regular::<ProbeRead>(inode) {
        record_baseline_regular::<ProbeRead>(inode, owner);
    }
}

#[inline(never)]
fn record_baseline_regular<R: Read>(inode: KernelPtr, owner: &ProcKey) {
    let Some(usage) = usage::<R>(kind_of(magic::<R>(inode)), inode) else { return };
    // Recorded for an empty file, too: then everything that comes later is known to be new.
    // BPF_NOEXIST: an accounted value stays. If a kernel thread is the first to change the inode,
    // it does so for the process that opened it.
    let space = InodeSpace { usage, saved: 0, owner: *owner };
    let _ = INODES.insert(file_key::<R>(inode), space, BPF_NOEXIST);
}

/// Sets the accounted usage to the current one, charging no process: the space that was added is
/// shared with another file.
#[inline(always)]
pub fn rebase(inode: KernelPtr, file: &FileKey) {
    if let Some(usage) = usage::<ProbeRead>(kind_of(magic::<ProbeRead>(inode)), inode) {
        let _ = INODES.insert(file, InodeSpace { usage, saved: 0, owner: NOBODY }, 0);
    }
}

const NOBODY: ProcKey = ProcKey { start_ns: 0, tgid: 0, pad: 0 };
