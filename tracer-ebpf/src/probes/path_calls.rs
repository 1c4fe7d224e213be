//! System calls that create, rename, truncate or remove something at a path, where no function is
//! hooked: their failures for lack of space, and what they created or removed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::{Entries, ProcFileKey};

use super::shared;
use crate::entries::{count_and_emit, count_failure_on, is_out_of_space};
use crate::filesystem::EXT4_MAGIC;
use crate::kernel_read::{BtfRead, KernelPtr, ProbeRead, Read, current_proc, load, offset};
use crate::place::{self, AT_FDCWD};
use crate::syscall;

/// What is counted if the call succeeds.
const NOTHING: u32 = 0;
const CREATED: u32 = 1;
const REMOVED: u32 = 2;
const RENAMED: u32 = 3;

/// `sys_exit(struct pt_regs *regs, long ret)`: only calls that tp_sys_exit does not handle. x86-64
/// only.
#[btf_tracepoint(function = "sys_exit")]
fn tp_sys_exit_path(ctx: BtfTracePointContext) -> i32 {
    let regs = KernelPtr(ctx.arg::<*const u8>(0));
    let result = ctx.arg::<i64>(1);
    if result != 0 && !is_out_of_space(result) {
        return 0;
    }
    let number: u64 = load!(BtfRead, regs, regs_orig_ax);
    let di: u64 = load!(BtfRead, regs, regs_di);
    let si: u64 = load!(BtfRead, regs, regs_si);
    let dx: u64 = load!(BtfRead, regs, regs_dx);
    let cwd = AT_FDCWD as u64;
    // The path, the directory that it starts from, and what success means.
    let (fd, path, kind) = match number {
        syscall::OPEN | syscall::CREAT | syscall::TRUNCATE => (cwd, di, NOTHING),
        syscall::OPENAT | syscall::OPENAT2 => (di, si, NOTHING),
        syscall::LINK => (cwd, si, NOTHING),
        syscall::RENAME => (cwd, si, RENAMED),
        syscall::LINKAT => (dx, load!(BtfRead, regs, regs_r10), NOTHING),
        syscall::RENAMEAT | syscall::RENAMEAT2 => (dx, load!(BtfRead, regs, regs_r10), RENAMED),
        syscall::MKDIR | syscall::MKNOD => (cwd, di, CREATED),
        syscall::MKDIRAT | syscall::MKNODAT => (di, si, CREATED),
        syscall::SYMLINK => (cwd, si, CREATED),
        syscall::SYMLINKAT => (si, dx, CREATED),
        syscall::UNLINK | syscall::RMDIR => (cwd, di, REMOVED),
        syscall::UNLINKAT => (di, si, REMOVED),
        _ => return 0,
    };
    // Most opens are no failures; their results are counted by tp_sys_exit.
    if result == 0 && kind == NOTHING {
        return 0;
    }
    // 32-bit programs have other numbers for their calls.
    let segment: u64 = load!(BtfRead, regs, regs_cs);
    if segment as u16 == syscall::USER_CS {
        on_path(fd as i32, path, kind, result as i32);
    }
    0
}

/// Handles one call with a path, with its result. `kind` is what it does if it succeeds.
#[unsafe(no_mangle)]
extern "C" fn on_path(fd: i32, path: u64, kind: u32, result: i32) -> u32 {
    let base = if fd == AT_FDCWD {
        place::working_directory()
    } else {
        ProbeRead::follow(shared::file_of_fd(fd as u32), offset!(file_inode))
    };
    let Some(place) = place::of_path(fd, base, path) else { return 0 };
    if result != 0 {
        count_failure_on(place.dir.dev, i64::from(result));
    } else if place.magic != EXT4_MAGIC {
        // ext4 has tracepoints of its own.
        let key = ProcFileKey::new(current_proc(), place.dir);
        let entries = Entries {
            created: u64::from(kind == CREATED),
            removed: u64::from(kind == REMOVED),
            renamed: u64::from(kind == RENAMED),
        };
        count_and_emit(&key, 0, &entries);
    }
    0
}
