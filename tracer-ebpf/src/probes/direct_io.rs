//! Direct I/O that continues without its process: counted when it completes, in whatever context.

use tracer_common::ProcFileKey;

use crate::account::account_write;
use crate::event::{WriteEvent, WriteTarget};
use crate::inflight;
use crate::kernel_read::{KernelPtr, ProbeRead, Read, current_proc, file_key, offset};
use crate::maps::in_flight::{IN_FLIGHT, InFlight, InFlightKey, hook};

/// Handles direct I/O that was submitted and continues without its process. Returns the result if
/// it has already completed and was not counted yet, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn queued(iocb: u64, file: u64, kind: u32) -> i64 {
    let file = KernelPtr::from_addr(file);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let key = ProcFileKey::new(current_proc(), file_key::<ProbeRead>(inode));
    submitted(KernelPtr::from_addr(iocb), key, file, kind);
    if let Some(done) = inflight::take_by_id(hook::DIO_DONE, iocb)
        && inflight::take_by_id(hook::DIO, iocb).is_some()
    {
        return done.extra as i64;
    }
    0
}

/// Stores the submission of direct I/O, with the file's kind of usage layout.
#[inline(always)]
pub fn submitted(iocb: KernelPtr, key: ProcFileKey, file: KernelPtr, kind: u32) {
    let call = InFlight { key, object: file.addr(), extra: u64::from(kind) };
    inflight::insert_by_id(hook::DIO, iocb.addr(), call);
}

/// Handles the completion of asynchronous direct I/O, in any context. The context that removes the
/// submission's entry from the map counts it; so it does not matter whether the submission has
/// returned.
#[inline(always)]
pub fn completed(iocb: KernelPtr, result: i64) {
    if count_direct(iocb.number(), result) {
        return;
    }
    leave_result(iocb.number(), result);
    if count_direct(iocb.number(), result) {
        let _ = IN_FLIGHT.remove(InFlightKey { id: iocb.addr(), hook: hook::DIO_DONE });
    }
}

/// Handles the completion of direct I/O whose start is always seen first (tracepoints). Its errors
/// are seen elsewhere.
#[inline(always)]
pub fn completed_in_order(iocb: KernelPtr, result: i64) {
    count_direct(iocb.number(), result.max(0));
}

/// Leaves the result for the submission, which has not returned yet.
#[unsafe(no_mangle)]
extern "C" fn leave_result(iocb: u64, result: i64) -> u32 {
    let done = InFlight { key: inflight::NO_KEY, object: 0, extra: result as u64 };
    let _ = IN_FLIGHT.insert(InFlightKey { id: iocb, hook: hook::DIO_DONE }, done, 0);
    0
}

/// Counts the result for the process that submitted the I/O. Returns false if the submission is not
/// known.
#[unsafe(no_mangle)]
extern "C" fn count_direct(iocb: u64, result: i64) -> bool {
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
