//! Counters of what the kernel side lost, or could not break down.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::SelfStat;
use tracer_common::counters::SELF_STAT_CELLS;

use super::flags::BPF_F_MMAPABLE;
use crate::atomic::atomic_add;

/// [`SelfStat`] counters: index = cpu × [`SELF_STAT_CELLS`] + cell. Mapped by the daemon, as
/// [`SPILL_ACTIVE`](super::slots::SPILL_ACTIVE) is: while a system call reads a map, the kernel skips
/// the programs of kprobes on that CPU ([`crate::probes::drain`]). The daemon sets the size.
#[map]
pub static HEALTH: Array<u64> = Array::with_max_entries(SELF_STAT_CELLS, BPF_F_MMAPABLE);

/// Adds `n` to a health counter of the current CPU.
#[inline(always)]
pub fn self_stat_add(cell: SelfStat, n: u64) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(value) = HEALTH.get_ptr_mut(cpu * SELF_STAT_CELLS + cell as u32) {
        atomic_add(value, n);
    }
}
