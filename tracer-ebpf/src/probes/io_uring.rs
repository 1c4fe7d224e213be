//! Writes that a process asks for and does not wait for, where nothing below them is hooked.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{Offsets, ProcKey};

use super::syscall_exit;
use crate::errno::ECANCELED;
use crate::kernel_read::{KernelPtr, ProbeRead, Read as _, current_leader, offset};

/// `io_uring_complete(struct io_ring_ctx *ctx, struct io_kiocb *req, ...)`: a request ended, and holds its
/// file until its completion has been told. What follows differs (since 6.16 `struct io_uring_cqe *cqe`), but
/// the request has the result, too, since 5.19.
#[raw_tracepoint(tracepoint = "io_uring_complete")]
fn tp_io_uring_complete(ctx: RawTracePointContext) -> i32 {
    // None for completions that are no request's end: then nothing can be read, and 0 is IORING_OP_NOP.
    let request = KernelPtr(ctx.arg::<*const u8>(1));
    if !is_write(ProbeRead::read(request, offset!(request_opcode))) {
        return 0;
    }
    let result: i32 = ProbeRead::read(request, offset!(request_result));
    // It was never begun.
    if result == ECANCELED as i32 {
        return 0;
    }
    let file = ProbeRead::follow(request, offset!(request_file));
    let leader = ProbeRead::follow(submitter(request), offset!(task_group_leader));
    // Workers, and whoever polls the ring, are threads of the submitter; but what a process leaves behind ends
    // in a thread of the kernel.
    if leader.addr() == current_leader().0.addr() {
        syscall_exit::on_write_return(file.addr(), i64::from(result));
    } else {
        let proc = ProcKey {
            start_ns: ProbeRead::read(leader, offset!(task_start_boottime)),
            tgid: ProbeRead::read(leader, offset!(task_tgid)),
            pad: 0,
        };
        syscall_exit::on_write_completed(file.addr(), i64::from(result), &proc);
    }
    0
}

/// Which opcodes write to their file (linux/io_uring.h): WRITEV, WRITE_FIXED, WRITE, SPLICE, WRITEV_FIXED.
#[inline(always)]
const fn is_write(opcode: u8) -> bool {
    const WRITEV: u8 = 2;
    const WRITE_FIXED: u8 = 5;
    const WRITE: u8 = 23;
    const SPLICE: u8 = 30;
    const WRITEV_FIXED: u8 = 61;
    matches!(opcode, WRITEV | WRITE_FIXED | WRITE | SPLICE | WRITEV_FIXED)
}

/// The task that submitted a request: since 6.13 by way of its context.
#[inline(always)]
fn submitter(request: KernelPtr) -> KernelPtr {
    if offset!(request_tctx) == Offsets::ABSENT {
        ProbeRead::follow(request, offset!(request_task))
    } else {
        ProbeRead::follow(ProbeRead::follow(request, offset!(request_tctx)), offset!(tctx_task))
    }
}
