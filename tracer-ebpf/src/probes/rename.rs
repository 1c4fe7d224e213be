//! Renamed files and directories.

use aya_ebpf::macros::{fentry, kprobe};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use tracer_common::{ProcFileKey, SelfStat};

use super::{create, shared};
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, current_proc, file_key, is_directory, is_regular, offset,
};
use crate::maps::events::{NAME_SCRATCH, NAMED};
use crate::maps::health::self_stat_add;
use crate::names;
use crate::scratch::{self, NameWork};

/// `void d_move(struct dentry *dentry, struct dentry *target)`: `dentry` takes the name and the
/// directory of `target`. All renames end here, and the arguments have never changed.
#[fentry]
fn fentry_d_move(ctx: FEntryContext) -> i32 {
    let (dentry, target) = (KernelPtr(ctx.arg::<*const u8>(0)), KernelPtr(ctx.arg::<*const u8>(1)));
    on_replaced(target);
    on_rename(dentry, target);
    0
}

/// `void d_exchange(struct dentry *dentry1, struct dentry *dentry2)`
#[fentry]
fn fentry_d_exchange(ctx: FEntryContext) -> i32 {
    let (one, other) = (KernelPtr(ctx.arg::<*const u8>(0)), KernelPtr(ctx.arg::<*const u8>(1)));
    on_rename(one, other);
    on_rename(other, one);
    0
}

/// See [`fentry_d_move`].
#[kprobe]
fn kprobe_d_move(ctx: ProbeContext) -> u32 {
    let (dentry, target) = two_dentries(&ctx);
    on_replaced(target);
    on_rename(dentry, target);
    0
}

/// See [`fentry_d_exchange`].
#[kprobe]
fn kprobe_d_exchange(ctx: ProbeContext) -> u32 {
    let (one, other) = two_dentries(&ctx);
    on_rename(one, other);
    on_rename(other, one);
    0
}

#[inline(always)]
fn two_dentries(ctx: &ProbeContext) -> (KernelPtr, KernelPtr) {
    let argument = |n| KernelPtr(ctx.arg::<*const u8>(n).unwrap_or(core::ptr::null()));
    (argument(0), argument(1))
}

/// Handles a rename to the name `target`: if it was the last name of another inode, that one is
/// removed.
#[inline(always)]
fn on_replaced(target: KernelPtr) {
    let inode = ProbeRead::follow(target, offset!(dentry_inode));
    if inode.is_null() {
        return;
    }
    let names: u32 = ProbeRead::read(inode, offset!(inode_nlink));
    if is_regular::<ProbeRead>(inode) {
        if names == 0 {
            let key = ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode));
            shared::on_last_unlink(key, target);
        }
    } else if names == 0 || is_directory(inode) {
        create::on_removed_entry(target);
    }
}

/// Handles a rename: `dentry` gets the name of `target`. The daemon is informed if it knows the old
/// name.
#[inline(always)]
fn on_rename(dentry: KernelPtr, target: KernelPtr) {
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    let key = file_key::<ProbeRead>(inode);
    if NAMED.get_ptr(key).is_some() {
        emit_rename(inode.addr(), target.addr());
    }
}

#[inline(never)]
fn emit_rename(inode: u64, target: u64) {
    let (inode, target) = (KernelPtr::from_addr(inode), KernelPtr::from_addr(target));
    let key = file_key::<ProbeRead>(inode);
    let parent = ProbeRead::follow(target, offset!(dentry_parent));
    let parent_inode = ProbeRead::follow(parent, offset!(dentry_inode));
    let parent_key = file_key::<ProbeRead>(parent_inode);
    names::emit_path_once::<ProbeRead>(&parent_key, parent, parent_inode);
    let mut sent = false;
    if let Some(buffer) = scratch::acquire(&NAME_SCRATCH) {
        if let Some(NameWork { record, .. }) = scratch::get(&NAME_SCRATCH, buffer) {
            record.file = key;
            record.parent = parent_key;
            names::fill_record::<ProbeRead>(record, target, inode, false);
            sent = names::emit_name(record);
        }
        scratch::release(&NAME_SCRATCH, buffer);
    }
    if !sent {
        self_stat_add(SelfStat::RingFull, 1);
        // The name is sent again with the file's next write.
        let _ = NAMED.remove(key);
    }
}
