//! Waits for fsync, and of writers that the kernel throttles.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use tracer_common::{WaitKey, Waits};

/// Waits since the last drain. One map of a pair, as with the spill maps: the daemon switches
/// [`SPILL_ACTIVE`](super::slots::SPILL_ACTIVE), waits, and drains the other one. 2,048 entries, each
/// for a process, device and kind of wait; waits that find it full are added to
/// [`SelfStat::OtherWaits`](tracer_common::SelfStat::OtherWaits).
#[map]
pub static WAITS_A: HashMap<WaitKey, Waits> = HashMap::with_max_entries(2_048, 0);

/// See [`WAITS_A`].
#[map]
pub static WAITS_B: HashMap<WaitKey, Waits> = HashMap::with_max_entries(2_048, 0);

/// An empty histogram to insert; too large for the stack.
#[map]
pub static WAITS_SCRATCH: PerCpuArray<Waits> = PerCpuArray::with_max_entries(1, 0);
