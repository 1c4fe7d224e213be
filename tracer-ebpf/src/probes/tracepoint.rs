//! Static tracepoints (raw: without the cost of formatting their fields). They report the end of a
//! process for every backend. Where neither trampolines nor kprobes are available, they also count.
//!
//! ext4 and direct I/O have tracepoints that report exactly what was written, including
//! asynchronous writes. All other filesystems are counted at the return of the system call, or when
//! the request ends ([`super::io_uring`]).

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tracer_common::ProcFileKey;
use tracer_common::offsets::usage_kind;

use super::{direct_io, fallocate, shared, syscall_exit};
use crate::account::account_write;
use crate::event::{WriteEvent, WriteTarget};
use crate::filesystem::EXT4_MAGIC;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, any_dentry, config, current_proc, current_task, file_key,
    is_regular, load, magic, offset,
};
use crate::maps::in_flight::{InFlight, hook};
use crate::{charge, fast_path, inflight, overlay, process, space, syscall};

/// `sched_process_exit(struct task_struct *task[, bool group_dead])`
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn tp_sched_process_exit(ctx: RawTracePointContext) -> i32 {
    let group_dead = if config!(exit_has_group_dead) != 0 {
        ctx.arg::<u64>(1) & 1 != 0
    } else {
        // do_exit() decrements `live` before it calls this tracepoint.
        let signal = ProbeRead::follow(current_task(), offset!(task_signal));
        ProbeRead::read::<i32>(signal, offset!(signal_live)) == 0
    };
    if group_dead {
        process::on_exit(current_proc());
    }
    0
}

/// `sched_process_exec(struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)`: the
/// process now has another name.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn tp_sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let _ = ctx;
    process::on_exec(current_proc());
    0
}

/// `task_rename(struct task_struct *task, const char *comm)`
#[raw_tracepoint(tracepoint = "task_rename")]
fn tp_task_rename(ctx: RawTracePointContext) -> i32 {
    process::on_rename(KernelPtr(ctx.arg::<*const u8>(0)), KernelPtr(ctx.arg::<*const u8>(1)));
    0
}

/// `ext4_da_write_end(struct inode *inode, loff_t pos, unsigned int len, unsigned int copied)`;
/// ext4_write_end and ext4_journalled_write_end have the same arguments.
#[raw_tracepoint(tracepoint = "ext4_da_write_end")]
fn tp_ext4_write_end(ctx: RawTracePointContext) -> i32 {
    let inode = KernelPtr(ctx.arg::<*const u8>(0));
    let (at, length, copied) =
        (ctx.arg::<u64>(1), ctx.arg::<u64>(2) as u32, ctx.arg::<u64>(3) as u32);
    let taken = if copied < length { 0 } else { copied };
    let written = u64::from(taken) + take_short_copy(inode, at);
    if copied < length && copied > 0 {
        remember_short_copy(inode, at, copied);
    }
    let end = at + u64::from(taken);
    let try_fast_path =
        || fast_path::try_fast_path::<ProbeRead>(|| inode, || end, || written, usage_kind::EXT4);
    // A long symbolic link is written by the same functions.
    if written > 0 && !try_fast_path() && is_regular::<ProbeRead>(inode) {
        account_write::<ProbeRead>(&WriteEvent {
            target: WriteTarget {
                proc: current_proc(),
                file: file_key::<ProbeRead>(inode),
                dentry: any_dentry(inode),
                inode,
            },
            kind: usage_kind::EXT4,
            result: written as i64,
            end,
        });
    }
    0
}

/// Stores a part of a write of which less was copied than requested, because a page of the source
/// is not in memory. Whether ext4 takes the part depends on its folio (block_write_end takes
/// nothing if the folio is not up to date), which the tracepoint does not report. The position at
/// which the thread continues shows it.
#[inline(always)]
fn remember_short_copy(inode: KernelPtr, at: u64, copied: u32) {
    let key = ProcFileKey { generation: copied, ..inflight::NO_KEY };
    inflight::insert(hook::SHORT_COPY, InFlight { key, object: inode.addr(), extra: at });
}

/// Returns how many bytes of the thread's last short copy were taken: all of them if the thread
/// continues right behind it, else 0.
#[inline(always)]
fn take_short_copy(inode: KernelPtr, at: u64) -> u64 {
    let thread = bpf_get_current_pid_tgid();
    let Some(part) = inflight::take_from_cell(hook::SHORT_COPY, thread) else { return 0 };
    let copied = u64::from(part.key.generation);
    if part.object == inode.addr() && at == part.extra + copied { copied } else { 0 }
}

/// `ext4_da_reserve_space(struct inode *inode[, int nr_resv])`: blocks were reserved for a page
/// that is written to, by a write or through a mapping.
#[raw_tracepoint(tracepoint = "ext4_da_reserve_space")]
fn tp_ext4_da_reserve_space(ctx: RawTracePointContext) -> i32 {
    let inode = KernelPtr(ctx.arg::<*const u8>(0));
    let blocks = if config!(reserve_has_count) != 0 { ctx.arg::<u64>(1) as u32 } else { 1 };
    charge::on_blocks_reserved(inode, any_dentry(inode), blocks);
    0
}

/// `ext4_truncate_exit(struct inode *inode)`
#[raw_tracepoint(tracepoint = "ext4_truncate_exit")]
fn tp_ext4_space_changed(ctx: RawTracePointContext) -> i32 {
    let inode = KernelPtr(ctx.arg::<*const u8>(0));
    charge::on_space_changed(inode, any_dentry(inode));
    0
}

/// `ext4_truncate_enter(struct inode *inode)`
#[raw_tracepoint(tracepoint = "ext4_truncate_enter")]
fn tp_ext4_truncate_enter(ctx: RawTracePointContext) -> i32 {
    space::record_baseline::<ProbeRead>(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// `ext4_zero_range(struct inode *inode, loff_t offset, loff_t len, int mode)`, and ext4_punch_hole
/// with the same arguments. Only the return of the system call shows its end, and that call may be
/// one on an overlay's file.
#[raw_tracepoint(tracepoint = "ext4_zero_range")]
fn tp_ext4_range_changes(ctx: RawTracePointContext) -> i32 {
    shared::settle_enter(KernelPtr(ctx.arg::<*const u8>(0)), 0);
    0
}

/// `ext4_evict_inode(struct inode *inode)`
#[raw_tracepoint(tracepoint = "ext4_evict_inode")]
fn tp_ext4_evict_inode(ctx: RawTracePointContext) -> i32 {
    charge::on_evict::<ProbeRead>(KernelPtr(ctx.arg::<*const u8>(0)));
    0
}

/// `iomap_dio_rw_begin(struct kiocb *iocb, struct iov_iter *iter, unsigned int dio_flags, size_t
/// done_before)`: stores the process, because the completion may run in a kernel worker.
#[raw_tracepoint(tracepoint = "iomap_dio_rw_begin")]
fn tp_iomap_dio_rw_begin(ctx: RawTracePointContext) -> i32 {
    let iter = KernelPtr(ctx.arg::<*const u8>(1));
    if ProbeRead::read::<u8>(iter, offset!(iter_data_source)) == 0 {
        return 0;
    }
    let iocb = KernelPtr(ctx.arg::<*const u8>(0));
    let file = ProbeRead::follow(iocb, offset!(kiocb_filp));
    let inode = ProbeRead::follow(file, offset!(file_inode));
    if magic::<ProbeRead>(inode) != EXT4_MAGIC || !is_regular::<ProbeRead>(inode) {
        return 0;
    }
    let key = ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode));
    process::emit_process_once(key.process());
    direct_io::submitted(iocb, key, file, usage_kind::EXT4);
    0
}

/// `iomap_dio_complete(struct kiocb *iocb, int error, ssize_t ret)`
#[raw_tracepoint(tracepoint = "iomap_dio_complete")]
fn tp_iomap_dio_complete(ctx: RawTracePointContext) -> i32 {
    let iocb = KernelPtr(ctx.arg::<*const u8>(0));
    direct_io::completed_in_order(iocb, ctx.arg::<i64>(2));
    0
}

/// `ext4_unlink_exit(struct dentry *dentry, int ret)`
#[raw_tracepoint(tracepoint = "ext4_unlink_exit")]
fn tp_ext4_unlink_exit(ctx: RawTracePointContext) -> i32 {
    let dentry = KernelPtr(ctx.arg::<*const u8>(0));
    let inode = ProbeRead::follow(dentry, offset!(dentry_inode));
    if ctx.arg::<u64>(1) as i32 == 0
        && is_regular::<ProbeRead>(inode)
        && ProbeRead::read::<u32>(inode, offset!(inode_nlink)) == 0
    {
        shared::on_last_unlink(
            ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode)),
            dentry,
        );
    }
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`: the arguments are still in the registers. Typed,
/// because it runs at every system call. x86-64 only: the daemon does not attach it elsewhere.
#[btf_tracepoint(function = "sys_exit")]
fn tp_sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs = KernelPtr(ctx.arg::<*const u8>(0));
    let number: u64 = load!(BtfRead, regs, regs_orig_ax);
    let result = ctx.arg::<i64>(1);
    let (call, fd): (Call, u64) = match number {
        // The file is the first argument; for sendfile, that is out_fd.
        syscall::WRITE
        | syscall::PWRITE64
        | syscall::WRITEV
        | syscall::SENDFILE
        | syscall::PWRITEV
        | syscall::PWRITEV2 => (Call::Write, load!(BtfRead, regs, regs_di)),
        // The file is the third argument.
        syscall::SPLICE | syscall::COPY_FILE_RANGE => (Call::Write, load!(BtfRead, regs, regs_dx)),
        syscall::IOCTL if result == 0 => {
            let command: u64 = load!(BtfRead, regs, regs_si);
            if !syscall_exit::is_clone_ioctl(command as u32) {
                return 0;
            }
            (Call::Clone, load!(BtfRead, regs, regs_di))
        }
        syscall::FTRUNCATE | syscall::FALLOCATE => (Call::Space, load!(BtfRead, regs, regs_di)),
        // The file is the result.
        syscall::OPEN | syscall::CREAT | syscall::OPENAT | syscall::OPENAT2 if result >= 0 => {
            (Call::Open, result as u64)
        }
        _ => return 0,
    };
    // 32-bit programs have other numbers for their calls.
    let segment: u64 = load!(BtfRead, regs, regs_cs);
    if segment as u16 != syscall::USER_CS {
        return 0;
    }
    let file = shared::file_of_fd(fd as u32);
    if file.is_null() {
        return 0;
    }
    match call {
        Call::Write => {
            // Before the rest: otherwise the verifier would go through this once more after it.
            if number == syscall::COPY_FILE_RANGE && result > 0 {
                shared::on_copied(file.number());
            }
            let left = match number {
                syscall::WRITE | syscall::PWRITE64 => {
                    let requested: u64 = load!(BtfRead, regs, regs_dx);
                    requested.wrapping_sub(result as u64)
                }
                syscall::WRITEV | syscall::PWRITEV | syscall::PWRITEV2 => {
                    syscall_exit::left_of_vector(
                        load!(BtfRead, regs, regs_si),
                        load!(BtfRead, regs, regs_dx),
                        result as u64,
                    )
                }
                // At the end of the source, they return less than requested.
                _ => 0,
            };
            syscall_exit::on_write_return(file.number(), result, left);
        }
        Call::Space => {
            // For a file of an overlay, it is not the file's own inode.
            let mut inode = KernelPtr::from_addr(shared::take_settling_inode());
            if inode.is_null() {
                (inode, _) = overlay::target(file);
            }
            let dentry = any_dentry(inode);
            // Types of modules are not available before 5.11; on later kernels this would only be
            // more code to verify.
            if config!(has_task_btf) == 0 && number == syscall::FALLOCATE {
                let mode: u64 = load!(BtfRead, regs, regs_si);
                let requested = fallocate::requested_bytes(mode, load!(BtfRead, regs, regs_r10));
                if fallocate::count_if_unknown(inode, dentry, requested, result) {
                    return 0;
                }
            }
            fallocate::on_fallocate(inode, dentry, result);
        }
        Call::Clone => {
            let command: u64 = load!(BtfRead, regs, regs_si);
            syscall_exit::on_clone(file.number(), command as u32, load!(BtfRead, regs, regs_dx));
        }
        Call::Open => shared::on_opened(file),
    }
    0
}

/// What a system call does to its file.
enum Call {
    Write,
    Clone,
    Space,
    Open,
}
