//! Loads programs that will be needed in parallel, ahead of attaching: the kernel's verifier takes
//! most of the startup time, and each load can use its own CPU.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};

use super::manager::HookManager;
use crate::{hooks, sys};

impl HookManager {
    /// Loads the tracepoint programs that replace trampolines and kprobes. A program that fails is
    /// loaded again when it is attached, and the failure is reported then.
    pub(crate) fn load_tracepoints_in_parallel(&self, ebpf: &mut Ebpf) {
        // The longest first, so no CPU is left waiting for it at the end.
        let mut wanted = vec![hooks::SYSCALL_TRACEPOINT, hooks::PATH_TRACEPOINT];
        wanted.extend(hooks::EXT4_SPACE_TRACEPOINTS);
        wanted.extend(hooks::EXT4_TRACEPOINTS);
        wanted.extend([hooks::URING_TRACEPOINT, hooks::UNLINK_TRACEPOINT, hooks::CGROUPS]);
        wanted.push((self.dirty_tracepoint(), hooks::DIRTY_PROGRAM));
        wanted.extend(hooks::FSYNC_TRACEPOINTS);
        wanted.extend(hooks::CREATE_TRACEPOINTS);
        wanted.extend(self.throttle_program().map(|program| (hooks::THROTTLE, program)));
        let Ok(types) = self.btf.get() else { return };
        load_all(ebpf, &wanted, &types.bpf);
    }
}

/// Loads the programs of a table of (target, program), on up to 8 threads.
fn load_all(ebpf: &mut Ebpf, wanted: &[(&str, &str)], types: &Btf) {
    let mut programs: Vec<_> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let place = wanted.iter().position(|(_, wanted)| *wanted == name)?;
            Some((place, wanted[place].0, program))
        })
        .collect();
    // Programs are taken from the end.
    programs.sort_by_key(|(place, _, _)| std::cmp::Reverse(*place));
    let programs = Mutex::new(programs);
    sys::share_memory_among_threads();
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(8);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = programs.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((_, target, program)) = next else { return };
                    if let Err(error) = load(program, target, types) {
                        tracing::debug!("{target}: {error}");
                    }
                }
            });
        }
    });
}

fn load(program: &mut Program, target: &str, types: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::RawTracePoint(program) => program.load(),
        Program::BtfTracePoint(program) => program.load(target, types),
        _ => Ok(()),
    }
}
