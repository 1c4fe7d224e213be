//! The methods of the fallback chain, one function each: load a program and attach it.

use std::io;
use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::programs::{BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint};

use super::hook_log::Attempt;
use super::manager::HookManager;
use crate::attach::error::{AttachError, error_chain};
use crate::attach::raw_loader::Target;
use crate::hooks::Function;
use crate::kernel_version::kernel_at_least;
use crate::sys::tracefs::TraceFs;

impl HookManager {
    /// Attaches at a function's exit. `module` may contain the function, if the kernel itself does
    /// not.
    pub(crate) fn fexit(
        &mut self,
        ebpf: &mut Ebpf,
        function: &str,
        program: &str,
        module: Option<&str>,
    ) -> Attempt {
        let types = self.btf.get()?;
        let (id, module) = types.find(function, module).ok_or_else(|| untyped(function, module))?;
        let fexit: &mut FExit = program_of(ebpf, program)?;
        if module.is_some() || fexit.fd().is_ok() {
            let target = Target { function, id, module, at_exit: true };
            return self.raw_loader.attach(program, &target);
        }
        if let Some(reason) = self.trampolines_denied.get() {
            return Err(reason.clone());
        }
        fexit.load(function, &types.bpf).map_err(|e| self.trampoline_error(&e))?;
        fexit.attach().map(drop).map_err(|e| AttachError::from_program(&e))
    }

    pub(crate) fn fentry_and_fexit(
        &mut self,
        ebpf: &mut Ebpf,
        function: &Function,
        module: Option<&str>,
    ) -> Attempt {
        // The exit first: an entry without its exit would fill the map of in-flight calls.
        if let Some(program) = function.fexit {
            self.fexit(ebpf, function.name, program, module)?;
        }
        match function.fentry {
            Some(program) => self.fentry(ebpf, function.name, program, module),
            None => Ok(()),
        }
    }

    /// Attaches at a function's entry; see [`HookManager::fexit`].
    pub(crate) fn fentry(
        &mut self,
        ebpf: &mut Ebpf,
        function: &str,
        program: &str,
        module: Option<&str>,
    ) -> Attempt {
        let types = self.btf.get()?;
        let (id, module) = types.find(function, module).ok_or_else(|| untyped(function, module))?;
        let fentry: &mut FEntry = program_of(ebpf, program)?;
        if module.is_some() || fentry.fd().is_ok() {
            let target = Target { function, id, module, at_exit: false };
            return self.raw_loader.attach(program, &target);
        }
        if let Some(reason) = self.trampolines_denied.get() {
            return Err(reason.clone());
        }
        fentry.load(function, &types.bpf).map_err(|e| self.trampoline_error(&e))?;
        fentry.attach().map(drop).map_err(|e| AttachError::from_program(&e))
    }

    /// Returns the kernel's error. EPERM does not depend on the function (unlike EACCES, which
    /// comes from the verifier), so trampolines are not tried again: looking up a function takes
    /// milliseconds.
    fn trampoline_error(&self, error: &ProgramError) -> AttachError {
        let error = AttachError::from_program(error);
        if matches!(error, AttachError::Denied(_)) {
            let _ = self.trampolines_denied.set(error.clone());
        }
        error
    }

    pub(crate) fn kprobe_and_kretprobe(&mut self, ebpf: &mut Ebpf, function: &Function) -> Attempt {
        if let Some(program) = function.kretprobe {
            self.kretprobe(ebpf, function.name, program)?;
        }
        match function.kprobe {
            Some(program) => self.kprobe(ebpf, function.name, program),
            None => Ok(()),
        }
    }

    pub(crate) fn kprobe(&mut self, ebpf: &mut Ebpf, function: &str, program: &str) -> Attempt {
        self.trace_event(ebpf, function, program, false)
    }

    pub(crate) fn kretprobe(&mut self, ebpf: &mut Ebpf, function: &str, program: &str) -> Attempt {
        self.trace_event(ebpf, function, program, true)
    }

    fn trace_event(
        &mut self,
        ebpf: &mut Ebpf,
        function: &str,
        program: &str,
        on_return: bool,
    ) -> Attempt {
        if self.tracefs.is_none() {
            self.tracefs = Some(
                TraceFs::open().map_err(|e| AttachError::from_syscall(&e).context("tracefs"))?,
            );
        }
        let kprobe: &mut KProbe = program_of(ebpf, program)?;
        if kprobe.fd().is_err() {
            kprobe.load().map_err(|e| AttachError::from_program(&e))?;
        }
        let fd = kprobe.fd().map_err(|e| AttachError::from_program(&e))?;
        let Some(tracefs) = &mut self.tracefs else { return Err("tracefs is not open".into()) };
        tracefs.attach(fd.as_fd(), function, on_return).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                absent(function)
            } else {
                AttachError::from_syscall(&error)
            }
        })
    }

    pub(crate) fn tracepoint(&self, ebpf: &mut Ebpf, name: &str, program: &str) -> Attempt {
        let tracepoint: &mut RawTracePoint = program_of(ebpf, program)?;
        if tracepoint.fd().is_err() {
            tracepoint.load().map_err(|e| AttachError::from_program(&e))?;
        }
        tracepoint.attach(name).map(drop).map_err(|e| AttachError::from_program(&e))
    }

    /// Attaches a tracepoint whose argument types are known to the verifier.
    pub(crate) fn typed_tracepoint(&self, ebpf: &mut Ebpf, name: &str, program: &str) -> Attempt {
        let types = self.btf.get()?;
        let tracepoint: &mut BtfTracePoint = program_of(ebpf, program)?;
        if tracepoint.fd().is_err() {
            tracepoint.load(name, &types.bpf).map_err(|e| AttachError::from_program(&e))?;
        }
        tracepoint.attach().map(drop).map_err(|e| AttachError::from_program(&e))
    }
}

fn absent(function: &str) -> AttachError {
    AttachError::Absent(no_function(function))
}

fn no_function(function: &str) -> String {
    format!("the kernel has no function {function}")
}

/// The error for a function that is not in BTF, which includes functions of modules since 5.11.
fn untyped(function: &str, module: Option<&str>) -> AttachError {
    if module.is_some() && !kernel_at_least(5, 11) {
        AttachError::Absent(format!(
            "{} built in, and before Linux 5.11 it has no type information of modules",
            no_function(function)
        ))
    } else {
        absent(function)
    }
}

pub(crate) fn program_of<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the eBPF object has no program {name}"))?
        .try_into()
        .map_err(|error: ProgramError| AttachError::Other(error_chain(&error)))
}
