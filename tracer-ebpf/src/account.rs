//! The one counting body. All backends call it with what was really done.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tracer_common::{Counters, ErrorKey, Errors, FileKey, Health, PairKey, ProcKey, Slot};

use crate::{
    kernel_read::{Kptr, config},
    maps::{ERRORS, SLOTS, SPILL_A, SPILL_ACTIVE, SPILL_B, health_add},
    names, process,
};

/// Counts `delta` for what `proc` did to `file`. `dentry` names the file when it is new; it is read
/// with `bpf_probe_read_kernel` alone, so any address will do.
#[inline(always)]
pub fn account(proc: ProcKey, file: FileKey, dentry: Kptr, delta: Counters) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let mask = config!(slot_mask);
    let index = cpu.wrapping_mul(mask.wrapping_add(1)).wrapping_add(hash(&proc, &file) & mask);
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    // SAFETY: the map hands out valid, aligned pointers; only this CPU writes this cell.
    let slot = unsafe { &mut *slot };
    if slot.ino == file.ino
        && slot.start_ns == proc.start_ns
        && slot.tgid == proc.tgid
        && slot.dev == file.dev
        && slot.generation == file.generation
    {
        add_to_slot(slot, &delta);
    } else {
        let newcomer = Newcomer { key: PairKey::new(proc, file), delta, dentry: dentry.addr() };
        take_slot(index, &newcomer);
    }
}

/// Counts the result of one write: bytes that went in, or an error. What is still under way
/// (EIOCBQUEUED) or was only interrupted is neither.
#[inline(always)]
pub fn account_write(proc: ProcKey, file: FileKey, dentry: Kptr, result: i64) {
    if result > 0 {
        account(proc, file, dentry, Counters { written: result as u64, ..ZERO });
    } else if result < 0 {
        account_error(proc, file, result);
    }
}

/// A [`Counters`] without anything in it, for struct updates.
pub const ZERO: Counters = Counters { written: 0, allocated: 0, freed: 0, unlinked: 0, flags: 0 };

const EINTR: i64 = -4;
const EIO: i64 = -5;
const EAGAIN: i64 = -11;
const ENOSPC: i64 = -28;
const EDQUOT: i64 = -122;
/// ERESTARTSYS: the kernel's own codes, never seen by a process, start here.
const KERNEL_INTERNAL: i64 = -512;

/// Counts a failed write.
#[inline(never)]
fn account_error(proc: ProcKey, file: FileKey, error: i64) {
    if error == EAGAIN || error == EINTR || error <= KERNEL_INTERNAL {
        return;
    }
    let key = ErrorKey { start_ns: proc.start_ns, tgid: proc.tgid, dev: file.dev };
    if ERRORS.get_ptr(key).is_none() {
        // BPF_NOEXIST: another CPU may have been first, which is as good.
        let _ = ERRORS.insert(key, Errors { enospc: 0, edquot: 0, eio: 0, other: 0 }, 1);
    }
    let Some(errors) = ERRORS.get_ptr_mut(key) else {
        health_add(Health::OtherErrors, 1);
        return;
    };
    // SAFETY: valid pointers from the map.
    let cell = unsafe {
        match error {
            ENOSPC => &raw mut (*errors).enospc,
            EDQUOT => &raw mut (*errors).edquot,
            EIO => &raw mut (*errors).eio,
            _ => &raw mut (*errors).other,
        }
    };
    atomic_add(cell, 1);
    process::describe_once(proc);
}

#[inline(always)]
fn add_to_slot(slot: &mut Slot, delta: &Counters) {
    slot.written = slot.written.wrapping_add(delta.written);
    if delta.allocated != 0 {
        slot.allocated = slot.allocated.wrapping_add(delta.allocated);
    }
    if delta.freed != 0 {
        slot.freed = slot.freed.wrapping_add(delta.freed);
    }
    if delta.unlinked != 0 {
        slot.unlinked = slot.unlinked.wrapping_add(delta.unlinked);
    }
    if delta.flags != 0 {
        slot.flags |= delta.flags;
    }
}

/// What wants a slot.
struct Newcomer {
    key: PairKey,
    delta: Counters,
    dentry: u64,
}

/// Moves the cell's tenant to the spill map, gives the cell to the newcomer and, where they are
/// new, sends the names of process and file.
#[inline(never)]
fn take_slot(index: u32, new: &Newcomer) {
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    // SAFETY: the map hands out valid, aligned pointers; only this CPU writes this cell.
    let slot = unsafe { &mut *slot };
    let old = slot.counters();
    if !old.is_zero() {
        spill(&slot.key(), &old);
    }
    let seq = slot.seq;
    // The daemon reads the cell while it changes: an odd number tells it to look again. Stores stay
    // in order because they are volatile, and because x86 keeps them so.
    store(&raw mut slot.seq, seq.wrapping_add(1));
    store(&raw mut slot.start_ns, new.key.start_ns);
    store(&raw mut slot.ino, new.key.ino);
    store(&raw mut slot.tgid, new.key.tgid);
    store(&raw mut slot.dev, new.key.dev);
    store(&raw mut slot.generation, new.key.generation);
    store(&raw mut slot.written, new.delta.written);
    store(&raw mut slot.allocated, new.delta.allocated);
    store(&raw mut slot.freed, new.delta.freed);
    store(&raw mut slot.unlinked, new.delta.unlinked);
    store(&raw mut slot.flags, new.delta.flags);
    store(&raw mut slot.seq, seq.wrapping_add(2));

    process::describe_once(new.key.process());
    names::send_once(new.key.file(), Kptr::from_addr(new.dentry));
}

/// Adds a tenant's counts to the active spill map, or to the exact rest when that is full.
#[inline(always)]
fn spill(key: &PairKey, counts: &Counters) {
    let active = SPILL_ACTIVE.get(0).copied().unwrap_or(0);
    let map = if active == 0 { &SPILL_A } else { &SPILL_B };
    if map.get_ptr(key).is_none() && map.insert(key, ZERO, 1).is_err() {
        // Full, or another CPU was first: then it is found below.
    }
    let Some(total) = map.get_ptr_mut(key) else {
        health_add(Health::OtherWritten, counts.written);
        health_add(Health::OtherAllocated, counts.allocated);
        health_add(Health::OtherFreed, counts.freed);
        return;
    };
    // SAFETY: valid pointers from the map.
    let (written, allocated, freed) = unsafe {
        (&raw mut (*total).written, &raw mut (*total).allocated, &raw mut (*total).freed)
    };
    atomic_add(written, counts.written);
    atomic_add(allocated, counts.allocated);
    atomic_add(freed, counts.freed);
    // SAFETY: as above. Not atomic: two CPUs that unlink the same file for the same process in the
    // same instant would be needed to lose one.
    unsafe {
        (*total).unlinked = (*total).unlinked.wrapping_add(counts.unlinked);
        (*total).flags |= counts.flags;
    }
}

#[inline(always)]
fn store<T>(cell: *mut T, value: T) {
    // SAFETY: a field of a map value.
    unsafe { core::ptr::write_volatile(cell, value) };
}

/// A relaxed add whose result is not used: BPF_XADD, which 5.10 has (it refuses fetch_add). Inline
/// assembly because core offers no atomic add for this target.
#[inline(always)]
pub fn atomic_add(cell: *mut u64, n: u64) {
    // SAFETY: a field of a map value, aligned to 8.
    unsafe {
        core::arch::asm!("lock *(u64 *)({cell} + 0) += {n}", cell = in(reg) cell, n = in(reg) n);
    }
}

/// Spreads keys over slots. Consecutive inode numbers, the usual case, get consecutive slots: no
/// collisions among the files of one writer until it has more files than there are slots.
#[inline(always)]
fn hash(proc: &ProcKey, file: &FileKey) -> u32 {
    let salt = proc.tgid.wrapping_mul(0x9E37_79B1) ^ file.dev.wrapping_mul(0x85EB_CA6B);
    (file.ino as u32).wrapping_add(salt >> 8)
}
