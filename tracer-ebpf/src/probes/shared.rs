//! What several kinds of hook do with their unpacked arguments.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{Counters, Health, PairKey, slot_flags};

use crate::{
    account::{Who, Write, ZERO, account, account_again, account_error, account_write},
    gauge::kind_of,
    kernel_read::{
        Kptr, Probed, Read, current_proc, current_task, file_key, is_regular, magic, offset,
    },
    maps::{COUNTED, IN_FLIGHT, InFlight, InFlightKey, health_add, hook},
    process, space,
};

/// `s_magic` of tmpfs.
pub const TMPFS_MAGIC: u32 = 0x0102_1994;
/// `s_magic` of overlayfs.
pub const OVERLAY_MAGIC: u32 = 0x794C_7630;

/// `ki_flags` of direct I/O.
const IOCB_DIRECT: u32 = 1 << 17;

/// A filesystem's write_iter returned.
#[inline(always)]
pub fn write_iter<R: Read>(iocb: Kptr, file: Kptr, kind: u32, result: i64) {
    if result > 0 && R::read::<u32>(iocb, offset!(kiocb_flags)) & IOCB_DIRECT == 0 {
        let inode = R::follow(file, offset!(file_inode));
        let tag = space::tag::<R>(kind, inode);
        if account_again(&current_proc(), &file_key::<R>(inode), tag, result as u64) {
            return;
        }
    }
    write_iter_in_full::<R>(iocb, file, kind, result);
}

/// What a write needs that is the first to its file, takes space, fails or is direct. Apart, so that
/// the others keep nothing of it in registers.
#[inline(never)]
fn write_iter_in_full<R: Read>(iocb: Kptr, file: Kptr, kind: u32, result: i64) {
    const EIOCBQUEUED: i64 = -529;
    let inode = R::follow(file, offset!(file_inode));
    let mut result = result;
    let mut end = 0;
    if result == EIOCBQUEUED {
        // Here, not further down: the frames of a chain of calls share 512 bytes.
        process::describe_once(current_proc());
        result = dio_queued(iocb.addr(), file.addr());
    } else {
        if result > 0 {
            end = R::read::<u64>(iocb, offset!(kiocb_pos));
        }
        if R::read::<u32>(iocb, offset!(kiocb_flags)) & IOCB_DIRECT != 0 {
            // It may have ended at once although it could have been asynchronous; also by EAGAIN,
            // after which io_uring tries once more with the same iocb.
            let _ = IN_FLIGHT.remove(InFlightKey { id: iocb.addr(), hook: hook::DIO_DONE });
        }
    }
    account_write(&Write {
        who: Who {
            proc: current_proc(),
            file: file_key::<R>(inode),
            dentry: R::follow(file, offset!(file_dentry)),
            inode,
        },
        kind,
        result,
        end,
    });
}

/// Direct I/O was submitted and goes on without its process. Returns the result if it has ended
/// already and nobody has counted it, else 0.
#[inline(never)]
fn dio_queued(iocb: u64, file: u64) -> i64 {
    let file = Kptr::from_addr(file);
    let inode = Probed::follow(file, offset!(file_inode));
    let key = PairKey::new(current_proc(), file_key::<Probed>(inode));
    begin(hook::DIO, iocb, key, file);
    if let Some(done) = end(hook::DIO_DONE, iocb)
        && end(hook::DIO, iocb).is_some()
    {
        return done.extra as i64;
    }
    0
}

/// Asynchronous direct I/O ended, in whatever context. Whoever takes the submission's entry out of
/// the map counts it; so it does not matter whether the submission has returned.
#[inline(always)]
pub fn dio_done(iocb: Kptr, result: i64) {
    if dio_count(iocb.addr(), result) {
        return;
    }
    dio_unclaimed(iocb.addr(), result);
    if dio_count(iocb.addr(), result) {
        let _ = IN_FLIGHT.remove(InFlightKey { id: iocb.addr(), hook: hook::DIO_DONE });
    }
}

/// Direct I/O ended whose begin is always seen first (tracepoints). Its errors are seen elsewhere.
#[inline(always)]
pub fn dio_ended(iocb: Kptr, result: i64) {
    dio_count(iocb.addr(), result.max(0));
}

/// Leaves the result to the submission.
#[inline(never)]
fn dio_unclaimed(iocb: u64, result: i64) {
    let done = InFlight { key: NOBODY, object: 0, extra: result as u64 };
    let _ = IN_FLIGHT.insert(InFlightKey { id: iocb, hook: hook::DIO_DONE }, done, 0);
}

/// Counts the result for whoever submitted, if that is known.
#[inline(never)]
fn dio_count(iocb: u64, result: i64) -> bool {
    let key = InFlightKey { id: iocb, hook: hook::DIO };
    let Some(call) = IN_FLIGHT.get_ptr(key) else { return false };
    // SAFETY: a valid pointer from the map. Not copied whole: the stack is short.
    let (proc, file_key, object) =
        unsafe { ((*call).key.process(), (*call).key.file(), (*call).object) };
    // Two may find it; one takes it out.
    if IN_FLIGHT.remove(key).is_err() {
        return false;
    }
    let file = Kptr::from_addr(object);
    let inode = Probed::follow(file, offset!(file_inode));
    account_write(&Write {
        who: Who {
            proc,
            file: file_key,
            dentry: Probed::follow(file, offset!(file_dentry)),
            inode,
        },
        kind: kind_of(magic::<Probed>(inode)),
        result,
        end: 0,
    });
    true
}

/// vfs_write or one of its kin returned: counted here for filesystems that are not counted below.
#[inline(always)]
pub fn vfs_write<R: Read>(file: Kptr, result: i64) {
    let inode = R::follow(file, offset!(file_inode));
    if !is_regular::<R>(inode) || counted_below::<R>(inode) != 0 {
        return;
    }
    account_write(&Write {
        who: Who {
            proc: current_proc(),
            file: file_key::<R>(inode),
            dentry: R::follow(file, offset!(file_dentry)),
            inode,
        },
        kind: kind_of(magic::<R>(inode)),
        result,
        end: 0,
    });
}

/// A page was made dirty through a mapping: counted as written, for that is as near as one gets.
#[inline(always)]
pub fn page_dirtied(file: Kptr) {
    if file.is_null() {
        return;
    }
    let inode = Probed::follow(file, offset!(file_inode));
    if is_regular::<Probed>(inode) {
        let dentry = Probed::follow(file, offset!(file_dentry));
        count_page(inode.addr(), dentry.addr());
        space::taken(inode, dentry, 1);
    }
}

/// Apart, for the frames of a chain of calls share 512 bytes.
#[inline(never)]
fn count_page(inode: u64, dentry: u64) {
    const PAGE: u64 = 4096;
    let inode = Kptr::from_addr(inode);
    let flags = slot_flags::APPROXIMATE;
    let delta = Counters { written: PAGE, flags, ..ZERO };
    let file = file_key::<Probed>(inode);
    account(current_proc(), file, Kptr::from_addr(dentry), inode, delta);
}

/// fallocate returned.
#[inline(always)]
pub fn fallocated(file: Kptr, result: i64) {
    let inode = Probed::follow(file, offset!(file_inode));
    if result < 0 {
        if is_regular::<Probed>(inode) && magic::<Probed>(inode) != OVERLAY_MAGIC {
            account_error(current_proc(), file_key::<Probed>(inode), result);
        }
    } else {
        space::changed(inode, Probed::follow(file, offset!(file_dentry)));
    }
}

/// Attributes are about to change; the length matters.
#[inline(always)]
pub fn attributes_begin(dentry: Kptr, attributes: Kptr) {
    const ATTR_SIZE: u32 = 8;
    if Probed::read::<u32>(attributes, offset!(iattr_valid)) & ATTR_SIZE != 0 {
        space::remember(Probed::follow(dentry, offset!(dentry_inode)));
    }
}

/// Attributes have changed.
#[inline(always)]
pub fn attributes_end(dentry: Kptr) {
    space::changed(Probed::follow(dentry, offset!(dentry_inode)), dentry);
}

/// A file is opened: its space is remembered before anything can change it.
#[inline(always)]
pub fn opened(file: Kptr) {
    const FMODE_WRITE: u32 = 2;
    if Probed::read::<u32>(file, offset!(file_mode)) & FMODE_WRITE != 0 {
        space::remember(Probed::follow(file, offset!(file_inode)));
    }
}

/// A reflink begins: `xfs_file_remap_range` and btrfs's.
#[inline(always)]
pub fn remap_begins(to: Kptr, flags: u32) {
    const REMAP_FILE_DEDUP: u32 = 1;
    if flags & REMAP_FILE_DEDUP == 0 {
        let inode = Probed::follow(to, offset!(file_inode));
        let key = PairKey::new(current_proc(), file_key::<Probed>(inode));
        begin(hook::REMAP, bpf_get_current_pid_tgid(), key, to);
    }
}

/// A reflink ends with the number of bytes that the file now shares: written, but not allocated.
#[inline(always)]
pub fn remap_ends(result: i64) {
    if let Some(call) = end(hook::REMAP, bpf_get_current_pid_tgid())
        && result > 0
    {
        let file = Kptr::from_addr(call.object);
        space::take_as_it_is(Probed::follow(file, offset!(file_inode)), &call.key.file());
        let dentry = Probed::follow(file, offset!(file_dentry));
        let delta = Counters { written: result as u64, ..ZERO };
        account(call.key.process(), call.key.file(), dentry, Kptr::from_addr(0), delta);
    }
}

/// A function of a filesystem begins that changes an inode's space on its own: the release of what
/// xfs took in advance, the end of btrfs's delayed allocation, of which compression saves some.
#[inline(always)]
pub fn settling_begins(inode: Kptr, saves: u64) {
    let call = InFlight { key: NOBODY, object: inode.addr(), extra: saves };
    keep(hook::SETTLE, bpf_get_current_pid_tgid(), call);
}

/// The inode whose settling the current thread began, or 0. Apart, for the frames of a chain of calls
/// share 512 bytes.
#[inline(never)]
pub fn settled() -> u64 {
    end(hook::SETTLE, bpf_get_current_pid_tgid()).map_or(0, |call| call.object)
}

/// It ends.
#[inline(always)]
pub fn settling_ends() {
    if let Some(call) = end(hook::SETTLE, bpf_get_current_pid_tgid()) {
        let inode = Kptr::from_addr(call.object);
        space::changed(inode, space::any_dentry(inode));
        if call.extra != 0 {
            space::compressed(inode, call.extra);
        }
    }
}

/// The last name of `inode` is gone.
#[inline(always)]
pub fn unlinked(key: PairKey, dentry: Kptr) {
    account(
        key.process(),
        key.file(),
        dentry,
        Kptr::from_addr(0),
        Counters { unlinked: 1, ..ZERO },
    );
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

/// Where a call's process and file are not needed, or not known yet.
pub const NOBODY: PairKey = PairKey { start_ns: 0, ino: 0, tgid: 0, dev: 0, generation: 0, pad: 0 };

/// Remembers a call until its end.
#[inline(always)]
pub fn begin(hook: u64, id: u64, key: PairKey, object: Kptr) {
    keep(hook, id, InFlight { key, object: object.addr(), extra: 0 });
}

/// The same, with all that is to be remembered.
#[inline(always)]
pub fn keep(hook: u64, id: u64, call: InFlight) {
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
    // Two may find it (see [`dio_done`]); one takes it out.
    IN_FLIGHT.remove(key).ok()?;
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
