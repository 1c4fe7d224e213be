//! Counters of each process and file: the direct-mapped table, and the spill maps behind it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use tracer_common::{Counters, ProcFileKey, Slot};

use super::flags::BPF_F_MMAPABLE;

/// Direct-mapped table in front of the spill maps: index = cpu × (slot_mask + 1) + hash. An
/// mmap-able array, so that the daemon reads it without a system call per entry (measured
/// elsewhere: 2.7 ns instead of 1,000 ns for a look-up). The daemon sets its size to fit the
/// number of CPUs.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Which map of each pair (spill, latency, created, errors, compression) takes new entries: 0 or 1.
/// The daemon switches it, waits for running programs to end, and drains the other map. So no add
/// can hit an entry that is being removed.
#[map]
pub static SPILL_ACTIVE: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Counts that lost their slot to another (process, file). 65,536 entries: a storm of new files
/// fills it at that many per tick. Counts that find it full are added to [`SelfStat::OtherWritten`]
/// and the cells next to it.
///
/// [`SelfStat::OtherWritten`]: tracer_common::SelfStat::OtherWritten
#[map]
pub static SPILL_A: HashMap<ProcFileKey, Counters> = HashMap::with_max_entries(65_536, 0);

/// See [`SPILL_A`].
#[map]
pub static SPILL_B: HashMap<ProcFileKey, Counters> = HashMap::with_max_entries(65_536, 0);

/// Returns whether the first map of each pair is the active one.
#[inline(always)]
pub fn first_is_active() -> bool {
    SPILL_ACTIVE.get(0).copied().unwrap_or(0) == 0
}
