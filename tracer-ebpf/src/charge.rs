//! Charges a change of an inode's space to a process.

use tracer_common::{Counters, FileKey, ProcKey};

use crate::account::account;
use crate::event::ZERO;
use crate::filesystem::kind_of;
use crate::gauge::gauge;
use crate::kernel_read::{
    Kptr, Probed, Read, any_dentry, current_proc, current_task, file_key, is_regular, load, magic,
    offset,
};
use crate::maps::inodes::INODES;
use crate::space::{advance_epoch, counts, settle, settle_to_nothing};

/// The space of `inode` may have changed: charges the current process. Of an inode that is not
/// known, earlier space is not ours to judge.
#[inline(always)]
pub fn changed(inode: Kptr, dentry: Kptr) {
    advance_epoch(inode);
    taken(inode, dentry, 0);
}

/// The same, where it is known that so many blocks were taken just now.
#[inline(always)]
pub fn taken(inode: Kptr, dentry: Kptr, blocks: u32) {
    if is_regular::<Probed>(inode) {
        settle_current(inode.addr(), dentry.addr(), blocks);
    }
}

#[inline(never)]
fn settle_current(inode: u64, dentry: u64, blocks: u32) {
    let inode = Kptr::from_addr(inode);
    let Some(gauge) = gauge::<Probed>(kind_of(magic::<Probed>(inode)), inode) else { return };
    let file = file_key::<Probed>(inode);
    let proc = responsible(&file);
    let shift = Probed::read::<u8>(inode, offset!(inode_blkbits)) & 31;
    let before = gauge.saturating_sub(u64::from(blocks) << shift);
    let change = settle::<Probed>(&file, inode, before, &proc);
    if change != 0 {
        account(proc, file, Kptr::from_addr(dentry), inode, counts(change));
    }
}

/// Who is to be charged: the current process, or for a kernel thread the inode's last one.
#[inline(always)]
fn responsible(file: &FileKey) -> ProcKey {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let proc = current_proc();
    if Probed::read::<u32>(current_task(), offset!(task_flags)) & PF_KTHREAD != 0
        && let Some(known) = INODES.get_ptr(file)
    {
        // SAFETY: a valid pointer from the map.
        let owner = unsafe { (*known).owner };
        if owner.tgid != 0 {
            return owner;
        }
    }
    proc
}

/// Compression made so many bytes less of the inode's space than the gauge has: they are given back
/// to the volume. Of files that are written over again, no more than the whole of them.
#[inline(never)]
pub fn compressed(inode: u64, bytes: u64) {
    let inode = Kptr::from_addr(inode);
    let file = file_key::<Probed>(inode);
    let Some(known) = INODES.get_ptr_mut(file) else { return };
    // SAFETY: a valid pointer from the map.
    let known = unsafe { &mut *known };
    let saved = bytes.min(known.gauge.saturating_sub(known.saved));
    known.saved += saved;
    let owner = known.owner;
    if saved != 0 && owner.tgid != 0 {
        account(
            owner,
            file,
            any_dentry(inode),
            Kptr::from_addr(0),
            Counters { freed: saved, ..ZERO },
        );
    }
}

/// The inode leaves memory. Without a name left, its space is freed.
#[inline(always)]
pub fn evicted<R: Read>(inode: Kptr) {
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
fn free_all<R: Read>(inode: Kptr) {
    let Some(gauge) = gauge::<R>(kind_of(magic::<R>(inode)), inode) else { return };
    let file = file_key::<R>(inode);
    let proc = responsible(&file);
    // Whatever changed since it was last looked at, and then all of it.
    let change = settle_to_nothing(&file, gauge, &proc);
    if change != 0 {
        account(proc, file, any_dentry(inode), Kptr::from_addr(0), counts(change));
    }
}
