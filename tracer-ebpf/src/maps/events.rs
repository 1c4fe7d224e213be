//! The ring buffer, what was sent through it, and the scratch buffers for its records.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use tracer_common::{ErrorKey, FileKey, ProcKey};

use crate::scratch::{NameWork, PlaceWork, ProcScratchPool, SCRATCH_BUFFERS, ScratchPool};

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

/// Processes that were described and have not ended. LRU for the same reason.
#[map]
pub static EMITTED_PROCS: LruHashMap<ProcKey, Described> = LruHashMap::with_max_entries(32_768, 0);

/// What a process was described with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Described {
    /// Its filesystem context, a hash: see `process::emit_process_once`.
    pub context: u64,
    /// Id of the thread whose name was sent last.
    pub thread: u32,
    /// When that was, seconds since boot.
    pub at_s: u32,
}

/// Directories of paths that were sent ([`PlaceRecord`](tracer_common::records::PlaceRecord)), with the
/// second since boot in which that was. The key's `dev` is the number that stands for the directory.
#[map]
pub static PLACES: LruHashMap<ErrorKey, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Where place records are built.
#[map]
pub static PLACE_SCRATCH: ScratchPool<PlaceWork> =
    PerCpuArray::with_max_entries(SCRATCH_BUFFERS, 0);

/// Where name records are built.
#[map]
pub static NAME_SCRATCH: ScratchPool<NameWork> = PerCpuArray::with_max_entries(SCRATCH_BUFFERS, 0);

/// Where process records are built.
#[map]
pub static PROC_SCRATCH: ProcScratchPool = PerCpuArray::with_max_entries(SCRATCH_BUFFERS, 0);
