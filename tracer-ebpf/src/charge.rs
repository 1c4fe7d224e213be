//! Charges a change of an inode's space to a process. Above [`crate::account`] and
//! [`crate::space`].

use tracer_common::{Counters, FileKey, ProcKey};

use crate::account::account;
use crate::event::ZERO;
use crate::filesystem::kind_of;
use crate::inode_usage::usage;
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, any_dentry, current_proc, current_task, file_key, is_regular, load,
    magic, offset,
};
use crate::maps::inodes::INODES;
use crate::space::{advance_epoch, counts, reconcile, reconcile_to_zero};

/// Charges the current process for a possible change of the inode's space. If the inode is not
/// known, its earlier space is charged to no process.
#[inline(always)]
pub fn on_space_changed(inode: KernelPtr, dentry: KernelPtr) {
    advance_epoch(inode);
    on_blocks_reserved(inode, dentry, 0);
}

/// Like [`on_space_changed`], where it is known that `blocks` blocks were reserved just now. Space
/// is only added, so the epoch stays.
#[inline(always)]
pub fn on_blocks_reserved(inode: KernelPtr, dentry: KernelPtr, blocks: u32) {
    if is_regular::<ProbeRead>(inode) {
        reconcile_current(inode.number(), dentry.number(), blocks);
    }
}

#[unsafe(no_mangle)]
extern "C" fn reconcile_current(inode: u64, dentry: u64, blocks: u32) -> u32 {
    let inode = KernelPtr::from_addr(inode);
    let Some(usage) = usage::<ProbeRead>(kind_of(magic::<ProbeRead>(inode)), inode) else {
        return 0;
    };
    let file = file_key::<ProbeRead>(inode);
    let proc = responsible(&file);
    let shift = ProbeRead::read::<u8>(inode, offset!(inode_blkbits)) & 31;
    let before = usage.saturating_sub(u64::from(blocks) << shift);
    let change = reconcile::<ProbeRead>(&file, inode, before, &proc);
    if change != 0 {
        account(proc, file, KernelPtr::from_addr(dentry), inode, counts(change));
    }
    0
}

/// Returns the process to charge: the current one, or for a kernel thread the one that changed the
/// inode last.
#[inline(always)]
fn responsible(file: &FileKey) -> ProcKey {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let proc = current_proc();
    if ProbeRead::read::<u32>(current_task(), offset!(task_flags)) & PF_KTHREAD != 0
        && let Some(entry) = INODES.get_ptr(file)
    {
        // SAFETY: a valid pointer from the map.
        let owner = unsafe { (*entry).owner };
        if owner.tgid != 0 {
            return owner;
        }
    }
    proc
}

/// Counts as freed the bytes that compression saved: the usage still includes them, but the volume
/// has them back. For a file that is overwritten repeatedly, no more than the whole usage.
#[unsafe(no_mangle)]
pub extern "C" fn on_compressed(inode: u64, bytes: u64) -> u32 {
    let inode = KernelPtr::from_addr(inode);
    let file = file_key::<ProbeRead>(inode);
    let Some(entry) = INODES.get_ptr_mut(file) else { return 0 };
    // SAFETY: a valid pointer from the map.
    let entry = unsafe { &mut *entry };
    let saved = bytes.min(entry.usage.saturating_sub(entry.saved));
    entry.saved += saved;
    let owner = entry.owner;
    if saved != 0 && owner.tgid != 0 {
        account(
            owner,
            file,
            any_dentry(inode),
            KernelPtr::from_addr(0),
            Counters { freed: saved, ..ZERO },
        );
    }
    0
}

/// Handles the eviction of an inode from memory. If it has no name left, its space is freed.
#[inline(always)]
pub fn on_evict<R: Read>(inode: KernelPtr) {
    advance_epoch(inode);
    if !is_regular::<R>(inode) {
        return;
    }
    let names: u32 = load!(R, inode, inode_nlink);
    if names == 0 {
        free_all::<R>(inode);
    } else {
        let file = file_key::<R>(inode);
        if INODES.get_ptr(file).is_some() {
            let _ = INODES.remove(file);
        }
    }
}

#[inline(never)]
fn free_all<R: Read>(inode: KernelPtr) {
    let Some(usage) = usage::<R>(kind_of(magic::<R>(inode)), inode) else { return };
    let file = file_key::<R>(inode);
    let proc = responsible(&file);
    // What changed since the usage was last read, and then all of it.
    let change = reconcile_to_zero(&file, usage, &proc);
    if change != 0 {
        account(proc, file, any_dentry(inode), KernelPtr::from_addr(0), counts(change));
    }
}
