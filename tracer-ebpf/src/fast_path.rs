//! The fast path of a write: to a file that its process wrote to just before, into space that the
//! file already has.
//!
//! The slot of the (process, file) pair is found by the inode number and the address of the main
//! thread. It is verified with values that few loads reach: the inode's address and number, and the
//! start time of the process. An inode's epoch grows when the inode is evicted, so that a new inode
//! at the same address is not mistaken for it.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tracer_common::Slot;
use tracer_common::offsets::usage_kind;

use crate::atomic::atomic_add;
use crate::event::{BY_SYSCALL, WriteEvent};
use crate::kernel_read::{KernelPtr, Read, config, current_leader, load, load_u32};
use crate::maps::slots::SLOTS;
use crate::space;

/// Counts a write that succeeded and was not direct, if the fast path applies. Returns whether it
/// did.
///
/// `inode`, `end` and `written` fetch the inode, the position after the write and the number of
/// bytes. They fetch them anew each time, because that is cheaper than saving the values across
/// helper calls. `kind` is the one that [`update_slot_cache`] was called with, or ext4's where it
/// can be another one.
#[inline(always)]
pub fn try_fast_path<R: Read>(
    inode: impl Fn() -> KernelPtr,
    end: impl Fn() -> u64,
    written: impl Fn() -> u64,
    kind: u32,
) -> bool {
    let (leader, start_ns) = current_leader();
    // In this order, few values have to be saved across a helper call.
    let (leader, base) = (leader.low(), cpu_slot_base());
    let inode = inode();
    let ino: u64 = load!(R, inode, inode_ino);
    let Some(slot) = SLOTS.get_ptr_mut(hash_index(base, ino, leader)) else { return false };
    // SAFETY: a valid, aligned pointer from the map; only this CPU writes this slot.
    let slot = unsafe { &mut *slot };
    if slot.inode != inode.addr() || slot.start_ns != start_ns || slot.ino != ino {
        return false;
    }
    let written = written();
    let same = if kind == usage_kind::NONE {
        slot.to == BY_SYSCALL && u64::from(slot.generation) == load_u32!(R, inode, inode_generation)
    } else {
        u64::from(slot.blocks) == space::blocks::<R>(inode)
            && u64::from(slot.epoch) == space::epoch(inode)
            && (kind == usage_kind::TMPFS || is_within(slot, end(), written))
    };
    if same {
        atomic_add(&raw mut slot.written, written);
    }
    same
}

/// Returns whether the write went where the file already has space.
///
/// `i_blocks` alone shows that only on tmpfs. Elsewhere, blocks that are only reserved are counted
/// outside `struct inode`, where they would need a probe read, and xfs keeps none of its figures in
/// the inode. A range that was written keeps its space until the inode's epoch changes. Overwriting
/// blocks that are shared with another file takes new blocks, but the file's usage is in the end
/// the same.
#[inline(always)]
fn is_within(slot: &Slot, end: u64, written: u64) -> bool {
    end <= slot.to && end.wrapping_sub(written) >= slot.from
}

/// What was read of a file's space before a write was accounted for. The next write compares it, to
/// detect a change.
///
/// It is not the usage itself but the values that it is computed from, in fewer loads. A change
/// that went undetected, if there were one, would be accounted for with the next change.
#[derive(Clone, Copy)]
pub struct SpaceStamp {
    /// [`Slot::blocks`].
    pub blocks: u32,
    /// [`Slot::parts`].
    pub parts: u32,
    /// [`Slot::epoch`].
    pub epoch: u32,
}

impl SpaceStamp {
    /// Reads the current values.
    #[inline(always)]
    pub fn of<R: Read>(kind: u32, inode: KernelPtr) -> Self {
        Self {
            epoch: space::epoch(inode) as u32,
            blocks: space::blocks::<R>(inode) as u32,
            parts: space::parts(kind, inode),
        }
    }
}

/// Stores in the slot a write that was accounted for, so that the next one can take the fast path.
#[inline(always)]
pub fn update_slot_cache<R: Read>(slot: &mut Slot, write: &WriteEvent, stamp: &SpaceStamp) {
    let continues = slot.inode == write.target.inode.addr() && slot.epoch == stamp.epoch;
    slot.blocks = stamp.blocks;
    slot.parts = stamp.parts;
    slot.epoch = stamp.epoch;
    let inode = write.target.inode;
    // For other files, the fast path does not know what their space is computed from, or where they
    // were written.
    let by_syscall = write.end == BY_SYSCALL;
    let known = write.kind != usage_kind::NONE;
    if write.end == 0 || !(known || by_syscall) {
        return;
    }
    // On tmpfs, `i_blocks` covers all space.
    let (mut from, mut to) = (0, if by_syscall { BY_SYSCALL } else { u64::MAX });
    if known && write.kind != usage_kind::TMPFS {
        let bits: u8 = load!(R, inode, inode_blkbits);
        (from, to) = blocks_around(write.end.wrapping_sub(write.result as u64), write.end, bits);
        if continues && from <= slot.to && slot.from <= to {
            from = from.min(slot.from);
            to = to.max(slot.to);
        }
    }
    slot.from = from;
    slot.to = to;
    slot.inode = inode.addr();
}

/// Returns the range of whole blocks that a write from `start` to `end` touches.
#[inline(always)]
fn blocks_around(start: u64, end: u64, block_bits: u8) -> (u64, u64) {
    let block = (1 << (block_bits & 31)) - 1;
    (start & !block, (end + block) & !block)
}

/// Index of a pair's slot, on the CPU whose slots start at `base`; `leader` is the lower half of
/// the main thread's address. Consecutive inode numbers, the usual case, get consecutive slots. So
/// the files of one writer do not collide until it has more files than there are slots.
#[inline(always)]
pub fn hash_index(base: u32, ino: u64, leader: u32) -> u32 {
    let hash = (ino as u32).wrapping_add(leader) & config!(slot_mask) as u32;
    base.wrapping_add(hash)
}

/// Index of the first slot of the current CPU.
#[inline(always)]
pub fn cpu_slot_base() -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    cpu.wrapping_mul(config!(slots_per_cpu) as u32)
}
