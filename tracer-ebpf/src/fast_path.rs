//! The short way of a write: to a file that its process wrote to just before, into space that it has.
//!
//! The pair's cell is found by the inode's number and the main thread's address, and compared by what can be
//! loaded through few pointers: the address and the number of the inode and the start of the process. An
//! inode's epoch grows with its end, so that another one at the same address is not taken for it.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use tracer_common::Slot;
use tracer_common::offsets::gauge_kind;

use crate::atomic::atomic_add;
use crate::event::{BY_SYSCALL, WriteEvent};
use crate::kernel_read::{KernelPtr, Read, config, current_leader, load, load_u32};
use crate::maps::slots::SLOTS;
use crate::space;

/// Counts a write that was successful and not direct, if it can be done the short way; else false. `inode`,
/// `end` and `written` fetch what was written, up to where and how much: anew each time, for that is cheaper
/// than to save it from the calls in between. `kind` is that of [`update_slot_cache`], or ext4's where it may be another.
#[inline(always)]
pub fn try_fast_path<R: Read>(
    inode: impl Fn() -> KernelPtr,
    end: impl Fn() -> u64,
    written: impl Fn() -> u64,
    kind: u32,
) -> bool {
    let (leader, start_ns) = current_leader();
    // In this order few values have to be saved from a call.
    let (leader, cells) = (leader.low(), cpu_slot_base());
    let inode = inode();
    let ino: u64 = load!(R, inode, inode_ino);
    let Some(slot) = SLOTS.get_ptr_mut(hash_index(cells, ino, leader)) else { return false };
    // SAFETY: a valid, aligned pointer from the map; only this CPU writes this cell.
    let slot = unsafe { &mut *slot };
    if slot.inode != inode.addr() || slot.start_ns != start_ns || slot.ino != ino {
        return false;
    }
    let written = written();
    let same = if kind == gauge_kind::NONE {
        slot.to == BY_SYSCALL && u64::from(slot.generation) == load_u32!(R, inode, inode_generation)
    } else {
        u64::from(slot.blocks) == space::blocks::<R>(inode)
            && u64::from(slot.epoch) == space::epoch(inode)
            && (kind == gauge_kind::TMPFS || is_within(slot, end(), written))
    };
    if same {
        atomic_add(&raw mut slot.written, written);
    }
    same
}

/// Did the write go where there is space? But on tmpfs, `i_blocks` alone does not tell, and the blocks that are
/// only reserved lie beyond the inode, where a probe read would have to fetch them. xfs keeps none of its
/// figures in the inode. What was written there keeps its space, but for what a change of the inode's epoch
/// tells: to overwrite what is shared with another file takes space that is given back in the end.
#[inline(always)]
fn is_within(slot: &Slot, end: u64, written: u64) -> bool {
    end <= slot.to && end.wrapping_sub(written) >= slot.from
}

/// What was seen of a written file's space before that was accounted for, to see at the next write
/// whether it changed: not the gauge itself, but what it is made of, in fewer loads. What changes
/// without it being seen, were there such a thing, would be accounted with the next change.
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
    /// Looks.
    #[inline(always)]
    pub fn of<R: Read>(kind: u32, inode: KernelPtr) -> Self {
        Self {
            epoch: space::epoch(inode) as u32,
            blocks: space::blocks::<R>(inode) as u32,
            parts: space::parts(kind, inode),
        }
    }
}

/// Remembers in its tenant's cell a write that was accounted for, so that the next one goes the short way.
#[inline(always)]
pub fn update_slot_cache<R: Read>(slot: &mut Slot, write: &WriteEvent, seen: &SpaceStamp) {
    let goes_on = slot.inode == write.who.inode.addr() && slot.epoch == seen.epoch;
    slot.blocks = seen.blocks;
    slot.parts = seen.parts;
    slot.epoch = seen.epoch;
    let inode = write.who.inode;
    // Otherwise the short way does not know what their space is made of, and where it was written.
    let by_call = write.end == BY_SYSCALL;
    let known = write.kind != gauge_kind::NONE;
    if write.end == 0 || !(known || by_call) {
        return;
    }
    // tmpfs tells of all its space by `i_blocks`.
    let (mut from, mut to) = (0, if by_call { BY_SYSCALL } else { u64::MAX });
    if known && write.kind != gauge_kind::TMPFS {
        let bits: u8 = load!(R, inode, inode_blkbits);
        (from, to) = blocks_around(write.end.wrapping_sub(write.result as u64), write.end, bits);
        if goes_on && from <= slot.to && slot.from <= to {
            from = from.min(slot.from);
            to = to.max(slot.to);
        }
    }
    slot.from = from;
    slot.to = to;
    slot.inode = inode.addr();
}

/// The blocks of a write from `start` to `end`.
#[inline(always)]
fn blocks_around(start: u64, end: u64, block_bits: u8) -> (u64, u64) {
    let block = (1 << (block_bits & 31)) - 1;
    (start & !block, (end + block) & !block)
}

/// Where the cell of a pair is on this CPU, whose cells start at `cells`; `leader` is the lower half of the
/// main thread's address. Consecutive inode numbers, the usual case, get consecutive cells: no collisions
/// among the files of one writer until it has more files than there are cells.
#[inline(always)]
pub fn hash_index(cells: u32, ino: u64, leader: u32) -> u32 {
    let hash = (ino as u32).wrapping_add(leader) & config!(slot_mask) as u32;
    cells.wrapping_add(hash)
}

/// The first cell of the CPU that this runs on.
#[inline(always)]
pub fn cpu_slot_base() -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    cpu.wrapping_mul(config!(slots_per_cpu) as u32)
}
