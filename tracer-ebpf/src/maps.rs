//! Every map, its size, and why.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use tracer_common::counters::HEALTH_CELLS;
use tracer_common::{Counters, FileKey, Health, InodeSpace, PairKey, ProcKey, Slot};

use crate::atomic::atomic_add;
use crate::scratch::{NameWork, ProcRooms, ROOMS, Rooms};

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Direct-mapped table in front of the spill maps: index = cpu × (slot_mask + 1) + hash. An
/// mmap-able array, so that the daemon reads it without a system call per entry (measured
/// elsewhere: 2.7 ns against 1,000 ns for look-ups). The daemon sets its size to the CPUs it has.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Which of the two spill maps takes new entries: 0 or 1. The daemon turns it, waits, and empties
/// the other one, so that no add can hit an entry that is being taken out.
#[map]
pub static SPILL_ACTIVE: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Tenants that lost their slot to another (process, file). 65,536 entries: a storm of new files
/// fills it at that many a tick; what finds it full goes to [`Health::OtherWritten`].
#[map]
pub static SPILL_A: HashMap<PairKey, Counters> = HashMap::with_max_entries(65_536, 0);

/// See [`SPILL_A`].
#[map]
pub static SPILL_B: HashMap<PairKey, Counters> = HashMap::with_max_entries(65_536, 0);

/// Files and directories whose name was sent. Only a memory of that: what LRU forgets is sent once
/// more.
#[map]
pub static NAMED: LruHashMap<FileKey, u32> = LruHashMap::with_max_entries(65_536, 0);

/// Processes that were described, until they end, with what they saw files by then (as a number, see
/// `process::describe_once`). LRU for the same reason.
#[map]
pub static PROCS: LruHashMap<ProcKey, u64> = LruHashMap::with_max_entries(32_768, 0);

/// Calls between their entry and their return probe, direct-mapped by thread and hook: a cell is taken and
/// left in a tenth of the time of a hash map's insertion and deletion. 1 MiB.
#[map]
pub static CALLS: Array<CallCell> = Array::with_max_entries(CALL_CELLS, 0);

/// Size of [`CALLS`]: a power of two.
pub const CALL_CELLS: u32 = 16_384;

/// Calls whose cell in [`CALLS`] is another thread's, and direct I/O between its begin and its end.
#[map]
pub static IN_FLIGHT: LruHashMap<InFlightKey, InFlight> = LruHashMap::with_max_entries(32_768, 0);

/// The space of inodes as last accounted. What LRU forgets is taken up again at the next write,
/// which then may err by its own length.
#[map]
pub static INODES: LruHashMap<FileKey, InodeSpace> = LruHashMap::with_max_entries(65_536, 0);

/// Files that got space which another file has, too, until the daemon asks: what their filesystem charges
/// to them, the volume has not lost.
#[map]
pub static SHARED: LruHashMap<FileKey, u32> = LruHashMap::with_max_entries(1_024, 0);

/// Names, new processes, ends. No wake-ups: the daemon empties it ten times a second, and is woken
/// when it is half full.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Size of [`RECORDS`].
pub const RING_BYTES: u32 = 2 << 20;

/// [`Health`] counters: index = cpu × [`HEALTH_CELLS`] + cell. Mapped, like [`SPILL_ACTIVE`]: while a system
/// call looks into a map, the kernel skips the programs of kprobes on its CPU ([`crate::probes::take_out`]).
/// The daemon sets its size.
#[map]
pub static HEALTH: Array<u64> = Array::with_max_entries(HEALTH_CELLS, BPF_F_MMAPABLE);

/// Where names are built.
#[map]
pub static NAME_ROOMS: Rooms<NameWork> = PerCpuArray::with_max_entries(ROOMS, 0);

/// Where processes are described.
#[map]
pub static PROC_ROOMS: ProcRooms = PerCpuArray::with_max_entries(ROOMS, 0);

/// Key of [`IN_FLIGHT`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlightKey {
    /// Thread (pid_tgid), or address of the kiocb.
    pub id: u64,
    /// Which hook: [`hook`].
    pub hook: u64,
}

/// Values of [`InFlightKey::hook`]: nested calls of different functions are kept apart.
pub mod hook {
    /// A filesystem's write_iter.
    pub const WRITE_ITER: u64 = 1;
    /// vfs_write.
    pub const VFS_WRITE: u64 = 2;
    /// do_iter_readv_writev.
    pub const VFS_WRITEV: u64 = 3;
    /// vfs_unlink.
    pub const UNLINK: u64 = 4;
    /// iomap direct I/O: from its submission to its end.
    pub const DIO: u64 = 5;
    /// iomap direct I/O that ended before its submission returned; `extra` is its result.
    pub const DIO_DONE: u64 = 6;
    /// A change of attributes.
    pub const SETATTR: u64 = 7;
    /// A reflink.
    pub const REMAP: u64 = 8;
    /// The end of btrfs's or xfs's own work on an inode; `object` is the inode.
    pub const SETTLE: u64 = 9;
    /// vfs_fallocate.
    pub const FALLOCATE: u64 = 11;
    /// A part of a write to ext4 whose source was not in memory; `object` is the inode, `extra` its place in
    /// the file, and the key's `generation` how much was copied.
    pub const SHORT_COPY: u64 = 12;
}

/// One cell of [`CALLS`].
#[repr(C)]
pub struct CallCell {
    /// Thread (pid_tgid), 0 for nobody. What ends without its return being seen stays until the thread
    /// comes again: others find the cell taken then, and use the map.
    pub thread: u64,
    /// Which hook: [`hook`].
    pub hook: u64,
    /// What is remembered.
    pub call: InFlight,
}

/// What the end of a call needs to know of its start.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// Who asked, and for which file.
    pub key: PairKey,
    /// `struct file *` or `struct dentry *`, for the name.
    pub object: u64,
    /// For a hook's own use.
    pub extra: u64,
}

/// Adds to a health counter.
#[inline(always)]
pub fn health_add(cell: Health, n: u64) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(value) = HEALTH.get_ptr_mut(cpu * HEALTH_CELLS + cell as u32) {
        atomic_add(value, n);
    }
}
