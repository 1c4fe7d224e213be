//! Asynchronous writes through io_uring, where no lower function is hooked.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{Offsets, ProcKey};

use super::syscall_exit;
use crate::errno::ECANCELED;
use crate::kernel_read::{KernelPtr, ProbeRead, Read as _, current_leader, offset};

/// `io_uring_complete(struct io_ring_ctx *ctx, struct io_kiocb *req, ...)`: a request ended; it
/// holds its file until its completion has been posted. The further arguments differ (since 6.16
/// `struct io_uring_cqe *cqe`), but the request also has the result, since 5.19.
#[raw_tracepoint(tracepoint = "io_uring_complete")]
fn tp_io_uring_complete(ctx: RawTracePointContext) -> i32 {
    // Null for completions that belong to no request. Then reads return 0, which is IORING_OP_NOP.
    let request = KernelPtr(ctx.arg::<*const u8>(1));
    if !is_write(ProbeRead::read(request, offset!(request_opcode))) {
        return 0;
    }
    let result: i32 = ProbeRead::read(request, offset!(request_result));
    // It was never started.
    if result == ECANCELED as i32 {
        return 0;
    }
    let file = ProbeRead::follow(request, offset!(request_file));
    let leader = ProbeRead::follow(submitter(request), offset!(task_group_leader));
    // Workers, and the thread that polls the ring, are threads of the submitter. But a request that
    // outlives its process ends in a kernel thread.
    if leader.addr() == current_leader().0.addr() {
        // What was requested is not known here.
        syscall_exit::on_write_return(file.number(), i64::from(result), 0);
    } else {
        let proc = ProcKey {
            start_ns: ProbeRead::read(leader, offset!(task_start_boottime)),
            tgid: ProbeRead::read(leader, offset!(task_tgid)),
            pad: 0,
        };
        syscall_exit::count_write(file.number(), i64::from(result), proc.start_ns, proc.tgid);
    }
    0
}

/// Returns whether an opcode writes to its file (linux/io_uring.h).
#[inline(always)]
const fn is_write(opcode: u8) -> bool {
    const WRITEV: u8 = 2;
    const WRITE_FIXED: u8 = 5;
    const WRITE: u8 = 23;
    const SPLICE: u8 = 30;
    const WRITEV_FIXED: u8 = 61;
    matches!(opcode, WRITEV | WRITE_FIXED | WRITE | SPLICE | WRITEV_FIXED)
}

/// Returns the task that submitted a request. Since 6.13, it is found through the request's
/// context.
#[inline(always)]
fn submitter(request: KernelPtr) -> KernelPtr {
    if offset!(request_tctx) == Offsets::ABSENT {
        ProbeRead::follow(request, offset!(request_task))
    } else {
        ProbeRead::follow(ProbeRead::follow(request, offset!(request_tctx)), offset!(tctx_task))
    }
}
