//! Programs that will be wanted are loaded ahead, several at the same time: the kernel's verifier takes
//! most of a start, and each load has a processor of its own.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};

use super::Ladder;
use crate::{hooks, sys};

impl Ladder {
    /// Loads what stands in for trampolines and kprobes. What fails is loaded again, and told, when it is
    /// to be attached.
    pub(crate) fn load_tracepoints_ahead(&self, ebpf: &mut Ebpf) {
        // The longest first, so that no processor has to wait for it at the end.
        let mut wanted = vec![hooks::SYSCALL_TRACEPOINT, hooks::FAILED_TRACEPOINT];
        wanted.extend(hooks::EXT4_SPACE_TRACEPOINTS);
        wanted.extend(hooks::EXT4_TRACEPOINTS);
        wanted.extend([hooks::URING_TRACEPOINT, hooks::UNLINK_TRACEPOINT, hooks::CGROUPS]);
        wanted.push((self.dirty_tracepoint(), hooks::DIRTY_PROGRAM));
        wanted.extend(hooks::FSYNC_TRACEPOINTS);
        wanted.extend(hooks::CREATE_TRACEPOINTS);
        wanted.extend(self.throttle_program().map(|program| (hooks::THROTTLE, program)));
        let Ok(types) = self.types() else { return };
        load_all(ebpf, &wanted, &types.bpf);
    }
}

/// Loads the programs of a table of (target, program).
fn load_all(ebpf: &mut Ebpf, wanted: &[(&str, &str)], types: &Btf) {
    let mut programs: Vec<_> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let place = wanted.iter().position(|(_, wanted)| *wanted == name)?;
            Some((place, wanted[place].0, program))
        })
        .collect();
    // Taken from the end.
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
