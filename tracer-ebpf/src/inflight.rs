//! Calls in progress: what their return needs to know of their entry.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{ProcFileKey, SelfStat};

use crate::atomic::exchange;
use crate::kernel_read::{KernelPtr, config};
use crate::maps::health::self_stat_add;
use crate::maps::in_flight::{CALL_CELLS, CALLS, CallCell, IN_FLIGHT, InFlight, InFlightKey};

/// Stands for a process and file that are not needed, or not known yet.
pub const NO_KEY: ProcFileKey =
    ProcFileKey { start_ns: 0, ino: 0, tgid: 0, dev: 0, generation: 0, pad: 0 };

/// Stores a call of the current thread until it returns. Of nested calls to the same function, the
/// innermost counts.
#[inline(always)]
pub fn enter(hook: u64, key: ProcFileKey, object: KernelPtr) {
    insert(hook, InFlight { key, object: object.addr(), extra: 0 });
}

/// Like [`enter`], with all data given by the caller.
#[inline(always)]
pub fn insert(hook: u64, call: InFlight) {
    let thread = bpf_get_current_pid_tgid();
    if let Some(cell) = cell(hook, thread) {
        let own = cell.thread == thread && cell.hook == hook;
        if own || (cell.thread == 0 && exchange(&raw mut cell.thread, 0, thread)) {
            cell.hook = hook;
            cell.call = call;
            return;
        }
    }
    insert_by_id(hook, thread, call);
}

/// Removes and returns the current thread's call.
#[inline(always)]
pub fn take(hook: u64) -> Option<InFlight> {
    let thread = bpf_get_current_pid_tgid();
    if let Some(cell) = cell(hook, thread)
        && cell.thread == thread
        && cell.hook == hook
    {
        return Some(release(cell));
    }
    take_by_id(hook, thread)
}

/// Like [`take`], but looks only into the thread's cell. For a call that is looked up at every
/// write and is hardly ever there.
#[inline(always)]
pub fn take_from_cell(hook: u64, thread: u64) -> Option<InFlight> {
    let cell = cell(hook, thread)?;
    if cell.thread != thread || cell.hook != hook {
        return None;
    }
    Some(release(cell))
}

/// Returns the content of the cell, and makes the cell available to other threads.
#[inline(always)]
fn release(cell: &mut CallCell) -> InFlight {
    let call = cell.call;
    // SAFETY: no instruction, but it keeps the compiler from moving reads of the cell behind it,
    // where another thread may already use the cell. x86-64 keeps that order, too.
    unsafe {
        core::arch::asm!("");
        core::ptr::write_volatile(&raw mut cell.thread, 0);
    }
    call
}

/// Stores a call that belongs to no thread, under `id`: the address of a kiocb.
#[inline(always)]
pub fn insert_by_id(hook: u64, id: u64, call: InFlight) {
    if IN_FLIGHT.insert(InFlightKey { id, hook }, call, 0).is_err() {
        self_stat_add(SelfStat::InFlightFull, 1);
    }
}

/// Removes and returns the call stored under `id`.
#[inline(always)]
pub fn take_by_id(hook: u64, id: u64) -> Option<InFlight> {
    let key = InFlightKey { id, hook };
    let call = IN_FLIGHT.get_ptr(key)?;
    // SAFETY: a valid pointer from the map.
    let call = unsafe { *call };
    // For a kiocb, two contexts can find the entry; only the one that removes it uses it.
    IN_FLIGHT.remove(key).ok()?;
    Some(call)
}

/// Returns the thread's cell, which another thread may be using. `None` if BPF has no atomic
/// exchange on this kernel.
#[inline(always)]
fn cell(hook: u64, thread: u64) -> Option<&'static mut CallCell> {
    // Spreads the hooks of one thread over the table, and keeps neighbouring threads apart.
    const SPREAD: u32 = 0x9E5;
    if config!(has_cmpxchg) == 0 {
        return None;
    }
    let index = (thread as u32).wrapping_add((hook as u32).wrapping_mul(SPREAD));
    // SAFETY: a valid, aligned pointer from the map.
    CALLS.get_ptr_mut(index & (CALL_CELLS - 1)).map(|cell| unsafe { &mut *cell })
}
