//! What several kinds of hook do with their unpacked arguments.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{Counters, Health, PairKey};

use crate::{
    account::{ZERO, account, account_write},
    kernel_read::{
        Kptr, Probed, Read, current_proc, current_task, file_key, is_regular, magic, offset,
    },
    maps::{COUNTED, IN_FLIGHT, InFlight, InFlightKey, health_add, hook},
};

/// `s_magic` of tmpfs.
pub const TMPFS_MAGIC: u32 = 0x0102_1994;

/// A filesystem's write_iter returned.
#[inline(always)]
pub fn write_iter<R: Read>(file: Kptr, result: i64) {
    let inode = R::follow(file, offset!(file_inode));
    let dentry = dentry_of::<R>(file, inode);
    account_write(current_proc(), file_key::<R>(inode), dentry, result);
}

/// The dentry that names an open file. What overlayfs opens below itself has the overlay's dentry
/// with the real inode (until 6.7): then one of the inode's own.
#[inline(always)]
pub fn dentry_of<R: Read>(file: Kptr, inode: Kptr) -> Kptr {
    let dentry = R::follow(file, offset!(file_dentry));
    if R::follow(dentry, offset!(dentry_inode)).addr() == inode.addr() {
        dentry
    } else {
        any_dentry(inode)
    }
}

/// vfs_write or one of its kin returned: counted here for filesystems that are not counted below.
#[inline(always)]
pub fn vfs_write<R: Read>(file: Kptr, result: i64) {
    let inode = R::follow(file, offset!(file_inode));
    if !is_regular::<R>(inode) || counted_below::<R>(inode) != 0 {
        return;
    }
    let dentry = R::follow(file, offset!(file_dentry));
    account_write(current_proc(), file_key::<R>(inode), dentry, result);
}

/// The last name of `inode` is gone.
#[inline(always)]
pub fn unlinked(key: PairKey, dentry: Kptr) {
    account(key.process(), key.file(), dentry, Counters { unlinked: 1, ..ZERO });
}

/// vfs_unlink begins: keeps what is to go, because the dentry has no inode any more afterwards.
#[inline(always)]
pub fn unlink_begins(dentry: Kptr) {
    let inode = Probed::follow(dentry, offset!(dentry_inode));
    if inode.is_null() || !is_regular::<Probed>(inode) {
        return;
    }
    if Probed::read::<u32>(inode, offset!(inode_nlink)) != 1 {
        return;
    }
    let key = PairKey::new(current_proc(), file_key::<Probed>(inode));
    begin(hook::UNLINK, bpf_get_current_pid_tgid(), key, dentry);
}

/// vfs_unlink ends.
#[inline(always)]
pub fn unlink_ends(result: i64) {
    if let Some(call) = end(hook::UNLINK, bpf_get_current_pid_tgid()) {
        if result == 0 {
            unlinked(call.key, Kptr::from_addr(call.object));
        }
    }
}

/// Remembers a call until its end.
#[inline(always)]
pub fn begin(hook: u64, id: u64, key: PairKey, object: Kptr) {
    let call = InFlight { key, object: object.addr(), extra: 0 };
    if IN_FLIGHT.insert(InFlightKey { id, hook }, call, 0).is_err() {
        health_add(Health::InFlightFull, 1);
    }
}

/// What was remembered.
#[inline(always)]
pub fn end(hook: u64, id: u64) -> Option<InFlight> {
    let key = InFlightKey { id, hook };
    let call = IN_FLIGHT.get_ptr(key)?;
    // SAFETY: a valid pointer from the map.
    let call = unsafe { *call };
    let _ = IN_FLIGHT.remove(key);
    Some(call)
}

/// How the inode's filesystem is counted at its own functions: `offsets::counted`, 0 for not.
#[inline(always)]
pub fn counted_below<R: Read>(inode: Kptr) -> u32 {
    // SAFETY: the value is copied at once; the daemon alone writes it.
    unsafe { COUNTED.get(magic::<R>(inode)) }.copied().unwrap_or(0)
}

/// The open file behind a descriptor of the current process.
#[inline(always)]
pub fn file_of(fd: u32) -> Kptr {
    let files = Probed::follow(current_task(), offset!(task_files));
    let table = Probed::follow(files, offset!(files_fdt));
    if fd >= Probed::read::<u32>(table, offset!(fdt_max_fds)) {
        return Kptr::from_addr(0);
    }
    let array = Probed::follow(table, offset!(fdt_fd));
    Probed::follow(array, fd.wrapping_mul(8))
}

/// One of the inode's dentries (`i_dentry`, linked through `d_u.d_alias`), or null.
#[inline(always)]
pub fn any_dentry(inode: Kptr) -> Kptr {
    let first = Probed::follow(inode, offset!(inode_dentry));
    if first.is_null() {
        return first;
    }
    Kptr::from_addr(first.addr().wrapping_sub(u64::from(offset!(dentry_alias))))
}
