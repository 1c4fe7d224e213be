//! The ring buffer, what was sent through it, and the scratch buffers for its records.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use tracer_common::{FileKey, ProcKey};

use crate::scratch::{NameWork, ProcScratchPool, SCRATCH_BUFFERS, ScratchPool};

/// Names, new processes, ended processes. Without wake-ups: the daemon drains it ten times a second,
/// and is woken only when it is half full.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Size of [`RECORDS`].
pub const RING_BYTES: u32 = 2 << 20;

/// Files and directories whose name was sent. Only avoids repetition: a name that LRU evicted is
/// sent once more.
#[map]
pub static NAMED: LruHashMap<FileKey, u32> = LruHashMap::with_max_entries(65_536, 0);

/// Processes that were described and have not ended, with their filesystem context at that time (a
/// hash, see `process::emit_process_once`). LRU for the same reason.
#[map]
pub static EMITTED_PROCS: LruHashMap<ProcKey, u64> = LruHashMap::with_max_entries(32_768, 0);

/// Where name records are built.
#[map]
pub static NAME_SCRATCH: ScratchPool<NameWork> = PerCpuArray::with_max_entries(SCRATCH_BUFFERS, 0);

/// Where process records are built.
#[map]
pub static PROC_SCRATCH: ProcScratchPool = PerCpuArray::with_max_entries(SCRATCH_BUFFERS, 0);
