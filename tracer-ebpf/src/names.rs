//! Names of files: one walk of the dentries per new file, and each directory is sent once.
//!
//! The walk ends at the root of the *filesystem*; the daemon puts the host's mount point before
//! it. So a path is the host's whatever the writer's chroot, mount namespace or bind mount.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_probe_read_kernel, bpf_ringbuf_output, bpf_ringbuf_query,
};
use aya_log_ebpf::debug;
use tracer_common::{
    FileKey, Health, NameRecord, RecordKind,
    records::{NAME_MAX, NAME_ROOM, WALK_STEPS, WALK_STEPS_UNROLLED, name_flags},
};

use crate::{
    kernel_read::{Kptr, Probed, Read, config, file_key, is_regular, offset},
    maps::{NAME_ROOMS, NAMED, RECORDS, RING_BYTES, health_add},
    scratch::{self, NameWork},
    space::any_dentry,
};

/// Sends the name of `file`, and of the directories above it, unless that was done. `inode` is its
/// own, or null if the dentry's is: before 6.6 the file that overlayfs opens on its upper layer has
/// the dentry of the overlay, and is to be named by one of its own.
#[inline(always)]
pub fn send_once(file: FileKey, dentry: Kptr, inode: Kptr) {
    if dentry.is_null() || NAMED.get_ptr(file).is_some() {
        return;
    }
    let mut dentry = dentry.addr();
    if !inode.is_null() {
        let named = Probed::follow(Kptr::from_addr(dentry), offset!(dentry_inode));
        if named.addr() != inode.addr() {
            dentry = any_dentry(inode).addr();
        }
    }
    send_walk(dentry);
}

/// Walks up from `dentry`, sending each component until one that is known.
#[inline(never)]
pub fn send_walk(dentry: u64) {
    let Some(mut room) = scratch::enter(&NAME_ROOMS) else {
        health_add(Health::RingFull, 1);
        return;
    };
    let Some(work) = scratch::inside(&NAME_ROOMS, room) else { return };
    work.next = dentry;
    if config!(has_loop) != 0 {
        // Verified once, not once for each step: a walk may be long, and loads fast.
        // SAFETY: the callback gets the number of the room, which outlives the call.
        unsafe {
            let callback = walk_step as *const () as *mut c_void;
            bpf_loop(WALK_STEPS, callback, (&raw mut room).cast(), 0);
        }
    } else {
        for _ in 0..WALK_STEPS_UNROLLED {
            if step(work) {
                break;
            }
        }
    }
    if work.next != 0 {
        health_add(Health::PathTooDeep, 1);
        debug!((), "path too deep, inode {}", work.record.file.ino);
    }
    scratch::leave(&NAME_ROOMS, room);
}

/// `long callback(u32 index, void *ctx)` of bpf_loop: 1 ends it.
extern "C" fn walk_step(_index: u32, room: *mut u32) -> i64 {
    // SAFETY: what send_walk gave.
    let room = unsafe { *room };
    scratch::inside(&NAME_ROOMS, room).map_or(1, |work| i64::from(step(work)))
}

/// One step up; true if it was the last. Nothing is kept on the stack from one to the next.
#[inline(always)]
fn step(work: &mut NameWork) -> bool {
    let dentry = Kptr::from_addr(work.next);
    work.next = 0;
    let record = &mut work.record;
    let inode = Probed::follow(dentry, offset!(dentry_inode));
    record.file = file_key::<Probed>(inode);
    if NAMED.get_ptr(&record.file).is_some() {
        return true;
    }
    let parent = Probed::follow(dentry, offset!(dentry_parent));
    let parent_inode = Probed::follow(parent, offset!(dentry_inode));
    record.parent = file_key::<Probed>(parent_inode);
    let is_root = parent.addr() == dentry.addr();
    fill(record, dentry, inode, is_root);
    if !send(record) {
        health_add(Health::RingFull, 1);
        return true;
    }
    let _ = NAMED.insert(&record.file, 1, 0);
    if !is_root {
        work.next = parent.addr();
    }
    is_root
}

/// Fills a record, all but its keys, from a dentry and the inode that it names.
#[inline(always)]
pub fn fill(record: &mut NameRecord, dentry: Kptr, inode: Kptr, is_root: bool) {
    let mut flags = 0;
    if is_root {
        flags |= name_flags::ROOT;
    }
    if is_regular::<Probed>(inode) {
        flags |= name_flags::FILE;
    }
    if Probed::read::<u32>(inode, offset!(inode_nlink)) == 0 {
        flags |= name_flags::UNLINKED;
    }
    record.header.kind = RecordKind::Name as u32;
    record.flags = flags;
    let sb = Probed::follow(inode, offset!(inode_sb));
    record.magic = Probed::read::<u64>(sb, offset!(sb_magic)) as u32;
    let mut len = Probed::read::<u32>(dentry, offset!(dentry_name_len)) as usize;
    if len > NAME_MAX {
        len = NAME_MAX;
    }
    let name = Probed::follow(dentry, offset!(dentry_name));
    // SAFETY: `len` ≤ 255 < the destination's 256 bytes; the helper checks the source.
    unsafe { bpf_probe_read_kernel(record.name.as_mut_ptr().cast(), len as u32, name.0.cast()) };
    record.header.len = len as u32;
}

/// Sends the used part of a record; false if the ring is full.
#[inline(always)]
pub fn send(record: &NameRecord) -> bool {
    const FIXED: usize = size_of::<NameRecord>() - NAME_ROOM;
    let len = (record.header.len as usize) & NAME_MAX;
    // SAFETY: FIXED + 255 bytes are within the record.
    unsafe { send_bytes((record as *const NameRecord).cast(), FIXED + len) }
}

/// Puts bytes into the ring. Wakes the daemon only when the ring fills: a wake-up costs ten times
/// the record.
///
/// # Safety
/// `len` bytes at `data` must be readable.
#[inline(always)]
pub unsafe fn send_bytes(data: *const u8, len: usize) -> bool {
    const BPF_RB_NO_WAKEUP: u64 = 1;
    const BPF_RB_FORCE_WAKEUP: u64 = 2;
    const BPF_RB_AVAIL_DATA: u64 = 0;
    let ring = (&raw const RECORDS).cast_mut().cast();
    // SAFETY: the address of a ring buffer map, as the helper wants it.
    let waiting = unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) };
    let flags =
        if waiting > u64::from(RING_BYTES / 2) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    // SAFETY: as above; the caller vouches for the data.
    unsafe { bpf_ringbuf_output(ring, data.cast_mut().cast(), len as u64, flags) == 0 }
}
