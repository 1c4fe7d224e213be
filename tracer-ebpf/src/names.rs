//! Names of files: one walk up the dentries for each new file; each directory is sent once.
//!
//! The walk ends at the root of the *filesystem*; the daemon prepends the host's mount point. So a
//! path is always the host's, whatever the writer's chroot, mount namespace or bind mount.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_probe_read_kernel, bpf_ringbuf_output, bpf_ringbuf_query,
};
use aya_log_ebpf::debug;
use tracer_common::records::{NAME_BUFFER, NAME_MAX, WALK_STEPS, WALK_STEPS_UNROLLED, name_flags};
use tracer_common::{FileKey, NameRecord, RecordKind, SelfStat};

use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, any_dentry, config, file_key, is_regular, load, load_u32, magic,
};
use crate::maps::events::{NAME_SCRATCH, NAMED, RECORDS, RING_BYTES};
use crate::maps::health::self_stat_add;
use crate::scratch::{self, NameWork};

/// Sends the names of `file` and of the directories above it, unless they were sent before.
///
/// `inode` is the file's own, or null if it is the dentry's. Before 6.6, the file that overlayfs
/// opens on its upper layer has the dentry of the overlay; such a file is named by one of its
/// inode's own dentries.
#[inline(always)]
pub fn emit_path_once<R: Read>(file: &FileKey, dentry: KernelPtr, inode: KernelPtr) {
    if dentry.is_null() || NAMED.get_ptr(file).is_some() {
        return;
    }
    let own = dentry.number();
    let mut first = own;
    if !inode.is_null() {
        let named = KernelPtr(load!(R, dentry, dentry_inode));
        if named.addr() != inode.addr() {
            first = any_dentry(inode).addr();
        }
    }
    // Only where loads are cheap. Elsewhere, the verifier would go through all of it twice for no
    // gain.
    if R::TYPED && first == own {
        first = emit_first::<R>(dentry);
    }
    if first != 0 {
        emit_path_walk(first);
    }
}

/// Sends the name that `dentry` gives. Returns the address of the directory's dentry if the
/// directory must be sent too, else 0. Most new files are in a known directory, and stop here.
#[inline(never)]
fn emit_first<R: Read>(dentry: KernelPtr) -> u64 {
    let Some(buffer) = scratch::acquire(&NAME_SCRATCH) else {
        self_stat_add(SelfStat::RingFull, 1);
        return 0;
    };
    let above = scratch::get(&NAME_SCRATCH, buffer)
        .map_or(0, |work| emit_component::<R>(&mut work.record, dentry).number());
    scratch::release(&NAME_SCRATCH, buffer);
    above
}

/// Sends one component. Returns the directory's dentry if the directory must be sent too, else
/// null.
#[inline(always)]
fn emit_component<R: Read>(record: &mut NameRecord, dentry: KernelPtr) -> KernelPtr {
    let nothing = KernelPtr::from_addr(0);
    let inode = KernelPtr(load!(R, dentry, dentry_inode));
    record.file = file_key::<R>(inode);
    let parent = KernelPtr(load!(R, dentry, dentry_parent));
    record.parent = file_key::<R>(KernelPtr(load!(R, parent, dentry_inode)));
    let is_root = parent.addr() == dentry.addr();
    fill_record::<R>(record, dentry, inode, is_root);
    if !emit_name(record) {
        self_stat_add(SelfStat::RingFull, 1);
        return nothing;
    }
    let _ = NAMED.insert(&record.file, 1, 0);
    if is_root || NAMED.get_ptr(&record.parent).is_some() { nothing } else { parent }
}

/// Walks up from `dentry`, which was not sent yet, and sends each component until it reaches a
/// known one.
#[unsafe(no_mangle)]
pub extern "C" fn emit_path_walk(dentry: u64) -> i32 {
    let Some(mut buffer) = scratch::acquire(&NAME_SCRATCH) else {
        self_stat_add(SelfStat::RingFull, 1);
        return 0;
    };
    let Some(work) = scratch::get(&NAME_SCRATCH, buffer) else { return 0 };
    work.next = dentry;
    if config!(has_loop) != 0 {
        // Verified once, not once for each step: walks can be long, and loading stays fast.
        // SAFETY: the callback gets the number of the buffer, which outlives the call.
        unsafe {
            let callback = walk_step as *const () as *mut c_void;
            bpf_loop(WALK_STEPS, callback, (&raw mut buffer).cast(), 0);
        }
    } else {
        for _ in 0..WALK_STEPS_UNROLLED {
            if step(work) {
                break;
            }
        }
    }
    if work.next != 0 {
        self_stat_add(SelfStat::PathTooDeep, 1);
        debug!((), "path too deep, inode {}", work.record.file.ino);
    }
    scratch::release(&NAME_SCRATCH, buffer);
    0
}

/// `long callback(u32 index, void *ctx)` of bpf_loop; returns 1 to end the loop.
extern "C" fn walk_step(_index: u32, buffer: *mut u32) -> i64 {
    // SAFETY: the pointer that emit_path_walk passed.
    let buffer = unsafe { *buffer };
    scratch::get(&NAME_SCRATCH, buffer).map_or(1, |work| i64::from(step(work)))
}

/// Moves one step up. Returns whether it was the last. Keeps nothing on the stack between steps.
#[inline(always)]
fn step(work: &mut NameWork) -> bool {
    let dentry = KernelPtr::from_addr(work.next);
    work.next = emit_component::<ProbeRead>(&mut work.record, dentry).addr();
    work.next == 0
}

/// Fills in all of a record except its keys, from a dentry and the inode that it names.
#[inline(always)]
pub fn fill_record<R: Read>(
    record: &mut NameRecord,
    dentry: KernelPtr,
    inode: KernelPtr,
    is_root: bool,
) {
    let mut flags = 0;
    if is_root {
        flags |= name_flags::ROOT;
    }
    if is_regular::<R>(inode) {
        flags |= name_flags::FILE;
    }
    let names: u32 = load!(R, inode, inode_nlink);
    if names == 0 {
        flags |= name_flags::UNLINKED;
    }
    record.header.kind = RecordKind::Name as u32;
    record.flags = flags;
    record.magic = magic::<R>(inode);
    let mut len = load_u32!(R, dentry, dentry_name_len) as usize;
    if len > NAME_MAX {
        len = NAME_MAX;
    }
    let name = KernelPtr(load!(R, dentry, dentry_name));
    // SAFETY: `len` ≤ 255 < the destination's 256 bytes; the helper checks the source.
    unsafe { bpf_probe_read_kernel(record.name.as_mut_ptr().cast(), len as u32, name.0.cast()) };
    record.header.len = len as u32;
}

/// Sends the used part of a record. Returns false if the ring is full.
#[inline(always)]
pub fn emit_name(record: &NameRecord) -> bool {
    const FIXED: usize = size_of::<NameRecord>() - NAME_BUFFER;
    let len = (record.header.len as usize) & NAME_MAX;
    // SAFETY: FIXED + 255 bytes are within the record.
    unsafe { emit_bytes((record as *const NameRecord).cast(), FIXED + len) }
}

/// Writes bytes to the ring. Wakes the daemon only when the ring fills up: a wake-up costs ten
/// times as much as the record.
///
/// # Safety
/// `len` bytes at `data` must be readable.
#[inline(always)]
pub unsafe fn emit_bytes(data: *const u8, len: usize) -> bool {
    const BPF_RB_NO_WAKEUP: u64 = 1;
    const BPF_RB_FORCE_WAKEUP: u64 = 2;
    const BPF_RB_AVAIL_DATA: u64 = 0;
    let ring = (&raw const RECORDS).cast_mut().cast();
    // SAFETY: the address of a ring buffer map, as the helper requires.
    let waiting = unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) };
    let flags =
        if waiting > u64::from(RING_BYTES / 2) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    // SAFETY: as above; the caller guarantees that the data is readable.
    unsafe { bpf_ringbuf_output(ring, data.cast_mut().cast(), len as u64, flags) == 0 }
}
