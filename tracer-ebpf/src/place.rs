//! Where a system call took place whose arguments are paths, and that no hook reports.
//!
//! A path that is only a name is in the directory that it starts from, which is known here. The
//! directory of any other path is sent to the daemon, which looks it up; until then a number stands for
//! its device in the counts.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user_str};
use tracer_common::records::{PATH_MAX, PLACE_DEV, PlaceRecord};
use tracer_common::{ErrorKey, FileKey, RecordKind, SelfStat};

use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, config, current_proc, current_task, file_key, magic, offset,
};
use crate::maps::events::{PLACE_SCRATCH, PLACES};
use crate::maps::health::self_stat_add;
use crate::names;
use crate::scratch::{self, PlaceWork};

/// `AT_FDCWD`: the working directory.
pub const AT_FDCWD: i32 = -100;

/// The directory of a path.
#[derive(Clone, Copy)]
pub struct Place {
    /// The directory, if it is known here. Else 0, with a number of its own in place of the device.
    pub dir: FileKey,
    /// `s_magic` of its filesystem, if it is known here, else 0.
    pub magic: u32,
}

const UNKNOWN: Place = Place { dir: FileKey { ino: 0, generation: 0, dev: 0 }, magic: 0 };

/// Returns the directory of a path that the current process passed to a system call, relative to the
/// directory `base` that is open as `fd`; `None` if it cannot be read.
#[inline(always)]
pub fn of_path(fd: i32, base: KernelPtr, path: u64) -> Option<Place> {
    let buffer = scratch::acquire(&PLACE_SCRATCH)?;
    let mut place = UNKNOWN;
    let has_dir = find_dir(buffer, fd, base.addr(), path);
    if has_dir == NAME {
        let key = file_key::<ProbeRead>(base);
        place = Place { dir: key, magic: magic::<ProbeRead>(base) };
    } else if has_dir == DIR {
        place.dir.dev = send_once(buffer);
    }
    scratch::release(&PLACE_SCRATCH, buffer);
    (place.dir.dev != 0).then_some(place)
}

/// The inode of the current working directory.
#[inline(always)]
pub fn working_directory() -> KernelPtr {
    let context = ProbeRead::follow(current_task(), offset!(task_fs));
    let dentry = ProbeRead::follow(context, offset!(fs_pwd));
    ProbeRead::follow(dentry, offset!(dentry_inode))
}

/// Results of [`find_dir`].
const UNREADABLE: u32 = 0;
const NAME: u32 = 1;
const DIR: u32 = 2;

/// Reads the path into the buffer's record, and finds where its directory ends.
#[inline(never)]
fn find_dir(buffer: u32, fd: i32, base: u64, path: u64) -> u32 {
    let Some(work) = scratch::get(&PLACE_SCRATCH, buffer) else { return UNREADABLE };
    let PlaceWork { record, .. } = work;
    // SAFETY: the helper writes at most the destination's bytes and checks the source.
    let len = unsafe {
        bpf_probe_read_user_str(record.path.as_mut_ptr().cast(), PATH_MAX as u32, path as *const _)
    };
    if len <= 1 {
        return UNREADABLE;
    }
    record.base = file_key::<ProbeRead>(KernelPtr::from_addr(base));
    record.fd = fd;
    record.header.len = 0;
    work.hash = 0;
    work.dir_hash = 0;
    work.after_slash = 0;
    if config!(has_loop) != 0 {
        let mut buffer = buffer;
        // Verified once, not once for each byte.
        // SAFETY: the callback gets the number of the buffer, which outlives the call.
        unsafe {
            let callback = next_byte as *const () as *mut c_void;
            bpf_loop(PATH_MAX as u32, callback, (&raw mut buffer).cast(), 0);
        }
    } else {
        for at in 0..PATH_MAX {
            if is_end(work, at) {
                break;
            }
        }
    }
    if work.record.header.len == 0 { NAME } else { DIR }
}

/// `long callback(u32 index, void *ctx)` of bpf_loop; returns 1 to end the loop.
extern "C" fn next_byte(index: u32, buffer: *mut u32) -> i64 {
    // SAFETY: the pointer that find_dir passed.
    let buffer = unsafe { *buffer };
    let at = index as usize & (PATH_MAX - 1);
    scratch::get(&PLACE_SCRATCH, buffer).map_or(1, |work| i64::from(is_end(work, at)))
}

/// Goes on to the byte `at` of the path; returns whether that is its end. The directory ends before
/// each name that comes after a slash.
#[inline(always)]
fn is_end(work: &mut PlaceWork, at: usize) -> bool {
    const SLASH: u8 = b'/';
    // SAFETY: `at` is within the path; all of it belongs to the map's value.
    unsafe {
        let byte = core::ptr::read_volatile(work.record.path.as_ptr().add(at));
        if byte == 0 {
            return true;
        }
        let hash = core::ptr::read_volatile(&raw const work.hash);
        if byte == SLASH {
            core::ptr::write_volatile(&raw mut work.after_slash, 1);
        } else if core::ptr::read_volatile(&raw const work.after_slash) == 1 {
            core::ptr::write_volatile(&raw mut work.after_slash, 0);
            core::ptr::write_volatile(&raw mut work.dir_hash, hash);
            core::ptr::write_volatile(&raw mut work.record.header.len, at as u32);
        }
        let next = hash.wrapping_mul(31).wrapping_add(u32::from(byte));
        core::ptr::write_volatile(&raw mut work.hash, next);
    }
    false
}

/// Returns the number that stands for the directory, and sends the record unless it was sent within
/// this second.
#[inline(never)]
fn send_once(buffer: u32) -> u32 {
    let Some(PlaceWork { record, dir_hash, .. }) = scratch::get(&PLACE_SCRATCH, buffer) else {
        return 0;
    };
    let task = current_task();
    let context = ProbeRead::follow(task, offset!(task_fs));
    let root = ProbeRead::follow(context, offset!(fs_root));
    let namespaces = ProbeRead::follow(task, offset!(task_nsproxy));
    let mounts = ProbeRead::follow(namespaces, offset!(nsproxy_mnt));
    let proc = current_proc();
    record.header.kind = RecordKind::Place as u32;
    record.proc = proc;
    record.root = file_key::<ProbeRead>(ProbeRead::follow(root, offset!(dentry_inode)));
    record.mnt_ns = ProbeRead::read(mounts, offset!(mnt_ns_inum));
    // An absolute path does not depend on the directory, but two names for one place do no harm.
    let mixed = dir_hash.wrapping_add((record.base.ino as u32).wrapping_mul(0x9E37_79B1));
    record.place = PLACE_DEV | (mixed.wrapping_add(record.base.dev) & !PLACE_DEV);
    let key = ErrorKey { start_ns: proc.start_ns, tgid: proc.tgid, dev: record.place };
    // SAFETY: a helper without arguments.
    let now_s = (unsafe { bpf_ktime_get_ns() } / 1_000_000_000) as u32;
    // SAFETY: the value is copied immediately.
    if unsafe { PLACES.get(key) }.copied() != Some(now_s) {
        // SAFETY: a complete record.
        if unsafe { names::emit_bytes((&raw const *record).cast(), size_of::<PlaceRecord>()) } {
            let _ = PLACES.insert(key, now_s, 0);
        } else {
            self_stat_add(SelfStat::RingFull, 1);
        }
    }
    record.place
}
