//! Fallback to the return of system calls, with the hooks for writes that no system call returns.

use aya::Ebpf;
use tracer_model::snapshot::WriteBackend;

use super::manager::{Attempt, Ladder};
use crate::attach::error::HookFailure;
use crate::btf::cache::Types;
use crate::coverage::Seen;
use crate::hooks;

impl Ladder {
    /// Attaches the return of system calls, and the completion of io_uring requests.
    pub(crate) fn attach_returns(&mut self, ebpf: &mut Ebpf) {
        self.syscalls = self.attach_to_calls(ebpf, hooks::SYSCALL_TRACEPOINT);
        if self.syscalls {
            let (name, program) = hooks::URING_TRACEPOINT;
            let result =
                self.requests_are_told().and_then(|()| self.tracepoint(ebpf, name, program));
            self.uring = self.note(name, "raw_tracepoint", result);
        }
    }

    /// Checks that the tracepoint's argument is the request with all that is needed, as since 5.19.
    fn requests_are_told(&self) -> Attempt {
        match self.types()?.kernel.member_offset("io_kiocb", "cqe.res") {
            Some(_) => Ok(()),
            None => Err(HookFailure::Absent(
                "before Linux 5.19 its arguments do not include the request".to_owned(),
            )),
        }
    }

    /// Attaches the tracepoint for folios that become dirty in a page fault.
    pub(crate) fn attach_stores(&mut self, ebpf: &mut Ebpf) {
        if self.allows(WriteBackend::Tracepoint) {
            let name = self.dirty_tracepoint();
            let result = self
                .faults_are_told()
                .and_then(|()| self.tracepoint(ebpf, name, hooks::DIRTY_PROGRAM));
            self.stores = self.note(name, "raw_tracepoint", result);
            let [tells_all, _] = hooks::FAULT_BITS;
            let has =
                |types: &Types| types.kernel.member_offset("task_struct", tells_all).is_some();
            self.without_advised = !self.types().is_ok_and(has);
        }
    }

    pub(crate) fn dirty_tracepoint(&self) -> &'static str {
        let [newer, older] = hooks::DIRTY_TRACEPOINTS;
        let is_newer =
            |types: &Types| types.kernel.function("btf_trace_writeback_dirty_folio").is_some();
        if self.types().is_ok_and(is_newer) { newer } else { older }
    }

    fn faults_are_told(&self) -> Attempt {
        match self.types()?.kernel.bits("task_struct", &hooks::FAULT_BITS) {
            (_, 0) => Err(HookFailure::Absent(
                "the kernel has no task flag that distinguishes a fault from a write".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen {
            ext4: self.traces_space("ext4"),
            uring: self.uring,
            stores: self.stores,
            without_advised: self.without_advised,
            overlays: self.overlays != Some(false),
        }
    }
}
