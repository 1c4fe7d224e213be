//! Space: what a volume charges to an inode, and to whom a change of it is due.
//!
//! The gauge of an inode is what its filesystem counts as used for it, blocks that are only reserved
//! (delayed allocation) included. It is read wherever it may have changed; the difference to what
//! was accounted last, kept per inode in [`INODES`], is due to the process that runs, or, when that
//! is a kernel thread, to the one that changed it last.

use tracer_common::{
    Counters, FileKey, Health, InodeSpace, ProcKey,
    offsets::{Gauge, Offsets, gauge_kind},
};

use crate::{
    account::{ZERO, account},
    gauge::{GAUGES, gauge, kind_of, within},
    kernel_read::{
        Kptr, Probed, Read, current_proc, current_task, exchange, file_key, is_regular, magic,
        offset,
    },
    maps::{INODES, health_add},
};

/// What a slot remembers of an inode's space, to see that it changed: not the gauge itself, but what
/// it is made of, in fewer loads. What changes without it being seen, were there such a thing, would be
/// accounted with the next change.
#[inline(always)]
pub fn tag<R: Read>(kind: u32, inode: Kptr) -> u32 {
    // Allocation is by blocks of 512 bytes or more, so that i_bytes never changes alone.
    let mut tag = R::read::<u64>(inode, offset!(inode_blocks)) as u32;
    if kind == gauge_kind::TMPFS || kind >= gauge_kind::NONE {
        return tag;
    }
    // SAFETY: the map's values are plain integers that the daemon alone writes.
    let Some(layout) = GAUGES.get(kind) else { return tag };
    let layout: &Gauge = layout;
    let own = Kptr::from_addr(inode.addr().wrapping_sub(u64::from(within(layout.vfs_inode))));
    for part in &layout.parts {
        if part.size != 0 {
            // Low halves will do, at the same place in a little-endian word.
            let value = Probed::read::<u32>(own, within(part.offset));
            tag = tag.wrapping_mul(0x9E37_79B1).wrapping_add(value);
        }
    }
    tag
}

/// Accounts for the change of the inode's gauge; positive if space was allocated. `before` is what
/// it was presumably, if the inode is not known.
#[inline(always)]
pub fn settle(file: &FileKey, inode: Kptr, before: u64, proc: &ProcKey) -> i64 {
    settle_known(file, inode.addr(), before, proc)
}

#[inline(never)]
fn settle_known(file: &FileKey, inode: u64, before: u64, proc: &ProcKey) -> i64 {
    const TRIES: u32 = 4;
    let inode = Kptr::from_addr(inode);
    let kind = kind_of(magic::<Probed>(inode));
    let Some(known) = known(file, before, proc) else { return 0 };
    for _ in 0..TRIES {
        // SAFETY: a field of a map value; volatile because other CPUs change it.
        let old = unsafe { core::ptr::read_volatile(&raw const known.gauge) };
        // Read after what was accounted last: so it is never behind it, and threads that write to
        // one file do not free and take the same block in turns.
        let Some(now) = gauge(kind, inode) else { return 0 };
        if exchange(&raw mut known.gauge, old, now) {
            return accounted(known, old, now, proc);
        }
    }
    // Other CPUs account for this inode all the time, and will for this change.
    0
}

/// Accounts for all that the inode has.
#[inline(never)]
fn settle_to_nothing(file: &FileKey, before: u64, proc: &ProcKey) -> i64 {
    let Some(known) = known(file, before, proc) else { return 0 };
    let old = known.gauge;
    known.gauge = 0;
    accounted(known, old, 0, proc)
}

#[inline(always)]
fn known(file: &FileKey, before: u64, proc: &ProcKey) -> Option<&'static mut InodeSpace> {
    let mut known = INODES.get_ptr_mut(file);
    if known.is_none() {
        // BPF_NOEXIST: of two CPUs that meet a new inode, one says what it was before, and both
        // account for what they find.
        let _ = INODES.insert(file, InodeSpace { gauge: before, saved: 0, owner: *proc }, 1);
        known = INODES.get_ptr_mut(file);
    }
    if known.is_none() {
        health_add(Health::SpaceFull, 1);
    }
    // SAFETY: a valid pointer from the map.
    known.map(|known| unsafe { &mut *known })
}

#[inline(always)]
fn accounted(known: &mut InodeSpace, old: u64, gauge: u64, proc: &ProcKey) -> i64 {
    known.owner = *proc;
    let change = gauge.wrapping_sub(old) as i64;
    if change < 0 && known.saved != 0 {
        // In proportion, for nobody tells which extents went. In pages, so as not to overflow.
        let kept = if gauge == 0 {
            0
        } else {
            ((known.saved >> 12) * (gauge >> 12) / (old >> 12).max(1)) << 12
        };
        let released = known.saved.saturating_sub(kept);
        known.saved = kept;
        return change + released as i64;
    }
    change
}

/// Compression made so many bytes less of the inode's space than the gauge has: they are given back
/// to the volume. Of files that are written over again, no more than the whole of them.
#[inline(always)]
pub fn compressed(inode: Kptr, bytes: u64) {
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

/// A change of space as counts.
#[inline(always)]
pub fn counts(change: i64) -> Counters {
    if change >= 0 {
        Counters { allocated: change as u64, ..ZERO }
    } else {
        Counters { freed: change.unsigned_abs(), ..ZERO }
    }
}

/// The space of `inode` may have changed: charges the current process. Of an inode that is not
/// known, earlier space is not ours to judge.
#[inline(always)]
pub fn changed(inode: Kptr, dentry: Kptr) {
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
    let Some(gauge) = gauge(kind_of(magic::<Probed>(inode)), inode) else { return };
    let file = file_key::<Probed>(inode);
    let proc = responsible(&file);
    let shift = Probed::read::<u8>(inode, offset!(inode_blkbits)) & 31;
    let before = gauge.saturating_sub(u64::from(blocks) << shift);
    let change = settle(&file, inode, before, &proc);
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

/// Remembers the space of an inode that is not known yet, and who is about to change it. Nobody is
/// charged.
#[inline(always)]
pub fn remember(inode: Kptr) {
    if is_regular::<Probed>(inode) {
        remember_regular(inode.addr());
    }
}

#[inline(never)]
fn remember_regular(inode: u64) {
    let inode = Kptr::from_addr(inode);
    let Some(gauge) = gauge(kind_of(magic::<Probed>(inode)), inode) else { return };
    // Of an empty file, too: it is then known that what comes next is new. BPF_NOEXIST: what is
    // accounted stays. A kernel thread may be the first to change it: it does so for whoever opened
    // it.
    let space = InodeSpace { gauge, saved: 0, owner: current_proc() };
    let _ = INODES.insert(file_key::<Probed>(inode), space, 1);
}

/// Takes the inode's space as it is: what was added is shared with another file.
#[inline(always)]
pub fn take_as_it_is(inode: Kptr, file: &FileKey) {
    if let Some(gauge) = gauge(kind_of(magic::<Probed>(inode)), inode) {
        let _ = INODES.insert(file, InodeSpace { gauge, saved: 0, owner: NOBODY }, 0);
    }
}

const NOBODY: ProcKey = ProcKey { start_ns: 0, tgid: 0, pad: 0 };

/// The inode leaves memory. Without a name left, its space is freed.
#[inline(always)]
pub fn evicted(inode: Kptr) {
    if !is_regular::<Probed>(inode) {
        return;
    }
    let file = file_key::<Probed>(inode);
    if Probed::read::<u32>(inode, offset!(inode_nlink)) == 0 {
        free_all(inode.addr());
    } else if INODES.get_ptr(file).is_some() {
        let _ = INODES.remove(file);
    }
}

#[inline(never)]
fn free_all(inode: u64) {
    let inode = Kptr::from_addr(inode);
    let Some(gauge) = gauge(kind_of(magic::<Probed>(inode)), inode) else { return };
    let file = file_key::<Probed>(inode);
    let proc = responsible(&file);
    // Whatever changed since it was last looked at, and then all of it.
    let change = settle_to_nothing(&file, gauge, &proc);
    if change != 0 {
        account(proc, file, any_dentry(inode), Kptr::from_addr(0), counts(change));
    }
}

/// One of the inode's dentries (`i_dentry`, linked through `d_u.d_alias`), or null.
#[inline(always)]
pub fn any_dentry(inode: Kptr) -> Kptr {
    let first = Probed::follow(inode, offset!(inode_dentry));
    if first.is_null() {
        return first;
    }
    let alias = if offset!(dentry_alias) == Offsets::ABSENT {
        offset!(dentry_alias_v7)
    } else {
        offset!(dentry_alias)
    };
    Kptr::from_addr(first.addr().wrapping_sub(u64::from(alias)))
}
