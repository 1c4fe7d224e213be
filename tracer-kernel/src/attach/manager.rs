//! The hook manager: decides which hooks are wanted and with which method, and records the outcome.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::anyhow;
use aya::Ebpf;
use tracer_model::snapshot::{Hook, HookState, WriteBackend};

use crate::attach::error::HookFailure;
use crate::attach::raw_loader::ByHand;
use crate::btf::cache::Types;
use crate::btf::inode_layout;
use crate::btf::modules::ModuleTypes;
use crate::hooks::{Function, Lifecycle, WriteIter};
use crate::kernel_version::kernel_at_least;
use crate::options::TracerOptions;
use crate::sys::tracefs::TraceFs;
use crate::{hooks, preemption, sys};

/// The hook manager: attaches hooks and records the outcome of each attempt.
pub(crate) struct Ladder {
    pub(super) forced: Option<WriteBackend>,
    pub(super) want_vfs_write: bool,
    /// Kept only while hooks are being attached: 24 MB on a typical kernel.
    pub(super) types: OnceCell<Types>,
    /// Filesystem types for which another attempt would end like the first.
    pub(super) tried: Vec<&'static str>,
    /// Loads the programs that aya cannot load.
    pub(super) by_hand: ByHand,
    /// Why trampolines are not permitted at all.
    pub(super) no_trampolines: OnceCell<HookFailure>,
    pub(super) tracefs: Option<TraceFs>,
    /// Link of the event that reports the savings of btrfs compression.
    pub(super) saved: Option<OwnedFd>,
    pub(super) hooks: Vec<Hook>,
    /// How each known filesystem is counted, by type.
    pub(super) counted: BTreeMap<&'static str, WriteBackend>,
    pub(super) vfs_write: bool,
    pub(super) syscalls: bool,
    pub(super) uring: bool,
    pub(super) stores: bool,
    pub(super) without_advised: bool,
    /// Whether overlays are followed to their upper files; `None` if that was not needed yet.
    pub(super) overlays: Option<bool>,
    /// Filesystem types whose space layout is known.
    pub(super) space_traced: Vec<&'static str>,
    pub(super) renames: bool,
    pub(super) waits: bool,
    pub(super) preemptible: bool,
    /// Whether startup has finished, and with it CAP_SYS_ADMIN was dropped.
    pub(super) started: bool,
}

pub(crate) type Attempt = Result<(), HookFailure>;

impl Ladder {
    pub(crate) fn new(options: &TracerOptions, types: Types, by_hand: ByHand) -> Self {
        Self {
            forced: options.backend,
            want_vfs_write: options.hooks.iter().any(|name| name == "vfs_write"),
            types: OnceCell::from(types),
            tried: Vec::new(),
            by_hand,
            no_trampolines: OnceCell::new(),
            tracefs: None,
            saved: None,
            hooks: Vec::new(),
            counted: BTreeMap::new(),
            vfs_write: false,
            syscalls: false,
            uring: false,
            stores: false,
            without_advised: false,
            overlays: None,
            space_traced: Vec::new(),
            renames: false,
            waits: false,
            preemptible: preemption::is_possible(),
            started: false,
        }
    }

    /// Attaches all hooks that are wanted from startup.
    ///
    /// # Errors
    /// If no method of counting written bytes works.
    pub(crate) fn climb(&mut self, ebpf: &mut Ebpf) -> anyhow::Result<()> {
        if self.prefers_kprobes() {
            let reason = "on this kernel their programs can be preempted, and calls that arrive \
                          meanwhile are skipped; kprobes miss none"
                .to_owned();
            let state = HookState::NotApplicable { reason };
            self.hooks.push(row("trampolines", "fentry, fexit", state));
        }
        for hook in hooks::LIFECYCLE {
            self.attach_lifecycle(ebpf, hook);
        }
        for fs in hooks::WRITE_ITERS {
            self.attach_write_iter(ebpf, fs);
            // A function that is not in a module has been there from the start.
            let has = |function| {
                self.types().is_ok_and(|types| types.kernel.function(function).is_some())
            };
            if fs.functions.iter().any(|function| has(function.name)) {
                self.tried.push(fs.fs_type);
            }
        }
        self.attach_space(ebpf);
        self.install_gauges(ebpf);
        self.attach_saved(ebpf);
        if self.want_vfs_write {
            self.attach_vfs_write(ebpf);
        } else if self.allows(WriteBackend::Tracepoint) && self.counted.len() < 2 {
            // Trampolines and kprobes are both not permitted: only system calls are left.
            self.attach_returns(ebpf);
        } else {
            let reason = "no mounted filesystem needs it".to_owned();
            self.hooks.push(row("vfs_write", "fexit", HookState::NotApplicable { reason }));
        }
        self.mark_overlay(ebpf);
        self.follow_overlays(ebpf);
        self.attach_watches(ebpf);
        self.started = true;
        if self.counted.is_empty() && !self.syscalls && !self.vfs_write {
            return Err(self.nothing_holds());
        }
        Ok(())
    }

    /// Reacts to a new mount: the filesystem's module may be loaded now, or it needs vfs_write.
    pub(crate) fn mounts_changed(&mut self, ebpf: &mut Ebpf, fs_types: &[&str]) {
        let is_new = |fs: &WriteIter| {
            let done = self.counted.contains_key(fs.fs_type) || self.tried.contains(&fs.fs_type);
            fs_types.contains(&fs.fs_type) && !done
        };
        let new: Vec<_> = hooks::WRITE_ITERS.iter().filter(|fs| is_new(fs)).collect();
        if !new.is_empty() && self.started {
            ModuleTypes::of_process().look_again();
        }
        let any = !new.is_empty();
        for fs in new {
            self.tried.push(fs.fs_type);
            self.hooks.retain(|row| !fs.functions.iter().any(|f| f.name == row.name));
            self.attach_write_iter(ebpf, fs);
            self.install_gauges(ebpf);
            self.watch_filesystem(ebpf, fs.fs_type);
        }
        if any {
            // If two modules were loaded at the same time, btrfs may be the second: try its own
            // hooks first.
            self.attach_saved(ebpf);
        }
        let uncounted = fs_types.iter().any(|fs| !self.counted.contains_key(fs));
        if uncounted && !self.vfs_write && !self.syscalls {
            self.hooks.retain(|row| row.name != "vfs_write");
            self.attach_vfs_write(ebpf);
        }
        self.follow_overlays(ebpf);
        self.forget_types();
    }

    /// Returns the kernel's types, and reads them again if they were dropped.
    pub(super) fn types(&self) -> Result<&Types, String> {
        if let Some(types) = self.types.get() {
            return Ok(types);
        }
        let types = Types::read().map_err(|error| format!("{error:#}"))?;
        Ok(self.types.get_or_init(|| types))
    }

    /// Frees the memory of the types until the next hook is attached.
    pub(crate) fn forget_types(&mut self) {
        self.by_hand.forget_code();
        if self.types.take().is_some() {
            sys::return_free_memory();
        }
    }

    fn install_gauges(&mut self, ebpf: &mut Ebpf) {
        match self.types() {
            Ok(types) => self.space_traced = inode_layout::install(ebpf, types),
            Err(error) => tracing::error!("space is not traced: {error}"),
        }
    }

    pub(crate) fn write_backend(&self) -> WriteBackend {
        let by = |backend| self.counted.values().filter(|found| **found == backend).count();
        if self.syscalls {
            WriteBackend::Tracepoint
        } else if by(WriteBackend::Kprobe) > by(WriteBackend::Fentry) {
            WriteBackend::Kprobe
        } else {
            WriteBackend::Fentry
        }
    }

    /// Whether the space of this filesystem type is traced, not only its written bytes.
    pub(crate) fn traces_space(&self, fs_type: &str) -> bool {
        self.space_traced.contains(&fs_type)
            && match self.counted.get(fs_type) {
                Some(WriteBackend::Tracepoint) => fs_type == "ext4",
                Some(WriteBackend::Fentry | WriteBackend::Kprobe) => true,
                None => false,
            }
    }

    pub(crate) fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Returns the programs that aya did not load, by name.
    pub(crate) fn programs_by_hand(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.by_hand.programs()
    }

    pub(crate) fn missed_returns(&self) -> u64 {
        self.tracefs.as_ref().map_or(0, TraceFs::missed)
    }

    pub(super) fn allows(&self, rung: WriteBackend) -> bool {
        match self.forced {
            Some(forced) => forced == rung,
            None => rung != WriteBackend::Fentry || !self.prefers_kprobes(),
        }
    }

    /// Whether kprobes are preferred; see [`preemption`].
    fn prefers_kprobes(&self) -> bool {
        self.forced.is_none() && self.preemptible && TraceFs::has_kprobes()
    }

    pub(crate) fn may_skip_calls(&self) -> bool {
        self.preemptible
            && match self.write_backend() {
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
    pub(super) fn may_take_kprobe(&self, module: Option<&str>) -> bool {
        self.allows(WriteBackend::Kprobe) || (module.is_some() && self.traces_functions())
    }

    /// Attaches a tracepoint, or a kprobe if the tracepoint's programs can be preempted.
    fn attach_lifecycle(&mut self, ebpf: &mut Ebpf, hook: &Lifecycle) {
        if self.preemptible && self.allows(WriteBackend::Kprobe) && TraceFs::has_kprobes() {
            let result = self.kprobe(ebpf, hook.function, hook.kprobe);
            if self.note(hook.function, "kprobe", result) {
                return;
            }
        }
        let result = self.tracepoint(ebpf, hook.tracepoint, hook.program);
        self.note(hook.tracepoint, "raw_tracepoint", result);
    }

    fn attach_write_iter(&mut self, ebpf: &mut Ebpf, fs: &'static WriteIter) {
        if self.allows(WriteBackend::Fentry) {
            for function in fs.functions {
                let result = self.fexit(ebpf, function.name, function.fexit, Some(fs.fs_type));
                if self.note(function.name, "fexit", result) {
                    self.attach_fs_space(ebpf, fs.fs_type);
                    return self.mark(ebpf, fs, WriteBackend::Fentry);
                }
            }
        }
        if self.may_take_kprobe(Some(fs.fs_type)) {
            for function in fs.functions {
                let result = self
                    .kretprobe(ebpf, function.name, "kretprobe_write_iter")
                    .and_then(|()| self.kprobe(ebpf, function.name, function.kprobe));
                if self.note(function.name, "kretprobe", result) {
                    self.attach_fs_space(ebpf, fs.fs_type);
                    return self.mark(ebpf, fs, WriteBackend::Kprobe);
                }
            }
        }
        if self.allows(WriteBackend::Tracepoint) && fs.fs_type == "ext4" {
            self.load_tracepoints_ahead(ebpf);
            let mut all = true;
            for (name, program) in hooks::EXT4_TRACEPOINTS {
                let result = self.tracepoint(ebpf, name, program);
                all &= self.note(name, "raw_tracepoint", result);
                if !all {
                    // With only some of them, bytes would be counted here and at the system calls.
                    break;
                }
            }
            if all {
                self.mark(ebpf, fs, WriteBackend::Tracepoint);
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
            let how = if function.fexit.is_some() { "fexit" } else { "fentry" };
            let result = self.fentry_and_fexit(ebpf, function, module);
            if self.note(function.name, how, result) {
                return true;
            }
        }
        if self.may_take_kprobe(module) {
            let how = if function.kretprobe.is_some() { "kretprobe" } else { "kprobe" };
            let result = self.kprobe_and_kretprobe(ebpf, function);
            return self.note(function.name, how, result);
        }
        false
    }

    fn attach_vfs_write(&mut self, ebpf: &mut Ebpf) {
        for function in hooks::VFS_WRITE {
            self.vfs_write |= self.attach_function(ebpf, function, None);
        }
        if !self.vfs_write && self.allows(WriteBackend::Tracepoint) {
            self.attach_returns(ebpf);
        }
    }

    /// Attaches at the return of every system call.
    pub(super) fn attach_to_calls(
        &mut self,
        ebpf: &mut Ebpf,
        (name, program): (&str, &str),
    ) -> bool {
        let result = if cfg!(target_arch = "x86_64") {
            self.typed_tracepoint(ebpf, name, program)
        } else {
            Err("system call registers are supported only on x86-64".into())
        };
        self.note(name, "tp_btf", result)
    }

    /// Records the outcome of an attempt; returns whether it succeeded.
    pub(super) fn note(&mut self, name: &str, how: &str, result: Attempt) -> bool {
        let holds = result.is_ok();
        let state = match result {
            Ok(()) => HookState::Ok,
            Err(failure) => {
                let had_admin = ModuleTypes::of_process().had_admin();
                failure.state(self.forced.is_some(), self.started, had_admin)
            }
        };
        self.hooks.push(row(name, how, state));
        holds
    }

    fn nothing_holds(&self) -> anyhow::Error {
        let reasons: Vec<String> = self
            .hooks
            .iter()
            .filter_map(|row| match &row.state {
                HookState::Unsupported { reason } | HookState::Broken { reason } => {
                    Some(format!("{} with {}: {reason}", row.name, row.how))
                }
                _ => None,
            })
            .take(1)
            .collect();
        let fix = match self.forced {
            Some(backend) => format!("try without `--backend {}`", backend.name()),
            None => "`filltop doctor` lists what was tried".to_owned(),
        };
        anyhow!("cannot attach any write probe on this kernel ({}); {fix}", reasons.join("; "))
    }
}

/// Builds a row of [`Ladder::hooks`].
fn row(name: &str, how: &str, state: HookState) -> Hook {
    Hook { name: name.to_owned(), how: how.to_owned(), state }
}
