//! Hooks beside the counting of bytes: renames, created files, waits and failures. None of them is
//! needed to run; each one that is missing is a blind spot that is said.

use aya::{
    Ebpf,
    programs::{Iter, RawTracePoint},
};
use tracer_model::snapshot::WriteBackend;

use super::{Ladder, program_of};
use crate::probes::{
    hooks::{self, Create, Fsync},
    kernel_at_least, kernel_words,
};

impl Ladder {
    /// Attaches what can be attached. Where a hook has no rung that holds, its row says why.
    pub(super) fn attach_watches(&mut self, ebpf: &mut Ebpf) {
        self.renames = self.attach_renames(ebpf);
        let mut fsyncs = false;
        for fsync in hooks::FSYNCS {
            fsyncs |= self.attach_fsync(ebpf, fsync);
        }
        // The other filesystems are in modules, where only kprobes reach.
        self.waits = fsyncs && self.reaches_modules();
        let mut creates = false;
        for create in hooks::CREATES {
            creates |= self.attach_create(ebpf, create);
        }
        if self.allows(WriteBackend::Tracepoint) {
            if !fsyncs {
                self.attach_tracepoints(ebpf, hooks::FSYNC_TRACEPOINTS);
            }
            if !creates {
                self.attach_tracepoints(ebpf, hooks::CREATE_TRACEPOINTS);
                if cfg!(target_arch = "x86_64") {
                    self.attach_to_calls(ebpf, hooks::FAILED_TRACEPOINT);
                }
            }
        }
        self.attach_tracepoints(ebpf, &[hooks::CGROUPS]);
        let name = hooks::THROTTLE;
        let result =
            self.throttle_program().and_then(|program| self.tracepoint(ebpf, name, program));
        self.note(name, "raw_tracepoint", result);
    }

    /// The program that fits this kernel's arguments of [`hooks::THROTTLE`].
    pub(super) fn throttle_program(&self) -> Result<&'static str, String> {
        let tracepoint = format!("btf_trace_{}", hooks::THROTTLE);
        let arguments = self.types()?.kernel.arguments(&tracepoint);
        // The tracepoint's own argument comes first.
        match arguments.map(|arguments| arguments.len()) {
            Some(13) => Ok("tp_balance_dirty_pages_12"),
            Some(9) => Ok("tp_balance_dirty_pages_8"),
            other => Err(format!("its arguments are not known: {other:?}")),
        }
    }

    /// Loads the iterator over open files; without it, /proc is looked through.
    pub(in crate::probes) fn load_open_files(&mut self, ebpf: &mut Ebpf, program: &str) {
        let result = program_of::<Iter>(ebpf, program).and_then(|iter| {
            iter.load("task_file", &self.types()?.bpf).map_err(|error| kernel_words(&error))
        });
        self.note("task_file", "iterator", result);
    }

    /// Loads what takes entries out of maps without keeping kprobes from running; without it, system calls
    /// do.
    pub(in crate::probes) fn load_take_out(
        &mut self,
        ebpf: &mut Ebpf,
        iterators: &[&str],
        forget_name: &str,
    ) {
        let load = |ebpf: &mut Ebpf| -> Result<(), String> {
            for name in iterators {
                let iterator: &mut Iter = program_of(ebpf, name)?;
                iterator.load("bpf_map_elem", &self.types()?.bpf).map_err(|e| kernel_words(&e))?;
            }
            program_of::<RawTracePoint>(ebpf, forget_name)?.load().map_err(|e| kernel_words(&e))
        };
        let result = load(ebpf);
        self.note("bpf_map_elem", "iterator", result);
    }

    /// Is every rename told by the kernel?
    pub(in crate::probes) fn follows_renames(&self) -> bool {
        self.renames
    }

    /// Is fsync timed on every filesystem?
    pub(in crate::probes) fn times_every_fsync(&self) -> bool {
        self.waits
    }

    /// Hooks of a filesystem whose module came later.
    pub(super) fn watch_filesystem(&mut self, ebpf: &mut Ebpf, fs_type: &str) {
        for create in hooks::CREATES.iter().filter(|create| create.fs_type == fs_type) {
            self.hooks.retain(|row| row.name != create.name);
            self.attach_create(ebpf, create);
        }
        for fsync in hooks::FSYNCS.iter().filter(|fsync| fsync.fs_type == fs_type) {
            self.hooks.retain(|row| row.name != fsync.name);
            self.attach_fsync(ebpf, fsync);
        }
    }

    fn attach_fsync(&mut self, ebpf: &mut Ebpf, fsync: &Fsync) -> bool {
        let function = fsync.function();
        if fsync.built_in {
            return self.attach_function(ebpf, &function);
        }
        if self.reaches_modules() {
            let result = self.kprobe_and_kretprobe(ebpf, &function);
            return self.note(fsync.name, "kretprobe", result);
        }
        false
    }

    fn attach_tracepoints(&mut self, ebpf: &mut Ebpf, tracepoints: &[(&str, &str)]) {
        for (name, program) in tracepoints {
            let result = self.tracepoint(ebpf, name, program);
            self.note(name, "raw_tracepoint", result);
        }
    }

    fn attach_renames(&mut self, ebpf: &mut Ebpf) -> bool {
        let mut all = true;
        for rename in hooks::RENAMES {
            let mut holds = false;
            if self.allows(WriteBackend::Fentry) {
                let result = self.fentry(ebpf, rename.name, rename.fentry);
                holds = self.note(rename.name, "fentry", result);
            }
            if !holds && self.allows(WriteBackend::Kprobe) {
                let result = self.kprobe(ebpf, rename.name, rename.kprobe);
                holds = self.note(rename.name, "kprobe", result);
            }
            all &= holds;
        }
        all
    }

    fn attach_create(&mut self, ebpf: &mut Ebpf, create: &Create) -> bool {
        let older = !kernel_at_least(5, 12);
        let form = usize::from(!kernel_at_least(6, 15)) + usize::from(older);
        if self.allows(WriteBackend::Fentry)
            && let Some(programs) = create.fexit
        {
            let result = self.fexit(ebpf, create.name, programs[form]);
            if self.note(create.name, "fexit", result) {
                return true;
            }
        }
        let in_module = create.fexit.is_none();
        if self.allows(WriteBackend::Kprobe) || (in_module && self.reaches_modules()) {
            let result = self
                .kretprobe(ebpf, create.name, create.kretprobe)
                .and_then(|()| self.kprobe(ebpf, create.name, create.kprobe[usize::from(older)]));
            return self.note(create.name, "kretprobe", result);
        }
        false
    }
}
