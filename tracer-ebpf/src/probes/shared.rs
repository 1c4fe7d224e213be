//! What several hooks do with their unpacked arguments.

use tracer_common::offsets::{counted, usage_kind};
use tracer_common::{Counters, FileKey, ProcFileKey, SelfStat, slot_flags};

use super::{create, direct_io};
use crate::account::{SHORT_WRITE, account, account_error, account_write};
use crate::counted::counted_below;
use crate::entries::{count_failure_on, is_out_of_space};
use crate::errno::EIOCBQUEUED;
use crate::event::{WriteEvent, WriteTarget, ZERO};
use crate::filesystem::{EXT4_MAGIC, kind_of};
use crate::inode_usage::GAUGES;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, any_dentry, config, current_proc, current_task,
    current_task_typed, file_key, is_regular, load, magic, offset,
};
use crate::maps::health::self_stat_add;
use crate::maps::in_flight::{IN_FLIGHT, InFlight, InFlightKey, hook};
use crate::maps::inodes::SHARED;
use crate::{charge, fast_path, inflight, overlay, process, space};

/// The bit of `f_mode` for a file that is open for writing.
const FMODE_WRITE: u32 = 2;
/// The bit of `ki_flags` for direct I/O.
const IOCB_DIRECT: u32 = 1 << 17;

/// Handles the return of a filesystem's write_iter. Arguments and result are fetched when they are
/// needed.
#[inline(always)]
pub fn write_iter<R: Read>(
    iocb: impl Fn() -> KernelPtr,
    iter: impl Fn() -> KernelPtr,
    file: impl Fn() -> KernelPtr,
    result: impl Fn() -> i64,
    kind: u32,
) {
    let left = || load!(R, iter(), iter_count);
    if !try_fast_path::<R>(&iocb, &file, &result, kind) {
        write_iter_slow::<R>(iocb(), file(), kind, result(), left());
    } else if kind == usage_kind::TMPFS && left() != 0u64 {
        // The last page was not full yet. Elsewhere, the fast path knows where a file's space ends.
        count_short::<R>(file());
    }
}

/// Counts a write that returned fewer bytes than requested.
#[inline(never)]
pub fn count_short<R: Read>(file: KernelPtr) {
    let inode = KernelPtr(load!(R, file, file_inode));
    account_error(current_proc(), file_key::<R>(inode), SHORT_WRITE);
}

/// Counts the write if the fast path applies. Returns whether it did.
#[inline(always)]
pub fn try_fast_path<R: Read>(
    iocb: impl Fn() -> KernelPtr,
    file: impl Fn() -> KernelPtr,
    result: impl Fn() -> i64,
    kind: u32,
) -> bool {
    result() > 0
        && !is_direct::<R>(iocb())
        && fast_path::try_fast_path::<R>(
            || KernelPtr(load!(R, file(), file_inode)),
            || load!(R, iocb(), kiocb_pos),
            || result() as u64,
            kind,
        )
}

#[inline(always)]
fn is_direct<R: Read>(iocb: KernelPtr) -> bool {
    let flags: u32 = load!(R, iocb, kiocb_flags);
    flags & IOCB_DIRECT != 0
}

/// Counts a write that is the first to its file, takes space, fails or is direct. `left` is the number
/// of bytes that were requested but not written: a write that ends for lack of space came to the end
/// of the space that its file had, so the fast path does not apply to it (except on tmpfs). Not inlined, so that other
/// writes keep nothing of it in registers.
#[inline(never)]
pub fn write_iter_slow<R: Read>(
    iocb: KernelPtr,
    file: KernelPtr,
    kind: u32,
    result: i64,
    left: u64,
) {
    let inode = KernelPtr(load!(R, file, file_inode));
    let direct = is_direct::<R>(iocb);
    let mut result = result;
    let mut end = 0;
    if result == EIOCBQUEUED {
        // Here and not in a function below: the frames of a call chain share 512 bytes.
        process::emit_process_once(current_proc());
        result = direct_io::queued(iocb.number(), file.number(), kind);
    } else {
        if result > 0 {
            end = load!(R, iocb, kiocb_pos);
        }
        if direct {
            // The I/O may have ended synchronously although it could have been asynchronous; also
            // with EAGAIN, after which io_uring tries again with the same iocb.
            let _ = IN_FLIGHT.remove(InFlightKey { id: iocb.addr(), hook: hook::DIO_DONE });
        }
    }
    let target = WriteTarget {
        proc: current_proc(),
        file: file_key::<R>(inode),
        dentry: KernelPtr(load!(R, file, file_dentry)),
        inode,
    };
    account_write::<R>(&WriteEvent { target, kind, result, end });
    if result > 0 && left != 0 && !direct {
        account_error(target.proc, target.file, SHORT_WRITE);
    }
}

/// Handles the return of vfs_write or one of its variants: counted here for filesystems that are
/// not counted below. `left` is the number of bytes that were requested but not written.
#[inline(always)]
pub fn vfs_write<R: Read>(file: KernelPtr, result: i64, left: u64) {
    let inode = KernelPtr(load!(R, file, file_inode));
    if !is_regular::<R>(inode) {
        return;
    }
    match counted_below::<R>(inode) {
        0 => {
            count_vfs_write::<R>(file, result);
            if result > 0 && left != 0 {
                account_error(current_proc(), file_key::<R>(inode), SHORT_WRITE);
            }
        }
        counted::UPPER => {
            count_overlay_write(inode.number(), result);
        }
        _ => {}
    }
}

/// Counts a write at vfs_write. Not inlined, because the frames of a call chain share 512 bytes.
#[inline(never)]
fn count_vfs_write<R: Read>(file: KernelPtr, result: i64) {
    let inode = KernelPtr(load!(R, file, file_inode));
    account_write::<R>(&WriteEvent {
        target: WriteTarget {
            proc: current_proc(),
            file: file_key::<R>(inode),
            dentry: KernelPtr(load!(R, file, file_dentry)),
            inode,
        },
        kind: kind_of(magic::<R>(inode)),
        result,
        end: 0,
    });
}

/// Handles the return of do_iter_readv_writev. Where overlays are followed, the file below was
/// counted with the overlay's.
#[inline(always)]
pub fn vfs_writev<R: Read>(file: KernelPtr, result: i64, left: u64) {
    if !(overlay::are_followed() && overlay::is_behind::<R>(file)) {
        vfs_write::<R>(file, result, left);
    }
}

/// Counts a write to a file of an overlay, if the upper file is not counted below. Not inlined,
/// because the frames of a call chain share 512 bytes.
#[unsafe(no_mangle)]
extern "C" fn count_overlay_write(inode: u64, result: i64) -> u32 {
    let dentry = overlay::upper_dentry(KernelPtr::from_addr(inode));
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    if dentry.is_null() || counted_below::<ProbeRead>(inode) != 0 {
        return 0;
    }
    account_write::<ProbeRead>(&WriteEvent {
        target: WriteTarget {
            proc: current_proc(),
            file: file_key::<ProbeRead>(inode),
            dentry,
            inode,
        },
        kind: kind_of(magic::<ProbeRead>(inode)),
        result,
        end: 0,
    });
    0
}

/// Counts a page that was made dirty through a mapping as written, because that is as close as it
/// gets.
#[inline(always)]
pub fn page_dirtied(file: KernelPtr) {
    if file.is_null() {
        return;
    }
    let inode = ProbeRead::follow(file, offset!(file_inode));
    pages_dirtied(inode, ProbeRead::follow(file, offset!(file_dentry)), 1);
}

/// Like [`page_dirtied`], for several pages of an inode.
#[inline(always)]
pub fn pages_dirtied(inode: KernelPtr, dentry: KernelPtr, pages: u32) {
    if is_regular::<ProbeRead>(inode) {
        count_pages(inode.number(), dentry.number(), pages);
        charge::on_blocks_reserved(inode, dentry, pages);
    }
}

#[unsafe(no_mangle)]
extern "C" fn count_pages(inode: u64, dentry: u64, pages: u32) -> u32 {
    const PAGE: u64 = 4096;
    let inode = KernelPtr::from_addr(inode);
    let flags = slot_flags::APPROXIMATE;
    let delta = Counters { written: u64::from(pages) * PAGE, flags, ..ZERO };
    let file = file_key::<ProbeRead>(inode);
    account(current_proc(), file, KernelPtr::from_addr(dentry), inode, delta);
    0
}

/// Handles the entry of a change of attributes; only a change of the size matters.
#[inline(always)]
pub fn setattr_enter(dentry: KernelPtr, attributes: KernelPtr) {
    const ATTR_SIZE: u32 = 8;
    if ProbeRead::read::<u32>(attributes, offset!(iattr_valid)) & ATTR_SIZE != 0 {
        space::record_baseline::<ProbeRead>(ProbeRead::follow(dentry, offset!(dentry_inode)));
    }
}

/// Handles the end of a change of attributes: a truncation to a greater length and a change of the
/// owner can fail for lack of space or because of a quota.
#[inline(always)]
pub fn setattr_exit(dentry: KernelPtr, result: i64) {
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    if is_out_of_space(result) {
        count_failure_on(file_key::<ProbeRead>(inode).dev, result);
    }
    charge::on_space_changed(inode, dentry);
}

/// Handles the opening of a file: its usage is recorded before anything can change it.
#[inline(always)]
pub fn on_open<R: Read>(file: KernelPtr) {
    let mode: u32 = load!(R, file, file_mode);
    if mode & FMODE_WRITE != 0 {
        space::record_baseline::<R>(KernelPtr(load!(R, file, file_inode)));
    }
    create::on_open::<R>(file, mode);
}

/// Handles the return of the system call that opened a file.
#[inline(always)]
pub fn on_opened(file: KernelPtr) {
    let mode: u32 = load!(ProbeRead, file, file_mode);
    if mode & (FMODE_WRITE | create::FMODE_CREATED) != 0 {
        let (inode, dentry) = overlay::target(file);
        if mode & FMODE_WRITE != 0 {
            space::record_baseline::<ProbeRead>(inode);
        }
        // ext4 has a tracepoint of its own.
        if mode & create::FMODE_CREATED != 0 && magic::<ProbeRead>(inode) != EXT4_MAGIC {
            create::on_new_entry(dentry);
        }
    }
}

/// Handles the entry of a reflink: `xfs_file_remap_range` and that of btrfs.
#[inline(always)]
pub fn remap_enter(to: KernelPtr, flags: u32) {
    const REMAP_FILE_DEDUP: u32 = 1;
    if flags & REMAP_FILE_DEDUP == 0 {
        let inode = ProbeRead::follow(to, offset!(file_inode));
        let key = ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode));
        inflight::enter(hook::REMAP, key, to);
    }
}

/// Handles the return of a reflink, with the number of bytes that the file now shares: written, but
/// not allocated.
#[inline(always)]
pub fn remap_exit(result: i64) {
    if let Some(call) = inflight::take(hook::REMAP)
        && result > 0
    {
        let file = KernelPtr::from_addr(call.object);
        space::rebase(ProbeRead::follow(file, offset!(file_inode)), &call.key.file());
        let dentry = ProbeRead::follow(file, offset!(file_dentry));
        mark_reflinked(&call.key.file());
        let delta = Counters { written: result as u64, ..ZERO };
        account(call.key.process(), call.key.file(), dentry, KernelPtr::from_addr(0), delta);
    }
}

/// Records that the file now shares space with another one.
#[inline(always)]
pub fn mark_reflinked(file: &FileKey) {
    let _ = SHARED.insert(file, 1, 0);
    self_stat_add(SelfStat::UsedShared, 1);
}

/// Handles the return of copy_file_range. Nothing else shows whether it copied; on filesystems that
/// can share space, it shares. Not inlined, because the frames of a call chain share 512 bytes.
#[unsafe(no_mangle)]
pub extern "C" fn on_copied(file: u64) -> u32 {
    let (inode, _) = overlay::target(KernelPtr::from_addr(file));
    let kind = kind_of(magic::<ProbeRead>(inode));
    if kind == usage_kind::XFS || kind == usage_kind::BTRFS {
        mark_reflinked(&file_key::<ProbeRead>(inode));
    }
    0
}

/// Handles the entry of a function in which a filesystem changes an inode's space on its own: xfs
/// frees its speculative preallocation, or btrfs ends delayed allocation, of which compression
/// saves `saves` bytes.
#[inline(always)]
pub fn settle_enter(inode: KernelPtr, saves: u64) {
    let call = InFlight { key: inflight::NO_KEY, object: inode.addr(), extra: saves };
    inflight::insert(hook::SETTLE, call);
}

/// Handles the entry of btrfs_finish_one_ordered: delayed allocation (`struct
/// btrfs_ordered_extent`) becomes extents, possibly compressed ones.
#[inline(always)]
pub fn finish_ordered_enter(ordered: KernelPtr) {
    let Some(layout) = GAUGES.get(usage_kind::BTRFS) else { return };
    let inode = ProbeRead::follow(ordered, layout.ordered_inode);
    // Since 6.10, it points to a struct btrfs_inode; the struct inode is inside it.
    let inner = if layout.ordered_is_own == 0 { 0 } else { u64::from(layout.vfs_inode) };
    let mut saves = 0;
    if layout.ordered_num_bytes != 0 {
        let in_file = ProbeRead::read::<u64>(ordered, layout.ordered_num_bytes);
        let on_disk = ProbeRead::read::<u64>(ordered, layout.ordered_disk_num_bytes);
        saves = in_file.saturating_sub(on_disk);
    }
    settle_enter(KernelPtr::from_addr(inode.addr() + inner), saves);
}

/// Returns and removes the inode that [`settle_enter`] stored for the current thread, or 0. Not
/// inlined, because the frames of a call chain share 512 bytes.
#[inline(never)]
pub fn take_settling_inode() -> u64 {
    inflight::take(hook::SETTLE).map_or(0, |call| call.object)
}

/// Handles the return of a function that [`settle_enter`] was called for.
#[inline(always)]
pub fn settle_exit() {
    if let Some(call) = inflight::take(hook::SETTLE) {
        let inode = KernelPtr::from_addr(call.object);
        charge::on_space_changed(inode, any_dentry(inode));
        if call.extra != 0 {
            charge::on_compressed(inode.addr(), call.extra);
        }
    }
}

/// Handles the removal of a file's last name.
#[inline(always)]
pub fn on_last_unlink(key: ProcFileKey, dentry: KernelPtr) {
    account(
        key.process(),
        key.file(),
        dentry,
        KernelPtr::from_addr(0),
        Counters { unlinked: 1, ..ZERO },
    );
}

/// Handles the entry of vfs_unlink. Stores the file, because the dentry no longer has an inode
/// afterwards.
#[inline(always)]
pub fn unlink_enter<R: Read>(dentry: KernelPtr) {
    let inode = KernelPtr(load!(R, dentry, dentry_inode));
    if inode.is_null() {
        return;
    }
    let names: u32 = load!(R, inode, inode_nlink);
    if names != 1 {
        return;
    }
    let key = ProcFileKey::new(current_proc(), file_key::<R>(inode));
    let extra = u64::from(!is_regular::<R>(inode));
    inflight::insert(hook::UNLINK, InFlight { key, object: dentry.addr(), extra });
}

/// Handles the return of vfs_unlink.
#[inline(always)]
pub fn unlink_exit(result: i64) {
    if let Some(call) = inflight::take(hook::UNLINK)
        && result == 0
    {
        let dentry = KernelPtr::from_addr(call.object);
        if call.extra == 0 {
            on_last_unlink(call.key, dentry);
        } else {
            create::on_removed_entry(dentry);
        }
    }
}

/// Returns the open file behind a descriptor of the current process, or null.
#[inline(always)]
pub fn file_of_fd(fd: u32) -> KernelPtr {
    if config!(has_task_btf) != 0 {
        file_in_table::<BtfRead>(current_task_typed(), fd)
    } else {
        file_in_table::<ProbeRead>(current_task(), fd)
    }
}

#[inline(always)]
fn file_in_table<R: Read>(task: KernelPtr, fd: u32) -> KernelPtr {
    let table = KernelPtr(load!(R, KernelPtr(load!(R, task, task_files)), files_fdt));
    let max_fds: u32 = load!(R, table, fdt_max_fds);
    if fd >= max_fds {
        return KernelPtr::from_addr(0);
    }
    let array = KernelPtr(load!(R, table, fdt_fd));
    ProbeRead::follow(array, fd.wrapping_mul(8))
}
