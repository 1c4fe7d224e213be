//! The accounting core. All backends call it with what was really done.

use tracer_common::{Counters, ErrorKey, Errors, FileKey, ProcFileKey, ProcKey, SelfStat, Slot};

use crate::atomic::{atomic_add, exchange, store};
use crate::errno::{EAGAIN, EDQUOT, EINTR, EIO, ENOSPC, ERESTARTSYS};
use crate::event::{WriteEvent, WriteTarget, ZERO};
use crate::fast_path::{self, SpaceStamp, update_slot_cache};
use crate::inode_usage::usage;
use crate::kernel_read::{KernelPtr, ProbeRead, Read, current_leader, load};
use crate::maps::errors::{ERRORS_A, ERRORS_B};
use crate::maps::flags::BPF_NOEXIST;
use crate::maps::health::self_stat_add;
use crate::maps::slots::{SLOTS, SPILL_A, SPILL_ACTIVE, SPILL_B, first_is_active};
use crate::{names, process, space};

/// Counts `delta` for what `proc` did to `file`.
///
/// If the file is new, `dentry` names it, provided that it belongs to `inode` or that `inode` is
/// null; else one of `inode`'s own dentries does (see [`names::emit_path_once`]). Both are read
/// with `bpf_probe_read_kernel` only, so any address is safe.
#[inline(always)]
pub fn account(proc: ProcKey, file: FileKey, dentry: KernelPtr, inode: KernelPtr, delta: Counters) {
    let target = WriteTarget { proc, file, dentry, inode };
    let index = slot_index(&target);
    if index == NO_SLOT {
        spill(&ProcFileKey::new(proc, file), &delta);
        names::emit_path_once::<ProbeRead>(&file, dentry, inode);
        return;
    }
    let Some(slot) = slot_at(index) else { return };
    if slot.is_of(&target.proc, &target.file) {
        add_to_slot(slot, &delta);
    } else {
        claim_slot::<ProbeRead>(index, &target, &delta);
    }
}

/// Counts the result of one write, and the space that it took. A write that is still in progress
/// (EIOCBQUEUED) or was only interrupted is neither a success nor an error.
#[inline(always)]
pub fn account_write<R: Read>(write: &WriteEvent) {
    if write.result < 0 {
        account_error(write.target.proc, write.target.file, write.result);
        return;
    }
    if write.result == 0 {
        return;
    }
    let written = write.result as u64;
    // Read before the usage: a change in between is found at the next write.
    let stamp = &SpaceStamp::of::<R>(write.kind, write.target.inode);
    let index = slot_index(&write.target);
    if index != NO_SLOT
        && let Some(slot) = slot_at(index)
        && slot.is_of(&write.target.proc, &write.target.file)
        && slot.blocks == stamp.blocks
        && slot.parts == stamp.parts
        && slot.epoch == stamp.epoch
    {
        atomic_add(&raw mut slot.written, written);
        update_slot_cache::<R>(slot, write, stamp);
        return;
    }
    let mut delta = ZERO;
    if let Some(usage_now) = usage::<R>(write.kind, write.target.inode) {
        let before = estimate_prior_usage::<R>(write, usage_now);
        delta = space::counts(space::reconcile::<R>(
            &write.target.file,
            write.target.inode,
            before,
            &write.target.proc,
        ));
    }
    delta.written = written;
    if index == NO_SLOT {
        spill(&ProcFileKey::new(write.target.proc, write.target.file), &delta);
        names::emit_path_once::<R>(&write.target.file, write.target.dentry, write.target.inode);
        return;
    }
    let Some(slot) = slot_at(index) else { return };
    if slot.is_of(&write.target.proc, &write.target.file) {
        add_to_slot(slot, &delta);
    } else {
        claim_slot::<R>(index, &write.target, &delta);
    }
    if slot.is_of(&write.target.proc, &write.target.file) {
        update_slot_cache::<R>(slot, write, stamp);
    }
}

/// Estimates a file's usage before the first write that was seen, when its opening was not seen: 0
/// if the write is all the file has, else everything but the most that the write itself can have
/// taken.
#[inline(always)]
fn estimate_prior_usage<R: Read>(write: &WriteEvent, usage: u64) -> u64 {
    const BLOCK: u64 = 4096;
    let written = write.result as u64;
    let size: u64 = load!(R, write.target.inode, inode_size);
    if write.end == written && size <= written {
        return 0;
    }
    usage.saturating_sub((written + 2 * BLOCK - 1) & !(BLOCK - 1))
}

/// No index of a slot. Not `None`: the compiler keeps an option's tag and value in two registers, and
/// where the tag says that there is no value, the other may hold a pointer. The verifier of 6.1 does
/// not see that they belong together, and rejects the program.
const NO_SLOT: u32 = u32::MAX;

/// Index of the pair's slot on this CPU, or [`NO_SLOT`]. Only the current process has one. Counting
/// for another process is rare: when its direct I/O completes, or when a kernel thread writes back its
/// data.
#[inline(always)]
fn slot_index(target: &WriteTarget) -> u32 {
    let (leader, start_ns) = current_leader();
    if start_ns != target.proc.start_ns {
        return NO_SLOT;
    }
    fast_path::hash_index(fast_path::cpu_slot_base(), target.file.ino, leader.low())
}

#[inline(always)]
fn slot_at(index: u32) -> Option<&'static mut Slot> {
    // SAFETY: a valid, aligned pointer from the map; only this CPU writes this slot.
    SLOTS.get_ptr_mut(index).map(|slot| unsafe { &mut *slot })
}

/// Counts a failed write.
#[inline(always)]
pub fn account_error(proc: ProcKey, file: FileKey, error: i64) {
    if error == EAGAIN || error == EINTR || error <= ERESTARTSYS {
        return;
    }
    count_error(proc.start_ns, proc.tgid, file.dev, error);
    process::emit_process_once(proc);
}

/// Stands for an error number: a write that returned fewer bytes than requested.
pub const SHORT_WRITE: i64 = 1;
/// Stands for an error number: a fault in a mapping that the filesystem refused.
pub const REFUSED_FAULT: i64 = 2;

const NO_ERRORS: Errors = Errors { enospc: 0, edquot: 0, eio: 0, other: 0, short: 0, faults: 0 };

#[unsafe(no_mangle)]
extern "C" fn count_error(start_ns: u64, tgid: u32, dev: u32, error: i64) -> u32 {
    let key = ErrorKey { start_ns, tgid, dev };
    let first = first_is_active();
    self_stat_add(if first { SelfStat::UsedErrorsA } else { SelfStat::UsedErrorsB }, 1);
    let map = if first { &ERRORS_A } else { &ERRORS_B };
    if map.get_ptr(key).is_none() {
        let _ = map.insert(key, NO_ERRORS, BPF_NOEXIST);
    }
    let Some(errors) = map.get_ptr_mut(key) else {
        self_stat_add(SelfStat::OtherErrors, 1);
        return 0;
    };
    // SAFETY: valid pointers from the map.
    let cell = unsafe {
        match error {
            SHORT_WRITE => &raw mut (*errors).short,
            REFUSED_FAULT => &raw mut (*errors).faults,
            ENOSPC => &raw mut (*errors).enospc,
            EDQUOT => &raw mut (*errors).edquot,
            EIO => &raw mut (*errors).eio,
            _ => &raw mut (*errors).other,
        }
    };
    atomic_add(cell, 1);
    0
}

#[inline(always)]
fn add_to_slot(slot: &mut Slot, delta: &Counters) {
    // Atomic although only this CPU uses the slot: fexit programs can be preempted, and a program
    // that resumes with a stale sum would undo what others added meanwhile.
    atomic_add(&raw mut slot.written, delta.written);
    if delta.allocated != 0 {
        atomic_add(&raw mut slot.allocated, delta.allocated);
    }
    if delta.freed != 0 {
        atomic_add(&raw mut slot.freed, delta.freed);
    }
    if delta.unlinked != 0 {
        slot.unlinked = slot.unlinked.wrapping_add(delta.unlinked);
    }
    if delta.flags != 0 {
        slot.flags |= delta.flags;
    }
}

/// Gives the slot to a new pair, and sends the names of the process and the file if they are new.
/// The calls are made one after the other, not nested: all frames of a call chain share 512 bytes.
#[inline(always)]
fn claim_slot<R: Read>(index: u32, target: &WriteTarget, delta: &Counters) {
    evict_slot(index, target, delta);
    process::emit_process_once(target.proc);
    names::emit_path_once::<R>(&target.file, target.dentry, target.inode);
}

/// Moves the slot's occupant to the spill map, and puts the new pair in. If another program was
/// preempted in the middle of that, the new pair's counts go to the spill map instead.
#[inline(never)]
fn evict_slot(index: u32, target: &WriteTarget, delta: &Counters) {
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    // SAFETY: a valid, aligned pointer from the map; only this CPU writes this slot.
    let slot = unsafe { &mut *slot };
    // An odd `seq` shows, also to the daemon, that the slot is changing hands. The stores stay in
    // order because they are volatile, and because x86 keeps them in order.
    let lock = (&raw mut slot.generation).cast::<u64>();
    // SAFETY: `generation` and `seq`, eight aligned bytes of the slot.
    let unlocked = unsafe { core::ptr::read_volatile(lock) };
    let seq = (unlocked >> 32) as u32;
    if seq & 1 != 0 || !exchange(lock, unlocked, unlocked.wrapping_add(1 << 32)) {
        spill(&ProcFileKey::new(target.proc, target.file), delta);
        return;
    }
    let mut occupant = slot.key();
    occupant.generation = unlocked as u32;
    // Belongs to no process now, so that a program that runs in between does not add to what is
    // being read.
    store(&raw mut slot.start_ns, u64::MAX);
    let counts = slot.counters();
    if !counts.is_zero() {
        spill(&occupant, &counts);
    }
    store(&raw mut slot.ino, target.file.ino);
    store(&raw mut slot.tgid, target.proc.tgid);
    store(&raw mut slot.dev, target.file.dev);
    store(&raw mut slot.generation, target.file.generation);
    store(&raw mut slot.written, delta.written);
    store(&raw mut slot.allocated, delta.allocated);
    store(&raw mut slot.freed, delta.freed);
    store(&raw mut slot.unlinked, delta.unlinked);
    store(&raw mut slot.flags, delta.flags);
    // Nothing is known of the new file's space yet.
    store(&raw mut slot.inode, 0);
    store(&raw mut slot.blocks, u32::MAX);
    store(&raw mut slot.start_ns, target.proc.start_ns);
    store(&raw mut slot.seq, seq.wrapping_add(2));
}

/// Adds an occupant's counts to the active spill map, or to the exact remainder if that is full.
#[inline(never)]
fn spill(key: &ProcFileKey, counts: &Counters) {
    let active = SPILL_ACTIVE.get(0).copied().unwrap_or(0);
    let (map, used) = if active == 0 {
        (&SPILL_A, SelfStat::UsedSpillA)
    } else {
        (&SPILL_B, SelfStat::UsedSpillB)
    };
    self_stat_add(used, 1);
    if map.get_ptr(key).is_none() && map.insert(key, ZERO, BPF_NOEXIST).is_err() {
        // Full, or another CPU inserted it first: then the next look-up finds it.
    }
    let Some(total) = map.get_ptr_mut(key) else {
        self_stat_add(SelfStat::OtherWritten, counts.written);
        self_stat_add(SelfStat::OtherAllocated, counts.allocated);
        self_stat_add(SelfStat::OtherFreed, counts.freed);
        return;
    };
    // SAFETY: valid pointers from the map.
    let (written, allocated, freed) = unsafe {
        (&raw mut (*total).written, &raw mut (*total).allocated, &raw mut (*total).freed)
    };
    atomic_add(written, counts.written);
    atomic_add(allocated, counts.allocated);
    atomic_add(freed, counts.freed);
    // SAFETY: as above. Not atomic: an update is lost only if two CPUs unlink the same file for the
    // same process at the same instant.
    unsafe {
        (*total).unlinked = (*total).unlinked.wrapping_add(counts.unlinked);
        (*total).flags |= counts.flags;
    }
}
