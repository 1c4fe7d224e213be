//! What several hooks do with their unpacked arguments.

use tracer_common::offsets::{counted, usage_kind};
use tracer_common::{Counters, FileKey, ProcFileKey, SelfStat, slot_flags};

use crate::account::{account, account_write};
use crate::counted::counted_below;
use crate::errno::EIOCBQUEUED;
use crate::event::{WriteEvent, WriteTarget, ZERO};
use crate::filesystem::kind_of;
use crate::inode_usage::GAUGES;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, any_dentry, config, current_proc, current_task,
    current_task_typed, file_key, is_regular, load, magic, offset,
};
use crate::maps::health::self_stat_add;
use crate::maps::in_flight::{IN_FLIGHT, InFlight, InFlightKey, hook};
use crate::maps::inodes::SHARED;
use crate::{charge, fast_path, inflight, overlay, process, space};

/// The bit of `ki_flags` for direct I/O.
const IOCB_DIRECT: u32 = 1 << 17;

/// Handles the return of a filesystem's write_iter. Arguments and result are fetched when they are
/// needed.
#[inline(always)]
pub fn write_iter<R: Read>(
    iocb: impl Fn() -> KernelPtr,
    file: impl Fn() -> KernelPtr,
    result: impl Fn() -> i64,
    kind: u32,
) {
    if !try_fast_path::<R>(&iocb, &file, &result, kind) {
        write_iter_slow::<R>(iocb(), file(), kind, result());
    }
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

/// Counts a write that is the first to its file, takes space, fails or is direct. Not inlined, so
/// that other writes keep nothing of it in registers.
#[inline(never)]
pub fn write_iter_slow<R: Read>(iocb: KernelPtr, file: KernelPtr, kind: u32, result: i64) {
    let inode = KernelPtr(load!(R, file, file_inode));
    let direct = is_direct::<R>(iocb);
    let mut result = result;
    let mut end = 0;
    if result == EIOCBQUEUED {
        // Here and not in a function below: the frames of a call chain share 512 bytes.
        process::emit_process_once(current_proc());
        result = dio_queued(iocb.addr(), file.addr(), kind);
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
}

/// Handles direct I/O that was submitted and continues without its process. Returns the result if
/// it has already completed and was not counted yet, else 0.
#[inline(never)]
fn dio_queued(iocb: u64, file: u64, kind: u32) -> i64 {
    let file = KernelPtr::from_addr(file);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let key = ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode));
    dio_submitted(KernelPtr::from_addr(iocb), key, file, kind);
    if let Some(done) = inflight::take_by_id(hook::DIO_DONE, iocb)
        && inflight::take_by_id(hook::DIO, iocb).is_some()
    {
        return done.extra as i64;
    }
    0
}

/// Stores the submission of direct I/O, with the file's kind of usage layout.
#[inline(always)]
pub fn dio_submitted(iocb: KernelPtr, key: ProcFileKey, file: KernelPtr, kind: u32) {
    let call = InFlight { key, object: file.addr(), extra: u64::from(kind) };
    inflight::insert_by_id(hook::DIO, iocb.addr(), call);
}

/// Handles the completion of asynchronous direct I/O, in any context. The context that removes the
/// submission's entry from the map counts it; so it does not matter whether the submission has
/// returned.
#[inline(always)]
pub fn dio_completed(iocb: KernelPtr, result: i64) {
    if dio_count(iocb.addr(), result) {
        return;
    }
    dio_leave_result(iocb.addr(), result);
    if dio_count(iocb.addr(), result) {
        let _ = IN_FLIGHT.remove(InFlightKey { id: iocb.addr(), hook: hook::DIO_DONE });
    }
}

/// Handles the completion of direct I/O whose start is always seen first (tracepoints). Its errors
/// are seen elsewhere.
#[inline(always)]
pub fn dio_completed_in_order(iocb: KernelPtr, result: i64) {
    dio_count(iocb.addr(), result.max(0));
}

/// Leaves the result for the submission, which has not returned yet.
#[inline(never)]
fn dio_leave_result(iocb: u64, result: i64) {
    let done = InFlight { key: inflight::NO_KEY, object: 0, extra: result as u64 };
    let _ = IN_FLIGHT.insert(InFlightKey { id: iocb, hook: hook::DIO_DONE }, done, 0);
}

/// Counts the result for the process that submitted the I/O. Returns false if the submission is not
/// known.
#[inline(never)]
fn dio_count(iocb: u64, result: i64) -> bool {
    let key = InFlightKey { id: iocb, hook: hook::DIO };
    let Some(call) = IN_FLIGHT.get_ptr(key) else { return false };
    // SAFETY: a valid pointer from the map. Not copied as a whole: the stack is small.
    let (proc, file_key, object, kind) =
        unsafe { ((*call).key.process(), (*call).key.file(), (*call).object, (*call).extra) };
    // Two contexts may find it; only the one that removes it counts it.
    if IN_FLIGHT.remove(key).is_err() {
        return false;
    }
    let file = KernelPtr::from_addr(object);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    account_write::<ProbeRead>(&WriteEvent {
        target: WriteTarget {
            proc,
            file: file_key,
            dentry: ProbeRead::follow(file, offset!(file_dentry)),
            inode,
        },
        kind: kind as u32,
        result,
        end: 0,
    });
    true
}

/// Handles the return of vfs_write or one of its variants: counted here for filesystems that are
/// not counted below.
#[inline(always)]
pub fn vfs_write<R: Read>(file: KernelPtr, result: i64) {
    let inode = KernelPtr(load!(R, file, file_inode));
    if !is_regular::<R>(inode) {
        return;
    }
    match counted_below::<R>(inode) {
        0 => count_vfs_write::<R>(file, result),
        counted::UPPER => count_overlay_write(inode.addr(), result),
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
pub fn vfs_writev<R: Read>(file: KernelPtr, result: i64) {
    if !(overlay::are_followed() && overlay::is_behind::<R>(file)) {
        vfs_write::<R>(file, result);
    }
}

/// Counts a write to a file of an overlay, if the upper file is not counted below. Not inlined,
/// because the frames of a call chain share 512 bytes.
#[inline(never)]
fn count_overlay_write(inode: u64, result: i64) {
    let dentry = overlay::upper_dentry(KernelPtr::from_addr(inode));
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    if dentry.is_null() || counted_below::<ProbeRead>(inode) != 0 {
        return;
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
        count_pages(inode.addr(), dentry.addr(), pages);
        charge::on_blocks_reserved(inode, dentry, pages);
    }
}

/// Not inlined, because the frames of a call chain share 512 bytes.
#[inline(never)]
fn count_pages(inode: u64, dentry: u64, pages: u32) {
    const PAGE: u64 = 4096;
    let inode = KernelPtr::from_addr(inode);
    let flags = slot_flags::APPROXIMATE;
    let delta = Counters { written: u64::from(pages) * PAGE, flags, ..ZERO };
    let file = file_key::<ProbeRead>(inode);
    account(current_proc(), file, KernelPtr::from_addr(dentry), inode, delta);
}

/// Handles the entry of a change of attributes; only a change of the size matters.
#[inline(always)]
pub fn setattr_enter(dentry: KernelPtr, attributes: KernelPtr) {
    const ATTR_SIZE: u32 = 8;
    if ProbeRead::read::<u32>(attributes, offset!(iattr_valid)) & ATTR_SIZE != 0 {
        space::record_baseline::<ProbeRead>(ProbeRead::follow(dentry, offset!(dentry_inode)));
    }
}

/// Handles the end of a change of attributes.
#[inline(always)]
pub fn setattr_exit(dentry: KernelPtr) {
    charge::on_space_changed(ProbeRead::follow(dentry, offset!(dentry_inode)), dentry);
}

/// Handles the opening of a file: its usage is recorded before anything can change it.
#[inline(always)]
pub fn on_open<R: Read>(file: KernelPtr) {
    on_open_inode::<R>(file, || KernelPtr(load!(R, file, file_inode)));
}

/// Like [`on_open`], where `inode` may be another one than the file's: the one that is written to.
#[inline(always)]
pub fn on_open_inode<R: Read>(file: KernelPtr, inode: impl Fn() -> KernelPtr) {
    const FMODE_WRITE: u32 = 2;
    let mode: u32 = load!(R, file, file_mode);
    if mode & FMODE_WRITE != 0 {
        space::record_baseline::<R>(inode());
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
#[inline(never)]
pub fn on_copied(file: u64) {
    let (inode, _) = overlay::target(KernelPtr::from_addr(file));
    let kind = kind_of(magic::<ProbeRead>(inode));
    if kind == usage_kind::XFS || kind == usage_kind::BTRFS {
        mark_reflinked(&file_key::<ProbeRead>(inode));
    }
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
    if inode.is_null() || !is_regular::<R>(inode) {
        return;
    }
    let names: u32 = load!(R, inode, inode_nlink);
    if names != 1 {
        return;
    }
    let key = ProcFileKey::new(current_proc(), file_key::<R>(inode));
    inflight::enter(hook::UNLINK, key, dentry);
}

/// Handles the return of vfs_unlink.
#[inline(always)]
pub fn unlink_exit(result: i64) {
    if let Some(call) = inflight::take(hook::UNLINK) {
        if result == 0 {
            on_last_unlink(call.key, KernelPtr::from_addr(call.object));
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
