//! The hook manager: decides which hooks are wanted and with which method, and records the outcome.

use std::cell::OnceCell;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::anyhow;
use aya::Ebpf;
use tracer_model::snapshot::{Hook, HookMethod, WriteBackend};

use crate::attach::error::AttachError;
use crate::attach::fs_coverage::FsCoverage;
use crate::attach::hook_log::HookLog;
use crate::attach::raw_loader::RawLoader;
use crate::btf::cache::{BtfCache, KernelTypes};
use crate::btf::inode_layout;
use crate::btf::modules::ModuleBtf;
use crate::hooks::{Function, Lifecycle, WriteIter};
use crate::kernel_version::kernel_at_least;
use crate::options::TracerOptions;
use crate::sys::tracefs::TraceFs;
use crate::{hooks, preemption};

/// The hook manager: attaches hooks and records the outcome of each attempt.
pub(crate) struct HookManager {
    /// The backend that the user chose.
    pub(super) forced: Option<WriteBackend>,
    /// Whether the user requested vfs_write.
    want_vfs_write: bool,
    /// Whether the kernel can preempt BPF programs; see [`preemption`].
    preemptible: bool,
    pub(super) btf: BtfCache,
    /// Loads the programs that aya cannot load.
    pub(super) raw_loader: RawLoader,
    /// Why trampolines are not permitted at all.
    pub(super) trampolines_denied: OnceCell<AttachError>,
    pub(super) tracefs: Option<TraceFs>,
    /// Link of the event that reports the savings of btrfs compression.
    pub(super) compression_link: Option<OwnedFd>,
    pub(super) coverage: FsCoverage,
    pub(super) log: HookLog,
}

impl HookManager {
    pub(crate) fn new(options: &TracerOptions, types: KernelTypes, raw_loader: RawLoader) -> Self {
        Self {
            forced: options.backend,
            want_vfs_write: options.hooks.iter().any(|name| name == "vfs_write"),
            preemptible: preemption::is_preemptible(),
            btf: BtfCache::new(types),
            raw_loader,
            trampolines_denied: OnceCell::new(),
            tracefs: None,
            compression_link: None,
            coverage: FsCoverage::default(),
            log: HookLog::new(options.backend.is_some()),
        }
    }

    /// Attaches all hooks that are wanted from startup.
    ///
    /// # Errors
    /// If no method of counting written bytes works.
    pub(crate) fn attach_all(&mut self, ebpf: &mut Ebpf) -> anyhow::Result<()> {
        if self.prefers_kprobes() {
            let reason = "on this kernel their programs can be preempted, and calls that arrive \
                          meanwhile are skipped; kprobes miss none";
            self.log.record_not_applicable("trampolines", HookMethod::Trampolines, reason);
        }
        for hook in hooks::LIFECYCLE {
            self.attach_lifecycle(ebpf, hook);
        }
        for fs in hooks::WRITE_ITERS {
            self.attach_write_iter(ebpf, fs);
            // A function that is not in a module has been there from the start.
            let has = |function| self.btf.has(|types| types.kernel.function(function).is_some());
            if fs.functions.iter().any(|function| has(function.name)) {
                self.coverage.tried.push(fs.fs_type);
            }
        }
        self.attach_space(ebpf);
        self.install_inode_layouts(ebpf);
        self.attach_compression(ebpf);
        if self.want_vfs_write {
            self.attach_vfs_write(ebpf);
        } else if self.allows(WriteBackend::Tracepoint) && self.coverage.counted.len() < 2 {
            // Trampolines and kprobes are both not permitted: only system calls are left.
            self.attach_syscall_returns(ebpf);
        } else {
            let reason = "no mounted filesystem needs it";
            self.log.record_not_applicable("vfs_write", HookMethod::Fexit, reason);
        }
        self.mark_overlay_counted(ebpf);
        self.follow_overlays(ebpf);
        self.attach_optional(ebpf);
        if self.coverage.is_empty() {
            return Err(self.no_write_probe());
        }
        Ok(())
    }

    /// Marks startup as finished: from now on, missing privileges are those that were dropped.
    pub(crate) const fn finish_startup(&mut self) {
        self.log.finish_startup();
    }

    /// Reacts to a new mount: the filesystem's module may be loaded now, or it needs vfs_write.
    pub(crate) fn mounts_changed(&mut self, ebpf: &mut Ebpf, fs_types: &[&str]) {
        let is_new = |fs: &WriteIter| {
            let done = self.coverage.counted.contains_key(fs.fs_type)
                || self.coverage.tried.contains(&fs.fs_type);
            fs_types.contains(&fs.fs_type) && !done
        };
        let new: Vec<_> = hooks::WRITE_ITERS.iter().filter(|fs| is_new(fs)).collect();
        if !new.is_empty() && self.log.has_started() {
            ModuleBtf::shared().refresh();
        }
        let any = !new.is_empty();
        for fs in new {
            self.coverage.tried.push(fs.fs_type);
            for function in fs.functions {
                self.log.forget(function.name);
            }
            self.attach_write_iter(ebpf, fs);
            self.install_inode_layouts(ebpf);
            self.attach_optional_of(ebpf, fs.fs_type);
        }
        if any {
            // If two modules were loaded at the same time, btrfs may be the second: try its own
            // hooks first.
            self.attach_compression(ebpf);
        }
        let uncounted = fs_types.iter().any(|fs| !self.coverage.counted.contains_key(fs));
        if uncounted && !self.coverage.vfs_write && !self.coverage.syscalls {
            self.log.forget("vfs_write");
            self.attach_vfs_write(ebpf);
        }
        self.follow_overlays(ebpf);
        self.release_btf();
    }

    /// Frees the memory of the types and of the programs' code until the next hook is attached.
    pub(crate) fn release_btf(&mut self) {
        self.raw_loader.release_code();
        self.btf.release();
    }

    fn install_inode_layouts(&mut self, ebpf: &mut Ebpf) {
        match self.btf.get() {
            Ok(types) => self.coverage.space_traced = inode_layout::install(ebpf, types),
            Err(error) => tracing::error!("space is not traced: {error}"),
        }
    }

    /// Returns what the attached hooks cover.
    pub(crate) const fn coverage(&self) -> &FsCoverage {
        &self.coverage
    }

    /// Returns one row per hook that was tried.
    pub(crate) fn hooks(&self) -> &[Hook] {
        self.log.rows()
    }

    /// Returns the programs that aya did not load, by name.
    pub(crate) fn raw_programs(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.raw_loader.programs()
    }

    /// Returns the number of calls whose return was not seen; see [`TraceFs::missed`].
    pub(crate) fn missed_returns(&self) -> u64 {
        self.tracefs.as_ref().map_or(0, TraceFs::missed)
    }

    pub(super) fn allows(&self, backend: WriteBackend) -> bool {
        match self.forced {
            Some(forced) => forced == backend,
            None => backend != WriteBackend::Fentry || !self.prefers_kprobes(),
        }
    }

    /// Whether kprobes are preferred; see [`preemption`].
    fn prefers_kprobes(&self) -> bool {
        self.forced.is_none() && self.preemptible && TraceFs::has_kprobes()
    }

    /// Whether calls may be skipped because this kernel can preempt BPF programs.
    pub(crate) fn may_skip_calls(&self) -> bool {
        self.preemptible
            && match self.coverage.write_backend() {
                WriteBackend::Fentry => true,
                WriteBackend::Kprobe => false,
                // Since then tracepoints are called with preemption enabled.
                WriteBackend::Tracepoint => kernel_at_least(6, 19),
            }
    }

    /// Whether kernel functions are traced, not only tracepoints.
    pub(super) fn traces_functions(&self) -> bool {
        self.allows(WriteBackend::Kprobe) || self.allows(WriteBackend::Fentry)
    }

    /// Whether a kprobe may replace a trampoline. If only trampolines were requested, it may still
    /// do so for a function that may be in a module: types of modules are not available before
    /// 5.11, nor after CAP_SYS_ADMIN was dropped.
    pub(super) fn may_use_kprobe(&self, module: Option<&str>) -> bool {
        self.allows(WriteBackend::Kprobe) || (module.is_some() && self.traces_functions())
    }

    /// Attaches a tracepoint, or a kprobe if the tracepoint's programs can be preempted.
    fn attach_lifecycle(&mut self, ebpf: &mut Ebpf, hook: &Lifecycle) {
        if self.preemptible && self.allows(WriteBackend::Kprobe) && TraceFs::has_kprobes() {
            let result = self.kprobe(ebpf, hook.function, hook.kprobe);
            if self.log.record_outcome(hook.function, HookMethod::Kprobe, result) {
                return;
            }
        }
        let result = self.tracepoint(ebpf, hook.tracepoint, hook.program);
        self.log.record_outcome(hook.tracepoint, HookMethod::RawTracepoint, result);
    }

    fn attach_write_iter(&mut self, ebpf: &mut Ebpf, fs: &'static WriteIter) {
        if self.allows(WriteBackend::Fentry) {
            for function in fs.functions {
                let result = self.fexit(ebpf, function.name, function.fexit, Some(fs.fs_type));
                if self.log.record_outcome(function.name, HookMethod::Fexit, result) {
                    self.attach_fs_space(ebpf, fs.fs_type);
                    return self.mark_counted(ebpf, fs, WriteBackend::Fentry);
                }
            }
        }
        if self.may_use_kprobe(Some(fs.fs_type)) {
            for function in fs.functions {
                let result = self
                    .kretprobe(ebpf, function.name, "kretprobe_write_iter")
                    .and_then(|()| self.kprobe(ebpf, function.name, function.kprobe));
                if self.log.record_outcome(function.name, HookMethod::Kretprobe, result) {
                    self.attach_fs_space(ebpf, fs.fs_type);
                    return self.mark_counted(ebpf, fs, WriteBackend::Kprobe);
                }
            }
        }
        if self.allows(WriteBackend::Tracepoint) && fs.fs_type == "ext4" {
            self.load_tracepoints_in_parallel(ebpf);
            let mut all = true;
            for (name, program) in hooks::EXT4_TRACEPOINTS {
                let result = self.tracepoint(ebpf, name, program);
                all &= self.log.record_outcome(name, HookMethod::RawTracepoint, result);
                if !all {
                    // With only some of them, bytes would be counted here and at the system calls.
                    break;
                }
            }
            if all {
                self.mark_counted(ebpf, fs, WriteBackend::Tracepoint);
            }
        }
    }

    /// Uses the first method that works; returns whether one does. `module` may contain the
    /// function.
    pub(super) fn attach_function(
        &mut self,
        ebpf: &mut Ebpf,
        function: &Function,
        module: Option<&str>,
    ) -> bool {
        if self.allows(WriteBackend::Fentry) {
            let how = match function.fexit {
                Some(_) => HookMethod::Fexit,
                None => HookMethod::Fentry,
            };
            let result = self.fentry_and_fexit(ebpf, function, module);
            if self.log.record_outcome(function.name, how, result) {
                return true;
            }
        }
        if self.may_use_kprobe(module) {
            let how = match function.kretprobe {
                Some(_) => HookMethod::Kretprobe,
                None => HookMethod::Kprobe,
            };
            let result = self.kprobe_and_kretprobe(ebpf, function);
            return self.log.record_outcome(function.name, how, result);
        }
        false
    }

    fn attach_vfs_write(&mut self, ebpf: &mut Ebpf) {
        for function in hooks::VFS_WRITE {
            self.coverage.vfs_write |= self.attach_function(ebpf, function, None);
        }
        if self.coverage.vfs_write {
            for function in hooks::OPENS {
                self.attach_function(ebpf, function, None);
            }
        } else if self.allows(WriteBackend::Tracepoint) {
            self.attach_syscall_returns(ebpf);
        }
    }

    /// Attaches at the return of every system call.
    pub(super) fn attach_sys_exit(
        &mut self,
        ebpf: &mut Ebpf,
        (name, program): (&str, &str),
    ) -> bool {
        let result = if cfg!(target_arch = "x86_64") {
            self.typed_tracepoint(ebpf, name, program)
        } else {
            Err("system call registers are supported only on x86-64".into())
        };
        self.log.record_outcome(name, HookMethod::TpBtf, result)
    }

    fn no_write_probe(&self) -> anyhow::Error {
        let reason = self.log.first_failure().unwrap_or_default();
        let fix = match self.forced {
            Some(backend) => format!("try without `--backend {}`", backend.name()),
            None => "`filltop doctor` lists what was tried".to_owned(),
        };
        anyhow!("cannot attach any write probe on this kernel ({reason}); {fix}")
    }
}
