//! Fallback to the return of system calls, with the hooks for writes that no system call returns.

use aya::Ebpf;
use tracer_model::snapshot::{HookMethod, WriteBackend};

use super::hook_log::Attempt;
use super::manager::HookManager;
use crate::attach::error::AttachError;
use crate::btf::cache::KernelTypes;
use crate::hooks;

impl HookManager {
    /// Attaches the return of system calls, and the completion of io_uring requests.
    pub(crate) fn attach_syscall_returns(&mut self, ebpf: &mut Ebpf) {
        self.coverage.syscalls = self.attach_sys_exit(ebpf, hooks::SYSCALL_TRACEPOINT);
        if self.coverage.syscalls {
            let (name, program) = hooks::URING_TRACEPOINT;
            let result =
                self.check_io_uring_arguments().and_then(|()| self.tracepoint(ebpf, name, program));
            self.coverage.io_uring =
                self.log.record_outcome(name, HookMethod::RawTracepoint, result);
        }
    }

    /// Checks that the tracepoint's argument is the request with all that is needed, as since 5.19.
    fn check_io_uring_arguments(&self) -> Attempt {
        match self.btf.get()?.kernel.member_offset("io_kiocb", "cqe.res") {
            Some(_) => Ok(()),
            None => Err(AttachError::Absent(
                "before Linux 5.19 its arguments do not include the request".to_owned(),
            )),
        }
    }

    /// Attaches the tracepoint for folios that become dirty in a page fault.
    pub(crate) fn attach_mmap_stores(&mut self, ebpf: &mut Ebpf) {
        if self.allows(WriteBackend::Tracepoint) {
            let name = self.dirty_tracepoint();
            let result = self
                .check_fault_bits()
                .and_then(|()| self.tracepoint(ebpf, name, hooks::DIRTY_PROGRAM));
            self.coverage.mmap_stores =
                self.log.record_outcome(name, HookMethod::RawTracepoint, result);
            let [in_user_fault, _] = hooks::FAULT_BITS;
            let has = |types: &KernelTypes| {
                types.kernel.member_offset("task_struct", in_user_fault).is_some()
            };
            self.coverage.misses_advised = !self.btf.has(has);
        }
    }

    pub(crate) fn dirty_tracepoint(&self) -> &'static str {
        let [newer, older] = hooks::DIRTY_TRACEPOINTS;
        let is_newer = |types: &KernelTypes| {
            types.kernel.function("btf_trace_writeback_dirty_folio").is_some()
        };
        if self.btf.has(is_newer) { newer } else { older }
    }

    fn check_fault_bits(&self) -> Attempt {
        match self.btf.get()?.kernel.bits("task_struct", &hooks::FAULT_BITS) {
            (_, 0) => Err(AttachError::Absent(
                "the kernel has no task flag that distinguishes a fault from a write".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}
