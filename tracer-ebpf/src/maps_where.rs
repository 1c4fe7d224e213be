//! Maps of who waits, who fails and who makes files, with their sizes and why.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use tracer_common::offsets::OrderedEvent;
use tracer_common::{BtrfsFile, ErrorKey, Errors, Health, PairKey, WaitKey, Waits};

use crate::atomic::atomic_add;
use crate::maps::{SPILL_ACTIVE, health_add};

/// Waits since the last look, one of two as with the spill maps: the daemon turns
/// [`SPILL_ACTIVE`], waits, and empties the other one. 2,048 processes that wait between two looks;
/// more are counted in [`Health::OtherWaits`].
#[map]
pub static WAITS_A: HashMap<WaitKey, Waits> = HashMap::with_max_entries(2_048, 0);

/// See [`WAITS_A`].
#[map]
pub static WAITS_B: HashMap<WaitKey, Waits> = HashMap::with_max_entries(2_048, 0);

/// Files created since the last look, by process and *directory* (which takes the file's place in
/// the key).
#[map]
pub static CREATED_A: HashMap<PairKey, u64> = HashMap::with_max_entries(16_384, 0);

/// See [`CREATED_A`].
#[map]
pub static CREATED_B: HashMap<PairKey, u64> = HashMap::with_max_entries(16_384, 0);

/// Failed writes since the last look, by process and device: one of two, as above. Not per CPU: they are
/// rare, and atomic adds keep them exact.
#[map]
pub static ERRORS_A: HashMap<ErrorKey, Errors> = HashMap::with_max_entries(16_384, 0);

/// See [`ERRORS_A`].
#[map]
pub static ERRORS_B: HashMap<ErrorKey, Errors> = HashMap::with_max_entries(16_384, 0);

/// What compression saved since the last look, in bytes: one of two, as above. 4,096 files that were written
/// back between two looks.
#[map]
pub static SAVED_A: HashMap<BtrfsFile, u64> = HashMap::with_max_entries(4_096, 0);

/// See [`SAVED_A`].
#[map]
pub static SAVED_B: HashMap<BtrfsFile, u64> = HashMap::with_max_entries(4_096, 0);

/// The format of btrfs's event. A map and not frozen data, because the module may be loaded later.
#[map]
pub static ORDERED_EVENT: Array<OrderedEvent> = Array::with_max_entries(1, 0);

/// Room to make a histogram in; too large for the stack.
#[map]
pub static WAITS_SCRATCH: PerCpuArray<Waits> = PerCpuArray::with_max_entries(1, 0);

/// The device on which each thread last asked for an inode: where a failed mkdir or open was, which
/// the end of a system call does not tell. Keyed by pid_tgid.
#[map]
pub static CREATING_ON: LruHashMap<u64, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Values of `InFlightKey::hook`, beside those of `maps::hook`.
pub mod hook {
    /// A filesystem's fsync, or ext4's tracepoints.
    pub const FSYNC: u64 = 32;
    /// A filesystem's create.
    pub const CREATE: u64 = 34;
    /// A filesystem's mkdir.
    pub const MKDIR: u64 = 35;
}

/// Is the first of each pair of maps active?
#[inline(always)]
pub fn first_is_active() -> bool {
    SPILL_ACTIVE.get(0).copied().unwrap_or(0) == 0
}

/// Counts a file that was made in a directory; true if it is the first one of its key since the
/// last look.
#[inline(always)]
pub fn count_created(key: &PairKey) -> bool {
    let first = first_is_active();
    health_add(if first { Health::UsedCreatedA } else { Health::UsedCreatedB }, 1);
    let map = if first { &CREATED_A } else { &CREATED_B };
    if let Some(count) = map.get_ptr_mut(key) {
        atomic_add(count, 1);
        return false;
    }
    // BPF_NOEXIST: another CPU may have been first, which is as good.
    let _ = map.insert(key, 0, 1);
    match map.get_ptr_mut(key) {
        Some(count) => atomic_add(count, 1),
        None => health_add(Health::OtherWaits, 1),
    }
    true
}

/// Counts what compression saved.
#[inline(always)]
pub fn count_saved(file: &BtrfsFile, bytes: u64) {
    let first = first_is_active();
    health_add(if first { Health::UsedSavedA } else { Health::UsedSavedB }, 1);
    let map = if first { &SAVED_A } else { &SAVED_B };
    if map.get_ptr_mut(file).is_none() {
        // BPF_NOEXIST, as above.
        let _ = map.insert(file, 0, 1);
    }
    match map.get_ptr_mut(file) {
        Some(sum) => atomic_add(sum, bytes),
        None => health_add(Health::SpaceFull, 1),
    }
}
