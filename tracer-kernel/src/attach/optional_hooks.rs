//! Optional hooks: renames, created and removed files, waits and failures. filltop runs without them; each
//! missing one is reported as a blind spot.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{Iter, RawTracePoint, TracePoint};
use tracer_common::offsets::OrderedEvent;
use tracer_model::snapshot::{HookMethod, WriteBackend};

use super::fallback::program_of;
use super::hook_log::Attempt;
use super::manager::HookManager;
use crate::attach::error::{AttachError, error_chain};
use crate::btf::overlay_inode;
use crate::hooks::{Fsync, NamespaceFunction};
use crate::kernel_version::kernel_at_least;
use crate::sys::tracefs;
use crate::{hooks, open_files};

impl HookManager {
    /// Attaches all optional hooks that work. If no method works for a hook, its row states why.
    pub(crate) fn attach_optional(&mut self, ebpf: &mut Ebpf) {
        self.coverage.renames = self.attach_renames(ebpf);
        let mut fsyncs = false;
        for fsync in hooks::FSYNCS {
            fsyncs |= self.attach_fsync(ebpf, fsync);
        }
        // For filesystems other than ext4 there is no tracepoint.
        self.coverage.fsyncs = fsyncs && self.traces_functions();
        let mut creates = false;
        for function in hooks::CREATES.iter().chain(hooks::NAMESPACE) {
            creates |= self.attach_namespace(ebpf, function);
        }
        self.coverage.creates = creates;
        if self.allows(WriteBackend::Tracepoint) {
            if !fsyncs {
                self.attach_tracepoints(ebpf, hooks::FSYNC_TRACEPOINTS);
            }
            if !creates {
                self.coverage.ext4_inodes =
                    self.attach_tracepoints(ebpf, hooks::CREATE_TRACEPOINTS);
                if cfg!(target_arch = "x86_64") {
                    self.coverage.path_calls = self.attach_sys_exit(ebpf, hooks::PATH_TRACEPOINT);
                }
            }
        }
        self.attach_tracepoints(ebpf, &[hooks::CGROUPS, hooks::SIGNALS]);
        let name = hooks::THROTTLE;
        let result =
            self.throttle_program().and_then(|program| self.tracepoint(ebpf, name, program));
        self.log.record_outcome(name, HookMethod::RawTracepoint, result);
    }

    /// Returns the program that matches this kernel's arguments of [`hooks::THROTTLE`].
    pub(crate) fn throttle_program(&self) -> Result<&'static str, AttachError> {
        let tracepoint = format!("btf_trace_{}", hooks::THROTTLE);
        let arguments = self.btf.get()?.kernel.arguments(&tracepoint);
        // The tracepoint's own argument comes first.
        match arguments.map(|arguments| arguments.len()) {
            Some(13) => Ok("tp_balance_dirty_pages_12"),
            Some(9) => Ok("tp_balance_dirty_pages_8"),
            other => Err(format!("unexpected function signature: {other:?}").into()),
        }
    }

    /// Loads the programs that report open files; without them, /proc is read. To be called when
    /// writes are counted already: from then on, what is open now is known.
    pub(crate) fn load_open_files(&mut self, ebpf: &mut Ebpf) {
        let outcomes = match self.btf.get() {
            Ok(types) => {
                let outcomes = open_files::load(ebpf, types);
                open_files::record_baselines(ebpf, types);
                outcomes
            }
            Err(error) => vec![("task_file", Err(error.into()))],
        };
        for (name, outcome) in outcomes {
            self.log.record_outcome(name, HookMethod::Iterator, outcome);
        }
    }

    /// Passes the layout that leads to the files behind an overlay's files to the eBPF side, if
    /// overlayfs is loaded. Returns whether it is known now.
    pub(crate) fn install_overlay_inode(&mut self, ebpf: &mut Ebpf) -> bool {
        self.btf.has(|types| overlay_inode::install(ebpf, types))
    }

    /// Loads the iterators that drain maps without blocking kprobes meanwhile; without them, system
    /// calls do it.
    pub(crate) fn load_drain_iterators(
        &mut self,
        ebpf: &mut Ebpf,
        iterators: &[&str],
        forget_name: &str,
    ) {
        let load = |ebpf: &mut Ebpf| -> Attempt {
            for name in iterators {
                let iterator: &mut Iter = program_of(ebpf, name)?;
                iterator
                    .load("bpf_map_elem", &self.btf.get()?.bpf)
                    .map_err(|e| AttachError::from_program(&e))?;
            }
            program_of::<RawTracePoint>(ebpf, forget_name)?
                .load()
                .map_err(|e| AttachError::from_program(&e))
        };
        let result = load(ebpf);
        self.log.record_outcome("bpf_map_elem", HookMethod::Iterator, result);
    }

    /// Attaches the event that reports the savings of compression, if btrfs is loaded and no hook
    /// traces its space.
    pub(crate) fn attach_compression(&mut self, ebpf: &mut Ebpf) {
        let hooks::Event { fs_type, name, program } = hooks::ORDERED_EVENT;
        if self.coverage.traces_space(fs_type) {
            // The outcome of an earlier attempt no longer matters.
            self.compression_link = None;
            self.log.forget(name);
            return;
        }
        if self.compression_link.is_some() {
            return;
        }
        let result = match tracefs::Event::find(fs_type, name) {
            Ok(Some(event)) => attach_ordered(ebpf, program, &event),
            Ok(None) => return,
            Err(error) => Err(AttachError::from_syscall(&error).context("tracefs")),
        };
        self.log.forget(name);
        let (link, result) = match result {
            Ok(link) => (Some(link), Ok(())),
            Err(failure) => (None, Err(failure)),
        };
        self.compression_link = link;
        self.log.record_outcome(name, HookMethod::Tracepoint, result);
    }

    /// Attaches the optional hooks of a filesystem whose module was loaded later.
    pub(crate) fn attach_optional_of(&mut self, ebpf: &mut Ebpf, fs_type: &str) {
        for create in hooks::CREATES.iter().filter(|create| create.fs_type == Some(fs_type)) {
            self.log.forget(create.name);
            self.attach_namespace(ebpf, create);
        }
        for fsync in hooks::FSYNCS.iter().filter(|fsync| fsync.fs_type == fs_type) {
            self.log.forget(fsync.name);
            self.attach_fsync(ebpf, fsync);
        }
    }

    fn attach_fsync(&mut self, ebpf: &mut Ebpf, fsync: &Fsync) -> bool {
        self.attach_function(ebpf, &fsync.function(), Some(fsync.fs_type))
    }

    /// Returns whether all could be attached.
    fn attach_tracepoints(&mut self, ebpf: &mut Ebpf, tracepoints: &[(&str, &str)]) -> bool {
        let mut all = true;
        for (name, program) in tracepoints {
            let result = self.tracepoint(ebpf, name, program);
            all &= self.log.record_outcome(name, HookMethod::RawTracepoint, result);
        }
        all
    }

    fn attach_renames(&mut self, ebpf: &mut Ebpf) -> bool {
        let mut all = true;
        for rename in hooks::RENAMES {
            let mut attached = false;
            if self.allows(WriteBackend::Fentry) {
                let result = self.fentry(ebpf, rename.name, rename.fentry, None);
                attached = self.log.record_outcome(rename.name, HookMethod::Fentry, result);
            }
            if !attached && self.allows(WriteBackend::Kprobe) {
                let result = self.kprobe(ebpf, rename.name, rename.kprobe);
                attached = self.log.record_outcome(rename.name, HookMethod::Kprobe, result);
            }
            all &= attached;
        }
        all
    }

    fn attach_namespace(&mut self, ebpf: &mut Ebpf, function: &NamespaceFunction) -> bool {
        let NamespaceFunction { fs_type, name, .. } = *function;
        let older = !kernel_at_least(5, 12);
        let form = usize::from(!kernel_at_least(5, 17)) + usize::from(older);
        if self.allows(WriteBackend::Fentry) {
            let result = self.fexit(ebpf, name, function.fexit[form], fs_type);
            if self.log.record_outcome(name, HookMethod::Fexit, result) {
                return true;
            }
        }
        if self.may_use_kprobe(fs_type) {
            let result = self
                .kretprobe(ebpf, name, function.kretprobe)
                .and_then(|()| self.kprobe(ebpf, name, function.kprobe[usize::from(older)]));
            return self.log.record_outcome(name, HookMethod::Kretprobe, result);
        }
        false
    }
}

/// Passes the event's field offsets to the program, and attaches it.
fn attach_ordered(
    ebpf: &mut Ebpf,
    program: &str,
    event: &tracefs::Event,
) -> Result<OwnedFd, AttachError> {
    let offset =
        |field| event.offset(field).ok_or_else(|| format!("the event has no field {field}"));
    let format = OrderedEvent {
        fsid: offset("fsid")?,
        root: offset("root_objectid")?,
        ino: offset("ino")?,
        len: offset("len")?,
        disk_len: offset("disk_len")?,
    };
    let map =
        ebpf.map_mut("ORDERED_EVENT").ok_or("the eBPF object has no map for the event's format")?;
    let mut map: Array<_, [u8; size_of::<OrderedEvent>()]> =
        map.try_into().map_err(|error: aya::maps::MapError| error_chain(&error))?;
    let format: [u8; size_of::<OrderedEvent>()] = bytemuck::cast(format);
    map.set(0, format, 0).map_err(|error| error_chain(&error))?;
    let program: &mut TracePoint = program_of(ebpf, program)?;
    if program.fd().is_err() {
        program.load().map_err(|error| AttachError::from_program(&error))?;
    }
    let program = program.fd().map_err(|error| AttachError::from_program(&error))?;
    event.attach(program.as_fd()).map_err(|error| AttachError::from_syscall(&error))
}
