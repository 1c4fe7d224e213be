//! What several kinds of hook do with their unpacked arguments.

use tracer_common::offsets::{counted, gauge_kind};
use tracer_common::{Counters, FileKey, Health, PairKey, slot_flags};

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
use crate::maps::health::health_add;
use crate::maps::in_flight::{IN_FLIGHT, InFlight, InFlightKey, hook};
use crate::maps::inodes::SHARED;
use crate::{charge, fast_path, inflight, overlay, process, space};

/// `ki_flags` of direct I/O.
const IOCB_DIRECT: u32 = 1 << 17;

/// A filesystem's write_iter returned; what it was called with and returned is fetched as it is needed.
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

/// Counts the write if it can be done the short way.
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

/// What a write needs that is the first to its file, takes space, fails or is direct. Apart, so that
/// the others keep nothing of it in registers.
#[inline(never)]
pub fn write_iter_slow<R: Read>(iocb: KernelPtr, file: KernelPtr, kind: u32, result: i64) {
    let inode = KernelPtr(load!(R, file, file_inode));
    let direct = is_direct::<R>(iocb);
    let mut result = result;
    let mut end = 0;
    if result == EIOCBQUEUED {
        // Here, not further down: the frames of a chain of calls share 512 bytes.
        process::emit_process_once(current_proc());
        result = dio_queued(iocb.addr(), file.addr(), kind);
    } else {
        if result > 0 {
            end = load!(R, iocb, kiocb_pos);
        }
        if direct {
            // It may have ended at once although it could have been asynchronous; also by EAGAIN,
            // after which io_uring tries once more with the same iocb.
            let _ = IN_FLIGHT.remove(InFlightKey { id: iocb.addr(), hook: hook::DIO_DONE });
        }
    }
    let who = WriteTarget {
        proc: current_proc(),
        file: file_key::<R>(inode),
        dentry: KernelPtr(load!(R, file, file_dentry)),
        inode,
    };
    account_write::<R>(&WriteEvent { who, kind, result, end });
}

/// Direct I/O was submitted and goes on without its process. Returns the result if it has ended
/// already and nobody has counted it, else 0.
#[inline(never)]
fn dio_queued(iocb: u64, file: u64, kind: u32) -> i64 {
    let file = KernelPtr::from_addr(file);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let key = PairKey::new(current_proc(), file_key::<ProbeRead>(inode));
    dio_submitted(KernelPtr::from_addr(iocb), key, file, kind);
    if let Some(done) = inflight::take_by_id(hook::DIO_DONE, iocb)
        && inflight::take_by_id(hook::DIO, iocb).is_some()
    {
        return done.extra as i64;
    }
    0
}

/// Direct I/O was submitted, to a file with that kind of gauge.
#[inline(always)]
pub fn dio_submitted(iocb: KernelPtr, key: PairKey, file: KernelPtr, kind: u32) {
    let call = InFlight { key, object: file.addr(), extra: u64::from(kind) };
    inflight::insert_by_id(hook::DIO, iocb.addr(), call);
}

/// Asynchronous direct I/O ended, in whatever context. Whoever takes the submission's entry out of
/// the map counts it; so it does not matter whether the submission has returned.
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

/// Direct I/O ended whose begin is always seen first (tracepoints). Its errors are seen elsewhere.
#[inline(always)]
pub fn dio_completed_in_order(iocb: KernelPtr, result: i64) {
    dio_count(iocb.addr(), result.max(0));
}

/// Leaves the result to the submission.
#[inline(never)]
fn dio_leave_result(iocb: u64, result: i64) {
    let done = InFlight { key: inflight::NO_KEY, object: 0, extra: result as u64 };
    let _ = IN_FLIGHT.insert(InFlightKey { id: iocb, hook: hook::DIO_DONE }, done, 0);
}

/// Counts the result for whoever submitted, if that is known.
#[inline(never)]
fn dio_count(iocb: u64, result: i64) -> bool {
    let key = InFlightKey { id: iocb, hook: hook::DIO };
    let Some(call) = IN_FLIGHT.get_ptr(key) else { return false };
    // SAFETY: a valid pointer from the map. Not copied whole: the stack is short.
    let (proc, file_key, object, kind) =
        unsafe { ((*call).key.process(), (*call).key.file(), (*call).object, (*call).extra) };
    // Two may find it; one takes it out.
    if IN_FLIGHT.remove(key).is_err() {
        return false;
    }
    let file = KernelPtr::from_addr(object);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    account_write::<ProbeRead>(&WriteEvent {
        who: WriteTarget {
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

/// vfs_write or one of its kin returned: counted here for filesystems that are not counted below.
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

/// Apart, for the frames of a chain of calls share 512 bytes.
#[inline(never)]
fn count_vfs_write<R: Read>(file: KernelPtr, result: i64) {
    let inode = KernelPtr(load!(R, file, file_inode));
    account_write::<R>(&WriteEvent {
        who: WriteTarget {
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

/// do_iter_readv_writev returned. Where overlays are followed, the file below was counted with the overlay's.
#[inline(always)]
pub fn vfs_writev<R: Read>(file: KernelPtr, result: i64) {
    if !(overlay::are_followed() && overlay::is_behind::<R>(file)) {
        vfs_write::<R>(file, result);
    }
}

/// A write to a file of an overlay returned, of which nothing tells below. Apart, for the frames of a chain of
/// calls share 512 bytes.
#[inline(never)]
fn count_overlay_write(inode: u64, result: i64) {
    let dentry = overlay::upper_dentry(KernelPtr::from_addr(inode));
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    if dentry.is_null() || counted_below::<ProbeRead>(inode) != 0 {
        return;
    }
    account_write::<ProbeRead>(&WriteEvent {
        who: WriteTarget {
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

/// A page was made dirty through a mapping: counted as written, for that is as near as one gets.
#[inline(always)]
pub fn page_dirtied(file: KernelPtr) {
    if file.is_null() {
        return;
    }
    let inode = ProbeRead::follow(file, offset!(file_inode));
    pages_dirtied(inode, ProbeRead::follow(file, offset!(file_dentry)), 1);
}

/// The same of so many pages, by their inode.
#[inline(always)]
pub fn pages_dirtied(inode: KernelPtr, dentry: KernelPtr, pages: u32) {
    if is_regular::<ProbeRead>(inode) {
        count_pages(inode.addr(), dentry.addr(), pages);
        charge::on_blocks_reserved(inode, dentry, pages);
    }
}

/// Apart, for the frames of a chain of calls share 512 bytes.
#[inline(never)]
fn count_pages(inode: u64, dentry: u64, pages: u32) {
    const PAGE: u64 = 4096;
    let inode = KernelPtr::from_addr(inode);
    let flags = slot_flags::APPROXIMATE;
    let delta = Counters { written: u64::from(pages) * PAGE, flags, ..ZERO };
    let file = file_key::<ProbeRead>(inode);
    account(current_proc(), file, KernelPtr::from_addr(dentry), inode, delta);
}

/// Attributes are about to change; the length matters.
#[inline(always)]
pub fn setattr_enter(dentry: KernelPtr, attributes: KernelPtr) {
    const ATTR_SIZE: u32 = 8;
    if ProbeRead::read::<u32>(attributes, offset!(iattr_valid)) & ATTR_SIZE != 0 {
        space::record_baseline::<ProbeRead>(ProbeRead::follow(dentry, offset!(dentry_inode)));
    }
}

/// Attributes have changed.
#[inline(always)]
pub fn setattr_exit(dentry: KernelPtr) {
    charge::on_space_changed(ProbeRead::follow(dentry, offset!(dentry_inode)), dentry);
}

/// A file is opened: its space is remembered before anything can change it.
#[inline(always)]
pub fn on_open<R: Read>(file: KernelPtr) {
    on_open_inode::<R>(file, || KernelPtr(load!(R, file, file_inode)));
}

/// The same, where another inode may be the one that is written to.
#[inline(always)]
pub fn on_open_inode<R: Read>(file: KernelPtr, inode: impl Fn() -> KernelPtr) {
    const FMODE_WRITE: u32 = 2;
    let mode: u32 = load!(R, file, file_mode);
    if mode & FMODE_WRITE != 0 {
        space::record_baseline::<R>(inode());
    }
}

/// A reflink begins: `xfs_file_remap_range` and btrfs's.
#[inline(always)]
pub fn remap_enter(to: KernelPtr, flags: u32) {
    const REMAP_FILE_DEDUP: u32 = 1;
    if flags & REMAP_FILE_DEDUP == 0 {
        let inode = ProbeRead::follow(to, offset!(file_inode));
        let key = PairKey::new(current_proc(), file_key::<ProbeRead>(inode));
        inflight::enter(hook::REMAP, key, to);
    }
}

/// A reflink ends with the number of bytes that the file now shares: written, but not allocated.
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

/// The file has space now that another one has, too.
#[inline(always)]
pub fn mark_reflinked(file: &FileKey) {
    let _ = SHARED.insert(file, 1, 0);
    health_add(Health::UsedShared, 1);
}

/// copy_file_range returned, of which nothing else tells whether it copied: on filesystems that can share
/// space, it shares. Apart, for the frames of a chain of calls share 512 bytes.
#[inline(never)]
pub fn on_copied(file: u64) {
    let (inode, _) = overlay::target(KernelPtr::from_addr(file));
    let kind = kind_of(magic::<ProbeRead>(inode));
    if kind == gauge_kind::XFS || kind == gauge_kind::BTRFS {
        mark_reflinked(&file_key::<ProbeRead>(inode));
    }
}

/// A function of a filesystem begins that changes an inode's space on its own: the release of what
/// xfs took in advance, the end of btrfs's delayed allocation, of which compression saves some.
#[inline(always)]
pub fn settle_enter(inode: KernelPtr, saves: u64) {
    let call = InFlight { key: inflight::NO_KEY, object: inode.addr(), extra: saves };
    inflight::insert(hook::SETTLE, call);
}

/// Delayed allocation of btrfs (`struct btrfs_ordered_extent`) becomes extents, perhaps compressed ones.
#[inline(always)]
pub fn finish_ordered_enter(ordered: KernelPtr) {
    let Some(layout) = GAUGES.get(gauge_kind::BTRFS) else { return };
    let inode = ProbeRead::follow(ordered, layout.ordered_inode);
    // A struct btrfs_inode since 6.10: the struct inode is within it.
    let inner = if layout.ordered_is_own == 0 { 0 } else { u64::from(layout.vfs_inode) };
    let mut saves = 0;
    if layout.ordered_num_bytes != 0 {
        let in_file = ProbeRead::read::<u64>(ordered, layout.ordered_num_bytes);
        let on_disk = ProbeRead::read::<u64>(ordered, layout.ordered_disk_num_bytes);
        saves = in_file.saturating_sub(on_disk);
    }
    settle_enter(KernelPtr::from_addr(inode.addr() + inner), saves);
}

/// The inode whose settling the current thread began, or 0. Apart, for the frames of a chain of calls
/// share 512 bytes.
#[inline(never)]
pub fn take_settling_inode() -> u64 {
    inflight::take(hook::SETTLE).map_or(0, |call| call.object)
}

/// It ends.
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

/// The last name of `inode` is gone.
#[inline(always)]
pub fn on_last_unlink(key: PairKey, dentry: KernelPtr) {
    account(
        key.process(),
        key.file(),
        dentry,
        KernelPtr::from_addr(0),
        Counters { unlinked: 1, ..ZERO },
    );
}

/// vfs_unlink begins: keeps what is to go, because the dentry has no inode any more afterwards.
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
    let key = PairKey::new(current_proc(), file_key::<R>(inode));
    inflight::enter(hook::UNLINK, key, dentry);
}

/// vfs_unlink ends.
#[inline(always)]
pub fn unlink_exit(result: i64) {
    if let Some(call) = inflight::take(hook::UNLINK) {
        if result == 0 {
            on_last_unlink(call.key, KernelPtr::from_addr(call.object));
        }
    }
}

/// The open file behind a descriptor of the current process.
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
    let room: u32 = load!(R, table, fdt_max_fds);
    if fd >= room {
        return KernelPtr::from_addr(0);
    }
    let array = KernelPtr(load!(R, table, fdt_fd));
    ProbeRead::follow(array, fd.wrapping_mul(8))
}
